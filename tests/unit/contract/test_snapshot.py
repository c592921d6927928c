"""settings.json: what is in it, who believes it, and where it is looked for when lbadaptor.toml is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.adaptor.accepted_settings import AcceptedSettings
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, load, snapshot
from monitor.arbiter.files.settings_json import SettingsFile

TEXT = """
[application]
app = "shop:app"
session_cookie = "sid"
ticket_cookie = "{cookie}"

[files]
run_folder = "run"
key_file = "keys"

[appservers]
threads = 3
environment = {{ PASSWORD = "secret!" }}
warm_up = ["/?token=secret!"]

[adaptor]
wait = {wait}
sorry_page = "sorry.html"
"""


USUAL = [Path("/run/lbadaptor"), Path("/run/lbadaptor-shop"), Path("/run/lbadaptor/shop")]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return written(tmp_path / "shop.toml")


def written(path: Path, cookie: str = "__OLD__", wait: float = 1.5) -> Path:
    path.write_text(TEXT.format(cookie=cookie, wait=wait))
    return path


def accept(config: Path, *others: str, settings: Settings | None = None) -> SettingsFile:
    """What a monitor does at a release."""
    settings = settings or load(config)
    file = SettingsFile(settings.snapshot_file, None, config)
    file.write(settings, others)
    return file


def test_what_adaptors_use_comes_back(config: Path) -> None:
    settings = load(config)
    found = snapshot.decode(snapshot.encode(settings, ["__NEW__", "__OLD__"], config))
    assert found.ticket_cookies == ("__NEW__", "__OLD__")
    assert (found.settings.application, found.settings.files) == (settings.application, settings.files)
    assert found.settings.adaptor == settings.adaptor
    assert found.settings.appservers.threads == 3, "the load of an AppServer is measured by it"
    for name in ("run_folder", "key_file", "address_file", "sorry_page", "snapshot_file"):
        assert getattr(found.settings, name) == getattr(settings, name)
    assert found.is_of(config)
    assert not found.is_of(config.with_name("blog.toml"))


@pytest.mark.parametrize("leaving", [True, False])
def test_whether_the_machine_is_leaving_comes_back(config: Path, leaving: bool) -> None:
    assert snapshot.decode(snapshot.encode(load(config), ["a"], config, leaving)).leaving is leaving


def test_no_secret_is_in_it(config: Path) -> None:
    assert b"secret!" not in snapshot.encode(load(config), ["a"], config)


def test_it_is_0640_and_whole(config: Path) -> None:
    accept(config)
    path = config.parent / "run" / "settings.json"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in path.parent.iterdir()] == ["settings.json"]


def test_it_is_written_only_where_it_says_something_else(config: Path) -> None:
    file, path = accept(config), config.parent / "run" / "settings.json"
    before = path.stat().st_ino
    assert file.keep(load(config), ["__OLD__"]) is False
    assert path.stat().st_ino == before
    assert file.keep(load(config), ["__OLDER__"]) is True
    assert path.stat().st_ino != before
    path.unlink()
    assert file.keep(load(config), ["__OLDER__"]) is True
    assert file.keep(load(config), ["__OLDER__"], leaving=True) is True
    assert file.keep(load(config), ["__OLDER__"], leaving=True) is False
    assert snapshot.read(path).ticket_cookies == ("__OLD__", "__OLDER__")


def test_that_it_cannot_be_written_is_said_once_and_tried_again(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = accept(config)
    run = config.parent / "run"
    (run / "settings.json").unlink()
    run.rmdir()
    for _ in range(3):
        assert file.keep(load(config), []) is False
    assert caplog.text.count("settings.json cannot be written") == 1
    run.mkdir()
    file.keep(load(config), [])
    assert (run / "settings.json").exists()


def test_the_next_monitor_knows_the_names_of_the_one_before(config: Path) -> None:
    accept(config, "__OLDER__")
    assert SettingsFile(load(config).snapshot_file, None, config).before == ("__OLD__", "__OLDER__")
    assert SettingsFile(load(config).snapshot_file, None, config.with_name("blog.toml")).before == ()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"ticket_cookies": []},
        {"ticket_cookies": ["a b"]},
        {"ticket_cookies": ["a"] * 17},
        {"ticket_cookies": "a"},
        {"settings": []},
        {"settings": {"application": 1}},
        {"settings": {"application": {"app": 1}}},
        {"config": [1]},
    ],
)
def test_what_is_malformed_is_refused(config: Path, change: dict[str, Any]) -> None:
    content = json.loads(snapshot.encode(load(config), ["a"], config)) | change
    with pytest.raises(SettingsError):
        snapshot.decode(json.dumps(content).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(SettingsError):
        snapshot.decode(data)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(b" " * (snapshot.MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="more than"):
        snapshot.read(tmp_path / "settings.json")


def test_a_monitor_of_another_release_may_know_more_and_less(config: Path) -> None:
    content = json.loads(snapshot.encode(load(config), ["a"], config))
    content["news"] = 1
    content["settings"]["adaptor"]["news"] = 1
    content["settings"]["news"] = {}
    del content["settings"]["adaptor"]["wait"]
    del content["leaving"]
    found = snapshot.decode(json.dumps(content).encode())
    assert (found.settings.adaptor.wait, found.leaving) == (5.0, False)


# Where it is looked for.


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ('run_folder = "run"', "run"),
        ("run_folder='/r/x'", "/r/x"),
        ('[files]\n  run_folder = "run" # here\n[adaptor]\nwait = = 1', "run"),
        ('files = { key_file = "k", run_folder = "run" }', "run"),
        ('files.run_folder = "run"', "run"),
        ('"run_folder" = "run"', "run"),
        ('# run_folder = "old"\nrun_folder = "run"', "run"),
    ],
)
def test_a_broken_file_still_names_its_run_folder(tmp_path: Path, text: str, folder: str) -> None:
    config = tmp_path / "shop.toml"
    config.write_bytes(text.encode() + b"\n\xff = \n")
    settings, error, folders = snapshot.folders(config)
    assert settings is None
    assert error is not None
    assert folders == [tmp_path / folder, *USUAL]


@pytest.mark.parametrize("text", [None, "", "# run_folder = 'x'", "run_folder = 3", 'my_run_folder = "x"'])
def test_a_file_without_folders_leaves_the_default_folders(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "shop.toml"
    if text is not None:
        config.write_text(text)
    assert snapshot.folders(config)[2] == USUAL


# What an adaptor goes by.


def test_without_a_monitor_the_file_itself_counts(config: Path) -> None:
    found = AcceptedSettings(config).first()
    assert (found.settings, found.ticket_cookies) == (load(config), ("__OLD__",))


@pytest.mark.parametrize("text", [None, "[application\n", "[aplication]\n"])
def test_a_broken_file_and_no_snapshot_is_an_error_that_says_both(config: Path, text: str | None) -> None:
    config.unlink()
    if text is not None:
        config.write_text(text)
    with pytest.raises(SettingsError, match=r"shop\.toml.*there is no settings\.json of it"):
        AcceptedSettings(config).first()


def test_what_the_monitor_accepted_counts_whatever_the_file_says_now(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accept(config)
    written(config, "__NEW__", wait=9)
    found = AcceptedSettings(config).first()
    assert (found.ticket_cookies, found.settings.adaptor.wait) == (("__OLD__",), 1.5)
    assert caplog.text == ""
    config.write_text(config.read_text() + "typo\n")
    assert AcceptedSettings(config).first() == found
    assert "shop.toml: not TOML" in caplog.text
    assert "going by" in caplog.text


def test_a_change_is_seen_once_when_the_monitor_has_accepted_it(config: Path) -> None:
    accept(config)
    accepted = AcceptedSettings(config)
    assert accepted.first()
    written(config, "__NEW__", wait=9)
    assert accepted.changed() is None
    accept(config, "__OLD__")
    found = accepted.changed()
    assert found is not None
    assert (found.ticket_cookies, found.settings.adaptor.wait) == (("__NEW__", "__OLD__"), 9)
    assert accepted.changed() is None


def test_a_monitor_that_comes_later_is_seen(config: Path) -> None:
    accepted = AcceptedSettings(config)
    accepted.first()
    assert accepted.changed() is None
    accept(config, "__OLDER__")
    assert accepted.changed() is not None


def test_a_snapshot_that_breaks_or_vanishes_changes_nothing(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    accept(config)
    path = config.parent / "run" / "settings.json"
    accepted = AcceptedSettings(config)
    accepted.first()
    path.write_text("{")
    assert [accepted.changed() for _ in range(3)] == [None] * 3
    assert caplog.text.count("not to be read") == 1
    path.unlink()
    assert accepted.changed() is None


def test_the_snapshot_of_another_file_is_not_believed(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    accept(config)
    other = written(config.with_name("blog.toml"), "__BLOG__")
    assert AcceptedSettings(other).first().ticket_cookies == ("__BLOG__",)
    assert f"is of {config}, not of {other}" in caplog.text
    other.write_text('run_folder = "run"\ntypo')
    with pytest.raises(SettingsError):
        AcceptedSettings(other).first()


def test_a_path_through_a_symbolic_link_is_the_same_file(config: Path) -> None:
    link = config.with_name("link.toml")
    link.symlink_to(config.name)
    accept(config)
    written(config, "__NEW__")
    assert AcceptedSettings(link).first().ticket_cookies == ("__OLD__",)
    relative = Path(os.path.relpath(config))
    assert AcceptedSettings(relative).first().ticket_cookies == ("__OLD__",)


def test_a_snapshot_that_may_not_be_read_is_said(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept(config)

    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(snapshot, "read", closed)
    assert AcceptedSettings(config).first().ticket_cookies == ("__OLD__",)
    assert "settings.json: Permission denied" in caplog.text

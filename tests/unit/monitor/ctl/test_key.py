"""`lbctl key export` and `import`, without a monitor and beside one."""

from __future__ import annotations

import errno
import fcntl
import grp
import io
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.settings import load
from monitor.contract import client
from monitor.contract.key_lines import KeyLines
from monitor.ctl import main
from monitor.ctl.commands import key_file
from monitor.ctl.commands.key import MAX_BYTES

A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lbadaptor.toml"
    path.write_text(
        '[application]\napp = "a:b"\nsession_cookie = "sid"\n[files]\nrun_folder = "."\nkey_file = "state/keys"\n'
        "[machine]\nnumber = 2\n"
    )
    return path


@pytest.fixture
def keys(config: Path) -> Path:
    path = config.parent / "state" / "keys"
    path.parent.mkdir()
    path.write_text(f"# ours\n{A}\n")
    path.chmod(0o640)
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def take(monkeypatch: pytest.MonkeyPatch, config: Path, text: str | bytes) -> int:
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return main.main(["key", "import", "--config", str(config)])


class Monitor:
    """What answers at the control socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = 2.0**40
        """after every change of a file"""
        self.orders: list[str] = []
        monkeypatch.setattr(client, "ask", self._ask)

    def _ask(self, path: Path, order: str = "", *_: Any) -> dict[str, Any]:
        if order:
            self.orders.append(order)
            self.began += 1
            return {"text": "the monitor will be upgraded in place"}
        return {"began": self.began}


def test_what_is_exported_is_the_file(config: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["key", "export", "--config", str(config)]) == 0
    told = capsys.readouterr()
    assert told.out == f"# exported on {os.uname().nodename} with [machine] number = 2\n{A}\n"
    assert told.err == ""


def test_nothing_is_exported_to_a_terminal_nor_imported_from_one(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stdin", terminal)
    for word in ("export", "import"):
        with pytest.raises(SystemExit) as ended:
            main.main(["key", word, "--config", str(config)])
        assert ended.value.code == 2
    assert terminal.getvalue() == ""
    assert capsys.readouterr().err.count("lbctl key export | ssh MACHINE lbctl key import") == 2


def test_before_the_first_start_a_file_is_made_with_its_folder(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config.parent / "state" / "keys"
    before = os.umask(0o077)
    try:
        assert take(monkeypatch, config, f"{A}\n{B}\n") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755, "Apache enters it"
    assert path.read_text() == f"{A}\n{B}\n"
    there, run_folder = path.stat(), config.parent.stat()
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (0o640, run_folder.st_uid, run_folder.st_gid)
    assert os.listdir(path.parent) == ["keys"]
    said = capsys.readouterr().out
    assert "made, with 2 keys" in said
    assert "it reads the file when it starts" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_root_gives_a_new_file_to_the_monitors_user_and_apaches_group(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text().replace("[machine]", 'apache_group = "games"\n[machine]'))
    os.chown(config.parent, 4711, 4712)
    assert take(monkeypatch, config, f"{A}\n") == 0
    there, folder = (config.parent / "state" / "keys").stat(), (config.parent / "state").stat()
    assert (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == (4711, grp.getgrnam("games").gr_gid, 0o640)
    assert (folder.st_uid, folder.st_gid) == (4711, 4712)


def test_an_import_keeps_what_is_there_and_its_mode_and_changes_nothing_the_second_time(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(keys, 4711, 4712)
    before = keys.stat()
    assert take(monkeypatch, config, f"{B}\n") == 0
    assert keys.read_text() == f"# ours\n{A}\n{B}\n"
    after = keys.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert (
        "the key that signs there signs here now; the one of before still verifies tickets" in capsys.readouterr().out
    )
    assert take(monkeypatch, config, f"{B}\n") == 0
    assert keys.stat().st_ino == after.st_ino
    assert "nothing to change" in capsys.readouterr().out


def test_the_same_again_has_the_monitor_read_what_it_has_not_read_yet(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first import was broken off when the file was written."""
    monitor = Monitor(monkeypatch)
    monitor.began = os.stat(keys).st_mtime - 1
    assert take(monkeypatch, config, f"{A}\n") == 0
    assert monitor.orders == ["reexec"]


def test_beside_a_monitor_it_reads_the_file_anew_and_only_after_a_change(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = Monitor(monkeypatch)
    assert take(monkeypatch, config, f"{A}\n") == 0
    assert monitor.orders == []
    assert take(monkeypatch, config, f"# believed: x\n{B}\n{A}\n") == 0
    assert monitor.orders == ["reexec"]
    said = capsys.readouterr().out
    assert "a new key is believed, and does not sign" in said
    assert "lbctl rotate-key --sign" in said
    assert take(monkeypatch, config, f"{A}\n{B}\n") == 0
    assert monitor.orders == ["reexec", "reexec"]
    said = capsys.readouterr().out
    assert "`lbctl restart` replaces those that run" in said
    assert keys.read_text() == f"# ours\n{A}\n{B}\n"


@pytest.mark.parametrize(
    ("fault", "why"),
    [(client.NotInTime("the monitor does not answer in time"), "in time"), (client.NotAllowed("denied"), "denied")],
)
def test_a_monitor_that_cannot_be_asked_leaves_the_file(
    config: Path,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
    why: str,
) -> None:
    def ask(*_: Any) -> dict[str, Any]:
        raise fault

    monkeypatch.setattr(client, "ask", ask)
    assert take(monkeypatch, config, f"{B}\n") == 1
    assert keys.read_text() == f"# ours\n{A}\n"
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"", "there is no key in it"),
        (f"{B}\n{C[:20]}\n".encode(), "line 2 is no key"),
        (f"{B}\n".encode() * (MAX_BYTES // 60), "it is longer than"),
        (f"{B}".encode(), "line 1 has no end"),
    ],
)
def test_what_is_no_key_file_changes_nothing_and_is_not_shown(
    config: Path,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: bytes,
    why: str,
) -> None:
    assert take(monkeypatch, config, given) == 1
    assert keys.read_text() == f"# ours\n{A}\n"
    said = capsys.readouterr().err
    assert f"standard input is no key file: {why}" in said
    assert "nothing was changed" in said
    assert "bbbbb" not in said
    assert "ccccc" not in said


def test_a_machine_of_the_same_number_is_noted(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for host, number, noted in (("web9", 2, True), ("web9", 3, False), (os.uname().nodename, 2, False)):
        assert take(monkeypatch, config, f"# exported on {host} with [machine] number = {number}\n{A}\n") == 0
        assert (
            "web9, where these keys come from, has the same [machine] number as this machine: 2."
            in capsys.readouterr().err
        ) is noted


def test_a_file_that_comes_meanwhile_is_not_replaced(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The monitor makes one at its first start."""
    path = config.parent / "state" / "keys"
    make = key_file.make

    def make_it_meanwhile(*what: Any) -> None:
        path.write_text(f"{C}\n")
        make(*what)

    monkeypatch.setattr(key_file, "make", make_it_meanwhile)
    assert take(monkeypatch, config, f"{A}\n") == 1
    assert path.read_text() == f"{C}\n"
    assert os.listdir(path.parent) == ["keys"]
    assert "File exists" in capsys.readouterr().err


def test_an_import_waits_for_another_command_and_keeps_its_key(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = threading.Thread(target=take, args=(monkeypatch, config, f"{B}\n"))
    with key_file.locked(load(config)):
        importing.start()
        importing.join(0.3)
        assert importing.is_alive()
        assert keys.read_text() == f"# ours\n{A}\n"
        key_file.replace(keys, key_file.read(keys).believe(C))
    importing.join(10)
    assert key_file.read(keys) == KeyLines((A, B), C, ("# ours",))


def test_a_folder_that_cannot_be_locked_is_no_hindrance(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS."""

    def cannot(*_: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", cannot)
    assert take(monkeypatch, config, f"{B}\n") == 0
    assert key_file.read(keys).signing == B


def test_a_command_that_never_ends_holds_up_no_other_for_ever(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(key_file, "LOCKED_WITHIN", 0.1)
    with key_file.locked(load(config)):
        assert take(monkeypatch, config, f"{B}\n") == 1
    assert "another command changes it; nothing was changed" in capsys.readouterr().err
    assert keys.read_text() == f"# ours\n{A}\n"
    assert take(monkeypatch, config, f"{B}\n") == 0


def test_the_first_machine_makes_its_key_and_never_over_one_that_is_there(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = config.parent / "state" / "keys"
    assert main.main(["--config", str(config), "key", "make"]) == 0
    made = keys.read_text()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o640
    assert made.strip() not in capsys.readouterr().out
    assert main.main(["--config", str(config), "key", "make"]) == 1
    assert "is there already; nothing was changed" in capsys.readouterr().err
    assert keys.read_text() == made

"""`lbmonitor --check`: what would keep a site from working on this machine, each with its cure."""

from __future__ import annotations

import grp
import os
import re
import socket
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, Site


def check(site: Site, cwd: Path | None = None, wrapper: tuple[str, ...] = ()) -> tuple[int, str, list[str]]:
    """Exit status, what is good or a note, and the faults."""
    site.settings("monitor")
    run = subprocess.run(
        [*wrapper, *site.command("--check")],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        cwd=cwd or site.app_folder,
        check=False,
    )
    prefix = f"{site.config}: "
    lines = run.stderr.splitlines()
    assert all(line.startswith(prefix) for line in lines), run.stderr
    return run.returncode, run.stdout, [line.removeprefix(prefix) for line in lines]


def test_what_is_good_is_good_and_nothing_is_made(site: Site) -> None:
    site.settings("application", session_count="shop:count")
    status, said, faults = check(site)
    assert (status, faults) == (0, [])
    assert said.startswith(f"{site.config}: good\n")
    assert sorted(path.name for path in site.folder.iterdir()) == ["app", "lbadaptor.toml"]


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("appservers", {"user": "no-such-user"}, r"\[appservers\] user: there is no user 'no-such-user'"),
    ("appservers", {"group": "no-such-group"}, r"\[appservers\] group: there is no group 'no-such-group'"),
    ("files", {"apache_group": "no-such-group"}, r"\[files\] apache_group: there is no group 'no-such-group'"),
    ("files", {"status_group": "no-such-group"}, r"\[files\] status_group: there is no group 'no-such-group'"),
    ("files", {"key_file": "lbadaptor.toml/keys"}, r"\[files\] key_file: .*/lbadaptor.toml/keys: Not a directory"),
    ("files", {"run_folder": "lbadaptor.toml"}, r"\[files\] run_folder: .*lbadaptor.toml is no folder"),
    ("appservers", {"own_folder": "lbadaptor.toml/x"}, r"\[appservers\] own_folder: .*lbadaptor.toml is no folder"),
    ("files", {"run_folder": 100 * "x"}, r"\[files\] run_folder: .*xx/control.sock is longer than the 107 bytes"),
    ("appservers", {"working_folder": "/no/such"}, r"the folder /no/such cannot be used by the user"),
    ("adaptor", {"spool_folder": "/no/such"}, r"\[adaptor\] spool_folder: /no/such is no folder"),
    ("adaptor", {"sorry_page": "sorry.html"}, r"\[adaptor\] sorry_page: .*/sorry.html: No such file"),
    ("log", {"file": "/no/such/lines.log"}, r"\[log\] file: there is no folder /no/such"),
    ("log", {"file": "app"}, r"\[log\] file: .*/app is a folder"),
    ("appservers", {"access_log": "/no/such/access.log"}, r"\[appservers\] access_log: there is no folder /no/such"),
    ("application", {"app": "no_such_shop:app"}, r"app = .*there is no module 'no_such_shop' for .*working_folder"),
    ("application", {"app": "shop.web:app"}, r"there is no module 'shop.web' for "),
    ("application", {"app": "json.no_such:app"}, r"there is no module 'json.no_such' for "),
    ("application", {"session_count": "no_such:f"}, r"session_count = .*there is no module 'no_such' for "),
    ("appservers", {"host": "192.0.2.1"}, r"nobody can listen on 192\.0\.2\.1:\d+ \(host, base_port\): "),
    ("sessions", {"survive": "leaving", "folder": "lbadaptor.toml/x"}, r"\[sessions\] folder: .*Not a directory"),
    (
        "sessions",
        {"survive": "leaving", "folder": "app"},
        r"\[sessions\] folder: others than its owner can enter .*/app",
    ),
    (
        "sessions",
        {"survive": "leaving", "folder": "kept", "save": "no_such:f", "load": "shop:f"},
        r"\[sessions\] save = .*there is no module 'no_such' for ",
    ),
]


@pytest.mark.parametrize(("section", "values", "what"), WRONG)
def test_what_is_missing_is_reported(site: Site, section: str, values: dict[str, object], what: str) -> None:
    site.settings(section, **values)
    status, said, faults = check(site)
    assert status == 1
    assert "good" not in said
    assert any(re.search(what, fault) for fault in faults), faults


def test_all_problems_are_reported_at_once(site: Site) -> None:
    for section, values, _ in (WRONG[2], WRONG[7], WRONG[8], WRONG[9]):
        site.settings(section, **values)
    assert len(check(site)[2]) == 4


def test_where_the_application_is_looked_for_is_as_for_its_appservers(site: Site, tmp_path: Path) -> None:
    status, _, faults = check(site, cwd=tmp_path)
    assert status == 1
    assert f"in {tmp_path}, " in faults[0]
    site.settings("appservers", working_folder="app")
    assert check(site, cwd=tmp_path)[0] == 0
    site.settings("appservers", working_folder="", environment={"PYTHONPATH": str(site.app_folder)})
    assert check(site, cwd=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("prelude", "what"),
    [
        (
            "import no_such_module",
            "a package above the module cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("raise SystemExit(7)", "a package above the module cannot be imported: SystemExit: 7"),
        ("import os; os._exit(7)", "ended without an answer"),
        ("print('{}'); import subprocess; subprocess.Popen(['sleep', '600'])", ""),
    ],
)
def test_a_package_that_does_not_let_itself_be_looked_at(site: Site, prelude: str, what: str) -> None:
    package = site.app_folder / "pack"
    package.mkdir()
    (package / "__init__.py").write_text(prelude + "\n")
    (package / "web.py").write_text("raise AssertionError('the module itself is not imported')\n")
    site.settings("application", app="pack.web:app")
    status, _, faults = check(site)
    assert status == (1 if what else 0)
    assert what in "".join(faults)


def test_a_folder_for_own_folders_that_others_may_write_to_is_reported(site: Site) -> None:
    shared = site.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    for own in ("shared", "shared/not/there/yet"):
        site.settings("appservers", own_folder=own)
        status, _, faults = check(site)
        assert status == 1
        assert any(re.search(r"\[appservers\] own_folder: .*/shared: others can write to it", one) for one in faults)
    assert [*shared.iterdir()] == []


def test_a_folder_for_sessions_that_is_yet_to_be_made_is_good_and_is_not_made(site: Site) -> None:
    site.settings("sessions", survive="leaving", folder="new/kept")
    status, said, faults = check(site)
    assert (status, faults) == (0, [])
    assert "reload Apache before the release or start that sets it" in said
    assert not (site.folder / "new").exists()


def test_a_key_file_that_all_users_can_read_is_reported(site: Site) -> None:
    keys = site.folder / "keys"
    keys.write_text("k" * 64 + "\n")
    keys.chmod(0o644)
    assert "forge tickets; `chmod 0640" in check(site)[2][0]
    keys.chmod(0o640)
    assert check(site)[0] == 0
    keys.write_text("\n")
    assert "[files] key_file: " in check(site)[2][0]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o640


MINE = grp.getgrgid(os.getegid()).gr_name
NOT_READABLE = [(MINE, 0o600, 0o700), *([("daemon", 0o640, 0o750)] if os.geteuid() == 0 else [])]
"""Groups of Apache's, and modes of a key file and a folder of mine, which they cannot read and enter."""


@pytest.mark.parametrize(("group", "file_mode", "folder_mode"), NOT_READABLE)
def test_a_key_file_that_apache_cannot_read_is_reported(
    site: Site, group: str, file_mode: int, folder_mode: int
) -> None:
    (site.folder / "keys").write_text("k" * 64 + "\n")
    (site.folder / "keys").chmod(file_mode)
    site.folder.chmod(folder_mode)
    site.settings("files", apache_group=group)
    faults = check(site)[2]
    assert any("cannot read it" in fault and "chgrp" in fault for fault in faults), faults
    assert any("run_folder: Apache may not enter " in fault and "`chmod o+x " in fault for fault in faults), faults


def test_ports_are_free_or_ours(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.base_port + 1))
        other.listen()
        [fault] = check(site)[2]
        assert f"ports {site.base_port + 1} on 127.0.0.1 are somebody else's" in fault
    site.up()
    assert check(site)[2] == []
    site.end()


def test_the_version_is_shown() -> None:
    run = subprocess.run(
        [sys.executable, "-I", "-m", "monitor", "--version"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert run.stdout == f"lbmonitor {version('lbadaptor')}\n"

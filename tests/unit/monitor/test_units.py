"""The units for systemd, as systemd itself reads them. None is started here."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lbadaptor.contract.address import Table, parse
from lbadaptor.contract.settings import Application, Settings

UNITS = Path(__file__).parents[3] / "monitor" / "units"
SINGLE, INSTANCE = UNITS / "lbadaptor.service", UNITS / "lbadaptor@.service"
SYSUSERS, TMPFILES = UNITS / "sysusers.d" / "lbadaptor.conf", UNITS / "tmpfiles.d" / "lbadaptor.conf"
PAGE = UNITS.parents[1] / "docs" / "howto" / "systemd.md"
LARGEST_EXPOSURE = 30
"""Tenths; 100 is a service that may do everything."""


def rows(path: Path) -> dict[str, list[str]]:
    """The settings of a unit."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of the units, for programs that are there."""
    for unit in (SINGLE, INSTANCE):
        name = unit.name.replace("@", "@shop")
        (tmp_path / name).write_text(unit.read_text().replace("/opt/lbadaptor/bin", str(Path(sys.executable).parent)))
    return tmp_path


@pytest.mark.parametrize("name", ["lbadaptor.service", "lbadaptor@shop.service"])
def test_systemd_finds_nothing_wrong(installed: Path, name: str) -> None:
    done = analyze(installed, "verify", f"./{name}")
    complaints = [line for line in done.stderr.splitlines() if "lbadaptor" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", ["lbadaptor.service", "lbadaptor@shop.service"])
def test_little_is_open_to_it(installed: Path, name: str) -> None:
    done = analyze(installed, "security", "--offline=true", f"--threshold={LARGEST_EXPOSURE}", f"./{name}")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_one_unit_is_made_from_the_other() -> None:
    made = subprocess.run(["sed", "-f", UNITS / "instance.sed", SINGLE], capture_output=True, text=True, check=True)
    assert INSTANCE.read_text() == made.stdout, "run: make units"
    assert made.stdout.count("%i") == SINGLE.read_text().count("/etc/lbadaptor/lbadaptor.toml") + 3


@pytest.mark.parametrize("unit", [SINGLE, INSTANCE])
def test_no_unit_takes_along_what_is_anothers(unit: Path) -> None:
    """systemd removes a unit's RuntimeDirectory with all that is in it."""
    for name in ("RuntimeDirectory", "StateDirectory"):
        [value] = rows(unit)[name]
        assert "/" not in value


def test_the_monitor_can_make_the_default_folder_of_sessions() -> None:
    """Nothing of /var is read-only to it, and systemd makes the folder above for its user."""
    [state] = rows(SINGLE)["StateDirectory"]
    assert Settings(Application("a:b", "sid")).session_folder.parent == Path("/var/lib", state)
    assert rows(SINGLE)["ProtectSystem"] == ["full"]
    assert not {"ReadOnlyPaths", "InaccessiblePaths", "DynamicUser", "StateDirectoryMode"} & rows(SINGLE).keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Type", "notify"),
        ("OOMPolicy", "continue"),
        ("KillMode", "process"),
        ("StartLimitIntervalSec", "0"),  # a crash loop is never given up
        ("Restart", "on-failure"),  # what ended in order (status 0) stays ended
        ("RestartPreventExitStatus", "2"),  # of wrong settings
        ("RuntimeDirectoryPreserve", "yes"),  # AppServers outlive a monitor, whatever ended it
        ("NotifyAccess", "exec"),  # `lbctl stop --all` asks for time, too
    ],
)
def test_what_the_end_of_a_monitor_means(name: str, value: str) -> None:
    assert rows(SINGLE)[name] == [value]


@pytest.mark.parametrize(
    "name",
    [
        *("PrivateTmp", "RemoveIPC", "PrivateDevices", "ProtectClock", "MemoryDenyWriteExecute", "RestrictSUIDSGID"),
        *("ProtectProc", "ProcSubset", "PrivateUsers", "UMask", "IPAddressDeny"),
    ],
)
def test_what_would_harm_appservers_is_left_out_and_the_page_says_why(name: str) -> None:
    assert name not in rows(SINGLE)
    assert re.search(rf"^- .*`{name}`", PAGE.read_text(), re.MULTILINE)


def test_what_the_page_offers_to_forbid_besides_leaves_little_open(installed: Path) -> None:
    page = PAGE.read_text()
    begin = page.index("    [Service]")
    more = installed / "lbadaptor.service.d" / "more.conf"
    more.parent.mkdir()
    more.write_text(textwrap.dedent(page[begin : page.index("\n\n", begin)]) + "\n")
    [said] = re.findall(r"It comes to (\d)\.(\d)\.", page)
    limit = f"--threshold={int(''.join(said))}"
    done = analyze(installed, "security", "--offline=true", limit, "./lbadaptor.service")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_sysusers_make_the_user_of_the_units(tmp_path: Path) -> None:
    command = "systemd-sysusers", "--dry-run", f"--root={tmp_path}", SYSUSERS
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    for unit in (SINGLE, INSTANCE):
        [user] = rows(unit)["User"]
        assert re.search(rf"^Creating user '{user}'", said, re.MULTILINE)
        assert re.search(rf"^Creating group '{user}'", said, re.MULTILINE)


def test_tmpfiles_make_what_apache_reads_as_the_monitor_would_and_without_an_appserver() -> None:
    settings = Settings(Application("a:b", "sid"))
    folder, *files = [line.split(maxsplit=6) for line in TMPFILES.read_text().splitlines() if line[0] != "#"]
    [user], [group] = rows(SINGLE)["User"], rows(SINGLE)["SupplementaryGroups"]
    assert folder == ["d", str(settings.run_folder), "0755", user, user, "-"]
    assert all(words[:6] == ["f", words[1], "0640", user, group, "-"] for words in files)
    content = {Path(words[1]): words[6].replace("\\n", "\n") for words in files}
    available = settings.available_file
    assert content.keys() == {settings.address_file, settings.caller_keys_file, available}
    assert parse(content[settings.address_file]) == Table(0, ())
    assert all(re.fullmatch("# .*\n", text) for text in content.values())
    assert not any("%" in text for text in content.values())  # systemd would replace it

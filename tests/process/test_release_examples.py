"""The examples of a release over machines: what they call exists, and they stop at the first machine that fails. To
one that would refuse the release they copy nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

from monitor.ctl.commands.check import Level, judge
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.main import lbctl

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
MACHINES = ("web1", "web2", "web3")
FAKE = """#!/bin/sh
# ssh and rsync: note what was called; fail as FAILS says, by a part of the call. `lbctl check` says SAYS on web2.
echo "${0##*/} $*" >> "$CALLS"
case "$*" in *"root@web2 "*" check") echo "$SAYS" ;; *" check") echo "OK: all is well" ;; esac
case "${0##*/} $*" in *"$FAILS"*) exit 7 ;; esac
"""


def parsed(call: str) -> tuple[str, dict[str, object]]:
    """A call of lbctl as lbctl itself reads it: the command, and its parameters."""
    program, config, _, name, *words = call.split()
    assert (program, config) == ("/opt/lbadaptor/bin/lbctl", "--config")
    context = lbctl.make_context("lbctl", [config, "x.toml", name], obj=Which())
    command = lbctl.get_command(context, name)
    assert command is not None
    return name, command.make_context(name, words, parent=context).params


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the fake ssh and rsync write to."""
    for name in ("ssh", "rsync"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAILS", "nothing fails")
    monkeypatch.setenv("SAYS", "OK: all is well")
    return tmp_path / "calls"


def release(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(HOWTO / "release-machines.sh"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_loop_releases_one_machine_after_the_other(calls: Path) -> None:
    done = release("build/", *MACHINES)
    assert (done.returncode, done.stderr) == (0, "")
    found = calls.read_text().splitlines()
    assert [line.split()[0] for line in found] == ["ssh", "rsync", "ssh"] * 3
    for number, machine in enumerate(MACHINES):
        check, copy, restart = found[3 * number : 3 * number + 3]
        assert copy == f"rsync -a --delete build/ root@{machine}:/srv/shop/"
        assert parsed(check.removeprefix(f"ssh -n root@{machine} "))[0] == "check"
        name, given = parsed(restart.removeprefix(f"ssh -n root@{machine} "))
        assert (name, given["wait"]) == ("restart", 300)


AT_WEB2 = {
    "check": "root@web2 /opt/lbadaptor/bin/lbctl --config /etc/lbadaptor/shop.toml check",
    "copy": "root@web2:/srv/shop/",
    "restart": "root@web2 /opt/lbadaptor/bin/lbctl --config /etc/lbadaptor/shop.toml restart",
}


@pytest.mark.parametrize("step", AT_WEB2.values(), ids=AT_WEB2)
def test_it_stops_at_the_first_machine_that_fails(calls: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setenv("FAILS", step)
    done = release("build/", *MACHINES)
    assert done.returncode == 7
    assert done.stderr == "The release failed at web2. They have it: web1. They do not: web2 web3.\n"
    found = calls.read_text().splitlines()
    assert step in found[-1]
    assert "web3" not in calls.read_text()


def check_says(leaving: bool, empty: bool = False) -> str:
    """What `lbctl check` prints on a machine where all is well."""
    servers = [{"state": "OK", "standby": False, "sessions": 0 if empty else 3}]
    machine = {"leaving": leaving, "empty": empty}
    status = {"servers": 1, "appservers": servers, "stopping": False, "release": "", "machine": machine}
    level, text = judge(status, 0.0)
    assert level is Level.OK
    return f"{level.name}: {text}"


@pytest.mark.parametrize("empty", [False, True])
def test_nothing_is_copied_to_a_machine_that_is_leaving(
    calls: Path, monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    monkeypatch.setenv("SAYS", check_says(leaving=True, empty=empty))
    done = release("build/", *MACHINES)
    assert done.returncode == 1
    assert done.stderr == (
        "web2 is leaving: give `lbctl undrain --all` there, or leave it out. Nothing was copied to it.\n"
        "The release failed at web2. They have it: web1. They do not: web2 web3.\n"
    )
    assert check_says(leaving=True, empty=empty) in done.stdout
    assert AT_WEB2["check"] in calls.read_text().splitlines()[-1]


def test_without_a_machine_nothing_is_done(calls: Path) -> None:
    assert release("build/").returncode == 2
    assert not calls.exists()


def test_the_playbook_takes_one_machine_at_a_time_and_stops_at_a_failure() -> None:
    [play] = yaml.safe_load((HOWTO / "release-machines.yml").read_text())
    assert (play["serial"], play["max_fail_percentage"], play["any_errors_fatal"]) == (1, 0, True)
    assert not any(key in task for task in play["tasks"] for key in ("ignore_errors", "failed_when"))
    commands = [task["ansible.builtin.command"] for task in play["tasks"] if "ansible.builtin.command" in task]
    calls = [text.replace("{{ lbctl }}", play["vars"]["lbctl"]) for text in commands]
    calls = [text.replace("{{ wait }}", str(play["vars"]["wait"])) for text in calls]
    check, restart = map(parsed, calls)
    assert check[0] == "check"
    assert (restart[0], restart[1]["wait"]) == ("restart", 300)


def test_the_playbook_copies_nothing_to_a_machine_that_is_leaving() -> None:
    [play] = yaml.safe_load((HOWTO / "release-machines.yml").read_text())
    check, look, copy, _ = play["tasks"]
    assert check["ansible.builtin.command"].endswith(" check")
    assert "ansible.builtin.copy" in copy
    goes_on = jinja2.Environment().compile_expression(look["ansible.builtin.assert"]["that"])
    for leaving, empty in ((False, False), (True, False), (True, True)):
        found = goes_on({check["register"]: {"stdout": check_says(leaving, empty)}})
        assert found is not leaving

"""What the commands that only look say: check, sessions, events, settings."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from test_ctl import kept, server, status

from lbadaptor.contract.settings import load
from monitor.contract import client, events
from monitor.contract.client import NoAnswer, NotAllowed
from monitor.contract.events import Happened, What
from monitor.contract.fingerprint import fingerprint
from monitor.ctl import main
from monitor.ctl.commands import check
from monitor.ctl.commands import events as command
from monitor.ctl.commands import status as status_command
from monitor.ctl.commands.check import Level, judge
from monitor.ctl.commands.sessions import shown
from monitor.ctl.terminal.table import table

TOML = '[application]\napp = "a:b"\nsession_cookie = "sid"\n[appservers]\nservers = 2\n[files]\nrun_folder = "run"\n'


# check


def test_all_is_well() -> None:
    found = judge(status(server(0, sessions=40), server(1, sessions=1)), 0.0)
    assert found == (Level.OK, "2 of 2 AppServers OK, 41 sessions | servers=2 sessions=41")


@pytest.mark.parametrize(
    ("told", "level", "text"),
    [
        (status(server(0)), Level.WARNING, "1 of 2 AppServers OK"),
        (status(server(0), server(1), server(2, state="DYING")), Level.OK, "2 of 2 AppServers OK, 123 sessions"),
        (
            status(server(0), server(1, state="FAILING", why="no answer")),
            Level.WARNING,
            "slot 1 is FAILING (no answer)",
        ),
        (
            status(server(0), server(1), server(2, state="BACKOFF", why="a|b")),
            Level.WARNING,
            "slot 2 is BACKOFF (a/b)",
        ),
        (
            status(server(0), server(1), release="failed: slot 2: x"),
            Level.WARNING,
            "the release has failed: slot 2: x",
        ),
        (status(server(0), server(1), problems=["the disk is full"]), Level.WARNING, "the disk is full"),
        (status(server(0), server(1), stopping=True), Level.WARNING, "everything is being ended"),
        (status(server(0), server(1, standby=True)), Level.WARNING, "1 of 2 AppServers OK"),
        (status(server(0, state="DYING")), Level.CRITICAL, "0 of 2 AppServers OK"),
        (status(), Level.CRITICAL, "0 of 2 AppServers OK"),
        (
            status(server(0), server(1), time=1000.0 - check.STALE - 1),
            Level.CRITICAL,
            "has reported nothing for 16 s",
        ),
    ],
)
def test_what_is_not_well(told: dict[str, Any], level: Level, text: str) -> None:
    found, said = judge(told, 1000.0)
    assert (found, text in said) == (level, True), said
    assert said.count("|") == 1


def machine(leaving: bool = True, empty: bool = False) -> dict[str, Any]:
    return {"number": 3, "leaving": leaving, "sessions": 41, "longest_session": 100.0, "empty": empty}


@pytest.mark.parametrize(
    ("told", "level", "text"),
    [
        (
            status(server(0), machine=machine()),
            Level.OK,
            "1 of 2 AppServers OK, 41 sessions; this machine is leaving |",
        ),
        (
            status(machine=machine(empty=True)),
            Level.OK,
            "0 of 2 AppServers OK, 0 sessions; this machine is leaving, and",
        ),
        (status(machine=machine()), Level.CRITICAL, "this machine is leaving |"),
        (status(server(0, state="FAILING"), server(1), machine=machine()), Level.WARNING, "slot 0 is FAILING"),
        (status(server(0), machine=machine(leaving=False)), Level.WARNING, "1 of 2 AppServers OK, 41 sessions |"),
    ],
)
def test_a_drain_that_is_ordered_wakes_nobody(told: dict[str, Any], level: Level, text: str) -> None:
    found, said = judge(told, 0.0)
    assert (found, text in said) == (level, True), said


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (NoAnswer("no monitor"), 2, "CRITICAL: no monitor\n"),
        (NotAllowed("permission denied"), 3, "UNKNOWN: permission denied\n"),
        (None, 0, "OK: 2 of 2 AppServers OK, 82 sessions | servers=2 sessions=82\n"),
    ],
)
def test_the_exit_status_is_a_plugin_s(
    answer: NoAnswer | None, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(path: Path) -> dict[str, Any]:
        if answer is not None:
            raise answer
        return status(server(0), server(1))

    monkeypatch.setattr(client, "ask", ask)
    assert main.main(["check", "--socket", "/x"]) == code
    assert capsys.readouterr().out == said


def test_settings_that_cannot_be_read_are_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", "--config", str(tmp_path / "none.toml")]) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: ")


# status --watch


def test_it_is_shown_again_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Any] = [status(server(0)), NoAnswer("gone"), status(server(1)), KeyboardInterrupt()]

    def ask(path: Path) -> Any:
        found = answers.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(status_command, "INTERVAL", 0.0)
    assert main.main(["status", "--watch", "--socket", "/x"]) == main.INTERRUPTED
    told = [table(status(server(0))), "gone; asked again", table(status(server(1)))]
    assert capsys.readouterr().out.startswith("\n\n".join(told))
    with pytest.raises(SystemExit):
        main.main(["status", "--watch", "--json", "--socket", "/x"])


# sessions


def test_sessions_are_told_for_each_appserver() -> None:
    servers = [
        server(0, longest_session=1209600.0, kept=kept(saved=5, unsaved={"file": 2}, waiting=9)),
        server(1, state="STARTING", sessions=0, longest_session=None, oldest_session=None),
    ]
    assert [line.split() for line in shown(servers).splitlines()] == [
        ["slot", "state", "sessions", "oldest", "last", "to", "end", "saved", "not", "saved"],
        ["0", "OK", "41", "2", "h", "14", "days", "5", "file", "2"],
        ["1", "STARTING", "0", "0"],
        [],
        ["sessions:", "41;", "waiting", "in", "files", "for", "their", "visitors:", "9"],
    ]


def test_sessions_of_one_slot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(client, "ask", lambda _: status(server(0), server(1, sessions=3)))
    assert main.main(["sessions", "1", "--socket", "/x", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["slot"], told["sessions"], told["longest_session"]) == (1, 3, 100.0)
    assert main.main(["sessions", "5", "--socket", "/x"]) == 1
    assert "there is no AppServer in slot 5" in capsys.readouterr().err


# events


def happened(what: What, at: float, **values: Any) -> Happened:
    return Happened(what, time=at, **values)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (
            {"event": "exit", "time": 0.0, "slot": 2, "pid": 7, "sessions": 41, "lost": 3, "why": "was killed"},
            "slot 2   exit              pid 7, 3 of 41 sessions lost: was killed",
        ),
        (
            {"event": "drain", "time": 0.0, "slot": 2, "sessions": 1, "why": "limit"},
            "slot 2   drain             1 session: limit",
        ),
        ({"event": "monitor started", "time": 0.0}, "-        monitor started"),
        ({"event": "scaled", "time": 0.0, "why": "\x1b[2J"}, "-        scaled            "),
    ],
)
def test_an_event_is_a_line(one: dict[str, Any], text: str) -> None:
    said = command.line(one)
    assert re.match(r"19(69|70)-\d\d-\d\d \d\d:\d\d:\d\d  ", said)
    assert said[21:].startswith(text.rstrip())
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15min", 900), ("15m", 900), ("2h", 7200), ("1.5 d", 129600)]
)
def test_how_far_back(text: str, seconds: float) -> None:
    assert command._ago(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2w", "-1h", "1e3", "yesterday"])
def test_what_is_no_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["events", f"--since={text}"])
    assert f"a time such as 90s, 15min, 2h or 7d is wanted, not '{text}'" in capsys.readouterr().err


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    now = time.time()
    lines = [
        happened(What.READY, now - 3 * 86400, slot=1),
        happened(What.EXIT, now - 3600, slot=2, why="x"),
        happened(What.MONITOR_STOPPED, now - 60),
    ]
    (tmp_path / events.NAME).write_bytes(b"".join(events.encode(line) + b"\n" for line in lines))
    return tmp_path


def test_without_a_monitor_its_file_tells(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    socket = str(run_folder / "control.sock")
    assert main.main(["events", "--socket", socket, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in said] == ["exit", "monitor stopped"]
    assert main.main(["events", "--socket", socket, "--since", "7d", "--slot", "1"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    (run_folder / events.NAME).unlink()
    assert main.main(["events", "--socket", socket]) == 1
    assert "there is no control socket" in capsys.readouterr().err


def test_they_are_followed_over_a_restart_of_the_monitor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[float] = []
    answers: list[Any] = [
        [{"event": "ready", "time": 5.0, "slot": 1}],
        NoAnswer("gone"),
        NoAnswer("gone"),
        [{"event": "ready", "time": 6.0, "slot": 2}],
        KeyboardInterrupt(),
    ]

    def answer(path: Path, since: float) -> Any:
        asked.append(since)
        found = answers.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(client, "events", answer)
    monkeypatch.setattr(command, "POLL_INTERVAL", 0.0)
    assert main.main(["events", "--follow", "--socket", "/none/x"]) == main.INTERRUPTED
    told = capsys.readouterr()
    assert [line.split()[2:4] for line in told.out.splitlines()] == [["slot", "1"], ["slot", "2"]]
    assert asked[1:] == [5.0, 5.0, 5.0, 6.0]
    assert told.err.count("gone; asked again") == 1


# settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "lbadaptor.toml"
    path.write_text(TOML)
    return path


def rows(config: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    assert main.main(["settings", "--json", "--config", str(config), *words]) == 0
    return {row["setting"]: row for row in json.loads(capsys.readouterr().out)}


def test_where_each_value_comes_from(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ask", lambda _: status(run_time={"servers": 6, "weights": {}}))
    found = rows(config, capsys)
    assert found["appservers.servers"]["value"] == 6
    assert found["appservers.servers"]["from"] == "run time (lbadaptor.toml: 2)"
    assert found["appservers.weights"]["from"] == "default"
    assert found["application.session_cookie"]["from"] == "lbadaptor.toml"
    assert found["monitor.fall"] == {
        "setting": "monitor.fall",
        "value": 3,
        "from": "default",
        "takes effect": "release",
    }
    assert set(rows(config, capsys, "servers")) == {"appservers.servers"}
    assert set(rows(config, capsys, "monitor.fall")) == {"monitor.fall"}
    assert len(rows(config, capsys, "files")) == 4


def test_a_file_that_has_changed_since_is_noted(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted = fingerprint(load(config))
    monkeypatch.setattr(client, "ask", lambda _: status(settings=accepted))
    assert main.main(["settings", "--config", str(config)]) == 0
    assert capsys.readouterr().err == ""
    config.write_text(TOML.replace("servers = 2", "servers = 3"))
    assert main.main(["settings", "--config", str(config)]) == 0
    assert "has changed since the monitor read it" in capsys.readouterr().err


def test_that_the_machine_is_leaving_is_noted(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ask", lambda _: status(settings=fingerprint(load(config)), machine=machine()))
    assert main.main(["settings", "--config", str(config)]) == 0
    assert capsys.readouterr().err == "lbctl: note: this machine is leaving, by `lbctl drain --all` at run time\n"


def test_without_a_monitor_the_file_is_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["settings", "servers", "--config", str(config)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:3] == ["appservers.servers", "2", "lbadaptor.toml"]
    assert "what was set at run time is not known" in told.err
    assert main.main(["settings", "nonsense", "--config", str(config)]) == 1

"""How a machine that leaves is shown, and waited for."""

from __future__ import annotations

from typing import Any

import pytest
from test_ctl import server, status

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl import main
from monitor.ctl.commands import drain
from monitor.ctl.terminal import leaving, progress, table, times
from monitor.ctl.terminal.progress import BAR, FAILED, INTERRUPTED, POLL_INTERVAL

NOW = 1_763_805_600.0


def of(sessions: int = 0, *, empty: bool = False, is_leaving: bool = True, **more: Any) -> dict[str, Any]:
    """A status."""
    machine = {
        "number": None,
        "leaving": is_leaving,
        "sessions": sessions,
        "longest_session": 1500.0 if sessions else 0.0,
        "empty": empty,
    }
    return status(server(0), machine={**machine, **more.pop("machine", {})}, **more)


class Terminal:
    """Time goes on by each pause; the last look is repeated."""

    def __init__(self, *looks: dict[str, Any] | BaseException) -> None:
        self.looks = list(looks)
        self.text = ""
        self.now = 0.0

    def look(self) -> dict[str, Any]:
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, BaseException):
            raise found
        return found

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def write(self, text: str) -> None:
        self.text += text

    def follow(self, bar: bool = False, limit: float = float("inf")) -> int:
        return leaving.follow(self.look, self.write, self.pause, lambda: self.now, lambda: NOW, bar, limit)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (of(3, is_leaving=False), ""),
        (of(3, is_leaving=False, machine={"number": 0}), "machine 0: 3 sessions"),
        (
            of(3),
            "this machine is leaving: 3 sessions left, the last of them ends in 25 min at the latest (set at run "
            "time; `lbctl undrain --all` takes it back)",
        ),
        (
            of(machine={"number": 7}),
            "machine 7 is leaving: no session is left; it is empty if none comes in the next moments (set at run "
            "time; `lbctl undrain --all` takes it back)",
        ),
        (
            of(2, machine={"longest_session": 0.0}),
            "this machine is leaving: 2 sessions left (set at run time; `lbctl undrain --all` takes it back)",
        ),
        (
            of(empty=True),
            "this machine is leaving: empty: it can be switched off (set at run time; `lbctl undrain --all` takes it "
            "back)",
        ),
        (status(server(0)), ""),  # a monitor of a release before
    ],
)
def test_the_status_has_a_line_for_it(told: dict[str, Any], line: str) -> None:
    lines = table.table(told).splitlines()
    assert (lines[1] if line else "") == line
    assert lines[1 + bool(line)] == "/run/lbadaptor/address.text"


def test_it_is_waited_for_until_it_is_empty() -> None:
    terminal = Terminal(of(4), of(1), of(1), of(0), of(empty=True))
    assert terminal.follow() == 0
    assert terminal.text == "this machine is empty: it can be switched off\n"
    assert terminal.now == 4 * POLL_INTERVAL


def test_a_terminal_shows_how_far_it_is() -> None:
    terminal = Terminal(of(4), of(1), of(1), of(empty=True))
    assert terminal.follow(bar=True) == 0
    lines = terminal.text.split("\r\x1b[K")
    assert [line.count("#") for line in lines] == [0, 0, BAR * 3 // 4, BAR]
    assert lines[1].endswith("] 4 sessions left, the last of them ends in 25 min at the latest")
    assert lines[-1].endswith("] empty: it can be switched off\n")


def test_when_the_time_is_over_it_says_what_is_left_and_until_when() -> None:
    terminal = Terminal(of(12))
    assert terminal.follow(limit=3.0) == FAILED
    assert terminal.now == 3.0
    assert terminal.text == (
        "lbctl: not empty within 3 s: 12 sessions left, of which the last can live until "
        f"{times.moment(NOW + 1500)} if nobody uses it again; it goes on leaving (`lbctl status`)\n"
    )


def test_without_a_session_it_is_not_empty_at_once() -> None:
    terminal = Terminal(of(0))
    assert terminal.follow(limit=1.0) == FAILED
    assert terminal.text == ("lbctl: not empty within 1 s: 0 sessions left; it goes on leaving (`lbctl status`)\n")


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (of(3, is_leaving=False), "somebody has taken it back: this machine stays"),
        (of(3, stopping=True), "the monitor is ending everything in order"),
    ],
)
def test_it_is_not_waited_for_in_vain(told: dict[str, Any], why: str) -> None:
    terminal = Terminal(of(3), told)
    assert terminal.follow() == FAILED
    assert terminal.text == f"lbctl: {why}\n"


def test_ctrl_c_ends_the_looking_only_and_an_error_the_line() -> None:
    terminal = Terminal(of(3), KeyboardInterrupt())
    assert terminal.follow() == INTERRUPTED
    assert terminal.text == "\nthe machine goes on leaving; `lbctl status` shows it\n"
    terminal = Terminal(of(3), OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        terminal.follow(bar=True)
    assert terminal.text.endswith("\n")


def test_it_is_waited_for_over_a_restart_of_the_monitor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [{"text": "it is"}, of(1), NoAnswer("gone"), of(empty=True), NoAnswer("gone"), NoAnswer("!")]

    def ask(*_: object) -> Any:
        found = answers.pop(0)
        if isinstance(found, NoAnswer):
            raise found
        return found

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(progress, "POLL_INTERVAL", 0.0)
    assert main.main(["--socket", "/x", "drain", "--all", "--wait", "60"]) == 0
    assert capsys.readouterr().out == "it is\nthis machine is empty: it can be switched off\n"
    answers.insert(0, {"text": "it is"})
    monkeypatch.setattr(drain, "PATIENCE", 0.0)
    assert main.main(["--socket", "/x", "drain", "--all", "--wait", "60"]) == 1
    assert capsys.readouterr().err == "lbctl: gone\n"


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["--all"], 0, "it is\n"),
        (["--all", "--wait", "60"], 0, "it is\nthis machine is empty: it can be switched off\n"),
        (["--all", "--wait", "0.001"], 1, "it is\n"),
    ],
)
def test_the_command_waits_where_it_is_asked_to(
    words: list[str], code: int, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = of(3) if code else of(empty=True)
    monkeypatch.setattr(client, "ask", lambda path, order="", *_: {"text": "it is"} if order else answer)
    assert main.main(["--socket", "/x", "drain", *words]) == code
    told = capsys.readouterr()
    assert told.out == out
    assert ("not empty within" in told.err) is bool(code)

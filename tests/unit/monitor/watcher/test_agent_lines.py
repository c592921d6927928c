"""The agent's lines, under a fake clock. What HAProxy makes of them: tests/socket/monitor/test_agent_haproxy.py."""

from __future__ import annotations

from monitor.contract.messages import Availability, Word
from monitor.watcher.agent import INSIST, Lines

UP = Availability(Word.UP, 75, "OK 3 of 4")
DRAIN = Availability(Word.DRAIN, 0, "this machine is leaving")
DOWN = Availability(Word.DOWN, 0, "no AppServer serves")


def test_ready_is_said_for_a_minute_from_the_first_question_on() -> None:
    lines = Lines()
    assert lines.line("a", UP, 100.0) == "ready up 75% # OK 3 of 4\n"
    assert lines.line("a", UP, 100.0 + INSIST - 1) == "ready up 75% # OK 3 of 4\n"
    assert lines.line("a", UP, 100.0 + INSIST) == "up 75% # OK 3 of 4\n"


def test_drain_is_said_for_a_minute_and_no_new_visitors_come_after_it_either() -> None:
    """An administrator who has put this server into maintenance would find it draining again."""
    lines = Lines()
    assert lines.line("a", DRAIN, 100.0) == "drain up 0% # this machine is leaving\n"
    assert lines.line("a", DRAIN, 100.0 + INSIST) == "up 0% # this machine is leaving\n"
    assert lines.line("a", UP, 900.0) == "ready up 75% # OK 3 of 4\n"
    assert lines.line("a", DRAIN, 901.0) == "drain up 0% # this machine is leaving\n"


def test_down_leaves_the_administrative_state_as_it_is() -> None:
    lines = Lines()
    lines.line("a", UP, 100.0)
    assert lines.line("a", DOWN, 200.0) == "down # no AppServer serves\n"
    assert lines.line("a", UP, 300.0) == "up 75% # OK 3 of 4\n"
    lines.line("a", DRAIN, 400.0)
    lines.line("a", DOWN, 500.0)
    assert lines.line("a", UP, 600.0) == "ready up 75% # OK 3 of 4\n"


def test_each_front_is_told_however_late_it_asks() -> None:
    """It was cut off while this machine left and came back."""
    lines = Lines()
    lines.line("a", DRAIN, 100.0)
    lines.line("b", DRAIN, 100.0)
    lines.line("a", UP, 200.0)
    assert lines.line("a", UP, 900.0) == "up 75% # OK 3 of 4\n"
    assert lines.line("b", UP, 900.0) == "ready up 75% # OK 3 of 4\n"

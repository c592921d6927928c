"""A release's progress, as a terminal shows it."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.ctl.terminal.progress import (
    BAR,
    FAILED,
    FAILED_AFTER,
    INTERRUPTED,
    POLL_INTERVAL,
    follow,
    generation,
    line,
    of_slot,
)


def status(release: str, done: int = 0, of: int = 4, ended: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"release": release, "replaced": [done, of], "ended": list(ended)}


class Terminal:
    def __init__(self, *looks: dict[str, Any] | BaseException) -> None:
        self.looks = list(looks)
        self.text = ""
        self.pauses = 0

    def look(self) -> dict[str, Any]:
        found = self.looks.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    def say(self, text: str) -> None:
        self.text += text

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.pauses += 1

    def follow(self) -> int:
        return follow(self.look, self.say, self.pause)


@pytest.mark.parametrize(
    ("done", "of", "filled"), [(0, 4, 0), (1, 4, BAR // 4), (4, 4, BAR), (0, 0, BAR), (1, 1000, 0)]
)
def test_the_bar_is_as_long_as_what_is_done(done: int, of: int, filled: int) -> None:
    text = line(status("slot 3 is STARTING", done, of))
    assert text.count("#") == filled
    assert text.endswith(f"] {done} of {of} replaced · slot 3 is STARTING")


def test_it_is_followed_to_its_end() -> None:
    terminal = Terminal(
        status("slot 4 is STARTING"),
        status("slot 4 is STARTING"),
        status("failed: slot 4: no such module"),
        status("slot 5 is STARTING", 1),
        status("", 4, 4, ("slot 1 with 3 sessions: no slot is free for the release",)),
    )
    assert terminal.follow() == 0
    assert terminal.pauses == 4
    lines = terminal.text.split("\r\x1b[K")
    assert len(lines) == 5, "what has not changed is not written again"
    assert "failed: slot 4: no such module" in lines[2]
    assert lines[-1].endswith("4 of 4 replaced\nended: slot 1 with 3 sessions: no slot is free for the release\n")


def test_ctrl_c_ends_the_looking_only() -> None:
    terminal = Terminal(status("slot 4 is STARTING"), KeyboardInterrupt())
    assert terminal.follow() == INTERRUPTED
    assert terminal.text.endswith("\nthe release goes on; `lbctl status` shows it\n")


def test_when_the_monitor_cannot_be_asked_the_line_is_ended() -> None:
    terminal = Terminal(status("slot 4 is STARTING"), OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        terminal.follow()
    assert terminal.text.endswith("\n")


class Ages(Terminal):
    """The same, and each pause takes the time that it says."""

    def __init__(self, *looks: dict[str, Any] | BaseException) -> None:
        super().__init__(*looks)
        self.now = 0.0

    def look(self) -> dict[str, Any]:
        found = super().look()
        if len(self.looks) == 0:
            self.looks.append(found)  # it stays so
        return found

    def pause(self, seconds: float) -> None:
        super().pause(seconds)
        self.now += seconds

    def wait(self, limit: float = float("inf")) -> int:
        return follow(self.look, self.say, self.pause, lambda: self.now, bar=False, limit=limit)


def test_without_a_terminal_only_its_end_is_said() -> None:
    ages = Ages(status("slot 3 is STARTING"), status("slot 4 is STARTING", 2), status("", 4))
    assert ages.wait() == 0
    assert ages.text == "4 of 4 replaced\n"


def test_it_has_failed_when_replacements_do_not_start_for_long() -> None:
    ages = Ages(status("failed: slot 4: no such module"))
    assert ages.wait() == FAILED
    assert FAILED_AFTER <= ages.now <= FAILED_AFTER + POLL_INTERVAL
    assert ages.text.startswith("lbctl: the release has failed: slot 4: no such module; the old AppServers serve")


def test_if_no_appserver_serves_it_does_not_say_that_the_others_do() -> None:
    ages = Ages({**status("failed: slot 0: no such module"), "appservers": [{"state": "BACKOFF"}]})
    assert ages.wait() == FAILED
    assert "no such module; no AppServer serves; the monitor goes on trying" in ages.text


def test_between_two_tries_it_still_fails() -> None:
    looks = [status("failed: slot 4: x"), *[status("slot 4 is STARTING")] * 100, status("failed: slot 4: x")]
    ages = Ages(*looks)
    assert ages.wait() == FAILED
    assert ages.now < 101 * POLL_INTERVAL + 1


def test_one_that_gets_on_again_has_not_failed() -> None:
    once = [status("failed: slot 4: killed")] * 5
    ages = Ages(*once, *[status("slot 5 is STARTING", 1)] * 50, *once, *[status("x", 2)] * 50, status("", 4))
    assert ages.wait() == 0


def test_it_is_waited_for_no_longer_than_asked() -> None:
    ages = Ages(status("slot 4 is STARTING"))
    assert ages.wait(limit=3.0) == FAILED
    assert ages.now == 3.0
    assert "not done within 3 s: slot 4 is STARTING" in ages.text


def one(slot: int, generation: int, state: str, why: str = "") -> dict[str, Any]:
    return {"slot": slot, "generation": generation, "state": state, "why": why}


@pytest.mark.parametrize(
    ("servers", "release", "replaced"),
    [
        ([one(2, 5, "OK"), one(3, 6, "OK")], "its replacement starts", [0, 1]),
        ([one(2, 5, "OK"), one(4, 7, "STARTING")], "slot 4 is STARTING", [0, 1]),
        ([one(2, 5, "OK"), one(4, 7, "BACKOFF", "x")], "failed: slot 4: x", [0, 1]),
        ([one(2, 5, "DYING"), one(4, 7, "OK")], "", [1, 1]),
        ([one(2, 5, "STOPPING"), one(4, 7, "OK")], "", [1, 1]),
        ([one(4, 7, "OK")], "", [1, 1]),
        ([one(2, 8, "OK")], "", [1, 1]),
        ([one(2, 8, "STARTING")], "slot 2 is STARTING", [0, 1]),
    ],
)
def test_the_replacement_of_one_looks_like_a_release(
    servers: list[dict[str, Any]], release: str, replaced: list[int]
) -> None:
    """Of the AppServer of generation 5, in slot 2."""
    found = of_slot({"release": "of all", "replaced": [3, 4], "ended": ["x"], "appservers": servers}, 2, 5)
    assert (found["release"], found["replaced"], found["ended"]) == (release, replaced, [])


def test_the_generation_in_a_slot_is_found() -> None:
    assert [generation({"appservers": [one(2, 5, "OK")]}, slot) for slot in (2, 3)] == [5, 0]


def test_a_stop_ends_it() -> None:
    ages = Ages({**status("slot 4 is STARTING"), "stopping": True})
    assert ages.wait() == FAILED
    assert ages.text == "lbctl: the monitor is ending everything in order\n"


def test_one_that_ended_before_all_were_replaced_has_failed() -> None:
    assert Ages(status("slot 3 is STARTING"), status("", 3, 4)).wait() == FAILED

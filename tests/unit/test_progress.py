"""A release's progress, as a terminal shows it."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.progress import BAR, INTERRUPTED, follow, line


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

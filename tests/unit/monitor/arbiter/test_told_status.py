"""The status, as programs get it."""

from __future__ import annotations

import json

from monitor.arbiter.status import MOST_REASONS, _kept
from monitor.contract.messages import Kept


def test_what_is_said_of_session_files_is_shown_as_it_is() -> None:
    said = Kept("leaving", "Flask", "", 5, {"_io.TextIOWrapper": 2}, 7, 1, 3)
    assert json.loads(json.dumps(_kept(said))) == {
        "mode": "leaving",
        "store": "Flask",
        "why": "",
        "saved": 5,
        "unsaved": {"_io.TextIOWrapper": 2},
        "waiting": 7,
        "moved_out": 1,
        "taken": 3,
    }


def test_the_applications_words_are_bounded_and_without_control_characters() -> None:
    shown = _kept(Kept("leaving", why="a\x1b[2J", unsaved={f"T{number}\n": 1 for number in range(99)}))
    assert len(shown["unsaved"]) == MOST_REASONS
    assert "\x1b" not in shown["why"]
    assert "\n" not in "".join(shown["unsaved"])

"""The status, as programs get it."""

from __future__ import annotations

import json

import pytest

from lbadaptor.contract.settings import Application, Machine, Settings
from monitor.arbiter.status import (
    LAST_SECOND,
    MOST_AT_WORK,
    MOST_DURATIONS,
    MOST_REASONS,
    _at_work,
    _durations,
    _kept,
    _machine,
    _session_cookie,
)
from monitor.contract.messages import AtWork, Cookies, Kept
from monitor.policy.pool import Pool


def test_what_is_said_of_session_files_is_shown_as_it_is() -> None:
    said = Kept(
        "leaving", "Flask", "", 5, {"_io.TextIOWrapper": 2}, waiting=7, waiting_longest=9.5, moved_out=1, taken=3
    )
    assert json.loads(json.dumps(_kept(said))) == {
        "mode": "leaving",
        "store": "Flask",
        "why": "",
        "saved": 5,
        "unsaved": {"_io.TextIOWrapper": 2},
        "waiting": 7,
        "waiting_longest": 9.5,
        "moved_out": 1,
        "taken": 3,
    }


def test_the_applications_words_are_bounded_and_without_control_characters() -> None:
    shown = _kept(Kept("leaving", why="a\x1b[2J", unsaved={f"T{number}\n": 1 for number in range(99)}))
    assert len(shown["unsaved"]) == MOST_REASONS
    assert "\x1b" not in shown["why"]
    assert "\n" not in "".join(shown["unsaved"])


def test_requests_at_work_are_shown_as_they_are_told() -> None:
    assert _at_work([AtWork("GET", "/a", 12.5, 1e9, "aSoX")]) == [
        {"method": "GET", "path": "/a", "seconds": 12.5, "since": 1e9, "id": "aSoX"}
    ]


def test_what_a_visitor_has_put_into_a_path_does_no_harm_to_a_terminal_and_there_are_only_so_many() -> None:
    shown = _at_work([AtWork("G\x1b", "/\x9b2J" + "x" * 9999, 1.0)] * 99)
    assert len(shown) == MOST_AT_WORK
    assert [one["since"] for one in _at_work([AtWork(since=1e300), AtWork(since=-1e300)])] == [LAST_SECOND, 0.0]
    assert (shown[0]["method"], shown[0]["path"][:7]) == ("G\\x1b", "/\\x9b2J")
    assert len(shown[0]["path"]) < 600


def test_durations_are_shown_as_they_are_told_and_there_are_only_so_many() -> None:
    told = {"1e-05": 3, "0.0047": 1, "82": 2, "+Inf": 4}
    assert _durations(told) == told
    assert _durations({**told, "1e": 1, "\x1b[2J": 1, "": 1}) == told
    assert len(_durations({str(bound): 1 for bound in range(999)})) == MOST_DURATIONS


@pytest.mark.parametrize(("number", "shown"), [(-1, None), (0, 0), (999, 999)])
def test_the_machine_is_told(number: int, shown: int | None) -> None:
    pool = Pool(Settings(Application("app:app", "sid"), machine=Machine(number=number)))
    staying = {"number": shown, "leaving": False, "sessions": 0, "longest_session": 0.0, "empty": False}
    assert _machine(pool) == staying
    pool.machine_drain.begin(0.0)
    assert _machine(pool) == {**staying, "leaving": True}
    pool.plan(1000.0, 0)
    assert _machine(pool) == {**staying, "leaving": True, "empty": True}


REFUSED = "it has SameSite=None without Secure"


@pytest.mark.parametrize(
    ("told", "seen", "refused", "never_set"),
    [
        ([], False, "", ""),
        ([Cookies("sid", answers=0)], False, "", ""),
        ([Cookies("sid", answers=9, others=("a",))], False, "", "in 9 answers"),
        ([Cookies("sid", answers=9, others=("a",)), Cookies("sid", session=True)], True, "", ""),
        ([Cookies("sid", session=True), Cookies("sid", session=True, refused=REFUSED)], True, REFUSED, ""),
        ([Cookies("old", session=True, refused=REFUSED)], False, "", ""),  # of the release before
    ],
)
def test_what_appservers_know_of_the_session_cookie(
    told: list[Cookies], seen: bool, refused: str, never_set: str
) -> None:
    shown = _session_cookie("sid", told)
    assert (shown["name"], shown["seen"], shown["refused"]) == ("sid", seen, refused)
    assert never_set in shown["never_set"]
    assert bool(shown["never_set"]) == bool(never_set)


def test_without_a_session_cookie_nothing_was_seen() -> None:
    assert _session_cookie("", []) == {"name": "", "never_set": "", "seen": False, "refused": ""}

"""Every cell of the table: failure × verdict × named × method × body kept × missed × repeated."""

from __future__ import annotations

import itertools

import pytest

from lbadaptor.adaptor.retry import (
    IDEMPOTENT,
    MAX_HOPS,
    REFUSALS,
    TABLE,
    Avoid,
    Failure,
    Moved,
    Next,
    Step,
    Wait,
    decide,
    idempotent,
    moved,
)
from lbadaptor.contract.headers import Refusal
from lbadaptor.contract.ticket import Verdict

LETTERS = {
    "E": Step(Next.ANOTHER, avoid=Avoid.ALWAYS),
    "L": Step(Next.HOLDER, remembers=True, avoid=Avoid.ALWAYS),
    "W": Step(Next.HOLDER, pause=0.05, waits=Wait.FOR_HOLDER, avoid=Avoid.ALWAYS),
    "A": Step(Next.ANOTHER, avoid=Avoid.TILL_PAUSE),
    "O": Step(Next.HOLDER, pause=0.05, repeats=True, avoid=Avoid.UNLESS_ALONE),
    "C": Step(Next.CHOSEN, avoid=Avoid.NEVER),
    "M": Step(Next.CHOSEN, pause=0.05, waits=Wait.FOR_MOVE, avoid=Avoid.NEVER),
    "F": Step(Next.NAMED, avoid=Avoid.NEVER),
    "K": Step(Next.NAMED, pause=0.05, waits=Wait.FOR_MOVE, avoid=Avoid.NEVER),
    "B": Step(Next.NOBODY, status=502),
    "U": Step(Next.NOBODY, status=503),
    "T": Step(Next.NOBODY, status=504),
}
NOT_KEPT = " UUUU UUUU UUUU UUUU UUUU UUUU"
NEVER_BEGAN = "LLEE MMMM EEEE LLEE MMMM EEEE" + NOT_KEPT
WAITS = "WWWW WWWW AAAA WWWW WWWW AAAA" + NOT_KEPT
REFUSED = "EEEE MMMM EEEE EEEE MMMM EEEE" + NOT_KEPT
FAILED = "BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB"
MAY_HAVE_BEGUN = "OBOB OBOB OBOB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB"
# Twelve groups: body kept or not, in each of these method idempotent or not, in each of these HELD by the visitor's
# ticket, HELD because LB-Moved-To named it, another verdict.
# In each: not missed and not repeated, repeated; missed and not repeated, repeated.
EXPECTED: dict[Failure | Moved, str] = {
    Failure.UNREACHABLE: NEVER_BEGAN,
    Failure.UNSENT: NEVER_BEGAN,
    Failure.UNREAD: NEVER_BEGAN,
    Failure.CONNECT_TIMEOUT: WAITS,
    Failure.BUSY: WAITS,
    Failure.STALE: REFUSED,
    Failure.DYING: REFUSED,
    Failure.INCOMPLETE: REFUSED,
    Failure.FORBIDDEN: REFUSED,
    Failure.LOST: MAY_HAVE_BEGUN,
    Failure.BROKEN: MAY_HAVE_BEGUN,
    Failure.CUT: FAILED,
    Failure.MALFORMED: FAILED,
    Failure.NOT_HTTP: MAY_HAVE_BEGUN,
    Failure.SILENT: FAILED.replace("B", "T"),
    Failure.OURS: FAILED.replace("B", "U"),
    Moved.FREE: "CCCC CCCC MMMM CCCC CCCC MMMM" + NOT_KEPT,
    Moved.FURTHER: "FFFF FFFF FFFF FFFF FFFF FFFF" + NOT_KEPT,
    Moved.BACK: "KKKK KKKK KKKK KKKK KKKK KKKK" + NOT_KEPT,
    Moved.OUTSIDE: "MMMM MMMM MMMM MMMM MMMM MMMM" + NOT_KEPT,
    Moved.ENDLESS: FAILED.replace("B", "U"),
}
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
UNREPEATABLE = ("POST", "PATCH", "CONNECT", "PURGE", "get", "")


OTHER = [(verdict, False) for verdict in Verdict if verdict is not Verdict.HELD]


@pytest.mark.parametrize("failure", EXPECTED)
def test_every_cell(failure: Failure | Moved) -> None:
    wrong, seen = [], 0
    verdicts = ([(Verdict.HELD, False)], [(Verdict.HELD, True)], OTHER)
    groups = itertools.product((True, False), (REPEATABLE, UNREPEATABLE), verdicts)
    for (kept, methods, those), group in zip(groups, EXPECTED[failure].split(), strict=True):
        for (missed, repeated), letter in zip(itertools.product((False, True), repeat=2), group, strict=True):
            for (verdict, named), method in itertools.product(those, methods):
                seen += 1
                step = decide(
                    failure,
                    verdict,
                    idempotent=idempotent(method, key=False),
                    body_kept=kept,
                    missed=missed,
                    repeated=repeated,
                    named=named,
                )
                if step != LETTERS[letter]:
                    wrong.append((verdict, named, method, kept, missed, repeated, letter, step))
    assert wrong == []
    assert seen == (len(Verdict) + 1) * len(REPEATABLE + UNREPEATABLE) * 8


def test_every_failure_has_a_row_here_and_there() -> None:
    assert set(EXPECTED) == set(TABLE) == {*Failure, *Moved} - {Failure.MOVED}


@pytest.mark.parametrize(
    ("moved_to", "named", "asked", "hops", "where"),
    [
        ("", False, False, 0, Moved.FREE),
        ("", False, False, MAX_HOPS + 1, Moved.FREE),
        ("1.5", False, False, 0, Moved.OUTSIDE),
        ("1.5", False, False, MAX_HOPS + 1, Moved.OUTSIDE),
        ("nonsense", False, False, 0, Moved.OUTSIDE),
        ("1.5", True, False, 1, Moved.FURTHER),
        ("1.5", True, False, 8, Moved.FURTHER),
        ("1.5", True, False, 9, Moved.ENDLESS),
        ("1.5", True, True, 1, Moved.BACK),
        ("1.5", True, True, 8, Moved.BACK),
        ("1.5", True, True, 9, Moved.ENDLESS),
    ],
)
def test_where_a_session_is_that_has_moved(moved_to: str, named: bool, asked: bool, hops: int, where: Moved) -> None:
    assert moved(moved_to, named=named, asked=asked, hops=hops) is where


def test_a_move_is_followed_at_once_or_as_one_of_those_that_wait() -> None:
    """So that it is bounded by `wait`, or by the number of hops and AppServers."""
    for where in Moved:
        row = TABLE[where]
        for step in (row.held, row.held_again, row.named, row.other, row.not_again):
            assert (step.waits is Wait.FOR_MOVE) is (step.pause > 0)
            assert step.avoid is Avoid.NEVER or step.to is Next.NOBODY
            assert not step.repeats


def test_only_an_appserver_that_was_lost_at_work_is_counted_as_dead() -> None:
    assert {failure for failure, row in TABLE.items() if row.died} == {Failure.LOST, Failure.BROKEN}


def test_the_methods_that_may_be_repeated() -> None:
    assert frozenset(REPEATABLE) == IDEMPOTENT


def test_every_refusal_is_a_failure_before_the_application_saw_anything() -> None:
    assert set(REFUSALS) == {refusal.value for refusal in Refusal}
    for failure in {*REFUSALS.values(), *Moved} - {Failure.MOVED, Moved.ENDLESS}:
        step = decide(
            failure, Verdict.NONE, idempotent=False, body_kept=True, missed=True, repeated=True, named=False
        )
        assert step.to is not Next.NOBODY


def test_a_key_makes_post_and_patch_idempotent_and_nothing_else() -> None:
    assert [method for method in UNREPEATABLE if idempotent(method, key=True)] == ["POST", "PATCH"]
    assert all(idempotent(method, key=False) for method in REPEATABLE)

"""Every cell of the table: failure × verdict × method × body kept × missed × repeated."""

from __future__ import annotations

import itertools

import pytest

from lbadaptor.adaptor.retry import IDEMPOTENT, REFUSALS, TABLE, Avoid, Failure, Next, Step, decide, idempotent
from lbadaptor.contract.headers import Refusal
from lbadaptor.contract.ticket import Verdict

LETTERS = {
    "E": Step(Next.ANOTHER, avoid=Avoid.ALWAYS),
    "L": Step(Next.HOLDER, remembers=True, avoid=Avoid.ALWAYS),
    "W": Step(Next.HOLDER, pause=0.05, waits=True, avoid=Avoid.ALWAYS),
    "A": Step(Next.ANOTHER, avoid=Avoid.TILL_PAUSE),
    "O": Step(Next.HOLDER, pause=0.05, repeats=True, avoid=Avoid.UNLESS_ALONE),
    "B": Step(Next.NOBODY, status=502),
    "U": Step(Next.NOBODY, status=503),
    "T": Step(Next.NOBODY, status=504),
}
NEVER_BEGAN = "LLEE EEEE LLEE EEEE UUUU UUUU UUUU UUUU"
WAITS = "WWWW AAAA WWWW AAAA UUUU UUUU UUUU UUUU"
REFUSED = "EEEE EEEE EEEE EEEE UUUU UUUU UUUU UUUU"
FAILED = "BBBB BBBB BBBB BBBB BBBB BBBB BBBB BBBB"
MAY_HAVE_BEGUN = "OBOB OBOB BBBB BBBB BBBB BBBB BBBB BBBB"
# Eight groups: body kept or not, in each of these method idempotent or not, in each of these HELD or not.
# In each: not missed and not repeated, repeated; missed and not repeated, repeated.
EXPECTED = {
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
}
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
UNREPEATABLE = ("POST", "PATCH", "CONNECT", "PURGE", "get", "")


@pytest.mark.parametrize("failure", Failure)
def test_every_cell(failure: Failure) -> None:
    wrong, seen = [], 0
    groups = itertools.product((True, False), (REPEATABLE, UNREPEATABLE), (True, False))
    for (kept, methods, held), group in zip(groups, EXPECTED[failure].split(), strict=True):
        verdicts = [verdict for verdict in Verdict if (verdict is Verdict.HELD) is held]
        for (missed, repeated), letter in zip(itertools.product((False, True), repeat=2), group, strict=True):
            for verdict, method in itertools.product(verdicts, methods):
                seen += 1
                step = decide(
                    failure,
                    verdict,
                    idempotent=idempotent(method, key=False),
                    body_kept=kept,
                    missed=missed,
                    repeated=repeated,
                )
                if step != LETTERS[letter]:
                    wrong.append((verdict, method, kept, missed, repeated, letter, step))
    assert wrong == []
    assert seen == len(Verdict) * len(REPEATABLE + UNREPEATABLE) * 8


def test_every_failure_has_a_row_here_and_there() -> None:
    assert set(EXPECTED) == set(Failure) == set(TABLE)


def test_only_an_appserver_that_was_lost_at_work_is_counted_as_dead() -> None:
    assert {failure for failure, row in TABLE.items() if row.died} == {Failure.LOST, Failure.BROKEN}


def test_the_methods_that_may_be_repeated() -> None:
    assert frozenset(REPEATABLE) == IDEMPOTENT


def test_every_refusal_is_a_failure_before_the_application_saw_anything() -> None:
    assert set(REFUSALS) == {refusal.value for refusal in Refusal}
    for failure in REFUSALS.values():
        step = decide(failure, Verdict.NONE, idempotent=False, body_kept=True, missed=True, repeated=True)
        assert step.to is Next.ANOTHER


def test_a_key_makes_post_and_patch_idempotent_and_nothing_else() -> None:
    assert [method for method in UNREPEATABLE if idempotent(method, key=True)] == ["POST", "PATCH"]
    assert all(idempotent(method, key=False) for method in REPEATABLE)

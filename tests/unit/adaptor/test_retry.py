"""Every cell of the table: failure × verdict × method class × body kept × again."""

from __future__ import annotations

import itertools

import pytest

from lbadaptor.adaptor.retry import IDEMPOTENT, REFUSALS, TABLE, Deed, Failure, decide, idempotent
from lbadaptor.contract.headers import Refusal
from lbadaptor.contract.ticket import Verdict

LETTERS = {
    "E": Deed.ELSEWHERE,
    "L": Deed.LOOK,
    "G": Deed.GONE,
    "S": Deed.SAME,
    "W": Deed.LATER,
    "O": Deed.ONCE,
    "B": Deed.BAD_GATEWAY,
    "U": Deed.UNAVAILABLE,
    "T": Deed.TIMEOUT,
}
NEVER_BEGAN = "LGEE LGEE UUUU UUUU"
WAITS = "SSWW SSWW UUUU UUUU"
REFUSED = "GGEE GGEE UUUU UUUU"
FAILED = "BBBB BBBB BBBB BBBB"
MAY_HAVE_BEGUN = "OBOB BBBB BBBB BBBB"
# Four groups: body kept and method idempotent; kept and not; not kept and idempotent; neither.
# In each: HELD for the first time, HELD again, not held for the first time, not held again.
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
    Failure.SILENT: "TTTT TTTT TTTT TTTT",
    Failure.OURS: "UUUU UUUU UUUU UUUU",
}
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
UNREPEATABLE = ("POST", "PATCH", "CONNECT", "PURGE", "get", "")


def cells() -> list[tuple[Failure, Verdict, str, bool, bool, Deed]]:
    found = []
    for failure, text in EXPECTED.items():
        for (kept, methods), group in zip(
            itertools.product((True, False), (REPEATABLE, UNREPEATABLE)), text.split(), strict=True
        ):
            for verdict, again, method in itertools.product(Verdict, (False, True), methods):
                place = (0 if verdict is Verdict.HELD else 2) + again
                found.append((failure, verdict, method, kept, again, LETTERS[group[place]]))
    return found


@pytest.mark.parametrize("failure", Failure)
def test_every_cell(failure: Failure) -> None:
    wrong = []
    for name, verdict, method, kept, again, expected in cells():
        if name is failure:
            repeatable = idempotent(method, key=False)
            deed = decide(failure, verdict, idempotent=repeatable, body_kept=kept, again=again)
            if deed is not expected:
                wrong.append((verdict, method, kept, again, expected, deed))
    assert wrong == []


def test_every_failure_has_a_row_here_and_there() -> None:
    assert set(EXPECTED) == set(Failure) == set(TABLE)


def test_the_methods_that_may_be_repeated() -> None:
    assert frozenset(REPEATABLE) == IDEMPOTENT


def test_every_refusal_is_a_failure_before_the_application_saw_anything() -> None:
    assert set(REFUSALS) == {refusal.value for refusal in Refusal}
    for failure in REFUSALS.values():
        deed = decide(failure, Verdict.NONE, idempotent=False, body_kept=True, again=True)
        assert deed in (Deed.ELSEWHERE, Deed.LATER)


def test_a_key_makes_post_and_patch_idempotent_and_nothing_else() -> None:
    assert [method for method in UNREPEATABLE if idempotent(method, key=True)] == ["POST", "PATCH"]
    assert all(idempotent(method, key=False) for method in REPEATABLE)

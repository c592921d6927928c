"""Which ticket proves that another machine has this one's number."""

from __future__ import annotations

import pytest

from lbadaptor.adaptor.same_number import SameNumber
from lbadaptor.contract.address import Given, Identity
from lbadaptor.contract.generation import with_number
from lbadaptor.contract.ticket import Keys

MINE, SLOT = 7, 3
SINCE, UNTIL = 1_763_805_600_000, 1_763_809_200_000
NEWEST_AT = SINCE + 60_000
KEYS = Keys(["o" * 48, "n" * 48])


def ticket(ms: int, number: int = MINE, keys: Keys = KEYS) -> str:
    """As a machine with this number gives it at that time."""
    return keys.ticket(Identity(SLOT, with_number(number, keys.mask, 0, ms, SLOT)))


NEWEST = with_number(MINE, KEYS.mask, 0, NEWEST_AT, SLOT)
GIVEN = Given(MINE, NEWEST, SINCE, UNTIL)
LATER = NEWEST_AT + 1000


@pytest.mark.parametrize(
    ("brought", "said"),
    [
        (ticket(LATER), True),
        (ticket(LATER, keys=Keys(["o" * 48])), True),  # the other machine signs with the older key yet
        (ticket(LATER, number=8), False),
        (ticket(LATER, number=0), False),
        (ticket(LATER, keys=Keys(["x" * 48])), False),  # FORGED; it is not even asked for
        (KEYS.ticket(Identity(SLOT, NEWEST)), False),  # our own newest one, which has gone
        (ticket(NEWEST_AT - 1000), False),  # may be one of our own that has gone
        (ticket(SINCE - 1), False),
        (ticket(UNTIL), False),  # our own, that came and went since address.text was written
        (ticket(UNTIL + 3_600_000), False),
        (KEYS.ticket(Identity(SLOT, UNTIL - 1)), False),  # of before the machine had a number
    ],
)
def test_only_what_this_machine_cannot_have_given_proves_it(
    brought: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    SameNumber().look(brought, GIVEN, KEYS)
    assert bool(caplog.records) is said


def test_a_ticket_of_before_the_clock_was_right_proves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The machine lost power, and begins with a clock that is behind: what it gave before is newer than all since."""
    behind = with_number(MINE, KEYS.mask, 0, SINCE - 7_200_000, SLOT)
    SameNumber().look(ticket(SINCE - 3_600_000), Given(MINE, behind, SINCE, UNTIL), KEYS)
    assert caplog.records == []


def test_it_is_said_once_with_the_cure_and_without_the_ticket(caplog: pytest.LogCaptureFixture) -> None:
    same = SameNumber()
    brought = ticket(LATER)
    for _ in range(3):
        same.look(brought, GIVEN, KEYS)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "another machine has the number 7 of this one" in record.getMessage()
    assert "Give each machine a number of its own ([machine] number)" in record.getMessage()
    assert brought not in record.getMessage()

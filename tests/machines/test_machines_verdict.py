"""The rules for what visitors of several machines saw: each finds what is against it, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.machines.front import Relayed
from tests.machines.verdict import FRONT, Fault, Seen, judge
from tests.torture.evidence import Evidence
from tests.torture.records import Counted, Limits, Name, Outcome, Process, Records, Told, Visit

HELD = Told("v-1", Process(7, 100), Name(0, 5), lost=False, good=True, sid="s", count=1, machine="m1")
FIRST = Visit(
    "v-1", "v", "POST", "visit", 10.0, 10.1, Outcome.ANSWERED, 200, told=replace(HELD, new=True), least=1, most=1
)
AGAIN = replace(
    FIRST, name="v-2", method="GET", began=11.0, ended=11.1, told=replace(HELD, name="v-2"), brought="s", holder=HELD,
    told_at=10.1, asked_at=10.0,
)  # fmt: skip
ELSEWHERE = replace(HELD, name="v-2", machine="m2", new=True, lost=True, count=0)
LOST = replace(AGAIN, told=ELSEWHERE)
FAILED = replace(AGAIN, told=None, status=503)
GONE = Fault("m1", "loses power", 10.5, 12.0, loses=True, fails=True)
RELAYED = {"v-2": Relayed("m1", 503, "SC--")}


def _judged(*visits: Visit, faults: tuple[Fault, ...] = (), more: tuple[str, ...] = ()) -> list[str]:
    records = Records(Limits(0, 0, 0, 0), 0, visits=[FIRST, *visits])
    records.executed = [("v-1", 7), *((name, 7) for name in more)]
    records.counted = [Counted("v-1", 7, "s", 1), *(Counted(name, 7, "s", 1) for name in more)]
    return judge(Seen(Evidence(records), RELAYED, faults))


@pytest.mark.parametrize(
    ("visit", "faults"),
    [
        (AGAIN, ()),
        (LOST, (GONE,)),
        (LOST, (replace(GONE, where=FRONT),)),
        (FAILED, (GONE,)),
        (FAILED, (replace(GONE, where=FRONT),)),
        (replace(FAILED, name="v-3"), (GONE,)),  # HAProxy's log has nothing of it: its machine was gone
        (replace(AGAIN, outcome=Outcome.STALE, status=0, told=None), ()),
    ],
)
def test_what_is_allowed(visit: Visit, faults: tuple[Fault, ...]) -> None:
    assert _judged(visit, faults=faults) == []


@pytest.mark.parametrize(
    ("visit", "faults", "said"),
    [
        (LOST, (), "though nothing happened to its machine"),
        (LOST, (replace(GONE, loses=False),), "though nothing happened to its machine"),
        (LOST, (replace(GONE, where="m3"),), "though nothing happened to its machine"),
        (LOST, (replace(GONE, at=13.0, until=14.0),), "though nothing happened to its machine"),
        (LOST, (replace(GONE, at=8.0, until=9.0),), "though nothing happened to its machine"),
        (replace(AGAIN, told=replace(ELSEWHERE, lost=False)), (GONE,), "no answer said `lost`"),
        (replace(AGAIN, told=replace(AGAIN.told or HELD, machine="m2")), (GONE,), "its session went from m1 to m2"),
        (replace(AGAIN, least=2, most=2), (), "the session counted 1, not 2 to 2"),
        (FAILED, (), "503"),
        (FAILED, (replace(GONE, fails=False),), "503"),
        (FAILED, (replace(GONE, where="m2"),), "503"),
        (FAILED, (replace(GONE, at=13.0, until=14.0),), "503"),
        (replace(FAILED, status=0, outcome=Outcome.CUT), (), "connection ended"),
        (replace(AGAIN, wrong="this is the answer to v-9"), (), "this is the answer to v-9"),
    ],
)
def test_what_is_against_the_rules(visit: Visit, faults: tuple[Fault, ...], said: str) -> None:
    found = _judged(visit, faults=faults)
    assert len(found) == 1
    assert said.replace("connection ended", Outcome.CUT.value) in found[0]


def test_a_post_that_was_under_way_when_haproxy_was_killed_may_be_counted_late() -> None:
    taken_along = replace(AGAIN, name="v-2", method="POST", told=None, status=0, outcome=Outcome.STALE, ended=11.1)
    late = replace(
        AGAIN, name="v-3", began=11.3, ended=11.4, told=replace(HELD, name="v-3", count=2), least=1, most=1
    )
    killed = replace(GONE, where=FRONT, loses=False)
    assert _judged(taken_along, late, faults=(killed,)) == []
    assert len(_judged(taken_along, replace(late, began=14.0, ended=14.1), faults=(killed,))) == 1


def test_a_post_that_two_machines_have_executed() -> None:
    found = _judged(more=("v-1",))
    assert "executed more than once: 2" in found[0]
    assert "counted 1 twice" in found[1]

"""The rules for what visitors of several machines saw. Pure: records in, violations out.

A session is lost only with its machine, or by the front's table being gone, and the answer says so. No POST is
executed twice, on no machine. No visitor gets another's answer. Whatever fails has a cause in what the test did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.torture.evidence import SLACK, Evidence
from tests.torture.losses import doubled, what
from tests.torture.records import FOREVER, Outcome, Visit
from tests.torture.verdict import contents

from .front import Relayed

FRONT = "front"
LATE = 2.0
"""Seconds for which a request may still be at work after its visitor has gone."""


@dataclass
class Fault:
    """Something that the test did, in unix seconds."""

    where: str
    """a machine, or FRONT"""
    what: str
    at: float
    until: float = FOREVER
    """until HAProxy, or whoever comes to it, knew that it is over"""
    loses: bool = False
    """sessions that are there are lost to visitors who come meanwhile"""
    fails: bool = False
    """requests that are under way there may fail"""


@dataclass
class Seen:
    """All that is known of one test."""

    evidence: Evidence
    """the torture's, of visits and POSTs"""
    relayed: Mapping[str, Relayed]
    faults: Sequence[Fault] = field(default_factory=list)


def judge(seen: Seen) -> list[str]:
    """All violations."""
    rules = _sessions, _failures, _posts
    of_torture = doubled, contents
    return [text for rule in rules for text in rule(seen)] + [
        text for rule in of_torture for text in rule(seen.evidence)
    ]


def _sessions(seen: Seen) -> Iterator[str]:
    for visit in seen.evidence.records.visits:
        told = visit.told
        if told is None:
            continue
        gone = told.lost or (told.new and visit.brought and visit.page not in ("plain", "file"))
        if gone:
            if not told.lost:
                yield f"{_what(visit)}: the session is gone, and no answer said `lost`"
            if not _may_be_lost(seen, visit):
                yield f"{_what(visit)}: its session is lost, though nothing happened to its machine"
        elif visit.holder and visit.holder.machine != told.machine:
            yield f"{_what(visit)}: its session went from {visit.holder.machine} to {told.machine}"
        if visit.page == "visit":
            least, most = (
                (int(visit.method == "POST"),) * 2 if told.new else (visit.least, visit.most + _late(seen, visit))
            )
            if not least <= told.count <= most:
                yield f"{_what(visit)}: the session counted {told.count}, not {least} to {most}"


def _late(seen: Seen, visit: Visit) -> int:
    """POSTs of this session without an answer: where HAProxy was killed, they may be counted later than the next."""
    return sum(
        one.method == "POST" and one.told is None and visit.began - LATE <= one.ended <= visit.began
        for one in seen.evidence.records.visits
        if one.brought and one.brought == visit.brought
    )


def _may_be_lost(seen: Seen, visit: Visit) -> bool:
    holder = visit.holder.machine if visit.holder else ""
    return any(
        fault.at <= visit.ended + SLACK and visit.told_at <= fault.until + SLACK
        for fault in seen.faults
        if fault.loses and fault.where in (holder, FRONT)
    )


def _failures(seen: Seen) -> Iterator[str]:
    for visit in seen.evidence.records.visits:
        if visit.outcome is Outcome.STALE or (visit.outcome is Outcome.ANSWERED and visit.status == 200):
            continue
        if not _fails(seen, visit):
            relayed = seen.relayed.get(visit.name)
            yield f"{_what(visit)}: {visit.status or visit.outcome.value} ({visit.why}), and HAProxy says {relayed}"


def _fails(seen: Seen, visit: Visit) -> bool:
    """Whether something was done meanwhile to the machine that HAProxy sent it to, or to HAProxy."""
    relayed = seen.relayed.get(visit.name)
    machine = relayed.machine if relayed else ""
    places = {FRONT, machine} | ({visit.holder.machine} if visit.holder and machine in ("", "<NOSRV>") else set())
    return any(
        fault.at <= visit.ended + SLACK and visit.began <= fault.until + SLACK
        for fault in seen.faults
        if fault.fails and fault.where in places
    )


def _posts(seen: Seen) -> Iterator[str]:
    """No POST is executed twice; each one that was answered was executed, and the other way round."""
    times = Counter(name for name, _ in seen.evidence.records.executed)
    yield from (f"POST {name} was executed more than once: {count}" for name, count in times.items() if count > 1)
    for visit in seen.evidence.records.visits:
        if visit.method != "POST":
            continue
        if visit.status == 200 and not times[visit.name]:
            yield f"{_what(visit)}: answered, and never executed"
        if visit.outcome is Outcome.STALE and times[visit.name] and not _fails(seen, visit):
            yield f"{_what(visit)}: executed, and its connection closed without an answer"


def _what(visit: Visit) -> str:
    told = f" by {visit.told.machine}" if visit.told else ""
    holder = f", its session at {visit.holder.machine}" if visit.holder else ""
    return f"{what(visit)}{told}{holder}"

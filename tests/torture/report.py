"""The report at the end: what was done, what happened, and which rules were kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .evidence import Evidence
from .losses import why_gone
from .records import Outcome, Records
from .verdict import growth

MAX_SHOWN = 12
"""Violations of one rule that are printed."""

RULE_NAMES = {
    "sessions": "a session is lost only with what it does not outlive, and the answer says so",
    "doubled": "no session lives twice",
    "returns": "no session comes back after its end",
    "hangs": "an AppServer is ended as hung only if it was hung",
    "posts": "no POST is executed twice; what is answered was executed",
    "errors": "each 5xx is one that the design allows",
    "connections": "every request is answered",
    "contents": "no answer that looks whole is short, or belongs to another request",
    "address_text": "address.text is valid at every moment",
    "sizes": "memory and descriptors do not grow",
    "calm": "nothing fails after the fault injector has ended",
    "left_behind": "nothing is left behind",
}


def report(records: Records, violations: dict[str, list[str]]) -> str:
    """The report as text."""
    return "\n".join((*_visits(records), *_faults(records), *_machine(records), "", *_verdicts(violations)))


def _visits(records: Records) -> Iterator[str]:
    visits = records.visits
    seconds = records.ended - records.began
    yield f"\nrequests: {len(visits)} in {seconds:.0f} s, {len(visits) / seconds:.0f} a second:"
    if set(records.lanes) - {"slow"}:
        yield "  by lane: " + ", ".join(f"{count} {lane}" for lane, count in sorted(records.lanes.items()))
    kinds = Counter((visit.method, visit.page) for visit in visits)
    yield "  " + ", ".join(f"{count} {method} /{page}" for (method, page), count in sorted(kinds.items()))
    outcomes = Counter(visit.outcome for visit in visits)
    yield "  " + ", ".join(f"{outcomes[outcome]} {outcome.value}" for outcome in Outcome if outcomes[outcome])
    longest = sorted(visit.ended - visit.began for visit in visits if visit.page != "file")
    if longest:
        middle, late = longest[len(longest) // 2], longest[len(longest) * 99 // 100]
        yield f"  half of the pages came within {middle * 1000:.0f} ms, 99 % within {late * 1000:.0f} ms"
    yield f"  POSTs executed: {len(records.executed)}"


def _faults(records: Records) -> Iterator[str]:
    evidence = Evidence(records)
    faults = Counter(fault.kind for fault in records.faults)
    yield "\nThe fault injector: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    sessions = {visit.told.sid for visit in records.visits if visit.told and visit.told.sid}
    lost = Counter(why_gone(evidence, visit) or "no known reason" for visit in _first_losses(records))
    yield f"\nsessions: {len(sessions)}, lost: {sum(lost.values())}" + "".join(
        f"; {why}: {count}" for why, count in lost.most_common()
    )
    pairs, _, _ = evidence.pairs
    causes = Counter((word.status, visit.method, word.cause.value) for visit, word in pairs)
    yield f"answers of 5xx: {sum(causes.values())}; the error log says:"
    for (status, method, cause), count in sorted(causes.items()):
        yield f"  {count:5} × {status} {method}: {cause}"
    answered = sum(visit.status == 200 for visit in records.visits)
    yield f"{answered / max(1, len(records.visits)):.3%} of the requests were answered 200"


def _first_losses(records: Records) -> Iterator:  # type: ignore[type-arg]
    seen = set()
    for visit in records.visits:
        if visit.ended_session or not visit.told or not visit.brought or visit.brought in seen:
            continue
        if visit.told.lost or visit.told.new:
            seen.add(visit.brought)
            yield visit


def _machine(records: Records) -> Iterator[str]:
    valid = [seen for seen in records.tables if not seen.error]
    generations = {name for seen in valid for name in seen.states}
    yield (
        f"\naddress.text: read {records.looks} times, versions: {len(records.tables)}, "
        f"AppServers in it: {len(generations)}"
    )
    if records.strength is not None:
        yield f"full strength {records.strength:.1f} s after the fault injector's end"
    for role, (before, after) in growth(records).items():
        yield (
            f"  {role}: {before.resident / 1e6:.1f} → {after.resident / 1e6:.1f} MB, "
            f"{before.descriptors} → {after.descriptors} descriptors"
        )


def _verdicts(violations: dict[str, list[str]]) -> Iterator[str]:
    for rule, found in violations.items():
        yield f"{'NO ' if found else 'yes'}  {RULE_NAMES[rule]}"
        for violation in found[:MAX_SHOWN]:
            yield f"       {violation}"
        if len(found) > MAX_SHOWN:
            yield f"       … and {len(found) - MAX_SHOWN} more"

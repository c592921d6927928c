"""The report at the end: what was done, what came of it, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .records import Outcome, Records
from .verdict import Evidence, growth, why_gone

MOST_SHOWN = 12
"""Violations of one rule that are printed."""

RULE_NAMES = {
    "sessions": "a session is lost only with its holder, and that is said",
    "hangs": "nobody is ended as hung who was not",
    "posts": "no POST is executed twice; what is answered was executed",
    "errors": "each 5xx is by a rule of the design's",
    "connections": "every request is answered",
    "contents": "no answer is short or another's, and looks whole",
    "address_text": "address.text is valid at every moment",
    "sizes": "memory and descriptors are flat",
    "calm": "all is well when the fiend has gone",
    "leftovers": "nothing is left behind",
}


def report(records: Records, violations: dict[str, list[str]]) -> str:
    """For people."""
    return "\n".join((*_visits(records), *_harm(records), *_machine(records), "", *_verdicts(violations)))


def _visits(records: Records) -> Iterator[str]:
    visits = records.visits
    seconds = records.ended - records.began
    yield f"\n{len(visits)} requests in {seconds:.0f} s, {len(visits) / seconds:.0f} a second:"
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
    yield f"  {len(records.executed)} POSTs were executed"


def _harm(records: Records) -> Iterator[str]:
    evidence = Evidence(records)
    deeds = Counter(deed.kind for deed in records.deeds)
    yield "\nThe fiend: " + ", ".join(f"{kind} {count}" for kind, count in sorted(deeds.items()))
    sessions = {visit.told.sid for visit in records.visits if visit.told and visit.told.sid}
    lost = Counter(why_gone(evidence, visit) or "for no reason" for visit in _first_losses(records))
    yield f"\n{len(sessions)} sessions, of which {sum(lost.values())} were lost, their holder " + (
        ", ".join(f"{why}: {count}" for why, count in lost.most_common()) or "never harmed"
    )
    pairs, _, _ = evidence.pairs
    causes = Counter((word.status, visit.method, word.cause.value) for visit, word in pairs)
    yield f"{sum(causes.values())} answers of 5xx, of which the error log says:"
    for (status, method, cause), count in sorted(causes.items()):
        yield f"  {count:5} × {status} {method}: {cause}"
    answered = sum(visit.status == 200 for visit in records.visits)
    yield f"{answered / max(1, len(records.visits)):.3%} of the requests were answered 200"


def _first_losses(records: Records) -> Iterator:  # type: ignore[type-arg]
    seen = set()
    for visit in records.visits:
        if visit.told and visit.brought and (visit.told.lost or visit.told.new) and visit.brought not in seen:
            seen.add(visit.brought)
            yield visit


def _machine(records: Records) -> Iterator[str]:
    valid = [seen for seen in records.tables if not seen.fault]
    generations = {name for seen in valid for name in seen.states}
    yield (
        f"\naddress.text: looked at {records.looks} times, {len(records.tables)} different ones, "
        f"{len(generations)} AppServers in it"
    )
    if records.strength is not None:
        yield f"full strength {records.strength:.1f} s after the fiend's end"
    for role, (before, after) in growth(records).items():
        yield (
            f"  {role}: {before.resident / 1e6:.1f} → {after.resident / 1e6:.1f} MB, "
            f"{before.descriptors} → {after.descriptors} descriptors"
        )


def _verdicts(violations: dict[str, list[str]]) -> Iterator[str]:
    for rule, found in violations.items():
        yield f"{'NO ' if found else 'yes'}  {RULE_NAMES[rule]}"
        for violation in found[:MOST_SHOWN]:
            yield f"       {violation}"
        if len(found) > MOST_SHOWN:
            yield f"       … and {len(found) - MOST_SHOWN} more"

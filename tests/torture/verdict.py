"""The rules, and what in the records violates them. Pure: records in, violations out.

RULES has a function for each rule.

Every error that a visitor saw must have a cause in what the fault injector did, and the design must allow it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from .evidence import SLACK, Cause, Evidence, GaveUp
from .losses import doubled, returns, sessions, what
from .records import Logged, Name, Outcome, Process, Records, Said, Sample, Visit

GROWTH = 1.2
SPARE = 8 * 2**20
"""A process may grow by a fifth, and 8 MiB."""
MORE_DESCRIPTORS = 40
STRENGTH = 30.0
"""Seconds after the fault injector's end within which all AppServers have to be OK."""

_BROKE_OFF = re.compile(r"lbadaptor: an answer broke off, the visitor's connection is (cut|out of reach)")


# The rules. Each yields its violations as text.


def hangs(evidence: Evidence) -> Iterator[str]:
    """An AppServer is ended as hung only if it was stopped for long."""
    processes = {name: process for process, name in evidence.names.items()}
    for name, at in evidence.ended_as_hung.items():
        process = processes.get(name)
        if process is None or evidence.killed.get(process, at + SLACK) <= at:
            continue  # a monitor that was stopped may notice that nothing listens before it notices the death
        if process not in evidence.hung:
            longest = max((stop.until - stop.at for stop in evidence.stops.get(process, [])), default=0.0)
            yield f"AppServer {name} was ended as hung at {at:.2f}; it was stopped for {longest:.1f} s at most"


def posts(evidence: Evidence) -> Iterator[str]:
    """No POST is executed twice, and each POST that was answered was executed."""
    times = Counter(name for name, _ in evidence.records.executed)
    for name, count in times.items():
        if count > 1:
            yield f"POST {name} was executed more than once: {count}"
    for visit in evidence.records.visits:
        if visit.method != "POST":
            continue
        if 200 <= visit.status < 300 and not times[visit.name]:
            yield f"{what(visit)}: answered {visit.status}, and never executed"
        if visit.outcome is Outcome.STALE and times[visit.name]:
            yield f"{what(visit)}: executed, and its connection closed without an answer"


def errors(evidence: Evidence) -> Iterator[str]:
    """Each 5xx is one that the design allows, and the error log says why; there are no other errors."""
    pairs, silent, on_nothing = evidence.pairs
    for visit in silent:
        yield f"{what(visit)}: {visit.status}, and nothing in the error log"
    for word in on_nothing:
        yield f"{word.status} {word.method} in the error log at {word.line.at:.2f}, which no visitor got: {word.why}"
    for visit, word in pairs:
        if why_not := _not_allowed(evidence, visit, word):
            yield f"{what(visit)}: {word.status}, {word.why}: {why_not}"
    for visit in evidence.records.visits:
        if visit.status and visit.status != 200 and visit.status < 500:
            yield f"{what(visit)}: status {visit.status}"


def _not_allowed(evidence: Evidence, visit: Visit, word: GaveUp) -> str:
    """Why a 5xx is not allowed; empty: the design allows it."""
    cause, appserver = word.cause, word.appserver
    begin, end = visit.began - SLACK, visit.ended + SLACK
    if cause is Cause.DIED:
        died = evidence.died(begin, end)
        by_hang = [name for name, at in evidence.ended_as_hung.items() if begin <= at <= end]
        by_limit = [name for name, at in evidence.ended_by_limit.items() if at <= end]
        slots = {death[1] for death in died} | {name.slot for name in (*by_hang, *by_limit)}
        if appserver is None or appserver.slot not in slots:
            return "that AppServer did not die under it"
        if visit.method == "GET" and len(died) + len(by_limit) < 2:
            return "only one AppServer died under it"
        return ""
    if cause is Cause.FAILING:
        failing = appserver is not None and evidence.ever(appserver, begin, end, "FAILING")
        return "" if failing else "address.text never said so"
    if cause is Cause.NONE_AVAILABLE:
        well = evidence.lasted(visit.ended - SLACK, visit.ended, "OK")
        well = {name for name in well if not evidence.harmed(name, visit.ended)}
        return f"AppServers {', '.join(map(str, sorted(well)))} were OK" if well else ""
    if cause is Cause.SPOOL:
        spans = [fault for fault in evidence.records.faults if fault.kind == "fill spool"]
        full = any(span.at <= end and begin <= span.until for span in spans)
        return "" if full else "the spool folder was in order"
    return "" if cause is Cause.BUSY else "the design has no such error"


def connections(evidence: Evidence) -> Iterator[str]:
    """Every request is answered, except on an idle connection that was closed. An answer is cut only if its AppServer
    died.
    """
    broke_off: Counter[int] = Counter()
    for line in evidence.records.logged:
        if found := _BROKE_OFF.search(line.text):
            broke_off[line.port] += 1
            if found[1] != "cut":
                yield f"an answer broke off at {line.at:.2f}, and the visitor's connection was {found[1]}"
    for visit in evidence.records.visits:
        if visit.outcome is Outcome.CUT:
            if why_not := _not_to_be_cut(evidence, visit):
                yield f"{what(visit)}: cut ({visit.why}): {why_not}"
            elif not broke_off[visit.port]:
                yield f"{what(visit)}: cut ({visit.why}), and nothing in the error log"
        elif visit.outcome not in (Outcome.ANSWERED, Outcome.LEFT, Outcome.STALE):
            yield f"{what(visit)}: {visit.outcome.value} ({visit.why})"


def _not_to_be_cut(evidence: Evidence, visit: Visit) -> str:
    if visit.told is None:
        return "its AppServer is not known"
    process, name = visit.told.process, visit.told.appserver
    if process in evidence.hung or evidence.killed.get(process, visit.ended + 1) <= visit.ended + SLACK:
        return ""
    ended = evidence.ended_by_limit.get(name, visit.ended + 1) <= visit.ended + SLACK
    return "" if ended else f"nothing ended AppServer {name}"


def contents(evidence: Evidence) -> Iterator[str]:
    """No answer that looks whole is short, or belongs to another request."""
    for visit in evidence.records.visits:
        if visit.wrong:
            yield f"{what(visit)}: {visit.wrong}"


def address_text(evidence: Evidence) -> Iterator[str]:
    """address.text is always valid; its serial rises; a generation is one life of one AppServer."""
    serial, present, gone, slots = -1, set[Name](), set[Name](), dict[int, Name]()
    for seen in evidence.records.tables:
        if seen.error:
            yield f"address.text at {seen.at:.2f}: {seen.error}"
            continue
        if seen.serial <= serial:
            yield f"address.text at {seen.at:.2f}: serial {seen.serial} after {serial}"
        serial = seen.serial
        gone |= present - seen.states.keys()
        present = set(seen.states)
        for name in present & gone:
            yield f"address.text at {seen.at:.2f}: AppServer {name} is back, after it had gone"
        gone -= present
        for name in present:
            if slots.setdefault(name.generation, name) != name:
                yield f"address.text at {seen.at:.2f}: generation {name.generation} in two slots"
    lives: dict[int, Process] = {}
    for process, name in evidence.names.items():
        if lives.setdefault(name.generation, process) != process:
            yield f"generation {name.generation} belongs to two processes: {lives[name.generation]} and {process}"


def sizes(evidence: Evidence) -> Iterator[str]:
    """Memory and descriptors do not grow after the first third of the time."""
    for role, (before, after) in growth(evidence.records).items():
        if after.resident > before.resident * GROWTH + SPARE:
            yield f"memory of {role} grew from {before.resident / 1e6:.1f} to {after.resident / 1e6:.1f} MB"
        if after.descriptors > before.descriptors + MORE_DESCRIPTORS:
            yield f"open descriptors of {role} rose from {before.descriptors} to {after.descriptors}"


def growth(records: Records) -> dict[str, tuple[Sample, Sample]]:
    """For each role the largest sizes of its processes, in the first third and in the last sixth of the time."""
    length = records.ended - records.began
    found = {}
    for role in sorted({sample.role for sample in records.samples}):
        samples = [sample for sample in records.samples if sample.role == role]
        before = [sample for sample in samples if sample.at <= records.began + length / 3]
        after = [sample for sample in samples if sample.at >= records.ended - length / 6]
        if before and after:
            found[role] = _largest(before), _largest(after)
    return found


def _largest(samples: list[Sample]) -> Sample:
    one = samples[0]
    resident = max(sample.resident for sample in samples)
    return Sample(one.at, one.role, one.process, resident, max(sample.descriptors for sample in samples))


def calm(evidence: Evidence) -> Iterator[str]:
    """After the fault injector has ended, nothing fails."""
    records = evidence.records
    if records.strength is None or records.strength > STRENGTH:
        yield f"not at full strength within {STRENGTH:.0f} s after the fault injector's end"
        return
    for visit in records.visits:
        if visit.began < records.quiet:
            continue
        if visit.status != 200 or visit.outcome not in (Outcome.ANSWERED, Outcome.LEFT, Outcome.STALE):
            yield f"{what(visit)}: {visit.status or visit.outcome.value}, after the fault injector had ended"


def left_behind(evidence: Evidence) -> Iterator[str]:
    """Nothing is left behind, and nothing crashed."""
    for left in evidence.records.left:
        yield f"left behind: {left}"
    yield from evidence.records.test_errors
    broke_off = [line for line in evidence.records.logged if _BROKE_OFF.search(line.text)]
    lines: list[Said | Logged] = [*evidence.records.said, *evidence.records.logged]
    for line in lines:
        if "Traceback" in line.text or "exit signal" in line.text:
            # An exception tells mod_wsgi that an answer broke off, and mod_wsgi logs it.
            of_broken = any(
                isinstance(line, Logged) and line.port == it.port and 0 <= line.at - it.at < SLACK for it in broke_off
            )
            if not of_broken:
                yield f"at {line.at:.2f}: {line.text}"


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    sessions,
    doubled,
    returns,
    hangs,
    posts,
    errors,
    connections,
    contents,
    address_text,
    sizes,
    calm,
    left_behind,
)


def judge(records: Records) -> dict[str, list[str]]:
    """All violations, by rule."""
    evidence = Evidence(records)
    return {rule.__name__: list(rule(evidence)) for rule in RULES}

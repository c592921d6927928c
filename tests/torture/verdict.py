"""The rules, and what in the records violates them. Pure: records in, violations out.

RULES has a function for each rule.

Every error that a visitor saw must have a cause in what the fault injector did, and the design must allow it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from .records import Fault, Logged, Name, Outcome, Process, Records, Said, Sample, Visit

SLACK = 0.5
"""Seconds by which the times of one event may differ in two records, on a busy machine."""
GROWTH = 1.2
SPARE = 8 * 2**20
"""A process may grow by a fifth, and 8 MiB."""
MORE_DESCRIPTORS = 40
STRENGTH = 30.0
"""Seconds after the fault injector's end within which all AppServers have to be OK."""

_SLOT = re.compile(r"\bslot (\d+)\b")
_BEGINS = re.compile(r"\bslot \d+ (?:starts|is adopted)\b.*\bpid (\d+)")
_ANNOUNCED = re.compile(r"slot \d+ is ended with \d+ sessions?")
"""The line in which the monitor announces that it ends an AppServer because of a limit."""
_HUNG = re.compile(r"slot \d+ is hung and is ended")
_DEATH = re.compile(r"slot \d+ (\(\w+\) was ended by SIGKILL|does not exit: SIGKILL)")
_GAVE_UP = re.compile(r"lbadaptor: (\d{3}) ([A-Z]+)(?: \S+?)?: (.*)")
_BROKE_OFF = re.compile(r"lbadaptor: an answer broke off, the visitor's connection is (cut|out of reach)")
_APPSERVER = re.compile(r"AppServer (\d+)\.(\d+)")


class Cause(Enum):
    """Why a visitor got a 5xx, by the adaptor's line in the error log."""

    DIED = "AppServers died under it"
    FAILING = "its holder is FAILING"
    BUSY = "its holder is BUSY, or accepts no connection"
    NONE_AVAILABLE = "no AppServer is available"
    SPOOL = "the spool folder is full"
    SILENT = "no answer in time"
    OTHER = "another cause"


_CAUSES: tuple[tuple[int, re.Pattern[str], Cause], ...] = (
    (502, re.compile(r"AppServer \S+: connection lost (before the first byte of|within) the answer"), Cause.DIED),
    (503, re.compile(r"AppServer \S+, which holds the session, is FAILING"), Cause.FAILING),
    (503, re.compile(r"AppServer \S+: (refused: BUSY|connect timed out)"), Cause.BUSY),
    (503, re.compile(r"no AppServer is available"), Cause.NONE_AVAILABLE),
    (503, re.compile(r"no temporary file for a request's body|keeping a request's body"), Cause.SPOOL),
    (504, re.compile(r"AppServer \S+: no answer in time"), Cause.SILENT),
)


@dataclass(frozen=True)
class GaveUp:
    """A line of the error log: the adaptor gave up a request."""

    line: Logged
    status: int
    method: str
    why: str

    @property
    def cause(self) -> Cause:
        for status, pattern, cause in _CAUSES:
            if status == self.status and pattern.match(self.why):
                return cause
        return Cause.OTHER

    @property
    def appserver(self) -> Name | None:
        found = _APPSERVER.search(self.why)
        return Name(int(found[1]), int(found[2])) if found else None


class Evidence:
    """The records, and what follows directly from them."""

    def __init__(self, records: Records) -> None:
        self.records = records

    @cached_property
    def names(self) -> dict[Process, Name]:
        """Which AppServer a process was, by its own answers."""
        return {visit.told.process: visit.told.appserver for visit in self.records.visits if visit.told}

    @cached_property
    def killed(self) -> dict[Process, float]:
        return {fault.process: fault.at for fault in self.records.faults if fault.kind == "kill" and fault.process}

    @cached_property
    def stops(self) -> dict[Process, list[Fault]]:
        stops: dict[Process, list[Fault]] = defaultdict(list)
        for fault in self.records.faults:
            if fault.kind == "stop" and fault.process:
                stops[fault.process].append(fault)
        return stops

    @cached_property
    def hung(self) -> set[Process]:
        """The processes that were stopped for longer than the limit."""
        limit = self.records.limits.hung
        return {
            process for process, stops in self.stops.items() if any(stop.until - stop.at >= limit for stop in stops)
        }

    @cached_property
    def of_appservers(self) -> list[tuple[Said, int, int, Name | None]]:
        """The monitor's lines about a slot, with the pid and the name of the AppServer in it.

        An earlier line says the pid. The name is from the first answer of this process; None: it gave none.
        """
        pids: dict[int, int] = {}
        told: dict[int, list[tuple[float, Name]]] = defaultdict(list)
        seen = set[Process]()
        for visit in sorted(self.records.visits, key=lambda visit: visit.ended):
            if visit.told and visit.told.process not in seen:
                seen.add(visit.told.process)
                told[visit.told.process.pid].append((visit.ended, visit.told.appserver))
        lines = []
        for said in self.records.said:
            found = _SLOT.search(said.text)
            if not found:
                continue
            slot = int(found[1])
            if begins := _BEGINS.search(said.text):
                pids[slot] = int(begins[1])
            names = [name for at, name in told[pids.get(slot, 0)] if name.slot == slot and at <= said.at + SLACK]
            lines.append((said, slot, pids.get(slot, 0), names[-1] if names else None))
        return lines

    @cached_property
    def ended_by_limit(self) -> dict[Name, float]:
        """AppServers of which the monitor announced that a limit ends them, and when it did."""
        return {name: said.at for said, _, _, name in self.of_appservers if name and _ANNOUNCED.search(said.text)}

    @cached_property
    def ended_as_hung(self) -> dict[Name, float]:
        return {name: said.at for said, _, _, name in self.of_appservers if name and _HUNG.search(said.text)}

    @cached_property
    def deaths(self) -> list[tuple[float, int, Name | None]]:
        """When and in which slot an AppServer died of SIGKILL.

        The fault injector recorded it, or the monitor logged it.
        """
        deaths = [
            (fault.at, fault.slot, self.names.get(fault.process))
            for fault in self.records.faults
            if fault.kind == "kill" and fault.process and fault.slot is not None
        ]
        by_injector = {fault.process.pid for fault in self.records.faults if fault.kind == "kill" and fault.process}
        before: tuple[int, int] | None = None
        for said, slot, pid, name in self.of_appservers:
            if pid not in by_injector and _DEATH.search(said.text) and (slot, pid) != before:
                before = slot, pid  # the monitor logs that it sends SIGKILL, and that the process died
                deaths.append((said.at, slot, name))
        return deaths

    @cached_property
    def gave_up(self) -> list[GaveUp]:
        return [
            GaveUp(line, int(found[1]), found[2], found[3])
            for line in self.records.logged
            if (found := _GAVE_UP.search(line.text))
        ]

    @cached_property
    def pairs(self) -> tuple[list[tuple[Visit, GaveUp]], list[Visit], list[GaveUp]]:
        """Answers of 5xx with their lines of the error log; answers without a line; lines without an answer."""
        words: dict[int, list[GaveUp]] = defaultdict(list)
        for gave_up in self.gave_up:
            words[gave_up.line.port].append(gave_up)
        pairs, silent = [], []
        for visit in self.records.visits:
            if visit.status < 500 or visit.told:
                continue
            found = next(
                (
                    word
                    for word in words[visit.port]
                    if (word.status, word.method) == (visit.status, visit.method)
                    and visit.began - SLACK <= word.line.at <= visit.ended + SLACK
                ),
                None,
            )
            if found is None:
                silent.append(visit)
            else:
                words[visit.port].remove(found)
                pairs.append((visit, found))
        return pairs, silent, [word for rest in words.values() for word in rest]

    def lasted(self, begin: float, end: float, state: str) -> set[Name]:
        """The AppServers that had this state in every address.text between two moments."""
        everywhere: set[Name] | None = None
        for seen in self._valid(begin, end):
            here = {name for name, then in seen.items() if then == state}
            everywhere = here if everywhere is None else everywhere & here
        return everywhere or set()

    def ever(self, name: Name, begin: float, end: float, state: str) -> bool:
        """Whether an AppServer had this state at some time between two moments."""
        return any(seen.get(name) == state for seen in self._valid(begin, end))

    def died(self, begin: float, end: float) -> list[tuple[float, int, Name | None]]:
        """The deaths between two moments."""
        return [death for death in self.deaths if begin <= death[0] <= end]

    def harmed(self, name: Name, end: float) -> bool:
        """Whether an AppServer was killed or stopped before a moment."""
        return any(
            self.names.get(fault.process) == name or (fault.slot == name.slot and fault.process not in self.names)
            for fault in self.records.faults
            if fault.process and fault.kind in ("kill", "stop") and fault.at <= end
        )

    def _valid(self, begin: float, end: float) -> Iterator[dict[Name, str]]:
        """Every address.text between two moments."""
        before: dict[Name, str] | None = None
        for seen in self.records.tables:
            if seen.error:
                continue
            if seen.at > end:
                break
            if seen.at >= begin:
                if before is not None:
                    yield before
                    before = None
                yield seen.states
            else:
                before = seen.states
        if before is not None:
            yield before


# The rules. Each yields its violations as text.


def sessions(evidence: Evidence) -> Iterator[str]:
    """A session is lost only with its holder, and the answer says so."""
    for visit in evidence.records.visits:
        told = visit.told
        if told is None:
            continue
        gone = told.lost or (told.new and visit.brought and visit.page != "plain")
        if gone:
            if told.new and not told.lost:
                yield f"{_what(visit)}: the session is gone, and no answer said `lost`"
            if not why_gone(evidence, visit):
                holder = visit.holder.appserver if visit.holder else "unknown"
                yield f"{_what(visit)}: its session is lost, though nothing ended its holder {holder}"
        if told.lost and visit.page == "visit" and not told.new:
            yield f"{_what(visit)}: `lost`, though its session is there"
        if visit.page == "visit":
            least, most = (int(visit.method == "POST"),) * 2 if told.new else (visit.least, visit.most)
            if not least <= told.count <= most:
                yield f"{_what(visit)}: the session counted {told.count}, not {least} to {most}"
        stays = visit.brought and visit.holder and not gone and visit.page in ("visit", "logout")
        if stays and visit.holder and visit.holder.process != told.process:
            yield f"{_what(visit)}: the session moved from {visit.holder.appserver} to {told.appserver}"


def why_gone(evidence: Evidence, visit: Visit) -> str:
    """What ended a session in a way that the design allows; empty: nothing did."""
    holder = visit.holder
    if holder is None:
        return ""
    if evidence.killed.get(holder.process, visit.ended) < visit.ended:
        return "killed"
    if holder.process in evidence.hung:
        return "hung"
    if evidence.ended_by_limit.get(holder.appserver, visit.ended + 1) <= visit.ended + SLACK:
        return "ended by an announced limit"
    return "idle for too long" if visit.began - visit.told_at >= evidence.records.limits.idle - 1 else ""


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
            yield f"{_what(visit)}: answered {visit.status}, and never executed"
        if visit.outcome is Outcome.STALE and times[visit.name]:
            yield f"{_what(visit)}: executed, and its connection closed without an answer"


def errors(evidence: Evidence) -> Iterator[str]:
    """Each 5xx is one that the design allows, and the error log says why; there are no other errors."""
    pairs, silent, on_nothing = evidence.pairs
    for visit in silent:
        yield f"{_what(visit)}: {visit.status}, and nothing in the error log"
    for word in on_nothing:
        yield f"{word.status} {word.method} in the error log at {word.line.at:.2f}, which no visitor got: {word.why}"
    for visit, word in pairs:
        if why_not := _not_allowed(evidence, visit, word):
            yield f"{_what(visit)}: {word.status}, {word.why}: {why_not}"
    for visit in evidence.records.visits:
        if visit.status and visit.status != 200 and visit.status < 500:
            yield f"{_what(visit)}: status {visit.status}"


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
                yield f"{_what(visit)}: cut ({visit.why}): {why_not}"
            elif not broke_off[visit.port]:
                yield f"{_what(visit)}: cut ({visit.why}), and nothing in the error log"
        elif visit.outcome not in (Outcome.ANSWERED, Outcome.LEFT, Outcome.STALE):
            yield f"{_what(visit)}: {visit.outcome.value} ({visit.why})"


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
            yield f"{_what(visit)}: {visit.wrong}"


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
            yield f"{_what(visit)}: {visit.status or visit.outcome.value}, after the fault injector had ended"


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


def _what(visit: Visit) -> str:
    return f"{visit.method} /{visit.page} {visit.name} at {visit.ended:.2f}"

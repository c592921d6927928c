"""What follows from the records, for the rules. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from .records import BEGINS, Fault, Logged, Name, Process, Records, Said, Visit

SLACK = 0.5
"""Seconds by which the times of one event may differ in two records, on a busy machine."""

_SLOT = re.compile(r"\bslot (\d+)\b|^AppServer (\d+): ")
_ANNOUNCED = re.compile(r"slot \d+ is ended with \d+ sessions?")
"""The line in which the monitor announces that it ends an AppServer because of a limit."""
_HUNG = re.compile(r"slot \d+ is hung and is ended")
_DEATH = re.compile(r"slot \d+ (\(\w+\) was ended by SIGKILL|does not exit: SIGKILL)")
_GAVE_UP = re.compile(r"lbadaptor: (\d{3}) ([A-Z]+)(?: \S+?)?: (.*)")
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
    def executed(self) -> set[str]:
        """The POSTs that an application has begun."""
        return {name for name, _ in self.records.executed}

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
        """The lines of the monitor about a slot, and of the AppServer in it, with its pid and its name.

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
            slot = int(found[1] or found[2])
            if begins := BEGINS.search(said.text):
                pids[slot] = int(begins[2])
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

    def unanswered(self, visit: Visit) -> list[Visit]:
        """The requests of this session without an answer, between its last answer and this request."""
        return [
            one
            for one in self._without_answer.get(visit.brought, [])
            if visit.asked_at - SLACK <= one.ended and one.began < visit.ended and one is not visit
        ]

    @cached_property
    def _without_answer(self) -> dict[str, list[Visit]]:
        """By the session."""
        found: dict[str, list[Visit]] = defaultdict(list)
        for visit in self.records.visits:
            if visit.brought and visit.told is None:
                found[visit.brought].append(visit)
        return found

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

"""One life of an AppServer: a process with a slot and a generation, from the decision to start it to its exit. Pure.

A new `Life` is made for each generation, so nothing of one life can be left in the next. state.json holds these
objects as they are: what is added here is in the file, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct, field

from lbadaptor.contract.address import Address, Identity
from lbadaptor.contract.settings import NOTHING, AppServers
from monitor.contract.messages import ProbeAnswer
from monitor.policy.states import PUBLISHED, LifeState

BY_SIGTERM = -15
"""The code of a process that SIGTERM has ended (signal(7))."""


class Reason(Enum):
    """Why an AppServer is to be replaced. The values are the words for people, and those of state.json."""

    LIMIT = "limit"
    """it is past a limit of its own"""
    ORDER = "order"
    """it was ordered to drain"""
    RELEASE = "release"
    """it runs the code of the release before"""
    END_SESSIONS = "now"
    """its sessions are not waited for"""


def why_leaving(life: Life) -> str:
    """Why one is to be replaced, with what is known besides; empty: for no reason of its own."""
    words = " and ".join(in_words(life.leaving))
    return f"{words} ({life.because})" if words and life.because else words


def in_words(reasons: Iterable[Reason]) -> list[str]:
    """Reasons as people read them, in the log and in the status."""
    return sorted(reason.value for reason in reasons)


class Supervision(Struct, omit_defaults=True):
    """What this monitor has seen of a life, and what it waits for.

    A monitor that adopts the life begins with an empty one: it judges by what it sees itself, and no time counts in
    which nobody looked.
    """

    busy: float = 0.0
    """the part of its threads that was busy at the last probes: 0 to 1"""
    sessions: int = 0
    """by its last answer; until there is one, by the address.text of the monitor before"""
    answer: ProbeAnswer | None = None
    """its last answer to a probe"""
    failed_probes: int = 0
    """in a row"""
    failure: str = ""
    """why it is FAILING"""
    cpu: float = 0.0
    """seconds for which its process had computed, when a probe failed"""
    computed_at: float = float("-inf")
    """when it was last seen computing; monotonic seconds"""
    hung_since: float | None = None
    """when it was found to be hung, and was ordered to stop"""
    deadline: float = float("inf")
    """when it is killed if it has not done what it should (be ready, exit)"""
    killed: str = ""
    """why SIGKILL was sent to it"""
    contradictions: int = 0
    """answers to probes in a row that contradict the last signal to drain or undrain"""
    start_error: str = ""
    """why it cannot start, as it says itself"""
    port_taken: bool = False
    """it cannot start because its port is in use"""
    replaced: bool = False
    """its replacement is OK, and it waits for others to start before it leaves: no new visitors meanwhile"""


class Life(Struct, kw_only=True):
    """An AppServer. Times are monotonic seconds, which go on until the next boot."""

    slot: int
    generation: int
    pid: int = 0
    """0: it is not forked yet"""
    started: int = 0
    """clock ticks between boot and its start: pid and this identify its process (proc_pid_stat(5))"""
    host: str
    port: int
    state: LifeState = field(default=LifeState.STARTING, name="life")
    """changed by `Slots.move` alone"""
    before_failing: LifeState = LifeState.OK
    leaving: set[Reason] = field(default_factory=set)
    """why it is to be replaced"""
    undrained: bool = False
    """it was undrained by order: others are drained first"""
    since: float
    """when it came into its state"""
    born: float
    """when it was decided to start it"""
    standby: bool = False
    """kept in reserve: new visitors only when no other takes them"""
    ready_at: float | None = None
    """when its ready message came; None: not yet"""
    draining_since: float | None = None
    """None: it is not being drained, or was adopted from a release that did not write this down"""
    own_folder: str = ""
    ticket_cookie: str = ""
    """the name under which it hands out its ticket; empty: unknown"""
    because: str = ""
    """more of why it is to be replaced: which limit, whose order; in words"""
    needs_more: bool = False
    """it had more than `hard_memory` as soon as it was ready: that is no limit for it"""
    supervision: Supervision = field(default_factory=Supervision)

    @property
    def identity(self) -> Identity:
        return Identity(self.slot, self.generation)

    @property
    def address(self) -> Address:
        return Address(self.host, self.port)

    @property
    def sessions(self) -> int:
        return self.supervision.sessions

    @property
    def published(self) -> bool:
        """Whether it stands in address.text."""
        return self.state in PUBLISHED

    @property
    def counts(self) -> bool:
        """Whether it is OK or on its way there."""
        return self.state in (LifeState.STARTING, LifeState.OK) or (
            self.state is LifeState.FAILING and self.before_failing is LifeState.OK
        )

    @property
    def draining(self) -> bool:
        return self.state is LifeState.DYING or (
            self.state is LifeState.FAILING and self.before_failing is LifeState.DYING
        )

    @property
    def saves(self) -> bool:
        """Whether its sessions survive it, as it says itself."""
        answer = self.supervision.answer
        return answer is not None and answer.kept is not None and answer.kept.mode not in ("", NOTHING)

    @property
    def can_wait(self) -> bool:
        """Whether it is to be replaced for a limit of its own and for nothing else."""
        return self.leaving == {Reason.LIMIT}

    def served(self, now: float) -> float | None:
        """For how many seconds it has served; None: it was never ready."""
        return None if self.ready_at is None else now - self.ready_at

    def lost(self, orderly: bool) -> int:
        """How many of its sessions end with its process, as far as is known. `orderly`: it has exited as ordered."""
        answer = self.supervision.answer
        if answer is None or answer.kept is None or not self.saves:
            return self.sessions
        if orderly:  # it has saved all that can be saved
            return min(self.sessions, sum(answer.kept.unsaved.values()))
        return max(0, self.sessions - answer.kept.saved)

    def end_words(self, how: str, code: int | None) -> str:
        """How its process ended, for people: with what ended it where that is known, or not the monitor.

        `how` is said of its process alone; `code` is its exit status, or minus the signal that ended it.
        """
        if self.supervision.killed:
            return f"{how} because {self.supervision.killed}"
        if self.state is LifeState.STOPPING or self.supervision.start_error:
            return how
        if code == BY_SIGTERM:
            return f"{how}, which the monitor had not sent"
        if code == 0 and self.ready_at is None:
            return "ended by itself with status 0 before it was ready (the application may have called os._exit)"
        if code == 0:
            return (
                "ended by itself with status 0, and not by order of the monitor (somebody may have sent it SIGTERM,"
                " or the application may have called os._exit)"
            )
        return how

    def end_reason(self, how: str, code: int | None) -> str:
        """Why it has ended: in its own words where it had any. `how`: what `end_words` said."""
        watched = self.supervision
        if watched.start_error or watched.killed or self.ready_at is not None or code in (0, BY_SIGTERM):
            return watched.start_error or how
        return f"{how} while it started, and did not say why; the log has what it printed"


def own_limits(servers: AppServers, generation: int) -> tuple[int, float]:
    """An AppServer's own `max_requests` and `max_age`, so that they do not all leave at once.

    Multiples of the golden ratio lie evenly between 0 and 1, however many there are (Knuth, TAOCP 6.4).
    """
    part = generation * 2654435769 % 2**32 / 2**32 * servers.spread / 100
    return servers.max_requests - int(servers.max_requests * part), servers.max_age * (1 - part)

"""Adopting the AppServers that outlived the monitor before: those that state.json records, and those it does not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from lbadaptor.contract.address import Entry, Identity, State
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys
from lbadaptor.log import logs, texts
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.arbiter.processes.child import Child
from monitor.arbiter.processes.discovery import discover
from monitor.arbiter.processes.unrecorded import UnrecordedAppServers
from monitor.contract.events import What
from monitor.contract.messages import Probed, Target, Unanswered
from monitor.policy.life import Life
from monitor.policy.problems import Problems
from monitor.policy.states import LifeState

log = logs.logger("lbmonitor")

_STATES = {state.value: state for state in State}


class Adoption:
    """AppServers that are adopted at once, those that could not be looked at yet, and those that are unrecorded.

    Nothing here blocks. A process that cannot be looked at for want of a descriptor or memory is not taken for dead:
    it stays in address.text and state.json as it is, and is tried again with every turn.
    """

    def __init__(
        self,
        recorded: Iterable[Life],
        published: Iterable[Entry],
        keys: Keys,
        settings: Settings,
        processes: AppServerProcesses,
        problems: Problems,
    ) -> None:
        self._keys = keys
        self._processes = processes
        self._problems = problems
        self._waiting: dict[Identity, tuple[Life, Entry | None]] = {}
        monitor = settings.monitor
        self._patience: float | None = 2 * monitor.fall * (monitor.probe_interval + monitor.probe_timeout)
        """seconds, from the first result of a probe on; None from then on"""
        unrecorded = {entry.identity: entry for entry in published}
        for life in recorded:
            if life.pid:
                self._waiting[life.identity] = life, unrecorded.pop(life.identity, None)
            else:
                # It was never forked, or its pid was not written: then it was not told what to serve, and has ended.
                processes.remove(life.own_folder)
        taken = {identity.slot for identity in (*self._waiting, *unrecorded)}
        found = discover(settings, keys, taken, ports=not taken)
        for entry in found:
            log.warning("slot %d is named by no file; its AppServer is asked which one it is", entry.identity.slot)
        self._unrecorded = UnrecordedAppServers(
            unrecorded.values(),
            keys,
            monitor.fall,
            problems,
            settings.unix_socket,
            found=found,
            run_folder=str(settings.run_folder.absolute()),
        )
        self._until = time.monotonic() + max(self._patience, monitor.start_timeout)
        """monotonic seconds when nothing is waited for any more; the watcher starts meanwhile"""
        self.try_again()

    def try_again(self) -> None:
        """Adopt those that are recorded and could not be adopted yet."""
        for identity, (life, entry) in list(self._waiting.items()):
            ticket = entry.ticket if entry else self._keys.ticket(identity)
            life.supervision.sessions = entry.sessions if entry else 0
            try:
                self._processes.take_over(life, Child.adopt(life.pid, life.started), ticket)
            except ProcessLookupError:
                log.info("slot %d has ended meanwhile", life.slot)
                self._problems.journal.note_life(
                    What.EXIT, life, "it ended while no monitor ran", life.lost(orderly=False)
                )
                self._processes.remove(life.own_folder)
            except OSError as error:
                self._problems.begin("adoption", f"an AppServer is not adopted yet: {texts.what(error)}; tried again")
                break
            del self._waiting[identity]
        if not self._waiting:
            self._problems.end("adoption", "every AppServer is adopted")
        self._processes.unadopted = tuple(life for life, _ in self._waiting.values())

    def log_unadopted(self) -> None:
        """Everything is ended: log which AppServers run on because they could not be adopted."""
        for identity in sorted(self.identities):
            log.warning(
                "slot %d is left behind because it does not answer; `lbctl stop --all` ends it", identity.slot
            )

    def undecided(self, now: float) -> bool:
        """Whether to wait before an AppServer is replaced, or leaves address.text."""
        return (bool(self._waiting) or self._unrecorded.undecided) and now < self._until

    @property
    def identities(self) -> set[Identity]:
        """The AppServers that are not adopted and may live."""
        return {*self._waiting, *self._unrecorded.entries}

    def entries(self) -> Iterator[Entry]:
        """What address.text goes on to say of them."""
        for life, entry in self._waiting.values():
            if entry is not None and life.published:
                yield entry
        yield from self._unrecorded.entries.values()

    def targets(self) -> list[Target]:
        """Which to probe."""
        return self._unrecorded.targets()

    def probed(self, message: Probed | Unanswered) -> bool:
        """The probe of an unrecorded AppServer shows whether to adopt it. False: the probe was of another one."""
        identity = Identity(message.slot, message.generation)
        entry = self._unrecorded.entries.get(identity)
        if entry is None:
            return False
        if self._patience is not None:  # the watcher has started, however long that took
            self._until = time.monotonic() + self._patience
            self._patience = None
        if isinstance(message, Unanswered):
            self._unrecorded.unanswered(message)
        elif (child := self._unrecorded.answered(message)) is not None:
            try:
                self._processes.take_over(_life(entry, child, message), child, entry.ticket)
            except OSError:
                self._unrecorded.take_back(entry)
                raise
        return True


def _life(entry: Entry, child: Child, probed: Probed) -> Life:
    """The life of an unrecorded AppServer, as far as address.text and its answer to a probe tell."""
    now = time.monotonic()
    began = now - probed.answer.uptime
    dying = State.DYING in (entry.state, _STATES.get(probed.answer.status))
    life = Life(
        slot=probed.slot,
        generation=probed.generation,
        pid=child.pid,
        started=child.started,
        host=entry.address.host,
        port=entry.address.port,
        state=LifeState.DYING if dying else LifeState.OK,
        standby=entry.weight == 0,  # or it has no weight by the settings; the plan keeps no more than wanted
        since=now,
        born=began,
        ready_at=began,
    )
    life.supervision.sessions = probed.answer.sessions
    return life

"""Adopting the AppServers that outlived the monitor before: those that state.json knows, and those it does not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from lbadaptor.contract.address import Entry, Identity, State
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import Keys
from lbadaptor.log import logs, texts
from monitor.arbiter.files.state_json import Known
from monitor.arbiter.processes.appservers import AppServers
from monitor.arbiter.processes.child import Child
from monitor.arbiter.processes.discovery import discover
from monitor.arbiter.processes.unrecorded import UnrecordedAppServers
from monitor.contract.messages import Probed, Target, Unanswered
from monitor.policy.problems import Problems
from monitor.policy.record import Record
from monitor.policy.states import PUBLISHED, Life

log = logs.logger("lbmonitor")

_STATES = {state.value: state for state in State}


class Adoption:
    """Those that are adopted at once, those that could not be looked at yet, and those that are unrecorded.

    Nothing here blocks.

    A process that cannot be looked at for want of a descriptor or memory is not taken for dead: it stays in
    address.text and state.json as it is, and is tried again with every turn.
    """

    def __init__(
        self,
        known: Iterable[Known],
        published: Iterable[Entry],
        keys: Keys,
        settings: Settings,
        appservers: AppServers,
        problems: Problems,
    ) -> None:
        self._keys = keys
        self._appservers = appservers
        self._problems = problems
        self._waiting: dict[Identity, tuple[Known, Entry | None]] = {}
        monitor = settings.monitor
        patience = 2 * monitor.fall * (monitor.probe_interval + monitor.probe_timeout)
        self._until = time.monotonic() + patience
        left = {entry.identity: entry for entry in published}
        for one in known:
            if one.pid:
                self._waiting[one.identity] = one, left.pop(one.identity, None)
            else:
                # Never forked, or forked and not written down: then it had no handover, and has ended.
                appservers.remove(one.own_folder)
        taken = {identity.slot for identity in (*self._waiting, *left)}
        lost = discover(settings, keys, taken, ports=not taken)
        for entry in lost:
            log.warning("slot %d is named by no file, and is asked who it is", entry.identity.slot)
        self._unrecorded = UnrecordedAppServers(
            left.values(),
            keys,
            monitor.fall,
            self._until,
            problems,
            settings.unix_socket,
            found=lost,
            run_folder=str(settings.run_folder.absolute()),
        )
        self.go_on()

    def go_on(self) -> None:
        """Adopt whom it can be."""
        for identity, (one, entry) in list(self._waiting.items()):
            ticket = entry.ticket if entry else self._keys.ticket(identity)
            try:
                child = Child.adopt(one.pid, one.started)
                record = one.record
                record.sessions = entry.sessions if entry else 0
                self._appservers.take_over(record, child, one.address, ticket, one.own_folder, one.ticket_cookie)
            except ProcessLookupError:
                log.info("slot %d has ended meanwhile", one.slot)
                self._appservers.remove(one.own_folder)
            except OSError as error:
                self._problems.begin("adoption", f"an AppServer is not adopted yet: {texts.what(error)}; tried again")
                break
            del self._waiting[identity]
        if not self._waiting:
            self._problems.end("adoption", "every AppServer is adopted")
        self._appservers.unadopted = tuple(one for one, _ in self._waiting.values())

    def take_leave(self) -> None:
        """Everything is ended. Say who is left, for it could not be adopted."""
        for identity in sorted(self.identities):
            log.warning("slot %d is left behind, for it does not answer; `lbctl stop --all` ends it", identity.slot)

    def undecided(self, now: float) -> bool:
        """Whether to wait before anybody is replaced, or leaves address.text."""
        return (bool(self._waiting) and now < self._until) or self._unrecorded.undecided(now)

    @property
    def identities(self) -> set[Identity]:
        """Who is not adopted and may live."""
        return {*self._waiting, *self._unrecorded.entries}

    def entries(self) -> Iterator[Entry]:
        """What address.text goes on to say of them."""
        for one, entry in self._waiting.values():
            if entry is not None and Life(one.life) in PUBLISHED:
                yield entry
        yield from self._unrecorded.entries.values()

    def targets(self) -> list[Target]:
        """Whom to probe."""
        return self._unrecorded.targets()

    def hear(self, message: Probed | Unanswered) -> bool:
        """A probe of an unrecorded one tells whether to adopt it. False: it was about another AppServer."""
        identity = Identity(message.slot, message.generation)
        entry = self._unrecorded.entries.get(identity)
        if entry is None:
            return False
        if isinstance(message, Unanswered):
            self._unrecorded.unanswered(message)
        elif (child := self._unrecorded.answered(message)) is not None:
            now = time.monotonic()
            began = now - message.vitals.uptime
            dying = State.DYING in (entry.state, _STATES.get(message.vitals.status))
            life = Life.DYING if dying else Life.OK
            standby = entry.weight == 0  # or it has none by the settings; the plan keeps no more than wanted
            record = Record(*identity, since=now, born=began, life=life, standby=standby, ready_at=began)
            record.sessions = message.vitals.sessions
            try:
                self._appservers.take_over(record, child, entry.address, entry.ticket)
            except OSError:
                self._unrecorded.take_back(entry)
                raise
        return True

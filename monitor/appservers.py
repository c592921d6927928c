"""The AppServers' processes: started or taken over, heard, told, and written down for the next monitor.

What they report goes to the plan; what the plan decides comes from there as deeds.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from lbadaptor.address import Address, Identity
from lbadaptor.appserver import handover
from lbadaptor.errors import KeyFileError
from lbadaptor.ticket import Keys
from monitor.child import FLAGS, Child, Reaper
from monitor.plan import Plan
from monitor.record import Deed, Order, Record, Start, own_limits
from monitor.state import Known, StateFile

log = logging.getLogger("lbmonitor")

_SIGNALS = {
    Order.DRAIN: handover.DRAIN,
    Order.UNDRAIN: handover.UNDRAIN,
    Order.STOP: handover.STOP,
}


@dataclass(frozen=True)
class AppServer:
    """What one goes by for as long as it lives, whatever the settings become."""

    child: Child
    address: Address
    ticket: str
    probe_key: str
    adopted: bool = False


class AppServers:
    """All that live. Nothing here blocks."""

    def __init__(
        self,
        plan: Plan,
        keys: Keys,
        state: StateFile,
        environment: Mapping[str, str],
        selector: selectors.BaseSelector,
        reaper: Reaper,
    ) -> None:
        self._plan = plan
        self._keys = keys
        self._state = state
        self._environment = dict(environment)
        self._selector = selector
        self._reaper = reaper
        self._living: dict[Identity, AppServer] = {}

    def find(self, identity: Identity) -> AppServer | None:
        """None when its process is over, or was never forked."""
        return self._living.get(identity)

    def address(self, slot: int) -> Address:
        """Where an AppServer that is started now listens."""
        servers = self._plan.settings.appservers
        return Address(servers.host, servers.base_port + slot)

    def do(self, deed: Deed) -> None:
        """What the plan decided."""
        if isinstance(deed, Start):
            self._start(deed.identity)
        elif (appserver := self.find(deed.identity)) is not None:
            if deed.order is Order.KILL:
                appserver.child.kill_group()
            else:
                appserver.child.signal(_SIGNALS[deed.order])

    def take_over(self, record: Record, child: Child, address: Address, ticket: str) -> None:
        """One that was not forked here is ours from now on."""
        try:
            probe_key = self._keys.probe_key(ticket)
        except KeyFileError as error:
            log.error("slot %d is ended, for no adaptor can reach it: %s", record.slot, error)
            child.signal(handover.STOP)
            return
        self._follow(record.identity, AppServer(child, address, ticket, probe_key, True))
        self._plan.adopt(record, time.monotonic())

    def write_down(self, intent: Known | None = None) -> None:
        """Tell the next monitor who there is. `intent`: one that is about to be forked."""
        known = [
            Known.of(record, appserver.child.pid, appserver.child.started, appserver.address)
            for record in self._plan
            if (appserver := self.find(record.identity)) is not None
        ]
        self._state.write([*known, *([intent] if intent else [])], self._plan.last_generation)

    def _start(self, identity: Identity) -> None:
        address = self.address(identity.slot)
        ticket = self._keys.ticket(identity)
        message = self._handover(identity, ticket)
        self.write_down(Known.of(Record(*identity, since=0.0, born=0.0), 0, 0, address))
        command = [sys.executable, *FLAGS, "-m", "lbadaptor.appserver", "--slot", str(identity.slot)]
        command += ["--address", str(address), "--channel", "{channel}"]
        try:
            child = Child.start(command, self._environment)
        except OSError as error:
            self._plan.failed(identity, f"cannot fork: {error.strerror}", port=False)
            self._plan.exited(identity, f"could not be forked: {error.strerror}", time.monotonic())
            return
        self._follow(identity, AppServer(child, address, ticket, message.probe_key))
        self.write_down()
        child.send(handover.encode(message))
        log.info("slot %d starts: pid %d, %s", identity.slot, child.pid, address)

    def _handover(self, identity: Identity, ticket: str) -> handover.Handover:
        settings = self._plan.settings
        servers, application = settings.appservers, settings.application
        max_requests, max_age = own_limits(servers, identity.generation)
        return handover.Handover(
            app=application.app,
            session_cookie=application.session_cookie,
            session_idle=application.session_idle,
            session_count=application.session_count,
            affinity=application.affinity,
            own_folder=str(settings.own_folder or ""),
            ticket_cookie=application.ticket_cookie,
            threads=servers.threads,
            queue=servers.queue,
            max_requests=max_requests,
            max_age=max_age,
            max_memory=servers.max_memory,
            warm_up=servers.warm_up,
            stop_grace=settings.monitor.stop_grace,
            generation=identity.generation,
            ticket=ticket,
            caller_key=self._keys.caller_key(ticket),
            probe_key=self._keys.probe_key(ticket),
        )

    def _follow(self, identity: Identity, appserver: AppServer) -> None:
        """Hear of its exit, and what it reports."""
        self._living[identity] = appserver
        self._selector.register(appserver.child.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(identity))
        self._selector.register(appserver.child.channel, selectors.EVENT_READ, lambda: self._hear(identity))

    def _hear(self, identity: Identity) -> None:
        """It reports."""
        appserver = self.find(identity)
        if appserver is None:
            return  # its exit was heard in the same turn
        lines = appserver.child.receive()
        if lines is None:
            self._selector.unregister(appserver.child.channel)
            return
        now = time.monotonic()
        for line in lines:
            try:
                report = handover.decode_report(line)
            except msgspec.DecodeError as error:
                log.error("slot %d reports nonsense: %s", identity.slot, error)
                continue
            if isinstance(report, handover.Ready):
                self._plan.ready(identity, now)
            elif isinstance(report, handover.Failed):
                self._plan.failed(identity, report.why, report.port)
            elif isinstance(report, handover.PastLimit):
                self._plan.past_limit(identity, report.limit)
            else:
                self._plan.empty(identity, now)

    def _hear_exit(self, identity: Identity) -> None:
        """It is over."""
        child = self._living[identity].child
        if child.channel in self._selector.get_map():
            self._hear(identity)  # what it said before it went
        self._selector.unregister(child.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        child.kill_group()  # whatever it started ends with it
        how = child.reap()
        if how is None:
            self._reaper.take(child)
        del self._living[identity]
        self._plan.exited(identity, how or "ended", time.monotonic())

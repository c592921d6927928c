"""The AppServers' processes: started or taken over, heard, told, and written down for the next monitor.

What they report goes to the plan; what the plan decides comes from there as deeds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from lbadaptor.appserver.process import messages
from lbadaptor.contract.address import Address, Identity
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.ticket import Keys
from lbadaptor.log import logs, texts
from monitor.arbiter.files.state_json import Known, StateFile
from monitor.arbiter.processes.child import FLAGS, Child, Reaper
from monitor.arbiter.processes.process_environment import (
    ProcessEnvironment,
    User,
    common,
    lock_own_folders,
    make_own_folder,
    make_room_for_socket,
    of_slot,
    old_own_folders,
    removal,
)
from monitor.arbiter.processes.start_errors import StartErrors
from monitor.arbiter.processes.template import Template
from monitor.contract.processes import RUN_FOLDER, resident
from monitor.policy.plan import MARGIN, Plan
from monitor.policy.problems import Problems
from monitor.policy.record import Deed, Order, Record, Start, own_limits
from monitor.policy.states import Life

log = logs.logger("lbmonitor")

_COMMAND = (sys.executable, *FLAGS, "-m", "lbadaptor.appserver")

_SIGNALS = {
    Order.DRAIN: messages.DRAIN,
    Order.UNDRAIN: messages.UNDRAIN,
    Order.STOP: messages.STOP,
}


@dataclass(frozen=True)
class AppServer:
    """What one goes by for as long as it lives, whatever the settings become."""

    child: Child
    address: Address
    ticket: str
    probe_key: str
    own_folder: str = ""
    ticket_cookie: str = ""
    """empty: unknown"""
    adopted: bool = False


@dataclass(frozen=True)
class _Birth:
    """What one that was decided on is to be."""

    address: Address
    message: messages.Handover
    own_folder: str
    variables: Mapping[str, str]
    working_folder: str


class AppServers:
    """All that live. Nothing here blocks."""

    def __init__(
        self,
        plan: Plan,
        keys: Keys,
        state: StateFile,
        environment: Mapping[str, str],
        user: User | None,
        apache_group: int | None,
        selector: selectors.BaseSelector,
        reaper: Reaper,
        problems: Problems | None = None,
    ) -> None:
        self._plan = plan
        self._keys = keys
        self._state = state
        self._environment = dict(environment)
        self._user = user
        self._apache_group = apache_group
        self._selector = selector
        self._reaper = reaper
        self._living: dict[Identity, AppServer] = {}
        self._births: dict[Identity, _Birth] = {}
        self._start_errors = StartErrors()
        self._problems = Problems() if problems is None else problems
        self._template = Template(self, selector, reaper, self._problems)
        self._to_remove: deque[str] = deque()
        """folders of those that have ended"""
        self._own_folders = -1
        """open as long as this monitor uses the folder of own folders"""
        self._groups: list[Child] = []
        """those whose groups are to be ended, and could not be yet"""
        self.unadopted: tuple[Known, ...] = ()
        """who is not adopted yet: they stay in state.json as they are"""

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
            self._begin(deed.identity)
        elif (appserver := self.find(deed.identity)) is not None:
            if deed.order is Order.KILL:
                appserver.child.signal(signal.SIGKILL)
                self._end_group(appserver.child)
            else:
                appserver.child.signal(_SIGNALS[deed.order])
        elif deed.identity in self._births:
            if deed.order is Order.KILL:
                self._template.give_up("was not ready to fork in time")
            else:
                self._template.cancel(deed.identity)
                self.not_forked(deed.identity, "it is not wanted any more")

    def renew(self, user: User | None) -> None:
        """A release: whoever is started from now on has the new settings, and comes from a new template."""
        self._start_errors.forget()
        self._user = user
        self._template.renew()

    def tend(self, now: float) -> None:
        """Have a template where one is wanted, and do what could not be done before."""
        self._template.tend(now, wanted=self._preload and not self._plan.stopping)
        self._remove_folders()
        self._keep_socket_folder()
        self._groups = [child for child in self._groups if not child.kill_group()]
        for record in list(self._plan):
            identity = record.identity
            if record.life is not Life.BACKOFF and identity not in self._living and identity not in self._births:
                self._plan.exited(identity, "was not started", now)  # a shortage came between

    def drop_template(self) -> None:
        """This program ends, or becomes another."""
        self._template.drop("ends")

    @property
    def template_pid(self) -> int | None:
        return self._template.pid

    @property
    def _preload(self) -> bool:
        return self._plan.settings.appservers.preload and not self._template.unfit

    @property
    def ticket_cookies(self) -> set[str]:
        """The names under which tickets are handed out; "" among them: one is unknown."""
        names = {appserver.ticket_cookie for appserver in self._living.values()}
        return names | {birth.message.ticket_cookie for birth in self._births.values()}

    def take_over(
        self,
        record: Record,
        child: Child,
        address: Address,
        ticket: str,
        own_folder: str = "",
        ticket_cookie: str = "",
    ) -> None:
        """One that was not forked here is ours from now on. Raises OSError: it cannot be followed now."""
        try:
            probe_key = self._keys.probe_key(ticket)
        except KeyFileError as error:
            log.error("slot %d is ended, for no adaptor can reach it: %s", record.slot, error)
            child.signal(messages.STOP)
            patience = self._plan.settings.monitor.stop_grace + MARGIN
            self._reaper.take(child, patience, lambda: self.remove(own_folder))
            return
        appserver = AppServer(child, address, ticket, probe_key, own_folder, ticket_cookie, adopted=True)
        try:
            self._follow(record.identity, appserver)
        except OSError:
            child.release()
            raise
        self._plan.adopt(record, time.monotonic())

    def write_down(self) -> None:
        """Tell the next monitor who there is, and who is about to be forked."""
        known = list(self.unadopted)
        for record in self._plan:
            if (appserver := self.find(record.identity)) is not None:
                child = appserver.child
                place = appserver.address, appserver.own_folder, appserver.ticket_cookie
                known.append(Known.of(record, child.pid, child.started, *place))
            elif (birth := self._births.get(record.identity)) is not None:
                place = birth.address, birth.own_folder, birth.message.ticket_cookie
                known.append(Known.of(record, 0, 0, *place))
        self._state.write(known, self._plan.last_generation)

    def remove(self, own_folder: str) -> None:
        """Remove the folder of one that has ended, in a process of its own: that may take a while."""
        if own_folder:
            self._to_remove.append(own_folder)
            self._remove_folders()

    def remove_old_folders(self, living: Collection[Identity]) -> None:
        """Remove the folders of AppServers that are neither ours nor among the `living`."""
        try:
            self._own_folders, alone = lock_own_folders(self._plan.settings)
            for folder in old_own_folders(self._plan.settings, [*self._living, *living]) if alone else ():
                log.info("%s is of an AppServer that is gone, and is removed", folder)
                self._to_remove.append(folder)
        except OSError as error:
            log.warning("old folders of AppServers are not removed: %s", texts.of_os_error(error))
        self._remove_folders()

    def _keep_socket_folder(self) -> None:
        """Make it again where it was deleted, for those that are started from now on."""
        settings = self._plan.settings
        try:
            if not os.path.isdir(settings.socket_folder):
                make_room_for_socket(settings, 0, self._user, self._apache_group)
        except OSError as error:
            self._problems.begin("sockets", f"{texts.of_os_error(error)}: requests come by the ports; tried again")
        else:
            self._problems.end("sockets", f"{settings.socket_folder} is there again")

    def _remove_folders(self) -> None:
        while self._to_remove:
            folder = self._to_remove[0]
            try:
                self._reaper.take(Child.start(removal(folder)))
            except OSError as error:
                self._problems.begin("removal", f"{folder} is left behind: {texts.what(error)}; tried again")
                return
            self._to_remove.popleft()
        self._problems.end("removal", "what was left behind is removed")

    def _begin(self, identity: Identity) -> None:
        settings = self._plan.settings
        message = self._handover(identity, self._keys.ticket(identity))
        why, own_folder = "", ""
        try:
            make_room_for_socket(settings, identity.slot, self._user, self._apache_group)
        except OSError as error:
            log.warning(
                "slot %d gets no Unix socket: %s; requests come by TCP", identity.slot, texts.of_os_error(error)
            )
        try:
            own_folder = make_own_folder(settings, identity, self._user)
        except OSError as error:
            why = f"it gets no folder of its own: {texts.of_os_error(error)}"
        mine = of_slot(settings, identity.slot, own_folder)
        self._births[identity] = _Birth(self.address(identity.slot), message, own_folder, *mine)
        if why:
            self.not_forked(identity, why)
            return
        self.write_down()
        self.start(identity)

    # What the template wants to know, and tells.

    def log_trace(self, who: str, trace: Sequence[str]) -> None:
        """The traceback of a start that failed, unless an equal one was said already."""
        self._start_errors.log(who, trace)

    def start(self, identity: Identity) -> None:
        """Have it forked, by the template or here."""
        if self._preload:
            self._template.fork(identity)
            return
        birth, common = self._births[identity], self._common
        command = [*_COMMAND, "--slot", str(identity.slot), "--address", str(birth.address), "--channel", "{channel}"]
        environment = {**(common.environment or {}), **birth.variables}
        try:
            child = Child.start(
                command, replace(common, environment=environment, folder=birth.working_folder or common.folder)
            )
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            self.not_forked(identity, f"cannot fork: {texts.what(error)}{place}")
        else:
            self.forked(identity, child)

    def start_template(self) -> Child:
        """Fork it, and tell it what to import. Raises OSError."""
        application = self._plan.settings.application
        child = Child.start([*_COMMAND, "--preload", "--channel", "{channel}"], self._common)
        most = self._plan.settings.monitor.start_timeout
        wish = messages.Preload(application.app, application.session_count, most, time.monotonic() + most)
        child.send(messages.encode(wish))
        return child

    def request(self, identity: Identity) -> messages.Fork:
        """What the template is to fork."""
        birth = self._births[identity]
        return messages.Fork(identity.slot, str(birth.address), dict(birth.variables), birth.working_folder)

    def forked(self, identity: Identity, child: Child) -> None:
        """It was forked, and waits for its handover."""
        birth = self._births[identity]
        message = birth.message
        ticket, probe_key = message.ticket, message.probe_key
        own_folder, cookie = birth.own_folder, message.ticket_cookie
        try:
            self._follow(identity, AppServer(child, birth.address, ticket, probe_key, own_folder, cookie))
        except OSError as error:
            child.kill_group()
            self._reaper.take(child)
            self.not_forked(identity, f"cannot be followed: {texts.what(error)}")
            return
        del self._births[identity]
        self.write_down()
        child.send(messages.encode(message))
        log.info("slot %d starts: pid %d, %s", identity.slot, child.pid, birth.address)

    def not_forked(self, identity: Identity, why: str) -> None:
        """It could not be forked, or is not wanted any more."""
        self.remove(self._births.pop(identity).own_folder)
        self._plan.failed(identity, why, port=False)
        self._plan.exited(identity, "was not forked", time.monotonic())

    @property
    def _common(self) -> ProcessEnvironment:
        settings = self._plan.settings
        given = common(settings, self._user, self._environment)
        mark = {RUN_FOLDER: str(settings.run_folder.absolute())}
        return replace(given, environment={**(given.environment or {}), **mark})

    def _handover(self, identity: Identity, ticket: str) -> messages.Handover:
        settings = self._plan.settings
        servers, application = settings.appservers, settings.application
        max_requests, max_age = own_limits(servers, identity.generation)
        return messages.Handover(
            app=application.app,
            session_cookie=application.session_cookie,
            session_idle=application.session_idle,
            session_count=application.session_count,
            affinity=application.affinity,
            ticket_cookie=application.ticket_cookie,
            threads=servers.threads,
            queue=servers.queue,
            max_requests=max_requests,
            max_age=max_age,
            max_memory=servers.max_memory,
            warm_up=servers.warm_up,
            start_timeout=settings.monitor.start_timeout,
            ready_by=time.monotonic() + settings.monitor.start_timeout,
            stop_grace=settings.monitor.stop_grace,
            generation=identity.generation,
            ticket=ticket,
            caller_key=self._keys.caller_key(ticket),
            probe_key=self._keys.probe_key(ticket),
            unix_socket=settings.unix_socket(identity.slot),
        )

    def _follow(self, identity: Identity, appserver: AppServer) -> None:
        """Hear of its exit, and what it reports. Raises OSError; then it is not followed."""
        register = self._selector.register
        register(appserver.child.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(identity))
        try:
            register(appserver.child.channel, selectors.EVENT_READ, lambda: self._hear(identity))
        except BaseException:
            self._selector.unregister(appserver.child.pidfd)
            raise
        self._living[identity] = appserver

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
                report = messages.decode_report(line)
            except msgspec.DecodeError as error:
                log.error("slot %d reports nonsense: %s", identity.slot, error)
                continue
            if isinstance(report, messages.Ready):
                self._plan.ready(identity, now, resident(appserver.child.pid))
            elif isinstance(report, messages.Failed):
                self._plan.failed(identity, texts.clean(report.why, texts.REASON), report.port)
                self.log_trace(f"slot {identity.slot}", report.trace)
            elif isinstance(report, messages.PastLimit):
                self._plan.past_limit(identity, report.limit)
            else:
                self._plan.empty(identity, now)

    def _end_group(self, child: Child) -> None:
        """SIGKILL for it and all that it started; `tend` tries again where that cannot be done now."""
        if not child.kill_group():
            self._groups.append(child)

    def _hear_exit(self, identity: Identity) -> None:
        """It is over."""
        appserver = self.find(identity)
        if appserver is None:
            return
        child = appserver.child
        if child.channel in self._selector.get_map():
            self._hear(identity)  # what it said before it went
        self._selector.unregister(child.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        self._end_group(child)  # whatever it started ends with it
        how = child.reap()
        if how is None:
            self._reaper.take(child)
        del self._living[identity]
        self.remove(appserver.own_folder)
        self._plan.exited(identity, how or "ended", time.monotonic())

"""The AppServers' processes: started or adopted, sent signals, and written to state.json for the next monitor.

What they report goes to the plan; what the plan decides comes from there as actions.
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
from monitor.arbiter.files.captured_files import CapturedFiles
from monitor.arbiter.files.state_json import StateFile
from monitor.arbiter.processes.assignment import assignment, preload
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
from monitor.contract.captured import CapturedName
from monitor.contract.messages import Target
from monitor.contract.patience import exit_limit
from monitor.contract.processes import RUN_FOLDER, resident
from monitor.policy.actions import Action, Signal, Start
from monitor.policy.life import Life
from monitor.policy.pool import Pool
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

_COMMAND = (sys.executable, *FLAGS, "-m", "lbadaptor.appserver")

_SIGNALS = {
    Signal.DRAIN: messages.DRAIN,
    Signal.UNDRAIN: messages.UNDRAIN,
    Signal.STOP: messages.STOP,
}


@dataclass(frozen=True)
class AppServerProcess:
    """A running process, its life, and its own secrets, whatever the settings become."""

    child: Child
    life: Life
    ticket: str
    target: Target
    """how to probe it"""
    adopted: bool = False

    @property
    def address(self) -> Address:
        return self.life.address


@dataclass(frozen=True)
class _Fork:
    """An AppServer that is about to be forked."""

    life: Life
    message: messages.Assignment
    variables: Mapping[str, str]
    working_folder: str


class AppServerProcesses:
    """All AppServers that run. Nothing here blocks."""

    def __init__(
        self,
        pool: Pool,
        keys: Keys,
        state: StateFile,
        environment: Mapping[str, str],
        user: User | None,
        apache_group: int | None,
        selector: selectors.BaseSelector,
        reaper: Reaper,
        problems: Problems | None = None,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._state = state
        self._environment = dict(environment)
        self._user = user
        self._apache_group = apache_group
        self._selector = selector
        self._reaper = reaper
        self._running: dict[Identity, AppServerProcess] = {}
        self._forks: dict[Identity, _Fork] = {}
        self._start_errors = StartErrors()
        self._problems = Problems() if problems is None else problems
        self._captured_files = CapturedFiles(pool.settings.captured_folder, self._problems)
        self._template = Template(self, selector, reaper, self._problems)
        self._to_remove: deque[str] = deque()
        """folders of those that have ended"""
        self._own_folders = -1
        """open as long as this monitor uses the folder of own folders"""
        self._groups: list[Child] = []
        """children whose process groups are to be killed, and could not be yet"""
        self.unadopted: tuple[Life, ...] = ()
        """those that are not adopted yet: they stay in state.json as they are"""

    def find(self, identity: Identity) -> AppServerProcess | None:
        """None when its process is over, or was never forked."""
        return self._running.get(identity)

    def address(self, slot: int) -> Address:
        """Where an AppServer that is started now listens."""
        servers = self._pool.settings.appservers
        return Address(servers.host, servers.base_port + slot)

    def do(self, action: Action) -> None:
        """What the plan decided."""
        if isinstance(action, Start):
            self._begin(action.identity)
        elif (process := self.find(action.identity)) is not None:
            if action.signal is Signal.KILL:
                process.child.signal(signal.SIGKILL)
                self._kill_group(process.child)
            else:
                process.child.signal(_SIGNALS[action.signal])
        elif action.identity in self._forks:
            if action.signal is Signal.KILL:
                self._template.give_up("was not ready to fork in time")
                if action.identity in self._forks:  # the template was never asked: memory was short
                    self.not_forked(action.identity, "it could not be forked in time")
            else:
                self._template.cancel(action.identity)
                self.not_forked(action.identity, "it is not wanted any more")

    def renew(self, user: User | None) -> None:
        """A release: AppServers that are started from now on have the new settings, and come from a new template."""
        self._start_errors.forget()
        self._user = user
        self._template.renew()

    def maintain(self, now: float) -> None:
        """Have a template where one is wanted, and do what could not be done before."""
        self._template.keep_running(now, wanted=self._preload and not self._pool.stopping)
        self._remove_folders()
        self._keep_socket_folder()
        self._captured_files.keep_folder()
        self._groups = [child for child in self._groups if not child.kill_group()]
        for life in self._pool.lives:
            if life.identity not in self._running and life.identity not in self._forks:
                self._pool.exited(life.identity, "was not started", now)  # this process ran short of something

    def drop_template(self) -> None:
        """This program ends, or becomes another."""
        self._template.drop("ends")

    @property
    def template_pid(self) -> int | None:
        return self._template.pid

    @property
    def _preload(self) -> bool:
        return self._pool.settings.appservers.preload and not self._template.unfit

    @property
    def ticket_cookies(self) -> set[str]:
        """The names under which tickets are handed out; "" among them: one is unknown."""
        lives = [process.life for process in self._running.values()] + [fork.life for fork in self._forks.values()]
        return {life.ticket_cookie for life in lives}

    def take_over(self, life: Life, child: Child, ticket: str) -> None:
        """An AppServer that was not forked here is ours from now on. Raises OSError: it cannot be followed now."""
        try:
            probe_key = self._keys.probe_key(ticket)
        except KeyFileError as error:
            log.error("slot %d is ended because no adaptor can reach it: %s", life.slot, error)
            child.signal(messages.STOP)
            settings = self._pool.settings
            patience = exit_limit(settings.monitor.stop_grace, settings.sessions_survive)
            self._reaper.take(child, patience, lambda: self.remove(life.own_folder))
            return
        try:
            self._follow(AppServerProcess(child, life, ticket, self._target(life, probe_key), adopted=True))
        except OSError:
            child.release()
            raise
        self._pool.adopt(life, time.monotonic())

    def write_state(self) -> None:
        """Tell the next monitor which AppServers there are, and which are about to be forked."""
        self._state.write([*self.unadopted, *self._pool.lives], self._pool.starts.last_generation)

    def remove(self, own_folder: str) -> None:
        """Remove the folder of one that has ended, in a process of its own: that may take a while."""
        if own_folder:
            self._to_remove.append(own_folder)
            self._remove_folders()

    def remove_old_folders(self, living: Collection[Identity]) -> None:
        """Remove the folders of AppServers that are neither ours nor among the `living`."""
        try:
            self._own_folders, alone = lock_own_folders(self._pool.settings)
            for folder in old_own_folders(self._pool.settings, [*self._running, *living]) if alone else ():
                log.info("%s is of an AppServer that is gone, and is removed", folder)
                self._to_remove.append(folder)
        except OSError as error:
            log.warning("old folders of AppServers are not removed: %s", texts.of_os_error(error))
        self._remove_folders()

    def _keep_socket_folder(self) -> None:
        """Make it again where it was deleted, for those that are started from now on."""
        settings = self._pool.settings
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
        life = self._pool.find(identity)
        if life is None:
            return
        settings = self._pool.settings
        message = assignment(settings, identity, self._keys, time.monotonic())
        why = ""
        try:
            make_room_for_socket(settings, identity.slot, self._user, self._apache_group)
        except OSError as error:
            log.warning(
                "slot %d gets no Unix socket: %s; requests come by TCP", identity.slot, texts.of_os_error(error)
            )
        try:
            life.own_folder = make_own_folder(settings, identity, self._user)
        except OSError as error:
            why = f"it gets no folder of its own: {texts.of_os_error(error)}"
        life.ticket_cookie = message.ticket_cookie
        self._forks[identity] = _Fork(life, message, *of_slot(settings, identity.slot, life.own_folder))
        if why:
            self.not_forked(identity, why)
            return
        self.write_state()
        self.start(identity)

    # What the template wants to know, and tells.

    def log_trace(self, name: str, trace: Sequence[str]) -> None:
        """Log the traceback of a start that failed, unless an equal one was logged already."""
        self._start_errors.log(name, trace)

    def start(self, identity: Identity) -> None:
        """Have it forked, by the template or here."""
        if self._preload:
            self._template.fork(identity)
            return
        fork, common = self._forks[identity], self._common
        options = ["--slot", str(identity.slot), "--address", str(fork.life.address)]
        environment = {**(common.environment or {}), **fork.variables}
        folder = fork.working_folder or common.folder
        try:
            child = self._start(
                options, replace(common, environment=environment, folder=folder), self.open_captured(identity)
            )
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            self.not_forked(identity, f"cannot fork: {texts.what(error)}{place}")
        else:
            self.forked(identity, child)

    def start_template(self) -> Child:
        """Fork it, and tell it what to import. Raises OSError."""
        file = self._captured_files.open(CapturedName(time.time_ns() // 1_000_000))
        child = self._start(["--preload"], self._common, file)
        wish = preload(self._pool.settings, time.monotonic())
        child.send(messages.encode(wish))
        return child

    def _start(self, options: Sequence[str], environment: ProcessEnvironment, captured: int | None) -> Child:
        """`captured`: the file that gets what it says, which is closed here. Raises OSError."""
        command = [*_COMMAND, *options, "--channel", "{channel}", *([] if captured is None else ["--captured"])]
        try:
            return Child.start(command, environment, captured=captured)
        finally:
            if captured is not None:
                os.close(captured)

    def open_captured(self, identity: Identity) -> int | None:
        """Open the file that gets what an AppServer says; None: it goes to the monitor's standard error."""
        return self._captured_files.open(CapturedName(identity.generation, identity.slot))

    def request(self, identity: Identity) -> messages.Fork:
        """What the template is to fork."""
        fork = self._forks[identity]
        return messages.Fork(identity.slot, str(fork.life.address), dict(fork.variables), fork.working_folder)

    def forked(self, identity: Identity, child: Child) -> None:
        """It was forked, and waits to be told what to serve."""
        fork = self._forks[identity]
        life, message = fork.life, fork.message
        life.pid, life.started = child.pid, child.started
        try:
            self._follow(AppServerProcess(child, life, message.ticket, self._target(life, message.probe_key)))
        except OSError as error:
            child.kill_group()
            self._reaper.take(child)
            self.not_forked(identity, f"cannot be followed: {texts.what(error)}")
            return
        del self._forks[identity]
        self.write_state()
        child.send(messages.encode(message))
        log.info("slot %d starts: pid %d, %s, generation %d", identity.slot, child.pid, life.address, life.generation)

    def not_forked(self, identity: Identity, why: str) -> None:
        """It could not be forked, or is not wanted any more."""
        self.remove(self._forks.pop(identity).life.own_folder)
        self._pool.failed(identity, why, port=False)
        self._pool.exited(identity, "was not forked", time.monotonic())

    @property
    def _common(self) -> ProcessEnvironment:
        settings = self._pool.settings
        given = common(settings, self._user, self._environment)
        mark = {RUN_FOLDER: str(settings.run_folder.absolute())}
        return replace(given, environment={**(given.environment or {}), **mark})

    def _target(self, life: Life, probe_key: str) -> Target:
        unix_socket = self._pool.settings.unix_socket(life.slot)
        return Target(*life.identity, *life.address, probe_key, unix_socket)

    def _follow(self, process: AppServerProcess) -> None:
        """Read its reports, and notice its exit. Raises OSError; then it is not followed."""
        identity, child = process.life.identity, process.child
        register = self._selector.register
        register(child.pidfd, selectors.EVENT_READ, lambda: self._exited(identity))
        try:
            register(child.channel, selectors.EVENT_READ, lambda: self._read_reports(identity))
        except BaseException:
            self._selector.unregister(child.pidfd)
            raise
        self._running[identity] = process

    def _read_reports(self, identity: Identity) -> None:
        process = self.find(identity)
        if process is None:
            return  # its exit was noticed in the same turn
        lines = process.child.receive()
        if lines is None:
            self._selector.unregister(process.child.channel)
            return
        now = time.monotonic()
        for line in lines:
            try:
                report = messages.decode_report(line)
            except msgspec.DecodeError as error:
                log.error("slot %d reports nonsense: %s", identity.slot, error)
                continue
            if isinstance(report, messages.Ready):
                self._pool.ready(identity, now, resident(process.child.pid))
            elif isinstance(report, messages.Failed):
                self._pool.failed(identity, texts.clean(report.why, texts.REASON), report.port)
                self.log_trace(f"slot {identity.slot}", report.trace)
            elif isinstance(report, messages.PastLimit):
                self._pool.past_limit(identity, report.limit)
            else:
                self._pool.emptied(identity, now)

    def _kill_group(self, child: Child) -> None:
        """SIGKILL for it and all that it started; `maintain` tries again where that cannot be done now."""
        if not child.kill_group():
            self._groups.append(child)

    def _exited(self, identity: Identity) -> None:
        process = self.find(identity)
        if process is None:
            return
        child = process.child
        if child.channel in self._selector.get_map():
            self._read_reports(identity)  # what it reported before its exit
        self._selector.unregister(child.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        self._kill_group(child)  # whatever it started ends with it
        how = child.reap()
        if how is None:
            self._reaper.take(child)
        del self._running[identity]
        self.remove(process.life.own_folder)
        self._pool.exited(identity, how or "ended", time.monotonic(), child.code)

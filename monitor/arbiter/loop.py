"""The arbiter: the proposal's "wimpy little process". One thread, one loop: facts → plan → actions.

It forks, reaps, ends, and writes address.text, and nothing in it can block or fail for long. What could
(probes, people's connections) is left to the watcher, a child like the others. When the watcher dies or falls silent,
another is started, and no AppServer notices. Signals are read from a descriptor, like messages.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lbadaptor.contract import generation
from lbadaptor.contract.address import Entry, Given, Identity
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import NO_NUMBER, Settings
from lbadaptor.log import logs, texts
from monitor.arbiter.files import run_folder, runtime_json
from monitor.arbiter.files.address_text import CallerKeys, Publisher
from monitor.arbiter.files.available_text import Available
from monitor.arbiter.files.events_jsonl import EventsFile
from monitor.arbiter.files.run_folder import AlreadyRunning, RunFolderLock
from monitor.arbiter.files.runtime_json import RunTimeFile
from monitor.arbiter.files.session_folder import HeldFolder
from monitor.arbiter.files.settings_json import SettingsFile
from monitor.arbiter.files.state_json import StateFile
from monitor.arbiter.key_file import keys_of
from monitor.arbiter.orders import ENDING, Orders, SetAtRunTime
from monitor.arbiter.processes.adoption import Adoption
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.arbiter.processes.child import Reaper
from monitor.arbiter.processes.process_environment import remove_sockets, user
from monitor.arbiter.settings_reader import Checker
from monitor.arbiter.signals import Signals
from monitor.arbiter.systemd import VARIABLES, Systemd
from monitor.arbiter.watcher_process import WatcherProcess
from monitor.arbiter.watcher_view import WatcherView, begin
from monitor.contract.events import What
from monitor.contract.messages import Alive, Begin, FromWatcher, Ordered, Probed, Reply, Unanswered
from monitor.contract.processes import cpu_time
from monitor.policy import available
from monitor.policy.actions import Action
from monitor.policy.even_clock import EvenClock
from monitor.policy.pool import Pool
from monitor.policy.problems import Problems
from monitor.policy.states import PUBLISHED
from monitor.policy.weights import weight

log = logs.logger("lbmonitor")

LONGEST_SLEEP = 1.0
"""Seconds between two turns of the loop, at most."""
SHORT_PAUSE = 0.1
"""Seconds until the next turn, after one that ran short of something."""
LATE = 5.0
"""Seconds: a turn that comes later than this says that this process itself was stopped or starved."""
READY_LIMIT = 10.0
"""Seconds after which systemd is told that the monitor runs, though address.text could not be written."""
STOPPING_SIGN = 20.0
"""Seconds that systemd waits for the next sign of life while AppServers are ended, however long that takes."""
DEATH = 5.0
"""Seconds to wait, at the end of all, for a process that was killed."""


class Arbiter:
    """`run` blocks until everything has ended. Raises LbadaptorError or OSError if it cannot begin."""

    def __init__(self, settings: Settings, config: Path) -> None:
        self._signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self._config = config
        group = run_folder.group(settings.files.apache_group)
        self._status_group = run_folder.group(settings.files.status_group, "status_group")
        self._run_folder_lock = RunFolderLock(settings.run_folder)
        self._taken = ""
        """which monitor has the run folder now, in words; empty: this one"""
        self._problems = Problems()
        self._state = StateFile(settings.run_folder / "state.json", self._problems)
        recorded = self._state.read()
        keys = keys_of(settings, group, recorded)
        as_user = user(settings)
        self._session_folder = HeldFolder()
        self._session_folder.prepare(settings, as_user)
        caller_keys = CallerKeys(settings.caller_keys_file, group, keys.caller_key)
        self._settings_file = SettingsFile(settings.snapshot_file, group, config, self._problems)
        available_text = Available(settings.available_file, group, keys.caller_key, self._first_visit_shares)
        self._number = settings.machine.number
        self._clock = EvenClock()
        self._publisher = Publisher(
            *(settings.address_file, group, caller_keys, self._problems, available_text), given=self._given
        )
        last_generation = max(self._publisher.last_generation, self._state.last_generation)
        run_time = SetAtRunTime(settings, RunTimeFile(settings.run_folder / runtime_json.NAME))
        settings = run_time.settings
        self._pool = Pool(
            settings,
            last_generation,
            self._problems,
            len(os.sched_getaffinity(0)),
            (
                generation.without_number
                if self._number == NO_NUMBER
                else partial(generation.with_number, self._number, keys.mask)
            ),
        )
        self._systemd = Systemd(os.environ)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._read_signals)
        self._reaper = Reaper()
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        self._processes = AppServerProcesses(
            self._pool,
            keys,
            self._state,
            environment,
            as_user,
            group,
            self._selector,
            self._reaper,
            self._problems,
        )
        self._watcher = WatcherProcess(
            self._selector, self._reaper, environment, self._begin, self._watcher_reports, self._problems
        )
        self._checker = Checker(self._selector, self._reaper, environment)
        self._orders = Orders(
            *(config, self._pool, run_time, self._processes, self._checker, self._session_folder),
            accept=self._accept,
            changed=self._show_change,
        )
        self._events = EventsFile(settings.run_folder, self._problems)
        if run_time.now.leaving:
            self._pool.machine_drain.begin(time.monotonic())
        self._was_ready = False
        self._cleaned = False
        self._began = time.monotonic()
        self._busy = False
        self._last_sign = float("-inf")
        self._actions: deque[Action] = deque()
        """what the plan has decided and is not done yet"""
        self._short = ""
        """what this turn ran short of"""
        self._adoption = Adoption(recorded, self._publisher.before, keys, settings, self._processes, self._problems)
        self._view = WatcherView(
            *(config, self._pool, self._processes, self._adoption, self._publisher, run_time, self._problems)
        )

    @property
    def _settings(self) -> Settings:
        return self._pool.settings

    def run(self) -> int:
        """The loop. The exit status."""
        log.info("monitor %d runs from %s", os.getpid(), self._settings.run_folder)
        self._pool.journal.note(What.MONITOR_STARTED, f"pid {os.getpid()}")
        turn = time.monotonic()
        try:
            while True:
                before, turn = turn, time.monotonic()
                if turn - before > LATE:  # it was this process that was late: read what came, then judge
                    self._watcher.restart_silence(turn)
                    self._pool.stood_still(turn - before)
                    self._read_all(0.0)
                wanted = not self._pool.stopping or self._adoption.undecided(turn)
                for step in (
                    self._read_signals,  # first: an order to stop wins over everything
                    partial(self._keep_run_folder, turn),
                    self._reaper.look,
                    self._adoption.try_again,
                    partial(self._processes.maintain, turn),
                    partial(self._watcher.keep_running, turn, wanted=wanted),
                    partial(self._checker.enforce_limit, turn),
                    partial(self._act, turn),
                ):
                    self._safely(step)
                if self._taken:
                    self._log_left_behind()
                    return 1
                if self._pool.over and not self._adoption.undecided(turn):
                    self._adoption.log_unadopted()
                    self._pool.journal.note(What.MONITOR_STOPPED, "all AppServers have ended")
                    self._events.keep()
                    self._state.delete()
                    self._settings_file.delete()
                    remove_sockets(self._settings)
                    return 0
                self._safely(partial(self._watcher.send_view, self._view.at, self._pool.news, turn))
                self._safely(partial(self._notify_systemd, turn))
                logs.flush()
                if turn >= self._orders.upgrade_at:
                    self._become_new()
                self._log_shortage()
                self._read_all(self._sleep(time.monotonic()))
        finally:
            self._end()

    def _keep_run_folder(self, now: float) -> None:
        """Make the run folder again where it was deleted, unless another monitor has it now: then write no more."""
        folder = self._settings.run_folder
        try:
            if self._run_folder_lock.keep(now):
                log.warning("%s was deleted; it is made again", folder)
                self._pool.journal.note(What.PROBLEM_ENDED, f"{folder} was deleted; it is made again")
        except AlreadyRunning as error:
            self._taken = str(error)
        except OSError as error:
            why = f"{error.filename or folder} cannot be made again: {texts.what(error)}; tried again"
            self._problems.begin("run folder", why)
        else:
            self._problems.end("run folder", f"{folder} is whole again")

    def _log_left_behind(self) -> None:
        """Another monitor has the run folder, and adopts the AppServers that it finds."""
        log.error("%s: this one ends, and leaves its AppServers as they are", self._taken)
        for life in self._pool.lives:
            if (process := self._processes.find(life.identity)) is not None:
                log.error(
                    "slot %d is left behind, pid %d at %s; `lbctl stop --all` ends it with all others",
                    life.slot,
                    process.child.pid,
                    process.address,
                )

    def _act(self, now: float) -> None:
        """Do what the facts ask for."""
        if self._taken:
            return
        cookies = self._ticket_cookies
        # First: readers of address.text look at both.
        if self._settings_file.keep(self._settings, cookies, self._pool.leaving):
            self._publisher.touch()
        if self._adoption.undecided(now) and not self._pool.stopping:
            return  # AppServers that are yet to be adopted need no replacement, and must not leave address.text
        if not self._cleaned:
            self._cleaned = True
            self._processes.remove_old_folders(self._adoption.identities)
        self._pool.slots.reserved = {identity.slot for identity in self._adoption.identities}
        self._actions += self._pool.plan(now, time.time_ns() // 1_000_000)
        self._busy = bool(self._actions)
        self._processes.write_state()  # first: what address.text names as ready must not be adopted as STARTING
        first_visits = available.cookie({self._settings.application.ticket_cookie, *cookies}, self._pool, now)
        self._publisher.keep(tuple(self._entries(now)), now, self._settings.monitor.heartbeat, first_visits)
        while self._actions:
            self._safely(partial(self._processes.do, self._actions.popleft()))
        self._processes.write_state()
        self._events.keep()
        self._orders.run_time.keep()

    # Shortages.

    def _safely(self, step: Callable[[], object]) -> None:
        """Do something. Whatever this machine is short of, the arbiter goes on: the next turn tries again."""
        try:
            step()
        except (OSError, MemoryError) as error:
            self._short = texts.what(error)

    def _log_shortage(self) -> None:
        """Say what the turn ran short of, once, and when that is over."""
        short, self._short = self._short, ""
        with contextlib.suppress(MemoryError):
            self._problems.say(
                "shortage",
                f"the monitor runs short: {short}; it goes on and tries again" if short else "",
                "it goes on as before",
            )
        if short:
            time.sleep(SHORT_PAUSE)  # what was not read is read again, and must not keep the machine busy

    # Facts.

    def _read_all(self, timeout: float) -> None:
        """Read facts as they come; those that come meanwhile wait in their descriptors."""
        try:
            readable = self._selector.select(timeout)
        except (OSError, MemoryError):
            time.sleep(SHORT_PAUSE)
            return
        for key, _ in readable:
            # What was read before may have closed this one; its number may be another's by now.
            if self._selector.get_map().get(key.fd) is key:
                self._safely(key.data)

    def _read_signals(self) -> None:
        for signalled in self._signals.read():
            name = signal.Signals(signalled.number).name
            if signalled.number == signal.SIGHUP:
                self._orders.release_by_signal(name, signalled)
            else:
                self._orders.stop_by_signal(name, signalled, time.monotonic())

    def _watcher_reports(self, message: FromWatcher) -> None:
        now = time.monotonic()
        if isinstance(message, Ordered):
            self._orders.carry_out(message, partial(self._reply, message.number), now)
        elif not isinstance(message, Alive) and not self._adoption.probed(message):
            self._probed(message, now)

    def _probed(self, message: Probed | Unanswered, now: float) -> None:
        identity = Identity(message.slot, message.generation)
        process = self._processes.find(identity)
        if isinstance(message, Probed):
            self._pool.probed(identity, message.answer, now)
        elif process is not None and not message.late and not process.child.over():  # if it is over, its exit follows
            self._pool.unanswered(identity, message.why, message.refused, now, cpu_time(process.child.pid))

    def _reply(self, number: int, done: bool, text: str) -> None:
        self._watcher.reply(Reply(number, done, text))

    def _accept(self, settings: Settings) -> None:
        """Tell the adaptors which settings hold from now on. Raises SettingsError where they cannot be told."""
        try:
            self._settings_file.write(settings, self._ticket_cookies, self._pool.leaving)
        except OSError as error:
            raise SettingsError(f"{settings.snapshot_file} cannot be written: {texts.what(error)}") from None
        self._publisher.touch()

    @property
    def _ticket_cookies(self) -> list[str]:
        """The names under which AppServers hand out tickets; those of the monitor before where one does not tell."""
        names = self._processes.ticket_cookies
        if "" in names or self._adoption.identities:
            names |= set(self._settings_file.before)
        return sorted(names - {""})

    # What it tells.

    def _entries(self, now: float) -> Iterator[Entry]:
        """What address.text is to say."""
        for life in self._pool.lives:
            process = self._processes.find(life.identity)
            if process is not None and life.published:
                share = weight(life, self._settings.appservers, now)
                yield Entry(process.ticket, life.address, PUBLISHED[life.state], life.identity, share, life.sessions)
        yield from self._adoption.entries()

    def _given(self) -> Given | None:
        """Which generations this machine has given; by them adaptors find another machine with the same number."""
        if self._number == NO_NUMBER:
            return None
        now = time.time_ns() // 1_000_000
        self._clock.look(time.monotonic(), now)
        return Given(self._number, self._pool.starts.last_generation, self._clock.since, now)

    def _first_visit_shares(self, now: float) -> dict[int, float]:
        return available.shares(self._pool.lives, self._settings, now)

    def _show_change(self) -> None:
        """Tell the watcher at once of new settings, of a release, and of what was set at run time."""
        self._watcher.begin()
        self._watcher.send_view(self._view.at, self._pool.news, time.monotonic())

    def _begin(self) -> Begin:
        logs.set_json(self._settings.log.format == "json")
        return begin(self._settings, self._status_group)

    def _notify_systemd(self, now: float) -> None:
        if now - self._last_sign >= min(self._systemd.watchdog, LONGEST_SLEEP) / 2:
            self._last_sign = now
            states = ", ".join(f"{slot.number} {slot.state.value}" for slot in self._pool)
            stopping = ["STOPPING=1"] if self._pool.stopping else []
            self._systemd.notify("WATCHDOG=1", f"STATUS=slots: {states or 'none'}", *stopping)
            if stopping:
                self._systemd.extend(STOPPING_SIGN)
        # Apache waits for this at boot, but not for the application, nor for a file that cannot be written.
        written = self._publisher.entries is not None
        if not self._was_ready and (written or now - self._began >= READY_LIMIT):
            self._was_ready = True
            self._systemd.notify("READY=1")

    def _sleep(self, now: float) -> float:
        if self._busy:
            return 0.0  # an action may have made a fact of its own
        due = self._pool.next_wake(now), self._checker.next_wake(now), self._systemd.watchdog
        return max(0.0, min(LONGEST_SLEEP, *due, self._orders.upgrade_at - now))

    # The end of this program.

    def _become_new(self) -> None:
        """Become the new release of this program, in place: same pid, still the parent. Returns if it cannot.

        Signals that were not read stay for the new program; what was read is done first, and an order to stop wins.
        """
        self._read_all(0.0)
        if self._checker.busy:  # that order is to get its reply
            self._orders.upgrade_at = time.monotonic() + SHORT_PAUSE
            return
        self._orders.upgrade_at = float("inf")
        if self._pool.stopping:
            log.info("the monitor is not upgraded: %s", ENDING)
            return
        log.info("the monitor is upgraded in place")
        self._watcher.finish()
        self._processes.drop_template()
        self._processes.write_state()
        self._events.keep()
        logs.flush()
        try:
            os.execv(sys.executable, sys.orig_argv)
        except OSError as error:
            log.error("the monitor cannot be upgraded: %s: %s", sys.executable, texts.what(error))

    def _end(self) -> None:
        """Leave nothing behind but, after an error, the AppServers: they serve on until the next monitor comes."""
        self._checker.drop()
        self._processes.drop_template()
        self._watcher.finish()
        self._reaper.wait(DEATH)
        with contextlib.suppress(OSError):
            if not self._taken:
                self._settings.control_socket.unlink(missing_ok=True)
                self._settings.status_socket.unlink(missing_ok=True)
        self._selector.close()
        self._signals.close()
        self._session_folder.release()
        self._run_folder_lock.release()

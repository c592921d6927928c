"""The arbiter: the proposal's "wimpy little process". One thread, one loop: facts → plan → deeds.

It forks, reaps, ends, and writes address.text, and nothing in it can block or fail for long. What could
(probes, people's connections) is the watcher's, a child like the others: when that dies or falls silent,
another is started, and no AppServer notices. Signal handlers do nothing but queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lbadaptor.address import Address, Entry, Identity, State
from lbadaptor.appserver import handover
from lbadaptor.errors import KeyFileError, LbadaptorError, SettingsError
from lbadaptor.settings import Settings, load
from lbadaptor.ticket import Keys, make_keys
from monitor import messages
from monitor.child import Child
from monitor.life import PUBLISHED, Life
from monitor.messages import SILENCE, Ordered, Probed, Unanswered
from monitor.plan import Order, Plan, Record, Start, Tell, own_limits
from monitor.publish import Publisher
from monitor.state import Known, StateFile, cpu_time, start_time
from monitor.strays import Strays
from monitor.systemd import VARIABLES, Systemd

log = logging.getLogger("lbmonitor")

LONGEST_SLEEP = 1.0
"""Seconds between two turns of the loop, at most."""
VIEW_INTERVAL = 0.5
"""Seconds between two messages to the watcher, at least, unless somebody came or went."""
SESSIONS_INTERVAL = 2.0
"""Seconds between two writes of address.text, at least, where nothing but session counts has changed."""
LATE = 5.0
"""Seconds: a turn that comes later than this says that this process itself was stopped or starved."""
WATCHER_PAUSE = 2.0
"""Seconds between two starts of a watcher, at least: one that cannot run must not keep the machine busy."""
PARTING = 0.3
"""Seconds for which the watcher may still pass on what it was told, before it ends along with the old program."""
DEATH = 5.0
"""Seconds to wait, at the end of all, for a process that was killed."""

_SIGNALS = {
    Order.DRAIN: handover.DRAIN,
    Order.UNDRAIN: handover.UNDRAIN,
    Order.STOP: handover.STOP,
}

_FLAGS = ("-B",) if sys.dont_write_bytecode else ()
"""A monitor that was told to write no bytecode has children that write none."""


class AlreadyRunning(LbadaptorError):
    """Another monitor has the run folder."""


@dataclass(frozen=True)
class _AppServer:
    """One that was forked or adopted, and what it goes by for as long as it lives, whatever the settings become."""

    child: Child
    started: int
    address: Address
    ticket: str
    probe_key: str
    adopted: bool = False


class Arbiter:
    """`run` blocks until everything has ended. Raises LbadaptorError or OSError if it cannot begin."""

    def __init__(self, settings: Settings, config: Path) -> None:
        self._settings = settings
        self._config = config
        self._group = _group(settings.files.apache_group)
        settings.run_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._lock = _lock(settings.run_folder / "monitor.lock")
        settings.key_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._keys: Keys = make_keys(settings.key_file, self._group)
        self._publisher = Publisher(settings.address_file, self._group)
        self._state = StateFile(settings.run_folder / "state.json")
        known = self._state.read()
        self._plan = Plan(settings, max(self._publisher.last_generation, self._state.last_generation))
        self._systemd = Systemd(os.environ)
        self._environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        self._appservers: dict[Identity, _AppServer] = {}
        self._unreaped: list[Child] = []
        self._watcher: Child | None = None
        self._watcher_heard = 0.0
        self._watcher_due = float("-inf")
        self._view_due = 0.0
        self._selector = selectors.DefaultSelector()
        self._signalled, wake = socket.socketpair()
        self._wake = wake
        self._was_ready = False
        self._publish_said = ""
        self._last_sign = float("-inf")
        self._upgrade_at = float("inf")
        self._strays = self._adopt(known)

    def run(self) -> int:
        """The loop. The exit status."""
        self._take_signals()
        log.info("monitor %d runs from %s", os.getpid(), self._settings.run_folder)
        turn = time.monotonic()
        try:
            while True:
                before, turn = turn, time.monotonic()
                if turn - before > LATE:  # it was this process that was late: hear first, then judge
                    self._watcher_heard = turn
                    self._hear_all(0.0)
                self._unreaped = [child for child in self._unreaped if child.reap() is None]
                self._tend_watcher(turn)
                deeds = self._act(turn)
                if self._plan.over:
                    self._state.delete()
                    return 0
                self._tell_watcher(turn)
                self._tell_systemd(turn)
                if turn >= self._upgrade_at:
                    self._become_new()
                self._hear_all(self._sleep(time.monotonic(), deeds))
        finally:
            self._end()

    def _act(self, now: float) -> bool:
        """Do what the facts ask for; whether there was anything to do."""
        if self._strays.undecided(now) and not self._plan.stopping:
            return False  # whoever is found yet need not be replaced, and must not leave address.text
        self._plan.reserved = {identity.slot for identity in self._strays.entries}
        deeds = self._plan.think(now, time.time_ns() // 1_000_000)
        self._publish(now)
        for deed in deeds:
            self._start(deed) if isinstance(deed, Start) else self._tell(deed)
        self._write_state()
        return bool(deeds)

    # Those that outlived the monitor before.

    def _adopt(self, knowns: list[Known]) -> Strays:
        """Adopt the AppServers that state.json names and that live; give those that only address.text names."""
        now = time.monotonic()
        before = {entry.identity: entry for entry in self._publisher.before}
        for known in knowns:
            if not known.pid:
                continue  # never forked, or forked and not written down: then it had no handover, and has ended
            try:
                child = Child.adopt(known.pid, known.started)
            except OSError:
                log.info("slot %d has ended meanwhile", known.slot)
            else:
                entry = before.get(known.identity)
                ticket = entry.ticket if entry else self._keys.ticket(known.identity)
                self._take_over(_record(known), child, known.address, ticket)
            before.pop(known.identity, None)
        monitor = self._settings.monitor
        patience = 2 * monitor.fall * (monitor.probe_interval + monitor.probe_timeout)
        return Strays(before.values(), self._keys, monitor.fall, now + patience)

    def _take_over(self, record: Record, child: Child, address: Address, ticket: str) -> None:
        now = time.monotonic()
        try:
            probe_key = self._keys.probe_key(ticket)
        except KeyFileError as error:
            log.error("slot %d is ended, for no adaptor can reach it: %s", record.slot, error)
            child.signal(handover.STOP)
            return
        self._follow(record.identity, _AppServer(child, start_time(child.pid), address, ticket, probe_key, True))
        self._plan.adopt(record, now)

    def _hear_stray(self, message: Probed | Unanswered) -> None:
        """An AppServer that nobody has decided on was probed."""
        if isinstance(message, Unanswered):
            self._strays.unanswered(message)
            return
        entry = self._strays.entries[Identity(message.slot, message.generation)]
        child = self._strays.answered(message)
        if child is not None:
            now = time.monotonic()
            life = Life.DYING if entry.state is State.DYING else Life.OK
            self._take_over(
                Record(*entry.identity, since=now, born=now, life=life), child, entry.address, entry.ticket
            )

    def _write_state(self, intent: Known | None = None) -> None:
        """What the next monitor has to know. `intent`: an AppServer that is about to be forked."""
        appservers = [
            Known(
                *record.identity,
                pid=appserver.child.pid,
                started=appserver.started,
                host=appserver.address.host,
                port=appserver.address.port,
                life=record.life.value,
                before_failing=record.before_failing.value,
                leaving=sorted(record.leaving),
                undrained=record.undrained,
                since=record.since,
                born=record.born,
            )
            for record in self._plan
            if (appserver := self._appservers.get(record.identity)) is not None
        ]
        self._state.write([*appservers, *([intent] if intent else [])], self._plan.last_generation)

    def _become_new(self) -> None:
        """Become the new release of this program, in place: same pid, still the parent. Returns if it cannot."""
        log.info("the monitor is upgraded in place")
        self._drop_watcher("ends")
        for child in self._unreaped:
            child.wait(DEATH)
        self._write_state()
        self._upgrade_at = float("inf")
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the new program has its handlers
        try:
            os.execv(sys.executable, sys.orig_argv)
        except OSError as error:
            log.error("the monitor cannot be upgraded: %s: %s", sys.executable, error.strerror)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    # Facts.

    def _hear_all(self, timeout: float) -> None:
        """Facts come in as they happen; what comes while another is heard waits in its descriptor."""
        for key, _ in self._selector.select(timeout):
            key.data()

    def _take_signals(self) -> None:
        self._signalled.setblocking(False)
        self._wake.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        self._selector.register(self._signalled, selectors.EVENT_READ, self._hear_signals)

    def _hear_signals(self) -> None:
        for number in self._signalled.recv(4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                log.info("%s: everything is ended in order", signal.Signals(number).name)
                self._plan.stop(time.monotonic())
            elif number == signal.SIGHUP:
                with contextlib.suppress(SettingsError):  # logged
                    self._release()

    def _hear(self, identity: Identity) -> None:
        """An AppServer reports."""
        appserver = self._appservers.get(identity)
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
        """An AppServer is over."""
        child = self._appservers[identity].child
        if child.channel in self._selector.get_map():
            self._hear(identity)  # what it said before it went
        self._selector.unregister(child.pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        child.kill_group()  # whatever it started ends with it
        how = child.reap()
        if how is None:
            self._unreaped.append(child)
        del self._appservers[identity]
        self._plan.exited(identity, how or "ended", time.monotonic())

    def _hear_watcher(self) -> None:
        if self._watcher is None:
            return  # dropped in the same turn
        lines = self._watcher.receive()
        if lines is None:
            self._drop_watcher("closed its channel")
            return
        now = time.monotonic()
        for line in lines:
            try:
                message = messages.from_watcher(line)
            except msgspec.DecodeError as error:
                log.error("the watcher talks nonsense: %s", error)
                continue
            self._watcher_heard = now
            if isinstance(message, Probed | Unanswered):
                self._hear_probe(message, now)
            elif isinstance(message, Ordered):
                self._obey(message, now)

    def _hear_probe(self, message: Probed | Unanswered, now: float) -> None:
        identity = Identity(message.slot, message.generation)
        if identity in self._strays.entries:
            self._hear_stray(message)
        elif isinstance(message, Probed):
            self._plan.probed(identity, message.vitals, now)
        elif identity in self._appservers and not message.late:
            cpu = cpu_time(self._appservers[identity].child.pid)
            self._plan.unanswered(identity, message.why, message.refused, now, cpu)

    def _obey(self, ordered: Ordered, now: float) -> None:
        try:
            if ordered.order == "drain":
                text = self._plan.drain(ordered.slot)
            elif ordered.order == "undrain":
                text = self._plan.undrain(ordered.slot, now)
            elif ordered.order == "reexec":
                self._upgrade_at = now + PARTING
                text = "the monitor becomes its new release; its AppServers go on"
            elif ordered.order == "stop":
                self._plan.stop(now)
                text = "everything is ended in order"
            elif ordered.order == "restart":
                text = self._release(ordered.now)
            else:
                raise ValueError(f"unknown order {ordered.order!r}")
            reply = messages.Reply(ordered.number, True, text)
        except (ValueError, SettingsError) as error:
            reply = messages.Reply(ordered.number, False, str(error))
        self._view_due = 0.0
        self._say_to_watcher(messages.encode(reply))

    # Deeds.

    def _release(self, end_sessions: bool = False) -> str:
        """A new release: the settings are read anew, then every AppServer is replaced. Raises SettingsError."""
        try:
            settings = load(self._config)
            if settings.files != self._settings.files:
                raise SettingsError(f"{self._config}: a change in [files] needs a restart of the monitor")
        except SettingsError as error:
            log.error("no release: %s", error)
            raise
        self._settings = self._plan.settings = settings
        self._say_to_watcher(messages.encode(self._begin()))
        now = time.monotonic()
        text = self._plan.release(now, end_sessions)
        self._view_due = 0.0
        self._tell_watcher(now)  # whoever has the reply sees the release in the status
        return text

    def _start(self, deed: Start) -> None:
        identity = deed.identity
        servers, application = self._settings.appservers, self._settings.application
        ticket = self._keys.ticket(identity)
        probe_key = self._keys.probe_key(ticket)
        address = self._address(identity.slot)
        max_requests, max_age = own_limits(servers, identity.generation)
        message = handover.Handover(
            app=application.app,
            session_cookie=application.session_cookie,
            session_idle=application.session_idle,
            session_count=application.session_count,
            ticket_cookie=application.ticket_cookie,
            threads=servers.threads,
            queue=servers.queue,
            max_requests=max_requests,
            max_age=max_age,
            max_memory=servers.max_memory,
            warm_up=servers.warm_up,
            stop_grace=self._settings.monitor.stop_grace,
            generation=identity.generation,
            ticket=ticket,
            caller_key=self._keys.caller_key(ticket),
            probe_key=probe_key,
        )
        intent = Known(*identity, 0, 0, *address, Life.STARTING.value, Life.OK.value, [], False, 0.0, 0.0)
        self._write_state(intent)
        command = [sys.executable, *_FLAGS, "-m", "lbadaptor.appserver", "--slot", str(identity.slot)]
        command += ["--address", str(address), "--channel", "{channel}"]
        try:
            child = Child.start(command, self._environment)
        except OSError as error:
            self._plan.failed(identity, f"cannot fork: {error.strerror}", port=False)
            self._plan.exited(identity, f"could not be forked: {error.strerror}", time.monotonic())
            return
        self._follow(identity, _AppServer(child, start_time(child.pid), address, ticket, probe_key))
        self._write_state()
        child.send(handover.encode(message))
        log.info("slot %d starts: pid %d, %s", identity.slot, child.pid, address)

    def _follow(self, identity: Identity, appserver: _AppServer) -> None:
        """Hear of its exit, and what it reports."""
        self._appservers[identity] = appserver
        self._selector.register(appserver.child.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(identity))
        self._selector.register(appserver.child.channel, selectors.EVENT_READ, lambda: self._hear(identity))

    def _tell(self, deed: Tell) -> None:
        appserver = self._appservers.get(deed.identity)
        if appserver is None:
            return
        if deed.order is Order.KILL:
            appserver.child.kill_group()
        else:
            appserver.child.signal(_SIGNALS[deed.order])

    def _address(self, slot: int) -> Address:
        """Where an AppServer that is started now listens."""
        return Address(self._settings.appservers.host, self._settings.appservers.base_port + slot)

    def _publish(self, now: float) -> None:
        """Write address.text where it says something else than is so, or has been still for long."""
        entries = (*self._entries(now), *self._strays.entries.values())
        published = self._publisher.entries
        still = now - self._publisher.written_at
        due = still >= self._settings.monitor.heartbeat or (still >= SESSIONS_INTERVAL and entries != published)
        if published is not None and not due and _same_but_sessions(entries, published) and self._publisher.intact():
            return
        try:
            self._publisher.publish(entries)
            self._publish_said = ""
        except OSError as error:
            why = f"address.text cannot be written: {error.strerror}; adaptors go on with the last one"
            if why != self._publish_said:
                self._publish_said = why
                log.error("%s", why)

    def _entries(self, now: float) -> Iterator[Entry]:
        for record in self._plan:
            if record.life in PUBLISHED:
                appserver = self._appservers[record.identity]
                state = PUBLISHED[record.life]
                weight = self._plan.weight(record, now)
                yield Entry(appserver.ticket, appserver.address, state, record.identity, weight, record.sessions)

    # The watcher.

    def _tend_watcher(self, now: float) -> None:
        if self._watcher is not None and now - self._watcher_heard > SILENCE:
            self._drop_watcher(f"was silent for {SILENCE:.0f} s")
        if self._watcher is None and not self._plan.stopping and now >= self._watcher_due:
            self._watcher_due = now + WATCHER_PAUSE
            command = [sys.executable, *_FLAGS, "-I", "-m", "monitor.watcher", "{channel}"]
            try:
                self._watcher = Child.start(command, self._environment)
            except OSError as error:
                log.error("no watcher: %s", error.strerror)
                return
            self._watcher_heard = now
            self._view_due = 0.0
            watcher = self._watcher
            self._selector.register(watcher.pidfd, selectors.EVENT_READ, lambda: self._drop_watcher("died"))
            self._selector.register(watcher.channel, selectors.EVENT_READ, self._hear_watcher)
            self._say_to_watcher(messages.encode(self._begin()))

    def _begin(self) -> messages.Begin:
        monitor = self._settings.monitor
        return messages.Begin(str(self._settings.control_socket), monitor.probe_interval, monitor.probe_timeout)

    def _tell_watcher(self, now: float) -> None:
        if self._watcher is not None and self._watcher.backlog:
            self._say_to_watcher(b"")
        if self._watcher is None or self._watcher.backlog or now < self._view_due:
            return  # it has not taken the last view yet
        self._view_due = now + VIEW_INTERVAL
        targets = self._strays.targets()
        for record in self._plan:
            appserver = self._appservers.get(record.identity)
            if appserver and (record.life in PUBLISHED or (record.life is Life.STARTING and appserver.adopted)):
                targets.append(messages.Target(*record.identity, *appserver.address, appserver.probe_key))
        self._say_to_watcher(messages.encode(messages.View(targets, self._status(now))))

    def _say_to_watcher(self, line: bytes) -> None:
        if self._watcher is not None and not self._watcher.send(line):
            self._drop_watcher("takes no more messages")

    def _drop_watcher(self, why: str) -> None:
        """End the watcher; the next turn starts another."""
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        log.info("the watcher %s", why)
        self._selector.unregister(watcher.pidfd)
        self._selector.unregister(watcher.channel)
        watcher.kill_group()
        self._unreaped.append(watcher)

    def _status(self, now: float) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "run_folder": str(self._settings.run_folder),
            "address_file": str(self._settings.address_file),
            "servers": self._settings.appservers.servers,
            "slots": self._settings.slots,
            "standby": self._settings.appservers.standby,
            "release": self._plan.waiting,
            "replaced": self._plan.replaced,
            "ended": self._plan.ended,
            "stopping": self._plan.stopping,
            "appservers": [self._describe(record, now) for record in self._plan],
        }

    def _describe(self, record: Record, now: float) -> dict[str, Any]:
        appserver = self._appservers.get(record.identity)
        return {
            "slot": record.slot,
            "generation": record.generation,
            "state": record.life.value,
            "for": round(now - record.since, 1),
            "pid": appserver.child.pid if appserver else None,
            "address": str(appserver.address if appserver else self._address(record.slot)),
            "standby": record.standby,
            "sessions": record.sessions,
            "leaving": sorted(record.leaving),
            "why": record.why,
            **{
                name: getattr(record.vitals, name, None)
                for name in ("in_flight", "threads", "served", "memory", "cpu", "longest_session", "past_limit")
            },
        }

    # The rest.

    def _tell_systemd(self, now: float) -> None:
        published = self._publisher.entries or ()
        if not self._was_ready and any(entry.state is State.OK for entry in published):
            self._was_ready = True
            self._systemd.notify("READY=1")
        if now - self._last_sign >= min(self._systemd.watchdog, LONGEST_SLEEP) / 2:
            self._last_sign = now
            states = ", ".join(f"{record.slot} {record.life.value}" for record in self._plan)
            stopping = ["STOPPING=1"] if self._plan.stopping else []
            self._systemd.notify("WATCHDOG=1", f"STATUS=slots: {states or 'none'}", *stopping)

    def _sleep(self, now: float, busy: bool) -> float:
        if busy:
            return 0.0  # a deed may have made a fact of its own
        return max(0.0, min(LONGEST_SLEEP, self._plan.next_wake(now), self._systemd.watchdog, self._upgrade_at - now))

    def _end(self) -> None:
        """Leave nothing behind but, after an error, the AppServers: they serve on until the next monitor comes."""
        signal.set_wakeup_fd(-1)
        self._drop_watcher("ends")
        for child in self._unreaped:
            child.wait(DEATH)
        with contextlib.suppress(OSError):
            self._settings.control_socket.unlink(missing_ok=True)
        self._selector.close()
        self._signalled.close()
        self._wake.close()
        os.close(self._lock)


def _record(known: Known) -> Record:
    return Record(
        known.slot,
        known.generation,
        since=known.since,
        born=known.born,
        life=Life(known.life),
        before_failing=Life(known.before_failing),
        leaving=set(known.leaving),
        undrained=known.undrained,
    )


def _same_but_sessions(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> bool:
    """Whether the same AppServers may be sent the same visitors."""
    return [(entry.identity, entry.state) for entry in one] == [(entry.identity, entry.state) for entry in other]


def _group(name: str) -> int | None:
    if not name:
        return None
    import grp

    try:
        group = grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"[files] apache_group: there is no group {name!r} on this machine") from None
    if os.geteuid() != 0 and group not in (os.getegid(), *os.getgroups()):
        raise SettingsError(f"[files] apache_group: the monitor's user is not in the group {name!r}")
    return group


def _lock(path: Path) -> int:
    """Take the lock on the run folder. Not inherited by any child. Raises AlreadyRunning, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise AlreadyRunning(f"another monitor (pid {owner}) runs from {path.parent}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor

"""The fault injector: kills and stops processes at random, gives orders, and records what it did.

ACTIONS lists all that it does, and WITH_SESSIONS what it does besides where sessions outlive their process. The
seed decides the order of the actions, and everything that is random about them. An action that is not enabled takes
its turn like the others, but does nothing: so a seed means the same with and without it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from lbadaptor.contract.address import Identity
from monitor.contract.client import NoAnswer, ask

from .application import born
from .clients import burst, with_large_sessions
from .records import FOREVER, Fault, Process, Visit
from .stage import Stage

MAX_STOPPED = 3
"""AppServers that are stopped at the same time, at most."""
MOVE_PATIENCE = 8.0
"""Seconds within which an AppServer is DYING after the order to drain it: its replacement has to be OK first."""
LOOK_PAUSE = 0.002
FULL = "fill sessions"
LARGE_SESSIONS = 80
"""They fill the shares of all AppServers ([sessions] max_bytes)."""
REST = 3.0
"""Seconds after a stop in which the same AppServer is not stopped again: probes have to find it in order first."""


@dataclass(frozen=True)
class Action:
    """One kind of fault."""

    name: str
    count: int
    """how often it is done in one round of all actions"""
    do: Callable[[FaultInjector, random.Random], str]
    """does it, with its own random numbers, and returns what was done; empty: it could not be done"""
    pause: float = 0.0
    """seconds between two of these, at least"""


class FaultInjector(threading.Thread):
    """Runs for `seconds`, ends the faults that last, and ends."""

    def __init__(
        self,
        stage: Stage,
        seed: int,
        seconds: float,
        faults: list[Fault],
        record: Callable[[Visit], None],
        enabled: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="fault-injector")
        self.stage = stage
        self.chance = random.Random(f"{seed}-faults")
        self.test_errors: list[str] = []
        self._seconds = seconds
        self._faults = faults
        self.record = record
        self._enabled = enabled
        self._say = say
        self._began = time.monotonic()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last: dict[str, float] = {}
        self._stopped: dict[Process, Fault] = {}
        self._rests: dict[Process, float] = {}
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def run(self) -> None:
        try:
            self._inject()
        except Exception as error:
            self.test_errors.append(f"the fault injector: {error!r}")
        finally:
            self._over.set()
            while self._later:  # end the faults that last, at once
                heapq.heappop(self._later)[2]()
            for thread in self._threads:
                thread.join()

    def _inject(self) -> None:
        end = self._began + self._seconds
        round_: list[Action] = []
        due = time.monotonic() + 1.0
        while True:
            now = time.monotonic()
            if now >= end:
                return
            if self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            elif due <= now:
                if not round_:
                    actions = ACTIONS if self.stage.survive == "nothing" else ACTIONS + WITH_SESSIONS
                    round_ = [action for action in actions for _ in range(action.count)]
                    self.chance.shuffle(round_)
                self._do(round_.pop(), now)
                due = now + self.chance.uniform(0.2, 1.3)
            else:
                time.sleep(min(due, end, self._later[0][0] if self._later else end) - now)

    def _do(self, action: Action, now: float) -> None:
        chance = random.Random(self.chance.random())
        if action.name not in self._enabled or now - self._last.get(action.name, -FOREVER) < action.pause:
            return
        if done := action.do(self, chance):
            self._last[action.name] = now
            self.log(f"{action.name}: {done}")

    def log(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.2f} s  {text}")

    # What the actions are made of.

    def injected(self, kind: str, process: Process | None = None, slot: int | None = None, text: str = "") -> Fault:
        """Record a fault."""
        fault = Fault(time.time(), kind, process, slot, text=text)
        self._faults.append(fault)
        return fault

    def faults(self) -> list[Fault]:
        return self._faults

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), do))

    def kill(self, kind: str, process: Process, slot: int | None = None) -> bool:
        """Send SIGKILL to this process. False: it has ended."""
        with _handle(process) as handle:
            if handle is None:
                return False
            self.injected(kind, process, slot)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True

    def stop(self, kind: str, process: Process, seconds: float, slot: int | None = None) -> bool:
        """Send SIGSTOP, and SIGCONT after so many seconds. False: it has ended."""
        with _handle(process) as handle:
            if handle is None:
                return False
            fault = self._stopped[process] = self.injected(kind, process, slot)
            fault.until = FOREVER
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        self.after(seconds, lambda: self._continue(process, fault))
        return True

    def _continue(self, process: Process, fault: Fault) -> None:
        with _handle(process) as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            else:
                fault.text = "it had ended by then"
        fault.until = time.time()
        self._stopped.pop(process, None)
        self._rests[process] = time.monotonic() + REST
        self.log(f"SIGCONT: pid {process.pid}{' ' if fault.text else ''}{fault.text}")

    def stoppable(self) -> list[tuple[int, Process]]:
        """AppServers that may be stopped now: not stopped, nor just continued. None while MAX_STOPPED are stopped."""
        now = time.monotonic()
        appservers = self.stage.appservers()
        if sum(process in self._stopped for _, process in appservers) >= MAX_STOPPED:
            return []
        return [
            (slot, process)
            for slot, process in appservers
            if process not in self._stopped and self._rests.get(process, 0.0) < now
        ]

    def arbiter(self) -> Process | None:
        with contextlib.suppress(OSError):
            return Process(self.stage.monitor_pid, born(self.stage.monitor_pid))
        return None

    def is_stopped(self, process: Process) -> bool:
        return process in self._stopped

    def watcher(self) -> Process | None:
        watchers = self.stage.watchers()
        return watchers[0] if watchers and watchers[0] not in self._stopped else None

    def in_thread(self, do: Callable[[], None]) -> None:
        """Do it in a thread, because it may take long."""
        thread = threading.Thread(target=do)
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]
        thread.start()

    def order(self, order: str, slot: int | None = None) -> None:
        """Give the monitor an order, as `lbctl` does."""
        fault = self.injected(order, slot=slot)
        self.in_thread(lambda: self._give(order, slot, fault))

    def _give(self, order: str, slot: int | None, fault: Fault) -> None:
        try:
            fault.text = ask(self.stage.settings.control_socket, order, slot)["text"]
        except NoAnswer as error:
            fault.text = f"not done: {error}"
        self.log(f"{order}{'' if slot is None else f' {slot}'}: {fault.text}")

    def during_move(self, slot: int, seconds: float, do: Callable[[], str]) -> None:
        """Give the order to drain, and do something so many seconds after the AppServer has begun to leave."""

        def drain() -> None:
            table = self.stage.table()
            leaving = (
                next((one.identity for one in table.entries if one.identity.slot == slot), None) if table else None
            )
            self._give("drain", slot, self.injected("drain", slot=slot))
            end = time.monotonic() + MOVE_PATIENCE
            while leaving not in (dying := self._dying()) and dying is not None and time.monotonic() < end:
                if self._over.wait(LOOK_PAUSE):
                    return
            time.sleep(seconds)
            if done := do():
                self.log(f"{seconds * 1000:.0f} ms after slot {slot} began to leave: {done}")

        self.in_thread(drain)

    def _dying(self) -> list[Identity] | None:
        """None: address.text cannot be read."""
        table = self.stage.table()
        return None if table is None else [one.identity for one in table.entries if one.state.value == "DYING"]

    def burst(self, visitors: int, requests: int) -> None:
        self.injected("burst")
        self._threads += burst(self.stage.httpd.port, visitors, requests, f"b{next(self._order)}", self.record)


@contextlib.contextmanager
def _handle(process: Process) -> Iterator[int | None]:
    """A pidfd of this process; None: it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        try:
            same = born(process.pid) == process.born
        except OSError:
            same = False
        yield handle if same else None
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _pick(found: list[tuple[int, Process]], chance: random.Random) -> tuple[int, Process] | None:
    return chance.choice(found) if found else None


def _kill(injector: FaultInjector, chance: random.Random) -> str:
    picked = _pick(injector.stage.appservers(), chance)
    return f"slot {picked[0]}, pid {picked[1].pid}" if picked and injector.kill("kill", picked[1], picked[0]) else ""


def _kill_two(injector: FaultInjector, chance: random.Random) -> str:
    found = injector.stage.appservers()
    return _kill_these(injector, chance.sample(found, min(2, len(found))))


def _kill_youngest(injector: FaultInjector, chance: random.Random) -> str:
    """The youngest one, which may still be starting."""
    found = sorted(injector.stage.appservers(), key=lambda one: one[1].born)[-1:]
    return _kill_these(injector, found)


def _kill_all(injector: FaultInjector, chance: random.Random) -> str:
    return _kill_these(injector, injector.stage.appservers())


def _kill_these(injector: FaultInjector, found: list[tuple[int, Process]]) -> str:
    killed = [slot for slot, process in found if injector.kill("kill", process, slot)]
    return f"slots {killed}" if killed else ""


def _stop(least: float, most: float) -> Callable[[FaultInjector, random.Random], str]:
    """Stop an AppServer for `least` to `most` seconds."""

    def stop(injector: FaultInjector, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        picked = _pick(injector.stoppable(), chance)
        if picked is None or not injector.stop("stop", picked[1], seconds, picked[0]):
            return ""
        return f"slot {picked[0]}, pid {picked[1].pid}, for {seconds:.1f} s"

    return stop


def _stop_watcher(least: float, most: float) -> Callable[[FaultInjector, random.Random], str]:
    def stop(injector: FaultInjector, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        watcher = injector.watcher()
        stopped = watcher is not None and injector.stop("stop watcher", watcher, seconds)
        return f"for {seconds:.1f} s" if stopped else ""

    return stop


def _stop_arbiter(least: float, most: float) -> Callable[[FaultInjector, random.Random], str]:
    def stop(injector: FaultInjector, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        arbiter = injector.arbiter()
        if arbiter is None or injector.is_stopped(arbiter) or not injector.stop("stop arbiter", arbiter, seconds):
            return ""
        return f"for {seconds:.1f} s"

    return stop


def _kill_watcher(injector: FaultInjector, chance: random.Random) -> str:
    watchers = injector.stage.watchers()
    return f"pid {watchers[0].pid}" if watchers and injector.kill("kill watcher", watchers[0]) else ""


def _kill_arbiter(injector: FaultInjector, chance: random.Random) -> str:
    arbiter = injector.arbiter()
    injector.stage.arbiter_may_end.set()
    if arbiter is None or not injector.kill("kill arbiter", arbiter):
        injector.stage.arbiter_may_end.clear()
        return ""
    return f"pid {arbiter.pid}"


def _kill_both(injector: FaultInjector, chance: random.Random) -> str:
    killed = _kill_arbiter(injector, chance), _kill_watcher(injector, chance)
    return ", ".join(filter(None, killed))


def _in_state(injector: FaultInjector, state: str, chance: random.Random) -> int | None:
    table = injector.stage.table()
    slots = [entry.identity.slot for entry in table.entries if entry.state.value == state] if table else []
    return chance.choice(slots) if slots else None


def _drain(injector: FaultInjector, chance: random.Random) -> str:
    slot = _in_state(injector, "OK", chance)
    if slot is not None:
        injector.order("drain", slot)
    return "" if slot is None else f"slot {slot} is asked for"


def _undrain(injector: FaultInjector, chance: random.Random) -> str:
    slot = _in_state(injector, "DYING", chance)
    if slot is not None:
        injector.order("undrain", slot)
    return "" if slot is None else f"slot {slot} is asked for"


def _restart(injector: FaultInjector, chance: random.Random) -> str:
    injector.order("restart")
    return "asked for"


def _reexec(injector: FaultInjector, chance: random.Random) -> str:
    injector.order("reexec")
    return "asked for"


def _reload_httpd(injector: FaultInjector, chance: random.Random) -> str:
    injector.injected("reload httpd")
    injector.stage.httpd.reload()
    return "gracefully"


def _burst(injector: FaultInjector, chance: random.Random) -> str:
    visitors = chance.randint(20, 60)
    injector.burst(visitors, 4)
    return f"{visitors} visitors"


def _fill_spool(injector: FaultInjector, chance: random.Random) -> str:
    """The folder for large bodies is missing for a moment."""
    spool = injector.stage.spool
    aside = spool.with_name("spool-aside")
    if aside.exists():
        return ""
    seconds = chance.uniform(0.2, 1.2)
    fault = injector.injected("fill spool")
    fault.until = FOREVER
    spool.rename(aside)

    def back() -> None:
        aside.rename(spool)
        fault.until = time.time()

    injector.after(seconds, back)
    return f"for {seconds:.1f} s"


def _kill_in_move(leaver: bool, taker: bool, arbiter: bool = False) -> Callable[[FaultInjector, random.Random], str]:
    """Kill the AppServer that leaves, one that may take its sessions over, the monitor."""

    def kill(injector: FaultInjector, chance: random.Random) -> str:
        slot = _in_state(injector, "OK", chance)
        appservers = injector.stage.appservers()
        victims = [one for one in appservers if leaver and one[0] == slot]
        others = [one for one in appservers if one[0] != slot]
        if taker and others:
            victims.append(chance.choice(others))
        if slot is None or not (victims or arbiter):
            return ""

        def do() -> str:
            done = _kill_these(injector, victims)
            if arbiter and (killed := _kill_arbiter(injector, chance)):
                done += f"arbiter {killed}"
            return done and f"kill {done}"

        injector.during_move(slot, _moment(chance), do)
        return f"slot {slot} is to be drained, then slots {[one[0] for one in victims]}"

    return kill


def _stop_in_move(injector: FaultInjector, chance: random.Random) -> str:
    """Stop the AppServer that leaves, in the middle of it."""
    slot = _in_state(injector, "OK", chance)
    found = [process for its, process in injector.stoppable() if its == slot]
    if slot is None or not found:
        return ""
    seconds = chance.uniform(0.2, 1.2)

    def do() -> str:
        return "SIGSTOP" if injector.stop("stop", found[0], seconds, slot) else ""

    injector.during_move(slot, _moment(chance), do)
    return f"slot {slot} is to be drained, then stopped for {seconds:.1f} s"


def _moment(chance: random.Random) -> float:
    """Seconds after the beginning of a move."""
    return chance.uniform(0.0, chance.choice((0.005, 0.03, 0.3)))


def _stop_and_start(injector: FaultInjector, chance: random.Random) -> str:
    """End everything in order. It is started again as after a kill of the arbiter."""
    arbiter = injector.arbiter()
    if arbiter is None or injector.is_stopped(arbiter):
        return ""
    injector.injected("stop and start")
    injector.stage.arbiter_may_end.set()
    with _handle(arbiter) as handle:
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    return f"pid {arbiter.pid}"


def _fill_sessions(injector: FaultInjector, chance: random.Random) -> str:
    """The disk with the sessions' folder is full for a while, or the share of it that each AppServer has. Perhaps an
    AppServer is killed meanwhile."""
    disk = injector.stage.disk
    if any(fault.kind == FULL and fault.until == FOREVER for fault in injector.faults()):
        return ""
    seconds = chance.uniform(0.3, 2.0)
    fault = injector.injected(FULL)
    fault.until = FOREVER

    def free() -> None:
        disk.free()
        fault.until = time.time()

    def fill_shares() -> None:
        port, idle = injector.stage.httpd.port, injector.stage.limits().idle
        ended = with_large_sessions(port, LARGE_SESSIONS, seconds, f"large{fault.at:.0f}", injector.record)
        fault.until = time.time() + (0.0 if ended else 2 * idle)

    if chance.random() < 0.5:
        injector.after(seconds - 0.1, lambda: injector.log(f"kill while it is full: {_kill(injector, chance)}"))
    if not disk.is_own:
        injector.in_thread(fill_shares)
        return f"with {LARGE_SESSIONS} large ones for {seconds:.1f} s"
    disk.fill()
    injector.after(seconds, free)
    return f"for {seconds:.1f} s"


ACTIONS = (
    Action("kill", 7, _kill),
    Action("kill two", 1, _kill_two),
    Action("kill youngest", 2, _kill_youngest),
    Action("kill all", 1, _kill_all, pause=20.0),
    Action("stop short", 5, _stop(0.2, 1.2)),
    Action("stop failing", 2, _stop(2.6, 3.3)),
    Action("stop hung", 2, _stop(10.0, 12.0)),
    Action("kill watcher", 1, _kill_watcher, pause=5.0),
    Action("stop watcher", 1, _stop_watcher(1.0, 5.0)),
    Action("stop arbiter", 2, _stop_arbiter(0.3, 2.0)),
    Action("stop arbiter long", 1, _stop_arbiter(6.0, 8.0), pause=20.0),
    Action("kill arbiter", 2, _kill_arbiter, pause=5.0),
    Action("kill both", 1, _kill_both, pause=5.0),
    Action("reexec", 1, _reexec, pause=5.0),
    Action("drain", 3, _drain),
    Action("undrain", 2, _undrain),
    Action("restart", 1, _restart, pause=10.0),
    Action("reload httpd", 2, _reload_httpd, pause=8.0),
    Action("burst", 2, _burst, pause=3.0),
    Action("fill spool", 1, _fill_spool),
)
WITH_SESSIONS = (
    Action("kill leaver", 3, _kill_in_move(leaver=True, taker=False)),
    Action("kill taker", 3, _kill_in_move(leaver=False, taker=True)),
    Action("kill both movers", 1, _kill_in_move(leaver=True, taker=True)),
    Action("kill arbiter in move", 1, _kill_in_move(leaver=False, taker=False, arbiter=True), pause=5.0),
    Action("stop leaver", 2, _stop_in_move),
    Action("stop and start", 2, _stop_and_start, pause=15.0),
    Action("fill sessions", 3, _fill_sessions, pause=3.0),
)
ALL = frozenset(action.name for action in ACTIONS + WITH_SESSIONS)

"""The fault injector: kills and stops processes at random, gives orders, and records what it did.

ACTIONS lists all that it does. The seed decides the order of the actions, and everything that is random about them.
An action that is not enabled takes its turn like the others, but does nothing: so a seed means the same with and
without it.
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

from monitor.contract.client import NoAnswer, ask

from .application import born
from .clients import burst
from .records import FOREVER, Fault, Process, Visit
from .stage import Stage

MAX_STOPPED = 3
"""AppServers that are stopped at the same time, at most."""
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
        self._record = record
        self._enabled = enabled
        self._say = say
        self._began = time.monotonic()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last: dict[str, float] = {}
        self._stopped: dict[Process, Fault] = {}
        self._rests: dict[Process, float] = {}
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        try:
            self._inject()
        except Exception as error:
            self.test_errors.append(f"the fault injector: {error!r}")
        finally:
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
                    round_ = [action for action in ACTIONS for _ in range(action.count)]
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

        def give() -> None:
            try:
                fault.text = ask(self.stage.settings.control_socket, order, slot)["text"]
            except NoAnswer as error:
                fault.text = f"not done: {error}"
            self.log(f"{order}{'' if slot is None else f' {slot}'}: {fault.text}")

        self.in_thread(give)

    def burst(self, visitors: int, requests: int) -> None:
        self.injected("burst")
        self._threads += burst(self.stage.httpd.port, visitors, requests, f"b{next(self._order)}", self._record)


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
    injector.stage.arbiter_was_killed.set()
    if arbiter is None or not injector.kill("kill arbiter", arbiter):
        injector.stage.arbiter_was_killed.clear()
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
ALL = frozenset(action.name for action in ACTIONS)

"""The fiend: does harm at random, and writes down what it did.

One deck of cards, one row each; the seed decides in which order they are dealt, and everything about them. A card
that is not enabled is dealt like the others, and does nothing, so that a seed means the same with and without it.
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
from .records import FOREVER, Deed, Process, Visit
from .stage import Stage

MOST_STOPPED = 3
"""AppServers that are held at a time, at most."""
REST = 3.0
"""Seconds after a stop in which the same AppServer is not stopped again: its probes must have counted it well."""


@dataclass(frozen=True)
class Card:
    """Something to do."""

    name: str
    count: int
    """how often it is in the deck"""
    do: Callable[[Fiend, random.Random], str]
    """does it, with a chance of its own, and tells what was done; empty: nothing could be"""
    pause: float = 0.0
    """seconds between two of these, at least"""


class Fiend(threading.Thread):
    """Runs for `seconds`, then undoes what lasts, and ends."""

    def __init__(
        self,
        stage: Stage,
        seed: int,
        seconds: float,
        deeds: list[Deed],
        write_down: Callable[[Visit], None],
        enabled: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="fiend")
        self.stage = stage
        self.chance = random.Random(f"{seed}-fiend")
        self.faults: list[str] = []
        self._seconds = seconds
        self._deeds = deeds
        self._write_down = write_down
        self._enabled = enabled
        self._say = say
        self._began = time.monotonic()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last: dict[str, float] = {}
        self._stopped: dict[Process, Deed] = {}
        self._rests: dict[Process, float] = {}
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        try:
            self._rage()
        except Exception as error:
            self.faults.append(f"the fiend: {error!r}")
        finally:
            while self._later:  # what lasts is undone, at once
                heapq.heappop(self._later)[2]()
            for thread in self._threads:
                thread.join()

    def _rage(self) -> None:
        end = self._began + self._seconds
        deck: list[Card] = []
        due = time.monotonic() + 1.0
        while True:
            now = time.monotonic()
            if now >= end:
                return
            if self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            elif due <= now:
                if not deck:
                    deck = [card for card in CARDS for _ in range(card.count)]
                    self.chance.shuffle(deck)
                self._play(deck.pop(), now)
                due = now + self.chance.uniform(0.2, 1.3)
            else:
                time.sleep(min(due, end, self._later[0][0] if self._later else end) - now)

    def _play(self, card: Card, now: float) -> None:
        chance = random.Random(self.chance.random())
        if card.name not in self._enabled or now - self._last.get(card.name, -FOREVER) < card.pause:
            return
        if done := card.do(self, chance):
            self._last[card.name] = now
            self.tell(f"{card.name}: {done}")

    def tell(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.2f} s  {text}")

    # What the cards are made of.

    def noted(self, kind: str, process: Process | None = None, slot: int | None = None, text: str = "") -> Deed:
        deed = Deed(time.time(), kind, process, slot, text=text)
        self._deeds.append(deed)
        return deed

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), do))

    def kill(self, kind: str, process: Process, slot: int | None = None) -> bool:
        """SIGKILL, to this very process. False: it is over."""
        with _handle(process) as handle:
            if handle is None:
                return False
            self.noted(kind, process, slot)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True

    def hold(self, kind: str, process: Process, seconds: float, slot: int | None = None) -> bool:
        """SIGSTOP, and SIGCONT after so many seconds."""
        with _handle(process) as handle:
            if handle is None:
                return False
            deed = self._stopped[process] = self.noted(kind, process, slot)
            deed.until = FOREVER
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        self.after(seconds, lambda: self._let_go(process, deed))
        return True

    def _let_go(self, process: Process, deed: Deed) -> None:
        with _handle(process) as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            else:
                deed.text = "it was over by then"
        deed.until = time.time()
        self._stopped.pop(process, None)
        self._rests[process] = time.monotonic() + REST
        self.tell(f"go on: pid {process.pid}{' ' if deed.text else ''}{deed.text}")

    def free(self) -> list[tuple[int, Process]]:
        """AppServers that are not held, nor have been just now; none when enough are held."""
        now = time.monotonic()
        appservers = self.stage.appservers()
        if sum(process in self._stopped for _, process in appservers) >= MOST_STOPPED:
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

    def held(self, process: Process) -> bool:
        return process in self._stopped

    def watcher(self) -> Process | None:
        watchers = self.stage.watchers()
        return watchers[0] if watchers and watchers[0] not in self._stopped else None

    def beside(self, do: Callable[[], None]) -> None:
        """In a thread, since it may take long."""
        thread = threading.Thread(target=do)
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]
        thread.start()

    def order(self, order: str, slot: int | None = None) -> None:
        """As `lbctl` does."""
        deed = self.noted(order, slot=slot)

        def ask_for_it() -> None:
            try:
                deed.text = ask(self.stage.settings.control_socket, order, slot)["text"]
            except NoAnswer as error:
                deed.text = f"no: {error}"
            self.tell(f"{order}{'' if slot is None else f' {slot}'}: {deed.text}")

        self.beside(ask_for_it)

    def come_in_numbers(self, visitors: int, requests: int) -> None:
        self.noted("burst")
        self._threads += burst(self.stage.httpd.port, visitors, requests, f"b{next(self._order)}", self._write_down)


@contextlib.contextmanager
def _handle(process: Process) -> Iterator[int | None]:
    """A pidfd of this very process; None: it is over."""
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


def _kill(fiend: Fiend, chance: random.Random) -> str:
    picked = _pick(fiend.stage.appservers(), chance)
    return f"slot {picked[0]}, pid {picked[1].pid}" if picked and fiend.kill("kill", picked[1], picked[0]) else ""


def _kill_two(fiend: Fiend, chance: random.Random) -> str:
    found = fiend.stage.appservers()
    return _kill_these(fiend, chance.sample(found, min(2, len(found))))


def _kill_newborn(fiend: Fiend, chance: random.Random) -> str:
    """The youngest: it may be starting still."""
    found = sorted(fiend.stage.appservers(), key=lambda one: one[1].born)[-1:]
    return _kill_these(fiend, found)


def _kill_all(fiend: Fiend, chance: random.Random) -> str:
    return _kill_these(fiend, fiend.stage.appservers())


def _kill_these(fiend: Fiend, found: list[tuple[int, Process]]) -> str:
    killed = [slot for slot, process in found if fiend.kill("kill", process, slot)]
    return f"slots {killed}" if killed else ""


def _holding(least: float, most: float) -> Callable[[Fiend, random.Random], str]:
    """Stops an AppServer for so many seconds."""

    def hold(fiend: Fiend, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        picked = _pick(fiend.free(), chance)
        if picked is None or not fiend.hold("stop", picked[1], seconds, picked[0]):
            return ""
        return f"slot {picked[0]}, pid {picked[1].pid}, for {seconds:.1f} s"

    return hold


def _holding_watcher(least: float, most: float) -> Callable[[Fiend, random.Random], str]:
    def hold(fiend: Fiend, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        watcher = fiend.watcher()
        held = watcher is not None and fiend.hold("stop watcher", watcher, seconds)
        return f"for {seconds:.1f} s" if held else ""

    return hold


def _holding_arbiter(least: float, most: float) -> Callable[[Fiend, random.Random], str]:
    def hold(fiend: Fiend, chance: random.Random) -> str:
        seconds = chance.uniform(least, most)
        arbiter = fiend.arbiter()
        if arbiter is None or fiend.held(arbiter) or not fiend.hold("stop arbiter", arbiter, seconds):
            return ""
        return f"for {seconds:.1f} s"

    return hold


def _kill_watcher(fiend: Fiend, chance: random.Random) -> str:
    watchers = fiend.stage.watchers()
    return f"pid {watchers[0].pid}" if watchers and fiend.kill("kill watcher", watchers[0]) else ""


def _kill_arbiter(fiend: Fiend, chance: random.Random) -> str:
    arbiter = fiend.arbiter()
    fiend.stage.fiend_killed_arbiter.set()
    if arbiter is None or not fiend.kill("kill arbiter", arbiter):
        fiend.stage.fiend_killed_arbiter.clear()
        return ""
    return f"pid {arbiter.pid}"


def _kill_both(fiend: Fiend, chance: random.Random) -> str:
    killed = _kill_arbiter(fiend, chance), _kill_watcher(fiend, chance)
    return ", ".join(filter(None, killed))


def _in_state(fiend: Fiend, state: str, chance: random.Random) -> int | None:
    table = fiend.stage.table()
    slots = [entry.identity.slot for entry in table.entries if entry.state.value == state] if table else []
    return chance.choice(slots) if slots else None


def _drain(fiend: Fiend, chance: random.Random) -> str:
    slot = _in_state(fiend, "OK", chance)
    if slot is not None:
        fiend.order("drain", slot)
    return "" if slot is None else f"slot {slot} is asked for"


def _undrain(fiend: Fiend, chance: random.Random) -> str:
    slot = _in_state(fiend, "DYING", chance)
    if slot is not None:
        fiend.order("undrain", slot)
    return "" if slot is None else f"slot {slot} is asked for"


def _restart(fiend: Fiend, chance: random.Random) -> str:
    fiend.order("restart")
    return "asked for"


def _reexec(fiend: Fiend, chance: random.Random) -> str:
    fiend.order("reexec")
    return "asked for"


def _reload_httpd(fiend: Fiend, chance: random.Random) -> str:
    fiend.noted("reload httpd")
    fiend.stage.httpd.reload()
    return "gracefully"


def _burst(fiend: Fiend, chance: random.Random) -> str:
    visitors = chance.randint(20, 60)
    fiend.come_in_numbers(visitors, 4)
    return f"{visitors} visitors"


def _fill_spool(fiend: Fiend, chance: random.Random) -> str:
    """The folder of large bodies takes nothing for a moment."""
    spool = fiend.stage.spool
    aside = spool.with_name("spool-aside")
    if aside.exists():
        return ""
    seconds = chance.uniform(0.2, 1.2)
    deed = fiend.noted("fill spool")
    deed.until = FOREVER
    spool.rename(aside)

    def back() -> None:
        aside.rename(spool)
        deed.until = time.time()

    fiend.after(seconds, back)
    return f"for {seconds:.1f} s"


CARDS = (
    Card("kill", 7, _kill),
    Card("kill two", 1, _kill_two),
    Card("kill newborn", 2, _kill_newborn),
    Card("kill all", 1, _kill_all, pause=20.0),
    Card("stop short", 5, _holding(0.2, 1.2)),
    Card("stop failing", 2, _holding(2.6, 3.3)),
    Card("stop hung", 2, _holding(10.0, 12.0)),
    Card("kill watcher", 1, _kill_watcher, pause=5.0),
    Card("stop watcher", 1, _holding_watcher(1.0, 5.0)),
    Card("stop arbiter", 2, _holding_arbiter(0.3, 2.0)),
    Card("stop arbiter long", 1, _holding_arbiter(6.0, 8.0), pause=20.0),
    Card("kill arbiter", 2, _kill_arbiter, pause=5.0),
    Card("kill both", 1, _kill_both, pause=5.0),
    Card("reexec", 1, _reexec, pause=5.0),
    Card("drain", 3, _drain),
    Card("undrain", 2, _undrain),
    Card("restart", 1, _restart, pause=10.0),
    Card("reload httpd", 2, _reload_httpd, pause=8.0),
    Card("burst", 2, _burst, pause=3.0),
    Card("fill spool", 1, _fill_spool),
)
ALL = frozenset(card.name for card in CARDS)

"""Settings are read and checked in a process of its own: users and groups may be asked of a directory service that is
down, and files of a disk that is. The arbiter waits for neither.

It says what it found in one line on stdout. `python -m monitor.arbiter.settings_reader CONFIG` does
so with the program that runs, `lbmonitor --prepare` with the one that would run after `lbctl reexec`.
"""

from __future__ import annotations

import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings, load, parse
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder
from monitor.arbiter.processes.child import FLAGS, Child, Reaper
from monitor.arbiter.processes.process_environment import ProcessEnvironment, User, user

LIMIT = 8.0
"""Seconds for one check: less than a console waits for the reply to an order."""
MOST_WAITING = 16
"""Checks; more are refused."""


class Checked(Struct, frozen=True):
    """What was found."""

    text: str = ""
    """of lbadaptor.toml"""
    user: User | None = None
    """whom AppServers run as"""
    error: str = ""
    """why not; empty: all is good"""

    def settings(self, config: Path) -> Settings:
        """The settings. Raises SettingsError."""
        if self.error:
            raise SettingsError(self.error)
        return parse(self.text, str(config.absolute().parent))


def check(config: Path) -> Checked:
    """Read and check the settings. Blocks for as long as the system takes to tell users and groups."""
    try:
        settings = load(config)
        run_folder.group(settings.files.apache_group)
        return Checked(config.read_text("utf-8"), user(settings))
    except SettingsError as error:
        return Checked(error=str(error))
    except (OSError, UnicodeDecodeError) as error:  # it was changed meanwhile
        return Checked(error=f"{config}: {error}")


def report(config: Path) -> int:
    """`check`, and say what was found on stdout. The exit status."""
    sys.stdout.write(msgspec.json.encode(check(config)).decode() + "\n")
    return 0


def command(config: Path) -> list[str]:
    """How the program that runs has settings checked."""
    return [sys.executable, *FLAGS, "-I", "-m", "monitor.arbiter.settings_reader", str(config.absolute())]


class Checker:
    """Has one check after another made; `then` gets what was found, within LIMIT seconds. Nothing here blocks."""

    def __init__(self, selector: selectors.BaseSelector, reaper: Reaper, environment: Mapping[str, str]) -> None:
        self._selector = selector
        self._reaper = reaper
        self._environment = ProcessEnvironment(dict(environment))
        self._waiting: deque[tuple[Sequence[str], Callable[[Checked], object]]] = deque()
        self._child: Child | None = None
        self._then: Callable[[Checked], object] = lambda _: None
        self._deadline = 0.0
        self._last_line = ""

    @property
    def busy(self) -> bool:
        """Whether something is being checked."""
        return self._child is not None or bool(self._waiting)

    def ask(self, command: Sequence[str], then: Callable[[Checked], object]) -> None:
        """Have something checked by a command."""
        if len(self._waiting) >= MOST_WAITING:
            then(Checked(error="too many orders wait for the settings to be checked"))
            return
        self._waiting.append((command, then))
        self._go_on()

    def tend(self, now: float) -> None:
        """End a check that takes too long."""
        if self._child is not None and now >= self._deadline:
            self._end(
                Checked(
                    error=f"the settings could not be checked within {LIMIT:g} s; does the service that tells users "
                    "and groups answer, and the disk?"
                )
            )
        self._go_on()

    def next_wake(self, now: float) -> float:
        """Seconds until time alone makes a difference."""
        return max(0.0, self._deadline - now) if self._child is not None else float("inf")

    def drop(self) -> None:
        """The program ends: nobody waits any more."""
        self._waiting.clear()
        self._then = lambda _: None
        if self._child is not None:
            self._end(Checked(error="the monitor ends"))

    def _go_on(self) -> None:
        if self._child is not None or not self._waiting:
            return
        command, then = self._waiting.popleft()
        self._then, self._deadline, self._last_line = then, time.monotonic() + LIMIT, ""
        child = None
        try:
            child = Child.start(command, self._environment, output=True)
            self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._hear(child))
        except OSError as error:
            if child is not None:
                child.kill_group()
                self._reaper.take(child)
            then(Checked(error=f"the settings cannot be checked: {texts.what(error)}"))
            return
        self._child = child

    def _hear(self, child: Child) -> None:
        if self._child is not child:
            return
        lines = child.receive()
        for line in lines or ():
            try:
                found = msgspec.json.decode(line, type=Checked)
            except msgspec.DecodeError:
                self._last_line = line.decode("utf-8", "replace").strip() or self._last_line
            else:
                self._end(found)
                return
        if lines is None:
            self._end(Checked(error=f"the program does not load: {self._last_line or 'it ended at once'}"))

    def _end(self, found: Checked) -> None:
        child, self._child = self._child, None
        if child is not None:
            self._selector.unregister(child.channel)
            child.kill_group()
            self._reaper.take(child)
        self._then(found)


if __name__ == "__main__":
    sys.exit(report(Path(sys.argv[1])))

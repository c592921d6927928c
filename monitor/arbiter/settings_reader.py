"""Reads and checks the settings in a process of its own.

Users and groups may come from a directory service that is down, and files from a disk that does not answer. The
arbiter must not wait for either.

The process prints what it found as one line of JSON. `python -m monitor.arbiter.settings_reader CONFIG` runs the code
that runs now; `lbmonitor --prepare` runs the code that would run after `lbctl reexec`.
"""

from __future__ import annotations

import os
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
from monitor.arbiter.files import run_folder, session_folder
from monitor.arbiter.processes.child import FLAGS, Child, Reaper
from monitor.arbiter.processes.process_environment import ProcessEnvironment, User, user

LIMIT = 8.0
"""Seconds for one check: less than the control socket waits for the reply to an order."""
MAX_WAITING = 16
"""Checks that wait; more are refused."""


class Checked(Struct, frozen=True):
    """What was found."""

    text: str = ""
    """of lbadaptor.toml"""
    user: User | None = None
    """the user that AppServers run as"""
    error: str = ""
    """why the settings are refused; empty: they are good"""

    def settings(self, config: Path) -> Settings:
        """The settings. Raises SettingsError."""
        if self.error:
            raise SettingsError(self.error)
        return parse(self.text, str(config.absolute().parent))


def check(config: Path) -> Checked:
    """Read and check the settings, and make the folder of session files where they name one.

    Blocks for as long as the system takes to look up users and groups, and the disk to answer.
    """
    try:
        settings = load(config)
        run_folder.group(settings.files.apache_group)
        run_folder.group(settings.files.status_group, "status_group")
        as_user = user(settings)
        session_folder.check(settings, as_user)
        return Checked(config.read_text("utf-8"), as_user)
    except SettingsError as error:
        return Checked(error=str(error))
    except (OSError, UnicodeDecodeError) as error:  # it was changed meanwhile
        return Checked(error=f"{config}: {error}")


def report(config: Path, keys: bool = False) -> int:
    """`check`, and print what was found. The exit status.

    `keys`: the key file has to be there, too. A monitor that starts anew reads it.
    """
    found = check(config)
    if keys and not found.error and not os.path.exists(path := found.settings(config).key_file):
        found = Checked(error=f"the key file {path} is missing: put it back")
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


def command(config: Path) -> list[str]:
    """The command that checks settings with the code that runs now."""
    return [sys.executable, *FLAGS, "-I", "-m", "monitor.arbiter.settings_reader", str(config.absolute())]


class Checker:
    """Runs one check after another. Nothing here blocks.

    `then` gets what was found, within LIMIT seconds of the start of the check.
    """

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
        """Run a check by this command, after those that wait."""
        if len(self._waiting) >= MAX_WAITING:
            then(Checked(error="too many orders wait for the settings to be checked"))
            return
        self._waiting.append((command, then))
        self._start_next()

    def enforce_limit(self, now: float) -> None:
        """End a check that takes too long. To be called often."""
        if self._child is not None and now >= self._deadline:
            self._end(
                Checked(
                    error=f"the settings could not be checked within {LIMIT:g} s; does the service that tells users "
                    "and groups answer, and the disk?"
                )
            )
        self._start_next()

    def next_wake(self, now: float) -> float:
        """Seconds until `enforce_limit` has something to do."""
        return max(0.0, self._deadline - now) if self._child is not None else float("inf")

    def drop(self) -> None:
        """The program ends: end the check, and call nothing."""
        self._waiting.clear()
        self._then = lambda _: None
        if self._child is not None:
            self._end(Checked(error="the monitor ends"))

    def _start_next(self) -> None:
        if self._child is not None or not self._waiting:
            return
        command, then = self._waiting.popleft()
        self._then, self._deadline, self._last_line = then, time.monotonic() + LIMIT, ""
        child = None
        try:
            child = Child.start(command, self._environment, output=True)
            self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._read(child))
        except (OSError, MemoryError) as error:  # an order waits for the reply
            if child is not None:
                child.kill_group()
                self._reaper.take(child)
            then(Checked(error=f"the settings cannot be checked: {texts.what(error)}"))
            return
        self._child = child

    def _read(self, child: Child) -> None:
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

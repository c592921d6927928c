"""`lbctl log`: what an AppServer said last, and the one before it in its slot; without a monitor too."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path

import click

from lbadaptor.contract.settings.schema import CAPTURED_FOLDER
from monitor.contract import captured
from monitor.contract.captured import CapturedName
from monitor.contract.client import NoAnswer
from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.base import Command, flag
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.terminal.times import moment
from monitor.watcher.lines import line

POLL_INTERVAL = 0.5
"""Seconds between two looks of `--follow`."""
LINES = 50
MOST_BYTES = 16 << 20
"""Bytes of a file that are read, at most: more than its AppServer leaves in it."""
TEMPLATE = -1
"""As a slot."""


def _whose(text: str) -> int:
    return TEMPLATE if text == "template" else base.slot_number(text)


def run(which: Which, slot: int, lines: int, generation: int | None, follow: bool) -> int:
    """The exit status. With `follow` it blocks until Ctrl-C. Raises LbadaptorError, OSError."""
    folder = which_monitor.control_socket(which).parent / CAPTURED_FOLDER
    names = _names(folder, slot, generation)
    asked = "the template" if slot < 0 else f"slot {slot}"
    asked += "" if generation is None else f" of generation {generation}"
    if not names:
        raise NoAnswer(f"{folder} has no lines of {asked}")
    found = [_File(folder, name) for name in names]
    shown: list[tuple[_File, list[str]]] = []
    for file in reversed(found):
        last = file.lines(unfinished=not follow)[-lines:] if lines else []
        lines -= len(last)
        shown.insert(0, (file, last))
    for file, last in shown:
        if last:
            _show(file, last, heading=len(found) > 1)
    if lines and not follow and not any(last for _, last in shown):
        print(f"lbctl: {asked} has said nothing", file=sys.stderr)
    if follow:
        _follow(found[-1], folder, slot, generation)
    return 0


def _names(folder: Path, slot: int, generation: int | None) -> list[CapturedName]:
    """Raises OSError; not where there is no folder."""
    try:
        names = captured.files(folder)
    except FileNotFoundError:
        return []
    return [name for name in names if name.slot == slot and generation in (None, name.generation)]


class _File:
    """Of one AppServer."""

    def __init__(self, folder: Path, name: CapturedName) -> None:
        self.name = name
        self._path = folder / str(name)
        self._position = 0

    def lines(self, unfinished: bool) -> list[str]:
        """Those that have come since the last call. `unfinished`: with the last one, though it may not have ended.

        Raises OSError; a file that is gone has none.
        """
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._position:  # somebody has emptied it
                self._position = 0
            begin = max(_data_from(file.fileno(), self._position, size), size - MOST_BYTES)
            data = os.pread(file.fileno(), size - begin, begin)
            if begin > self._position:  # a hole ends within a line
                first = data.find(b"\n") + 1
                begin, data = begin + first, data[first:]
            if not unfinished:
                data = data[: data.rfind(b"\n") + 1]
            self._position = begin + len(data)
            return [line.read(one).text for one in data.splitlines()]
        return []

    def heading(self) -> str:
        who = "template" if self.name.slot < 0 else "AppServer"
        with contextlib.suppress(FileNotFoundError):
            return f"--- {who} {self.name}, last line {moment(self._path.stat().st_mtime)} ---"
        return f"--- {who} {self.name} ---"


def _data_from(descriptor: int, position: int, size: int) -> int:
    """Where data begins behind a hole."""
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else position


def _show(file: _File, lines: list[str], heading: bool) -> None:
    print("\n".join([*([file.heading()] if heading else []), *lines]), flush=True)


def _follow(file: _File, folder: Path, slot: int, generation: int | None) -> None:
    """Show lines as they come, and go on with the next AppServer of the slot. Blocks until Ctrl-C."""
    while True:
        if lines := file.lines(unfinished=False):
            _show(file, lines, heading=False)
        newer = [name for name in _names(folder, slot, generation) if name > file.name]
        if newer:
            if lines := file.lines(unfinished=True):  # its last words
                _show(file, lines, heading=False)
            file = _File(folder, newer[0])
            print(file.heading(), flush=True)
        else:
            time.sleep(POLL_INTERVAL)


command = Command(
    "log",
    "show the last lines of the AppServer in a slot, and of the one before it",
    run,
    [
        base.slot(kind=_whose),
        click.Option(
            ["-n", "--lines"],
            type=click.IntRange(min=0),
            default=LINES,
            show_default=True,
            metavar="N",
            help="How many lines.",
        ),
        click.Option(
            ["--generation"], type=click.IntRange(min=0), metavar="GENERATION", help="Of this AppServer alone."
        ),
        flag("follow", "go on until Ctrl-C, and show each line when it comes"),
    ],
    ["lbctl log 2", "lbctl log 2 -n 500", "lbctl log 2 --follow", "lbctl log template"],
    more="It reads the files in the run folder, which keep the end of what was said, also when no monitor runs. "
    "SLOT may be `template`, with preload.",
)

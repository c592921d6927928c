"""The watcher: a child of the arbiter, with the threads that the arbiter must not have.

It probes the AppServers and answers at the control socket; it reports facts, with the generation they are
about, and carries people's orders. It ends with the arbiter: the channel between them tells.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from lbadaptor.log import logs, texts
from monitor.contract import messages
from monitor.contract.client import REPLY_TIMEOUT
from monitor.contract.messages import (
    SIGN_OF_LIFE,
    Alive,
    Begin,
    FromArbiter,
    FromWatcher,
    Ordered,
    Probed,
    Reply,
    View,
)
from monitor.contract.threads import start
from monitor.watcher.control import ControlServer
from monitor.watcher.probe import Prober

log = logs.logger("lbmonitor.watcher")

GATHERING = 0.1
"""Seconds."""


class Watcher:
    """`run` blocks until the arbiter is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._unsent = b""
        self._begin: Begin | None = None
        self._server: ControlServer | None = None
        self._opening = threading.Lock()
        """held while the console is looked after: two threads do so"""
        self._console_said = ""
        self._short = ""
        self._view = View([], {})
        self._probers: dict[tuple[int, int], Prober] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Wait] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Hear the arbiter."""
        start(threading.Thread(target=self._live, name="sign-of-life", daemon=True))
        with contextlib.suppress(ConnectionError), self._channel.makefile("rb") as lines:
            for line in lines:
                try:
                    self._heed(messages.from_arbiter(line))
                except MemoryError as error:
                    self._say_short(str(error) or "out of memory")  # another view comes soon
                else:
                    self._say_short("")
        self._over.set()
        for prober in self._probers.values():
            prober.stop()

    def _heed(self, message: FromArbiter) -> None:
        if isinstance(message, Begin):
            first, self._begin = self._begin is None, message
            if first:
                self._tend_server()
        elif isinstance(message, View):
            self._see(message)
        else:
            self._hear(message)

    def _say_short(self, why: str) -> None:
        """Say once what is short, and that it is over."""
        if why != self._short:
            with contextlib.suppress(MemoryError):
                if why:
                    log.error("not all are probed: %s; tried again all the while", why)
                else:
                    log.info("all are probed again")
        self._short = why

    def _tend_server(self) -> None:
        """Open the console, anew where somebody deleted its socket. Without one there are probes all the same."""
        with self._opening:
            self._open_server()

    def _open_server(self) -> None:
        if self._begin is None or (self._server is not None and self._server.found()):
            return
        path = Path(self._begin.control_socket)
        if self._server is not None:
            log.warning("%s was deleted; it is made anew", path)
            self._server.close()
            self._server = None
        try:
            self._server = ControlServer(path, lambda: self._view.status, self._order)
            self._console_said = ""
        except (OSError, MemoryError) as error:
            why = texts.what(error) if isinstance(error, OSError) else str(error) or "out of memory"
            if why != self._console_said:
                log.error("no orders can be given at %s: %s", path, why)
            self._console_said = why

    def _see(self, view: View) -> None:
        """Probe whom the arbiter names now, and nobody else."""
        assert self._begin is not None
        self._view = view
        targets = {(target.slot, target.generation): target for target in view.targets}
        for identity in self._probers.keys() - targets.keys():
            self._probers.pop(identity).stop()
        for identity in targets.keys() - self._probers.keys():
            self._probers[identity] = Prober(
                targets[identity], self._begin.probe_interval, self._begin.probe_timeout, self._tell
            )

    def _order(self, order: str, slot: int, options: tuple[str, ...]) -> tuple[bool, str]:
        """Carry an order to the arbiter, and its reply back. Any console thread."""
        wait = _Wait()
        number = next(self._numbers)
        self._waiting[number] = wait
        try:
            self._tell(Ordered(number, order, slot, options))
            if not wait.heard.wait(REPLY_TIMEOUT):
                return False, f"the arbiter did not reply within {REPLY_TIMEOUT:g} s"
            assert wait.reply is not None
            return wait.reply.done, wait.reply.text
        finally:
            del self._waiting[number]

    def _hear(self, reply: Reply) -> None:
        wait = self._waiting.get(reply.number)
        if wait is not None:
            wait.reply = reply
            wait.heard.set()

    def _live(self) -> None:
        """Every `GATHERING` seconds what was gathered, and now and then a sign of life."""
        turns = round(SIGN_OF_LIFE / GATHERING)
        for turn in itertools.cycle(range(turns)):
            if self._over.wait(GATHERING):
                return
            with contextlib.suppress(MemoryError):  # the next turn tells
                logs.flush()
                if turn == 0:
                    self._tend_server()
                    self._tell(Alive())
                elif self._unsent:
                    self._send(b"")

    def _tell(self, message: FromWatcher) -> None:
        """Bad news at once. Good news is gathered: it would wake the arbiter for each of many AppServers."""
        line = messages.encode(message) + b"\n"
        if isinstance(message, Probed):
            with self._sending:
                self._unsent += line
        else:
            self._send(line)

    def _send(self, line: bytes) -> None:
        """What was gathered, and a line."""
        try:
            with self._sending:
                data, self._unsent = self._unsent + line, b""
                self._channel.sendall(data)
        except OSError:
            self._over.set()  # the arbiter is gone; `run` sees it too


class _Wait:
    def __init__(self) -> None:
        self.heard = threading.Event()
        self.reply: Reply | None = None


def main(arguments: list[Any]) -> None:
    """`python -m monitor.watcher DESCRIPTOR`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.to_stderr("lbmonitor watcher: ")
    with socket.socket(fileno=int(arguments[0])) as channel:
        channel.set_inheritable(False)
        Watcher(channel).run()

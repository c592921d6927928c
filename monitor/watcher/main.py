"""The watcher: a child of the arbiter, with the threads that the arbiter must not have.

It probes the AppServers, forwards their lines, serves the control socket, and answers HAProxy. It sends the arbiter
facts, each with the generation that it is about, and the orders of people. It ends when the arbiter has ended: the
channel between them is closed then.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once
from monitor.contract import messages
from monitor.contract.messages import (
    LAST_LINES,
    SIGN_OF_LIFE,
    Alive,
    Availability,
    Begin,
    FromArbiter,
    FromWatcher,
    Ordered,
    Probed,
    Reply,
    View,
)
from monitor.contract.orders import REPLY_TIMEOUT
from monitor.contract.threads import start
from monitor.watcher.control import ControlServer, Silent
from monitor.watcher.lines import outputs
from monitor.watcher.lines.forwarder import Forwarder
from monitor.watcher.probe import Prober

if TYPE_CHECKING:
    from msgspec import Raw

    from monitor.watcher.agent import KeptAgent

log = logs.logger("lbmonitor.watcher")

BATCH_INTERVAL = 0.25
"""Seconds for which answers to probes are collected before they are sent. The arbiter looks at all AppServers each
time that something comes."""
SILENT_AFTER = 10.0
"""Seconds after which the status is not passed on any more: the arbiter, which sends it twice a second, hangs."""


class Watcher:
    """`run` blocks until the arbiter is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._unsent = b""
        self._begin: Begin | None = None
        self._servers: dict[Path, ControlServer] = {}
        self._opening = threading.Lock()
        """held while the control server is opened: two threads do so"""
        self._open_errors: dict[Path, Once] = {}
        self._agent: KeptAgent | None = None
        self._shortage = Once()
        self._view: View | None = None
        """None: the arbiter has sent none yet"""
        self._viewed = time.monotonic()
        """when it was sent"""
        self._probers: dict[tuple[int, int], Prober] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Wait] = {}
        self._over = threading.Event()
        self._forwarder = Forwarder()
        self._forwarding: threading.Thread | None = None
        self._output: tuple[str, bool] | None = None
        """the file of the forwarder's output, and whether it is JSON"""

    def run(self) -> None:
        """Receive what the arbiter sends."""
        start(threading.Thread(target=self._send_regularly, name="sign-of-life", daemon=True))
        with contextlib.suppress(ConnectionError), self._channel.makefile("rb") as lines:
            for line in lines:
                try:
                    self._receive(messages.from_arbiter(line))
                except MemoryError as error:
                    self._log_shortage(str(error) or "out of memory")  # another view comes soon
                else:
                    self._log_shortage("")
        self._over.set()
        for prober in self._probers.values():
            prober.stop()
        self._forwarder.finish(LAST_LINES)

    def _receive(self, message: FromArbiter) -> None:
        if isinstance(message, Begin):
            first, self._begin = self._begin is None, message
            self._direct_lines(message)
            if first:
                self._keep_forwarding()
                self._keep_servers_open()
        elif isinstance(message, View):
            self._update_probers(message)
        else:
            self._take_reply(message)

    def _direct_lines(self, begin: Begin) -> None:
        """Tell the forwarder where the lines of AppServers go."""
        wanted = begin.log_file, begin.log_json
        if wanted != self._output:
            self._output = wanted
            logs.set_json(begin.log_json)
            self._forwarder.direct(Path(begin.captured_folder), outputs.output(*wanted))

    def _keep_forwarding(self) -> None:
        """Have a thread that forwards them. Raises MemoryError."""
        if self._forwarding is None or not self._forwarding.is_alive():
            run = logs.guarded(self._forwarder.run, log)
            self._forwarding = threading.Thread(target=run, name="forwarder", daemon=True)
            start(self._forwarding)

    def _log_shortage(self, why: str) -> None:
        """Log once what is short, and when that is over (an empty `why`)."""
        with contextlib.suppress(MemoryError):
            if why and self._shortage.first(why):
                log.error("not all are probed: %s; tried again all the while", why)
            elif not why and self._shortage.over():
                log.info("all are probed again")

    def _keep_servers_open(self) -> None:
        """Open the control server, and again where its socket was deleted; the same for that of a group; and the
        agent. Probes do not need them."""
        begin = self._begin
        if begin is None:
            return
        with self._opening:
            self._keep_open(Path(begin.control_socket))
            if begin.status_socket:
                self._keep_open(Path(begin.status_socket), begin.status_group)
            if self._agent is None and begin.agent:
                from monitor.watcher.agent import KeptAgent  # most machines are alone

                self._agent = KeptAgent(self._availability)
            if self._agent is not None:
                self._agent.keep(begin.agent, begin.front)

    def _keep_open(self, path: Path, group: int | None = None) -> None:
        server = self._servers.get(path)
        if server is not None:
            if server.found():
                return
            log.warning("%s was deleted; it is made anew", path)
            del self._servers[path]
            server.close()
        once = self._open_errors.setdefault(path, Once())
        try:
            self._servers[path] = ControlServer(path, self._status, self._order, group)
            once.over()
        except (OSError, MemoryError) as error:
            why = texts.what(error) if isinstance(error, OSError) else str(error) or "out of memory"
            if once.first(why):
                log.error("no orders can be given at %s: %s", path, why)

    def _update_probers(self, view: View) -> None:
        """Probe those that the arbiter names now, and no others."""
        assert self._begin is not None
        self._view = view
        self._viewed = time.monotonic()
        targets = {(target.slot, target.generation): target for target in view.targets}
        for identity in self._probers.keys() - targets.keys():
            self._probers.pop(identity).stop()
        for identity in targets.keys() - self._probers.keys():
            self._probers[identity] = Prober(
                targets[identity], self._begin.probe_interval, self._begin.probe_timeout, self._report
            )

    def _status(self) -> Raw:
        """The newest one. Any thread of the control server. Raises Silent where there is none, or it is old."""
        age = time.monotonic() - self._viewed
        if age > SILENT_AFTER:
            raise Silent(f"the monitor does not answer in time: its main process hangs, silent for {age:.0f} s")
        if self._view is None:
            raise Silent("the monitor has just begun, and does not answer yet")
        return self._view.status

    def _availability(self) -> Availability | None:
        """What to tell HAProxy; None: nothing is known, or it has become old. The agent's thread."""
        new = time.monotonic() - self._viewed <= SILENT_AFTER
        return self._view.availability if self._view is not None and new else None

    def _order(self, order: Ordered) -> tuple[bool, str]:
        """Send an order to the arbiter, and return its reply. Any thread of the control server."""
        wait = _Wait()
        number = next(self._numbers)
        self._waiting[number] = wait
        try:
            self._report(msgspec.structs.replace(order, number=number))
            if not wait.replied.wait(REPLY_TIMEOUT):
                return False, f"the arbiter did not reply within {REPLY_TIMEOUT:g} s"
            assert wait.reply is not None
            return wait.reply.done, wait.reply.text
        finally:
            del self._waiting[number]

    def _take_reply(self, reply: Reply) -> None:
        wait = self._waiting.get(reply.number)
        if wait is not None:
            wait.reply = reply
            wait.replied.set()

    def _send_regularly(self) -> None:
        """Send what was collected every BATCH_INTERVAL seconds, and a sign of life every SIGN_OF_LIFE seconds."""
        turns = round(SIGN_OF_LIFE / BATCH_INTERVAL)
        for turn in itertools.cycle(range(turns)):
            if self._over.wait(BATCH_INTERVAL):
                return
            with contextlib.suppress(MemoryError):  # the next turn does it
                logs.flush()
                if turn == 0:
                    self._keep_servers_open()
                    self._report(Alive())
                    if self._begin is not None:
                        self._keep_forwarding()
                elif self._unsent:
                    self._send(b"")

    def _report(self, message: FromWatcher) -> None:
        """Send a message at once, but collect answers to probes: each would wake the arbiter."""
        line = messages.encode(message) + b"\n"
        if isinstance(message, Probed):
            with self._sending:
                self._unsent += line
        else:
            self._send(line)

    def _send(self, line: bytes) -> None:
        """Send what was collected, and a line."""
        try:
            with self._sending:
                data, self._unsent = self._unsent + line, b""
                self._channel.sendall(data)
        except OSError:
            self._over.set()  # the arbiter is gone; `run` sees it too


class _Wait:
    def __init__(self) -> None:
        self.replied = threading.Event()
        self.reply: Reply | None = None


def main(arguments: list[Any]) -> None:
    """`python -m monitor.watcher DESCRIPTOR`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # of a lease (`lines.reader`)
    logs.to_stderr("lbmonitor watcher: ")
    with socket.socket(fileno=int(arguments[0])) as channel:
        channel.set_inheritable(False)
        Watcher(channel).run()

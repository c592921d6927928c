"""The watcher's process: started, sent messages, listened to, and replaced when it dies or is silent.

Nothing that visitors depend on waits for the watcher, and no AppServer notices when another one is started.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping

import msgspec

from lbadaptor.log import logs, texts
from monitor.arbiter.processes.child import FLAGS, Child, Reaper
from monitor.arbiter.processes.process_environment import ProcessEnvironment
from monitor.contract import messages
from monitor.contract.messages import LAST_LINES, SILENCE
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

PAUSE = 2.0
"""Seconds between two starts of a watcher, at least, so that one that cannot run does not keep the machine busy."""
FORWARDING = LAST_LINES + 1.0
"""Seconds that it may take to end, where nothing is wrong."""
VIEW_INTERVAL = 0.5
"""Seconds between two views sent to the watcher, at least, unless there is news."""


class WatcherProcess:
    """At most one process. Nothing here blocks.

    `receive` gets each message of the watcher; `begin` makes the first message to a new one.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        reaper: Reaper,
        environment: Mapping[str, str],
        begin: Callable[[], messages.Begin],
        receive: Callable[[messages.FromWatcher], None],
        problems: Problems | None = None,
    ) -> None:
        self._selector = selector
        self._reaper = reaper
        self._environment = dict(environment)
        self._begin = begin
        self._receive = receive
        self._watcher: Child | None = None
        self._last_message = 0.0
        self._due = float("-inf")
        self._problems = Problems() if problems is None else problems
        self._view_due = 0.0
        self._sent_news: object = None

    def keep_running(self, now: float, wanted: bool) -> None:
        """End a watcher that is silent, and start one if there is none and one is `wanted`. To be called often."""
        if self._watcher is not None and now - self._last_message > SILENCE:
            self.drop(f"was silent for {SILENCE:.0f} s")
        if self._watcher is None and wanted and now >= self._due:
            self._due = now + PAUSE
            command = [sys.executable, *FLAGS, "-I", "-m", "monitor.watcher", "{channel}"]
            try:
                self._follow(Child.start(command, ProcessEnvironment(self._environment)))
            except OSError as error:
                why = texts.what(error)
                self._problems.begin(
                    "watcher", f"no watcher, so no probes and no orders: {why}; tried again all the while"
                )
                return
            self._last_message = now
            self.begin()

    def _follow(self, watcher: Child) -> None:
        """Have its end and its messages reported. Raises OSError; it is ended then."""
        try:
            self._selector.register(watcher.pidfd, selectors.EVENT_READ, lambda: self._exited(watcher))
            self._selector.register(watcher.channel, selectors.EVENT_READ, lambda: self._read(watcher))
        except OSError:
            self._end(watcher)
            raise
        self._watcher = watcher

    def restart_silence(self, now: float) -> None:
        """Count its silence from now on: this process itself was stopped, and could not receive messages."""
        self._last_message = now

    def begin(self) -> None:
        """Send the settings that concern it, to a new one and when they have changed."""
        self._view_due = 0.0
        self._send(messages.encode(self._begin()))

    def reply(self, reply: messages.Reply) -> None:
        """Send what came of an order. The view that shows it follows at once."""
        self._view_due = 0.0
        self._send(messages.encode(reply))

    def send_view(self, view: Callable[[float], messages.View], news: object, now: float) -> None:
        """Send the view as of `now` if it is time for one or `news` has changed, and the last one has been received.

        `news` changes with what is logged, so that the status shows what the log says.
        """
        if self._watcher is not None and self._watcher.backlog:
            self._send(b"")
        if self._watcher is None or self._watcher.backlog or (now < self._view_due and news == self._sent_news):
            return
        self._view_due = now + VIEW_INTERVAL
        self._sent_news = news
        self._send(messages.encode(view(now)))

    def drop(self, why: str) -> None:
        """End the watcher; `keep_running` starts another. `why` is for the log."""
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        log.warning("the watcher %s; another is started", why)
        self._end(watcher)

    def finish(self) -> None:
        """End the watcher once it has forwarded the AppServers' last lines. Blocks for FORWARDING seconds at most."""
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        log.info("the watcher ends")
        with contextlib.suppress(OSError):
            watcher.channel.shutdown(socket.SHUT_WR)
        self._end(watcher, FORWARDING)

    def _end(self, watcher: Child, patience: float = 0.0) -> None:
        for descriptor in (watcher.pidfd, watcher.channel):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        watcher.wait(patience)
        if not watcher.released:
            watcher.kill_group()
            self._reaper.take(watcher)

    def _send(self, line: bytes) -> None:
        if self._watcher is not None and not self._watcher.send(line):
            self.drop("takes no more messages")

    def _exited(self, watcher: Child) -> None:
        if self._watcher is watcher:
            self.drop("died")

    def _read(self, watcher: Child) -> None:
        if self._watcher is not watcher:
            return  # dropped in the same turn; there may be another one by now
        lines = watcher.receive()
        if lines is None:
            self.drop("closed its channel")
            return
        for line in lines:
            try:
                message = messages.from_watcher(line)
            except msgspec.DecodeError as error:
                log.error("the watcher sends nonsense: %s", error)
                continue
            self._last_message = time.monotonic()
            self._problems.end("watcher", "the watcher runs again")
            self._receive(message)

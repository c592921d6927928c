"""The link to the watcher: start it, hear it, tell it, and start another when it dies or falls silent.

Nothing that visitors depend on waits for the watcher, and no AppServer notices when there is another.
"""

from __future__ import annotations

import contextlib
import selectors
import sys
import time
from collections.abc import Callable, Mapping

import msgspec

from lbadaptor.log import logs, texts
from monitor.arbiter.processes.child import FLAGS, Child, Reaper
from monitor.arbiter.processes.process_environment import ProcessEnvironment
from monitor.contract import messages
from monitor.contract.messages import SILENCE
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

PAUSE = 2.0
"""Seconds between two starts of a watcher, at least: one that cannot run must not keep the machine busy."""
VIEW_INTERVAL = 0.5
"""Seconds between two views sent to the watcher, at least, unless what they tell is news."""


class WatcherProcess:
    """Nothing here blocks. `hear` gets what the watcher says; `begin` is asked what to tell a new one first."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        reaper: Reaper,
        environment: Mapping[str, str],
        begin: Callable[[], messages.Begin],
        hear: Callable[[messages.FromWatcher], None],
        problems: Problems | None = None,
    ) -> None:
        self._selector = selector
        self._reaper = reaper
        self._environment = dict(environment)
        self._begin = begin
        self._hear = hear
        self._watcher: Child | None = None
        self._heard = 0.0
        self._due = float("-inf")
        self._problems = Problems() if problems is None else problems
        self._view_due = 0.0
        self._shown: object = None

    def tend(self, now: float, wanted: bool) -> None:
        """Drop a watcher that is silent; start one where there is none and it is `wanted`."""
        if self._watcher is not None and now - self._heard > SILENCE:
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
            self._heard = now
            self.begin()

    def _follow(self, watcher: Child) -> None:
        """Hear of its end, and what it says. Raises OSError; then it is ended."""
        try:
            self._selector.register(watcher.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(watcher))
            self._selector.register(watcher.channel, selectors.EVENT_READ, lambda: self._receive(watcher))
        except OSError:
            self._end(watcher)
            raise
        self._watcher = watcher

    def excuse(self, now: float) -> None:
        """It was this process that did not listen: its silence begins now."""
        self._heard = now

    def begin(self) -> None:
        """Tell it how to go about its work, at first and when the settings have changed."""
        self._view_due = 0.0
        self._say(messages.encode(self._begin()))

    def reply(self, reply: messages.Reply) -> None:
        """What came of an order; the view that shows it follows at once."""
        self._view_due = 0.0
        self._say(messages.encode(reply))

    def show(self, view: Callable[[float], messages.View], news: object, now: float) -> None:
        """Send the view as of `now` where it is time for one or `news` has changed, and the last one was taken.

        Whoever reads in the log that something happened shall find it in the status, too.
        """
        if self._watcher is not None and self._watcher.backlog:
            self._say(b"")
        if self._watcher is None or self._watcher.backlog or (now < self._view_due and news == self._shown):
            return
        self._view_due = now + VIEW_INTERVAL
        self._shown = news
        self._say(messages.encode(view(now)))

    def drop(self, why: str) -> None:
        """End the watcher; `tend` starts another."""
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        log.log(
            logs.INFO if why == "ends" else logs.WARNING,
            "the watcher %s%s",
            why,
            "" if why == "ends" else "; another is started",
        )
        self._end(watcher)

    def _end(self, watcher: Child) -> None:
        for descriptor in (watcher.pidfd, watcher.channel):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        watcher.kill_group()
        self._reaper.take(watcher)

    def _say(self, line: bytes) -> None:
        if self._watcher is not None and not self._watcher.send(line):
            self.drop("takes no more messages")

    def _hear_exit(self, watcher: Child) -> None:
        if self._watcher is watcher:
            self.drop("died")

    def _receive(self, watcher: Child) -> None:
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
                log.error("the watcher talks nonsense: %s", error)
                continue
            self._heard = time.monotonic()
            self._problems.end("watcher", "the watcher runs again")
            self._hear(message)

"""The template process of `preload`: it is asked for one AppServer at a time, and replaced when it has died.

Nothing here blocks. Nothing is decided here either: an AppServer that cannot be forked has failed to start, and the
plan decides what follows.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from lbadaptor.appserver.process import messages
from lbadaptor.contract.address import Identity
from lbadaptor.log import logs, texts
from monitor.arbiter.processes.child import Child, Reaper, become_subreaper
from monitor.policy.problems import Problems

log = logs.logger("lbmonitor")

PAUSE = 2.0
"""Seconds between the death of a template and the start of another that no AppServer waits for yet."""


class TemplateOwner(Protocol):
    """What a template forks AppServers for."""

    def start_template(self) -> Child:
        """Start the process, and send it what to import. Raises OSError."""

    def request(self, identity: Identity) -> messages.Fork:
        """What to tell the template of the AppServer."""

    def open_captured(self, identity: Identity) -> int | None:
        """Open the file that gets what the AppServer says; None: there is none."""

    def forked(self, identity: Identity, child: Child) -> None:
        """It was forked."""

    def not_forked(self, identity: Identity, why: str) -> None:
        """It could not be forked."""

    def start(self, identity: Identity) -> None:
        """Start it again, from another template or without one."""

    def log_trace(self, name: str, trace: Sequence[str]) -> None:
        """Log the traceback of a start that failed."""


class Template:
    """At most one process; it is started when the first AppServer is asked for."""

    def __init__(
        self,
        owner: TemplateOwner,
        selector: selectors.BaseSelector,
        reaper: Reaper,
        problems: Problems | None = None,
    ) -> None:
        self.unfit = False
        """the application cannot be forked: do not ask for AppServers"""
        self._owner = owner
        self._selector = selector
        self._reaper = reaper
        self._problems = Problems() if problems is None else problems
        self._child: Child | None = None
        self._imported = False
        self._why = ""
        self._started_at = 0.0
        self._due = float("inf")
        self._waiting: deque[Identity] = deque()
        self._asked: Identity | None = None
        """the AppServer that the template is forking"""
        self._channel: socket.socket | None = None
        """the channel to that AppServer, as long as it is wanted"""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def __contains__(self, identity: Identity) -> bool:
        """Whether an AppServer was asked for, and is not forked yet."""
        return identity in self._waiting or (identity == self._asked and self._channel is not None)

    def fork(self, identity: Identity) -> None:
        """Ask for an AppServer."""
        self._waiting.append(identity)
        self._ask_next()

    def keep_running(self, now: float, wanted: bool) -> None:
        """Start another process when the last one has died; end it if none is wanted. To be called often."""
        if not wanted:
            self._due = float("inf")
            self.drop("is not wanted any more")
        elif self._child is None and (self._waiting or now >= self._due):
            self._start()

    def cancel(self, identity: Identity) -> None:
        """The AppServer is not wanted any more."""
        if identity in self._waiting:
            self._waiting.remove(identity)
        elif identity == self._asked:
            self._close_channel()  # the AppServer ends when it finds it closed

    def renew(self) -> None:
        """A release: all AppServers come from a new template from now on."""
        self.unfit = False
        for identity in self._drop_all("is replaced"):
            self._owner.start(identity)

    def drop(self, why: str) -> None:
        """End the process. The AppServers that it has forked are the arbiter's children, and go on."""
        child, self._child = self._child, None
        if child is None:
            return
        log.info("the template %s", why)
        if self._asked is not None and self._channel is not None:
            self._waiting.appendleft(self._asked)
        self._asked = None
        self._close_channel()
        for descriptor in (child.pidfd, child.channel):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        child.kill_group()
        self._reaper.take(child)

    def give_up(self, why: str) -> None:
        """The process is dead or hung: the AppServers that wait are not forked."""
        if self._imported:
            self._due = time.monotonic() + PAUSE
        for identity in self._drop_all(why):
            self._owner.not_forked(identity, self._why or f"the template {why}")

    def _drop_all(self, why: str) -> Iterable[Identity]:
        """End the process. Returns the AppServers that it had still to fork."""
        self.drop(why)
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def _start(self) -> None:
        self._imported, self._why = False, ""
        self._started_at, self._due = time.monotonic(), float("inf")
        try:
            become_subreaper()
            child = self._child = self._owner.start_template()
            self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._exited(child))
            self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._read(child))
        except OSError as error:
            self._problems.begin("template", f"no template: {texts.what(error)}; tried again all the while")
            self.give_up(f"cannot be started: {texts.what(error)}")
            return
        self._problems.end("template", "there is a template again")
        log.info("the template starts: pid %d", child.pid)

    def _ask_next(self) -> None:
        """Ask for the next one, if the template is ready."""
        if self._waiting and self._child is None:
            self._start()
        while self._waiting and self._child is not None and self._imported and self._asked is None:
            self._ask(self._child, self._waiting.popleft())

    def _ask(self, template: Child, identity: Identity) -> None:
        """Ask it for an AppServer."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # this process is short of something; the template is all right
            self._owner.not_forked(identity, f"cannot fork: {texts.what(error)}")
            return
        ours.setblocking(False)
        self._asked, self._channel = identity, ours
        captured = self._owner.open_captured(identity)
        with theirs:
            descriptors = [theirs.fileno(), *([] if captured is None else [captured])]
            try:
                line = messages.encode(self._owner.request(identity)) + b"\n"
                sent = socket.send_fds(template.channel, [line], descriptors) == len(line)
            except OSError:
                sent = False
        if captured is not None:
            os.close(captured)
        if not sent:
            self.give_up("takes no orders")

    def _read(self, child: Child) -> None:
        if self._child is not child:
            return  # dropped in the same turn; there may be another one by now
        lines = child.receive()
        if lines is None:
            self._selector.unregister(child.channel)  # its exit follows
            return
        for line in lines:
            if self._child is not child:
                return  # dropped because of what it reported before
            try:
                report = messages.decode_template_report(line)
            except msgspec.DecodeError as error:
                self.give_up(f"reports nonsense: {error}")
                return
            self._take(report)

    def _take(self, report: messages.TemplateReport) -> None:
        if isinstance(report, messages.Imported):
            self._imported, self._why = True, ""
            log.info("the template has imported the application after %.1f s", time.monotonic() - self._started_at)
        elif isinstance(report, messages.Failed):
            self._why = texts.clean(report.why, texts.REASON)  # its exit follows
            self._owner.log_trace("the template", report.trace)
            return
        elif isinstance(report, messages.Unfit):
            self.unfit = True
            log.error("preload has NO effect: %s. Each AppServer imports the application for itself", report.why)
            for identity in self._drop_all("is unfit"):
                self._owner.start(identity)
            return
        else:
            self._take_fork(report)
        self._ask_next()

    def _take_fork(self, report: messages.Forked | messages.Unforked) -> None:
        identity, channel = self._asked, self._channel
        self._asked = self._channel = None
        if identity is None or channel is None:
            return  # not wanted any more
        if isinstance(report, messages.Unforked):
            channel.close()
            self._owner.not_forked(identity, f"cannot fork: {report.why}")
            return
        try:
            child = Child.reparented(report.pid, channel)
        except ProcessLookupError as error:
            self._owner.not_forked(identity, f"it ended at once: {texts.what(error)}")
        except OSError as error:  # its channel is closed, so it ends
            self._owner.not_forked(identity, f"cannot be followed: {texts.what(error)}")
        else:
            self._owner.forked(identity, child)

    def _exited(self, child: Child) -> None:
        if self._child is not child:
            return  # dropped in the same turn; there may be another one by now
        if child.channel in self._selector.get_map():
            self._read(child)  # what it sent before it ended
        if self._child is child:
            self.give_up("died")

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

"""The template of `preload`, as the arbiter has it: asked for AppServers, one at a time; replaced when it is gone.

Here nothing blocks and nothing is decided: an AppServer that cannot be forked has failed to start, and the plan says
what becomes of it.
"""

from __future__ import annotations

import contextlib
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
"""Seconds between the death of a template and the start of another that nobody waits for yet."""


class TemplateOwner(Protocol):
    """Who wants the AppServers."""

    def start_template(self) -> Child:
        """Start the process, and hand over what it is to import. Raises OSError."""

    def request(self, identity: Identity) -> messages.Fork:
        """What the AppServer is to be."""

    def forked(self, identity: Identity, child: Child) -> None:
        """It was forked."""

    def not_forked(self, identity: Identity, why: str) -> None:
        """It could not be forked."""

    def start(self, identity: Identity) -> None:
        """It is to be started anew, from another template or alone."""

    def log_trace(self, who: str, trace: Sequence[str]) -> None:
        """It failed with this traceback."""


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
        """the application cannot be forked: no AppServer is to be asked for"""
        self._owner = owner
        self._selector = selector
        self._reaper = reaper
        self._problems = Problems() if problems is None else problems
        self._child: Child | None = None
        self._imported = False
        self._why = ""
        self._begun = 0.0
        self._due = float("inf")
        self._waiting: deque[Identity] = deque()
        self._asked: Identity | None = None
        """whom the template is forking"""
        self._channel: socket.socket | None = None
        """to that one, as long as it is wanted"""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def __contains__(self, identity: Identity) -> bool:
        """Whether an AppServer was asked for, and is not forked yet."""
        return identity in self._waiting or (identity == self._asked and self._channel is not None)

    def fork(self, identity: Identity) -> None:
        """Ask for an AppServer."""
        self._waiting.append(identity)
        self._go_on()

    def tend(self, now: float, wanted: bool) -> None:
        """Have another one at hand when the last has died, or end it when it is not wanted any more."""
        if not wanted:
            self._due = float("inf")
            self.drop("is not wanted any more")
        elif self._child is None and (self._waiting or now >= self._due):
            self._start()

    def cancel(self, identity: Identity) -> None:
        """It is not wanted any more."""
        if identity in self._waiting:
            self._waiting.remove(identity)
        else:
            self._close_channel()  # the AppServer ends when it finds that

    def renew(self) -> None:
        """A release: whoever is asked for comes from a new template."""
        self.unfit = False
        for identity in self._drop_all("is replaced"):
            self._owner.start(identity)

    def drop(self, why: str) -> None:
        """End the process. AppServers that it has forked go on: they are the arbiter's children."""
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
        """It is dead or hung: none of those that wait will be forked."""
        if self._imported:
            self._due = time.monotonic() + PAUSE
        for identity in self._drop_all(why):
            self._owner.not_forked(identity, self._why or f"the template {why}")

    def _drop_all(self, why: str) -> Iterable[Identity]:
        """End the process. Who was to be forked by it."""
        self.drop(why)
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def _start(self) -> None:
        self._imported, self._why = False, ""
        self._begun, self._due = time.monotonic(), float("inf")
        try:
            become_subreaper()
            child = self._child = self._owner.start_template()
            self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(child))
            self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._hear(child))
        except OSError as error:
            self._problems.begin("template", f"no template: {texts.what(error)}; tried again all the while")
            self.give_up(f"cannot be started: {texts.what(error)}")
            return
        self._problems.end("template", "there is a template again")
        log.info("the template starts: pid %d", child.pid)

    def _go_on(self) -> None:
        """Have the next one forked."""
        if self._waiting and self._child is None:
            self._start()
        while self._waiting and self._child is not None and self._imported and self._asked is None:
            self._ask(self._child, self._waiting.popleft())

    def _ask(self, template: Child, identity: Identity) -> None:
        """Ask it for one."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # this process is short of something: the template is not to blame
            self._owner.not_forked(identity, f"cannot fork: {texts.what(error)}")
            return
        ours.setblocking(False)
        self._asked, self._channel = identity, ours
        with theirs:
            try:
                line = messages.encode(self._owner.request(identity)) + b"\n"
                whole = socket.send_fds(template.channel, [line], [theirs.fileno()]) == len(line)
            except OSError:
                whole = False
        if not whole:
            self.give_up("takes no orders")

    def _hear(self, child: Child) -> None:
        if self._child is not child:
            return  # dropped in the same turn; there may be another one by now
        lines = child.receive()
        if lines is None:
            self._selector.unregister(child.channel)  # its exit follows
            return
        for line in lines:
            try:
                report = messages.decode_template_report(line)
            except msgspec.DecodeError as error:
                self.give_up(f"reports nonsense: {error}")
                return
            self._heed(report)

    def _heed(self, report: messages.TemplateReport) -> None:
        if isinstance(report, messages.Imported):
            self._imported, self._why = True, ""
            log.info("the template has imported the application after %.1f s", time.monotonic() - self._begun)
        elif isinstance(report, messages.Failed):
            self._why = texts.clean(report.why, texts.REASON)  # its exit follows
            self._owner.log_trace("the template", report.trace)
            return
        elif isinstance(report, messages.Unfit):
            self.unfit = True
            log.error("preload is of NO use: %s. Each AppServer imports it for itself", report.why)
            for identity in self._drop_all("is unfit"):
                self._owner.start(identity)
            return
        else:
            self._heed_fork(report)
        self._go_on()

    def _heed_fork(self, report: messages.Forked | messages.Unforked) -> None:
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

    def _hear_exit(self, child: Child) -> None:
        if self._child is not child:
            return  # dropped in the same turn; there may be another one by now
        if child.channel in self._selector.get_map():
            self._hear(child)  # what it said before it went
        if self._child is child:
            self.give_up("died")

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

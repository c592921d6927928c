"""What people order, at the control socket and by signals, is done here: by the pool, the processes, and files.

An order that needs the settings checked gets its reply when they have been; nothing here blocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings
from lbadaptor.log import logs, texts
from monitor.arbiter.files import session_folder
from monitor.arbiter.files.runtime_json import RunTimeFile
from monitor.arbiter.files.session_folder import HeldFolder
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.arbiter.settings_reader import Checked, Checker, command
from monitor.arbiter.signals import Received
from monitor.contract.events import What
from monitor.contract.fingerprint import fingerprint
from monitor.contract.messages import Ordered
from monitor.policy import orders
from monitor.policy.machine_drain import REFUSED
from monitor.policy.pool import Pool
from monitor.policy.run_time import RunTime, whole_weight

log = logs.logger("lbmonitor")

ENDING = "everything is being ended"
PARTING = 0.3
"""Seconds for which the watcher may still pass on what it was told, before it ends along with the old program."""

Replying = Callable[[bool, str], None]
"""Tells who gave an order whether it is done, and a text."""


class SetAtRunTime:
    """The settings as lbadaptor.toml has them, and what was set at run time, which wins."""

    def __init__(self, configured: Settings, file: RunTimeFile) -> None:
        self.configured = configured
        """what the monitor has accepted"""
        self.now = file.read()
        self._file = file
        try:
            self.settings = self.now.applied(configured)
        except ValueError as error:
            log.error("what was set at run time is forgotten: %s", error)
            self.now, self.settings = RunTime(leaving=self.now.leaving), configured
        self.log_differences()

    @property
    def shown(self) -> dict[str, Any]:
        """For the status."""
        servers = self.configured.appservers
        return {
            "settings": fingerprint(self.configured),
            "run_time": msgspec.to_builtins(
                {"servers": self.now.servers, "weights": self.now.weights}, str_keys=True
            ),
            "configured": {"servers": servers.servers, "weights": list(servers.weights)},
        }

    def log_differences(self) -> str:
        """Say what does not go by lbadaptor.toml; empty: all does."""
        differences = "; ".join(self.now.differences(self.configured))
        if differences:
            log.warning("set at run time, and not by lbadaptor.toml: %s", differences)
        return differences

    def change(self, now: RunTime) -> Settings:
        """Set something at run time. The settings from now on. Raises ValueError; nothing is changed then."""
        settings = now.applied(self.configured)
        try:
            self._file.write(now)
        except OSError as error:
            raise ValueError(f"{texts.of_os_error(error)}; nothing was changed") from None
        self.now, self.settings = now, settings
        return settings

    def keep(self) -> None:
        """Write the file again where it was deleted or changed. Raises OSError; to be called often."""
        if self.now != RunTime() and not self._file.intact():
            self._file.write(self.now)

    def accept(self, configured: Settings, settings: Settings) -> None:
        """lbadaptor.toml was accepted anew; `settings` are what `now` makes of it."""
        self.configured, self.settings = configured, settings


class Orders:
    """`accept` tells the adaptors of settings; it raises SettingsError where they cannot be told. `changed` has the
    watcher told at once of what was changed."""

    def __init__(
        self,
        config: Path,
        pool: Pool,
        run_time: SetAtRunTime,
        processes: AppServerProcesses,
        checker: Checker,
        sessions: HeldFolder,
        accept: Callable[[Settings], None],
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._pool = pool
        self.run_time = run_time
        self._processes = processes
        self._checker = checker
        self._session_folder = sessions
        self._accept = accept
        self._changed = changed
        self.upgrade_at = float("inf")
        """when this program is to become its new release; monotonic seconds"""

    def carry_out(self, ordered: Ordered, reply: Replying, now: float) -> None:
        """Do as ordered. The reply comes at once, or when the settings have been checked."""
        try:
            handler = HANDLERS.get(ordered.order)
            if handler is None:
                raise ValueError(f"unknown order {ordered.order!r}")
            handler(self, ordered, reply, now)
        except ValueError as error:
            reply(False, str(error))

    def release_by_signal(self, signal: str, received: Received) -> None:
        """SIGHUP, as `systemctl reload` sends it."""
        log.info("%s: a release, ordered by %s", signal, received.sender)
        self._order_release(lambda done, text: None, False, f"{received.sender} with {signal}")

    def stop_by_signal(self, signal: str, received: Received, now: float) -> None:
        """SIGTERM or SIGINT."""
        log.info("%s: everything is ended in order, as %s has ordered", signal, received.sender)
        self._pool.stop(now, f"{received.sender} with {signal}")

    def drain(self, ordered: Ordered, reply: Replying, now: float) -> None:
        if "all" not in ordered.options:
            reply(True, orders.drain(self._pool, ordered.slot, ordered.by))
            return
        self._set(self.run_time.now.with_leaving(True))
        text = orders.leave(self._pool, now, ordered.by)
        machine = self._pool.settings.machine
        if not (machine.front or machine.agent):
            text += ". [machine] has no front and no agent: no balancer is told, and new visitors come all the same"
        self._changed()  # the status says so when the reply arrives
        reply(True, text)

    def undrain(self, ordered: Ordered, reply: Replying, now: float) -> None:
        if "all" not in ordered.options:
            reply(True, orders.undrain(self._pool, ordered.slot, now, ordered.by))
            return
        self._set(self.run_time.now.with_leaving(False))
        text = orders.stay(self._pool, ordered.by)
        self._changed()
        reply(True, text)

    def restart(self, ordered: Ordered, reply: Replying, now: float) -> None:
        end_sessions = "now" in ordered.options
        if ordered.slot < 0:
            self._order_release(reply, end_sessions, ordered.by)
        elif self._pool.stopping:
            raise ValueError(ENDING)
        else:
            reply(True, orders.restart(self._pool, ordered.slot, end_sessions, now, ordered.by))

    def kill(self, ordered: Ordered, reply: Replying, now: float) -> None:
        reply(True, orders.kill(self._pool, ordered.slot, now, ordered.by))

    def scale(self, ordered: Ordered, reply: Replying, now: float) -> None:
        before = self._pool.settings.appservers.servers
        self._set(self.run_time.now.with_servers(ordered.value))
        servers, configured = (one.appservers.servers for one in (self._pool.settings, self.run_time.configured))
        where = (
            "as lbadaptor.toml says" if ordered.value is None else f"set at run time; lbadaptor.toml: {configured}"
        )
        text = f"AppServers asked for: {servers} ({where}), not {before} as before"
        if servers < before:
            text += "; those that are too many end after their last session"
        if self._pool.leaving:
            text += "; this machine is leaving: that takes effect with `lbctl undrain --all`"
        self._note(What.SCALED, text, ordered.by)
        reply(True, text)

    def weight(self, ordered: Ordered, reply: Replying, now: float) -> None:
        slot = ordered.slot
        self._set(self.run_time.now.with_weight(slot, ordered.value))
        weight, configured = (whole_weight(one, slot) for one in (self._pool.settings, self.run_time.configured))
        where = (
            "as lbadaptor.toml says" if ordered.value is None else f"set at run time; lbadaptor.toml: {configured}"
        )
        text = f"slot {slot} has weight {weight} ({where})"
        self._note(What.WEIGHT, text, ordered.by, slot)
        reply(True, text)

    def reexec(self, ordered: Ordered, reply: Replying, now: float) -> None:
        """Become the new release of this program, as soon as that has shown that it loads."""

        def upgrade(checked: Checked) -> None:
            error = ENDING if self._pool.stopping else checked.error
            if error:
                log.error("the monitor is not upgraded: %s", error)
                reply(False, f"the monitor is not upgraded: {error}")
                return
            self.upgrade_at = time.monotonic() + PARTING
            self._pool.journal.note(What.MONITOR_UPGRADED, f"ordered by {ordered.by}" if ordered.by else "")
            reply(True, "the monitor becomes its new release; its AppServers go on")

        self._checker.ask([sys.executable, *sys.orig_argv[1:], "--prepare"], upgrade)

    def stop(self, ordered: Ordered, reply: Replying, now: float) -> None:
        log.info("everything is ended in order, by order%s", f" of {ordered.by}" if ordered.by else "")
        self._pool.stop(now, ordered.by)
        reply(True, "everything is ended in order")

    def _set(self, run_time: RunTime) -> None:
        """Set something at run time. Raises ValueError."""
        if self._pool.stopping:
            raise ValueError(ENDING)
        self._pool.settings = self.run_time.change(run_time)

    def _note(self, what: What, text: str, by: str, slot: int | None = None) -> None:
        log.info("%s", text)
        self._pool.journal.note(what, f"{text}; ordered by {by}" if by else text, slot)

    def _order_release(self, reply: Replying, end_sessions: bool, by: str) -> None:
        """A new release, as soon as the settings have been checked."""

        def release(checked: Checked) -> None:
            try:
                text = self._release(checked, end_sessions, by)
            except SettingsError as error:
                log.error("no release: %s", error)
                self._pool.journal.note(What.RELEASE_FAILED, str(error))
                reply(False, str(error))
            else:
                reply(True, text)

        self._checker.ask(command(self._config), release)

    def _release(self, checked: Checked, end_sessions: bool, by: str) -> str:
        """Take over the settings as they are now, and replace every AppServer. Raises SettingsError."""
        if self._pool.stopping:
            raise SettingsError(ENDING)
        if self._pool.leaving:
            raise SettingsError(REFUSED)
        configured, before = checked.settings(self._config), self._pool.settings
        if configured.files != before.files:
            raise SettingsError(f"{self._config}: a change in [files] needs a restart of the monitor")
        both = configured.sessions_survive and before.sessions_survive
        if both and configured.session_folder != before.session_folder:
            raise SettingsError(f"{self._config}: a change of [sessions] folder needs a restart of the monitor")
        if configured.machine.number != before.machine.number:
            raise SettingsError(f"{self._config}: a change of [machine] number needs a restart of the monitor")
        try:
            settings = self.run_time.now.applied(configured)
        except ValueError as error:
            raise SettingsError(
                f"{error}; that was set at run time: take it back with `lbctl scale --reset` or `lbctl weight SLOT "
                "--reset`"
            ) from None
        self._session_folder.take(settings, checked.user)
        lost = session_folder.lost_by_change(before.sessions.survive, settings)
        self._accept(settings)
        self.run_time.accept(configured, settings)
        self._pool.settings = settings
        self._processes.renew(checked.user)
        text = orders.release(self._pool, time.monotonic(), end_sessions, by)
        if lost:
            log.warning("release: %s", lost)
            text = f"{text}; {lost}"
        if differences := self.run_time.log_differences():
            text = f"{text}; set at run time, and not by lbadaptor.toml: {differences}"
        self._changed()  # the status shows the release when the reply arrives
        return text


HANDLERS: dict[str, Callable[[Orders, Ordered, Replying, float], None]] = {
    "drain": Orders.drain,
    "undrain": Orders.undrain,
    "restart": Orders.restart,
    "scale": Orders.scale,
    "weight": Orders.weight,
    "kill": Orders.kill,
    "reexec": Orders.reexec,
    "stop": Orders.stop,
}
"""What each order of `monitor.contract.orders` does. Each raises ValueError when the order is refused."""

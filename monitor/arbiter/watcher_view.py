"""What the watcher is told: where it listens, which AppServers it probes, and what it answers people and HAProxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Raw

from lbadaptor.contract.settings import Settings
from monitor.arbiter.files.address_text import Publisher
from monitor.arbiter.orders import SetAtRunTime
from monitor.arbiter.processes.adoption import Adoption
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.arbiter.status import status
from monitor.contract.messages import Availability, Begin, Target, View, encode
from monitor.policy.availability import MachineAvailability
from monitor.policy.pool import Pool
from monitor.policy.problems import Problems
from monitor.policy.states import LifeState


def begin(settings: Settings, status_group: int | None) -> Begin:
    """The settings that concern the watcher. `status_group`: who may read the status besides, by number."""
    return Begin(
        str(settings.control_socket),
        str(settings.captured_folder),
        settings.monitor.probe_interval,
        settings.monitor.probe_timeout,
        "" if status_group is None else str(settings.status_socket),
        -1 if status_group is None else status_group,
        str(settings.log_file or ""),
        settings.log.format == "json",
        settings.machine.agent,
        settings.machine.front,
    )


class WatcherView:
    """Makes a `View` of what the arbiter knows. It changes nothing, except how steadily HAProxy is told of it."""

    def __init__(
        self,
        config: Path,
        pool: Pool,
        processes: AppServerProcesses,
        adoption: Adoption,
        publisher: Publisher,
        run_time: SetAtRunTime,
        problems: Problems,
    ) -> None:
        self._config = str(config.absolute())
        self._pool = pool
        self._processes = processes
        self._adoption = adoption
        self._publisher = publisher
        self._run_time = run_time
        self._problems = problems
        self._machine = MachineAvailability()

    def at(self, now: float) -> View:
        """The view as of `now`, monotonic seconds."""
        shown = status(self._pool, self._processes, now, self._problems)
        told: dict[str, Any] = {"config": self._config, **shown, **self._run_time.shown}
        availability = None
        if self._pool.settings.machine.agent:
            availability = told["availability"] = self._availability(now)
        return View(self._targets(), Raw(encode(told)), availability)

    def _targets(self) -> list[Target]:
        """Those to probe: one that starts says itself when it is ready, unless it was adopted."""
        targets = self._adoption.targets()
        for life in self._pool.lives:
            process = self._processes.find(life.identity)
            starting = life.state is LifeState.STARTING
            if process and (life.published or (starting and process.adopted)):
                targets.append(process.target)
        return targets

    def _availability(self, now: float) -> Availability | None:
        """What HAProxy is to know. None: nothing yet, because AppServers of the monitor before are undecided."""
        written = "address.text" not in self._problems
        if written and self._publisher.entries is None:
            return None
        return self._machine.availability(self._pool, self._pool.leaving, written, now)

"""Three machines, a pair of HAProxies before them, and their visitors."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lbadaptor.contract.ticket import make_keys
from monitor.demo import httpd
from tests.apache.resources import TIMEOUT, eventually, short_folder
from tests.torture.clients import Line, Planned, Visitor
from tests.torture.evidence import Evidence
from tests.torture.records import Counted, Limits, Records, Visit

from .front import BACKEND, Front
from .load import Crowd
from .machine import LBCTL, MARKS, Machine, Settings
from .places import Place, place
from .verdict import Fault, Seen, judge

EACH = 3
"""Visitors under load at each machine."""
NAMES = {1: "m1", 2: "m2", 3: "m3"}
"""Of the machines, by [machine] number."""

FASTER = {
    "timeout connect 2s": "timeout connect 500ms",
    "timeout server 32s": "timeout server 6s",
    "timeout check 5s": "timeout check 1500ms",
    "srvtcpka-idle 10s": "srvtcpka-idle 1s",
    "srvtcpka-intvl 5s": "srvtcpka-intvl 1s",
    "srvtcpka-cnt 4": "srvtcpka-cnt 2",
    "check inter 2s fall 4 rise 2": "check inter 300ms fall 3 rise 2",
    "agent-inter 2s": "agent-inter 300ms",
}
"""What is changed in what `lbctl haproxy-config` writes: a test does not wait as long as visitors do."""


class Site:
    """`start`, then tests, each under a `load`; `end`. Between tests, `await_health`."""

    def __init__(self, folder: Path, place: Place, settings: Settings) -> None:
        self.folder = folder
        self.place = place
        self.machines = {name: Machine(place, folder / name, number, settings) for number, name in NAMES.items()}
        keys = folder / "keys"
        make_keys(keys)
        self.keys = keys.read_text()
        for machine in self.machines.values():
            self.give_keys(machine)
        self.fronts = [Front(folder / name, name, place.front_port()) for name in ("first", "second")]
        self._peers = [(front.name, place.front_port()) for front in self.fronts]
        self.front = self.fronts[0]
        self.visits: list[Visit] = []
        self.faults: list[Fault] = []
        self._visitors: list[Visitor] = []
        self._seed = 0

    def give_keys(self, machine: Machine) -> None:
        """The master secret of all machines."""
        path = machine.settings.key_file
        file = machine.file(path)
        file.write_text(self.keys)
        file.chmod(0o640)
        if group := httpd.apache_group():
            shutil.chown(file, group=group)

    def configure(self, names: Sequence[str]) -> None:
        """Both HAProxies know these machines, from their next start or reload on: by what `lbctl` writes on one."""
        one = self.machines[names[0]]
        words = [str(LBCTL), "--config", str(one.plan.config), "haproxy-config", "--name", BACKEND]
        for name in names:
            plan, agent = self.machines[name].plan, self.machines[name].settings.machine.agent
            words += ["--machine", f"{name}={plan.address}:{plan.port},agent={agent}"]
        for name, port in self._peers:
            words += ["--peer", f"{name}=127.0.0.1:{port}"]
        for front in self.fronts:
            bind = "--bind", f"127.0.0.1:{front.port}"
            done = subprocess.run([*words, *bind], capture_output=True, text=True, timeout=TIMEOUT, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            text = done.stdout
            for slow, fast in FASTER.items():
                assert slow in text, f"{slow} is not in what lbctl wrote:\n{text}"
                text = text.replace(slow, fast)
            front.configure(text)

    def start(self) -> None:
        for machine in self.machines.values():
            machine.boot()
        self.configure(list(self.machines))
        self.front.start()
        self.await_health()

    def await_health(self) -> None:
        """All machines are whole, and the first HAProxy sends them visitors."""
        for name, machine in self.machines.items():
            machine.await_up()
            self.front.await_state(name, "UP")
            eventually("its agent answers", lambda name=name: self.front.agent(name) == "L7OK")

    def restore(self) -> None:
        """Whatever a test that failed has left, make it as it was before."""
        if not self.front.machines():
            self.front.start()
        self.fronts[1].stop()
        for machine in self.machines.values():
            if machine.is_on:
                self.place.heal(machine.plan)
                machine.go_on(*MARKS)
            else:
                machine.boot()
            machine.await_up()
            if machine.status()["machine"]["leaving"]:
                machine.lbctl("undrain", "--all")
        if self.front.machines().keys() != self.machines.keys():
            self.configure(list(self.machines))
            self.front.reload()
        self.await_health()

    def end(self) -> list[str]:
        """What was left, or went wrong."""
        for front in self.fronts:
            front.stop()
        with ThreadPoolExecutor(len(self.machines)) as ending:
            return [text for texts in ending.map(Machine.end, self.machines.values()) for text in texts]

    # Visitors.

    @contextlib.contextmanager
    def load(self, each: int = EACH) -> Iterator[Crowd]:
        """Visitors come all the while, so many with a session at each machine.

        At the end: the verdict on what they saw since this began.
        """
        self.visits.clear()
        self.faults.clear()
        self._visitors.clear()
        self._seed += 1
        crowd = Crowd(self._at_each(each), self.front.port, self._seed)
        try:
            crowd.start()
            crowd.go_on(1)
            yield crowd
            crowd.go_on(1)
        finally:
            crowd.stop()
        for visitor in self._visitors:
            if visitor.cookies:
                visitor.ask(Planned("POST", "logout"))
            visitor.line.close()
        assert crowd.errors == []
        assert (wrong := self.judge()) == [], "\n".join(wrong)

    def _at_each(self, count: int) -> list[Visitor]:
        """So many visitors with a session at each machine. Every third one has a connection for each request."""
        there: dict[str, list[Visitor]] = {name: [] for name in self.machines}
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            visitor = self._new_visitor(keep=self._seed % 3 != 0)
            found = there[self._begin_session(visitor)]
            if len(found) < count:
                found.append(visitor)
            else:
                visitor.ask(Planned("POST", "logout"))
                visitor.line.close()
            if all(len(found) == count for found in there.values()):
                return [visitor for found in there.values() for visitor in found]
        raise AssertionError(
            f"not enough visitors everywhere: { {name: len(found) for name, found in there.items()} }"
        )

    def visitor(self, machine: str = "") -> Visitor:
        """One more visitor, with a session at this machine; one who does not come by themselves."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            visitor = self._new_visitor(keep=False)
            if machine in ("", self._begin_session(visitor)):
                return visitor
            visitor.ask(Planned("POST", "logout"))
        raise AssertionError(f"no new visitor was sent to {machine} within {TIMEOUT:.0f} s")

    def _new_visitor(self, keep: bool) -> Visitor:
        self._seed += 1
        visitor = Visitor(f"v{self._seed}", Line(self.front.port, keep, fast_lane=True), self.visits.append)
        self._visitors.append(visitor)
        return visitor

    @staticmethod
    def _begin_session(visitor: Visitor) -> str:
        """The machine where it is now."""
        visit = visitor.ask(Planned("POST", "visit", size=100))
        assert visit.told, visit
        return visit.told.machine

    @contextlib.contextmanager
    def fault(self, where: str, what: str, loses: bool = False, fails: bool = False) -> Iterator[None]:
        """Something that is done to a machine, or to FRONT, as long as this context lasts."""
        fault = Fault(where, what, time.time(), loses=loses, fails=fails)
        self.faults.append(fault)
        yield
        fault.until = time.time()

    def judge(self) -> list[str]:
        """What is against the rules in all that was seen since the last load began."""
        records = Records(Limits(0.0, 0.0, 0.0, 0.0), 0, visits=list(self.visits))
        names = {visit.name for visit in self.visits}
        for machine in self.machines.values():
            for name, pid, *counted in machine.executed():
                if name not in names:
                    continue
                if counted:
                    records.counted.append(Counted(name, int(pid), counted[0], int(counted[1])))
                else:
                    records.executed.append((name, int(pid)))
        relayed = {name: one for front in self.fronts for name, one in front.relayed().items()}
        return judge(Seen(Evidence(records), relayed, self.faults))


@contextlib.contextmanager
def running_site(settings: Settings | None = None) -> Iterator[Site]:
    """It runs, and nothing is left of it. `settings`: sections in place of those that every machine has."""
    with short_folder() as folder, contextlib.closing(place(folder)) as here, here.visiting():
        site = Site(folder, here, settings or {})
        try:
            site.start()
            yield site
        finally:
            wrong = site.end()
        assert wrong == []

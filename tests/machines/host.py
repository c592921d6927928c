"""What runs on one machine: the monitor and an httpd, as systemd would run them.

    python -I host.py PLAN

PLAN is a `Plan` as JSON. A line on standard input says that the network is there; its end is an orderly shutdown. As
process 1 of a pid namespace it is the init of that machine, too. What it runs is the installed lbadaptor.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lbadaptor.contract.settings import load
from monitor.demo import httpd

AGAIN = 0.5
"""Seconds after which a monitor that has ended is started again (RestartSec)."""
RUN_SIZE = 4 * 2**20
"""Bytes of the file system of the run folder."""

# The arbiter's clock is wrong by some seconds: what it imports finds this one.
WRONG_CLOCK = """
import time, sys
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + {seconds}
time.time_ns = lambda: real_ns() + {seconds} * 10**9
"""
MONITOR = "import runpy; runpy.run_module('monitor', run_name='__main__', alter_sys=True)"


@dataclass
class Plan:
    """What a machine is told when it is switched on."""

    name: str
    folder: str
    address: str
    port: int
    """of its httpd"""
    is_own: bool = False
    """it has namespaces of its own"""
    clock: int = 0
    """seconds by which its clock is wrong"""

    @property
    def config(self) -> Path:
        return Path(self.folder, "lbadaptor.toml")

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Host:
    """Start with the construction; then `run`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._monitor = self._start_monitor()
        folder = Path(plan.folder, "httpd")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        folder.chmod(0o711)
        self._httpd = httpd.Httpd(
            httpd.find(),
            folder,
            plan.port,
            "lbadaptor.conf",
            plan.config,
            fast_lane=load(plan.config).slots,
            address=plan.address,
        )
        self._httpd.start()

    def run(self) -> int:
        """Until standard input ends. The exit status of the monitor."""
        while not select.select([sys.stdin], [], [], 0.1)[0]:
            if self._monitor.poll() is not None:
                time.sleep(AGAIN)
                self._monitor = self._start_monitor()
        self._httpd.stop()
        self._monitor.terminate()
        return self._monitor.wait()

    def _start_monitor(self) -> subprocess.Popen[bytes]:
        plan = self._plan
        apps = Path(plan.folder, "apps")
        clock = WRONG_CLOCK.format(seconds=plan.clock) if plan.clock else ""
        (apps / "sitecustomize.py").write_text(clock)  # the AppServers' Python imports it
        program = ["-c", clock + MONITOR] if clock else ["-m", "monitor"]
        with Path(plan.folder, "monitor.log").open("ab") as log:
            return subprocess.Popen(
                [*httpd.dies_with_us(), sys.executable, "-I", "-B", *program, "--config", str(plan.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=plan.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(apps),
                    "TORTURE_EXECUTED": f"{plan.folder}/executed",
                    "TORTURE_MACHINE": plan.name,
                    "TMPDIR": f"{plan.folder}/tmp",
                },
                start_new_session=True,
            )


def _be_init(plan: Plan) -> None:
    """As process 1: mount the run folder, which a power loss empties; reap. Returns in a child, which is the host."""
    socket.sethostname(plan.name)
    options = f"size={RUN_SIZE},mode=0711,nosuid,nodev"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, plan.name, f"{plan.folder}/run"], check=True)
    host = os.fork()
    if not host:
        return
    while True:
        pid, status = os.wait()
        if pid == host:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main() -> int:
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.is_own:
        _be_init(plan)
    sys.stdin.readline()
    return Host(plan).run()


if __name__ == "__main__":
    sys.exit(main())

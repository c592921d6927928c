"""What is installed, on a machine that systemd boots: units, tmpfiles.d, sysusers.d, and Apache with the fast lane.

`lbadaptor` is as README installs it; `lbadaptor@board` is another application whose AppServers run as another user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from cluster import eventually
from machine import SITES, Machine, Site, drop_in, logged

from lbadaptor.contract.address import Table, parse

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot a systemd")

UNITS = tuple(f"{site.service}.service" for site in SITES)
PORTS = tuple(site.port for site in SITES)
MAY = {
    "open('upload', 'w').close()": "None",
    "open('/var/tmp/lbadaptor-' + str(os.getpid()), 'w').close()": "None",
    "tempfile.TemporaryFile().close()": "None",
    "os.listdir('/home') is None": "False",
    "socket.create_connection(('127.0.0.1', 80)).close()": "None",
    "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()": "None",
    "mmap.mmap(-1, 4096, prot=7).close()": "None",  # just-in-time compilers
    "ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)()": "7",
    "os.sched_setaffinity(0, os.sched_getaffinity(0))": "None",
    "os.nice(1) > 0 or os.getpriority(os.PRIO_PROCESS, 0) < 1": "True",
    "'MemTotal' in open('/proc/meminfo').read()": "True",
    "open('/proc/1/comm').read()": r"'systemd\n'",
    "multiprocessing.Value('i', 5).value": "5",
    "subprocess.run('true', check=True).returncode": "0",
    "oct(os.umask(0o22))": "'0o22'",
}
MAY_NOT = {
    "open('/usr/lbadaptor', 'w')": "EROFS",
    "open('/etc/lbadaptor/more', 'w')": "EROFS",
    "open('/home/lbadaptor', 'w')": "EROFS",
    "open('/proc/sys/kernel/hostname', 'w')": "EROFS",
    "open('/sys/fs/cgroup/cgroup.procs', 'w')": "EROFS",
    "os.setuid(0)": "EPERM",
    "open('/proc/self/status').read().partition('NoNewPrivs:')[2].split()[0]": "'1'",
    "libc('unshare', 0x10000000)": "EPERM",  # CLONE_NEWUSER
    "libc('personality', 8)": "EPERM",
    "libc('swapoff', b'/none')": "EPERM",
    "libc('syscall', 298, None, 0, -1, -1, 0)": "EPERM",  # perf_event_open
    "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)": "EAFNOSUPPORT",
    "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)": "EAFNOSUPPORT",
}


KEPT = "open('/tmp/kept', 'a').close()", "open('/dev/shm/kept', 'a').close()"
IS_KEPT = {"os.path.exists('/tmp/kept')": "True", "os.path.exists('/dev/shm/kept')": "True"}
"""What PrivateTmp and RemoveIPC would take away from AppServers whose monitor ends."""


class Booted:
    """The machine, and what visitors saw of it before its monitors had ever been started."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.early = [eventually("an answer", lambda port=port: self.status(port)) for port in PORTS]
        www_data = "setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "cat"
        self.tables = [machine.run(*www_data, f"/run/{site.folder}/address.text", check=False) for site in SITES]
        keys = (f"/run/{site.folder}/{name}.text" for site in SITES for name in ("callerkeys", "available"))
        self.keys = [machine.run(*www_data, path, check=False) for path in keys]
        machine.write("/etc/systemd/system/test.target.d/monitors.conf", f"[Unit]\nWants={' '.join(UNITS)}\n")
        machine.run("systemctl", "start", *UNITS)  # returns when they have said READY
        for port, site in zip(PORTS, SITES, strict=True):
            eventually("the application's page", lambda port=port: self.status(port) == 200)
            led = "-E", f"^__{port}__ +[0-9]", f"/run/{site.folder}/available.text"
            eventually("Apache itself leads there", lambda led=led: machine.run("grep", *led, check=False))

    def status(self, port: int) -> int:
        """Of an answer; 0: Apache does not listen yet."""
        page = f"http://localhost:{port}/?[]"
        return int(self.machine.run("curl", "-sgo", "/dev/null", "-w", "%{http_code}", page, check=False))

    def visit(self, port: int) -> dict[str, Any]:
        """Of the one visitor of a site; the cookies outlive a reboot."""
        jar = f"/var/cookies-{port}"
        answer: dict[str, Any] = json.loads(
            self.machine.run("curl", "-sS", "-b", jar, "-c", jar, f"http://localhost:{port}/visit")
        )
        return answer

    def outcomes(self, port: int, expressions: list[str]) -> dict[str, str]:
        """What expressions come to in an AppServer."""
        query = quote(json.dumps(expressions))
        found = json.loads(self.machine.run("curl", "-sSg", f"http://localhost:{port}/?{query}"))
        return dict(zip(expressions, found, strict=True))

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", unit)


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        yield Booted(machine)
    finally:
        machine.end()


def test_an_apache_that_starts_before_any_monitor_has_the_fast_lane_without_a_reload(booted: Booted) -> None:
    assert booted.early == [503, 503]
    assert [text and parse(text + "\n") for text in booted.tables] == [Table()] * 2
    assert [len(text.splitlines()) for text in booted.keys] == [1] * 4
    assert [booted.visit(port)["visits"] for port in PORTS for _ in range(2)] == [1, 2, 1, 2]
    assert logged(booted.machine, "/visit", 4) == ["none", "held"] * 2  # "-": the Python lane
    said = booted.machine.run("cat", "/var/log/apache2.log").splitlines()
    assert [line for line in said if "notice]" not in line and not line.endswith("no AppServer is available")] == []


@pytest.mark.parametrize("port", PORTS)
def test_what_an_application_may_do(booted: Booted, port: int) -> None:
    assert booted.outcomes(port, list(MAY)) == MAY


@pytest.mark.parametrize("port", PORTS)
def test_what_an_application_may_not_do(booted: Booted, port: int) -> None:
    assert booted.outcomes(port, list(MAY_NOT)) == MAY_NOT


@pytest.mark.parametrize("site", SITES, ids=lambda site: str(site.service))
def test_what_an_appserver_says_is_in_the_journal_with_its_slot(booted: Booted, site: Site) -> None:
    booted.outcomes(site.port, ["print('<3>said to the journal')"])
    journal = "journalctl", "-u", site.service, "-p", "err", "LBADAPTOR_SLOT=0", "-o", "json"
    found = eventually("it is in the journal", lambda: booted.machine.run(*journal, check=False))
    told = json.loads(found.splitlines()[-1])
    assert (told["MESSAGE"], told["PRIORITY"]) == ("AppServer 0: said to the journal", "3")
    assert told["LBADAPTOR_GENERATION"].isdigit()
    lbctl = "/opt/lbadaptor/bin/lbctl", "--config", f"/etc/lbadaptor/{site.config}", "log", "0"
    assert booted.machine.run(*lbctl).splitlines()[-1] == "said to the journal"


def test_appservers_outlive_a_killed_monitor_and_the_next_one_adopts_them(booted: Booted) -> None:
    before = {site: (booted.visit(site.port), booted.shown(site.service, "MainPID")) for site in SITES}
    for site in SITES:
        booted.outcomes(site.port, list(KEPT))
        booted.machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", site.service)
    for site, (visit, monitor) in before.items():
        eventually(
            "another monitor",
            lambda site=site, monitor=monitor: (
                booted.shown(site.service, "MainPID") not in (monitor, "0")
                and booted.shown(site.service, "ActiveState") == "active"
            ),
        )
        assert booted.visit(site.port) == {"visits": visit["visits"] + 1, "pid": visit["pid"]}
        lbctl = "/opt/lbadaptor/bin/lbctl", "--config", f"/etc/lbadaptor/{site.config}", "status", "--json"

        def adopted(lbctl: tuple[str, ...] = lbctl) -> list[tuple[int, str]]:
            status = json.loads(booted.machine.run(*lbctl, check=False) or '{"appservers": []}')
            return [(slot["pid"], slot["state"]) for slot in status["appservers"]]

        assert eventually("orders taken", adopted) == [(visit["pid"], "OK")]
        assert booted.outcomes(site.port, list(IS_KEPT)) == IS_KEPT


def test_a_reboot_starts_all_again_the_monitors_first_and_sessions_go_on(booted: Booted) -> None:
    before = [booted.visit(port)["visits"] for port in PORTS]
    booted.machine.reboot()
    assert booted.shown("test.target", "ActiveState") == "active"
    apache = int(booted.shown("apache2", "ExecMainStartTimestampMonotonic"))
    for site in SITES:
        assert 0 < int(booted.shown(site.service, "ActiveEnterTimestampMonotonic")) <= apache
        eventually("the application's page", lambda site=site: booted.status(site.port) == 200)
    assert [booted.visit(port)["visits"] for port in PORTS] == [visits + 1 for visits in before]


def test_nothing_runs_after_a_stop_and_an_application_can_be_forbidden_more(booted: Booted) -> None:
    shop = SITES[0]
    before = booted.visit(shop.port)["visits"]
    booted.machine.run("systemctl", "stop", *UNITS)
    assert [booted.shown(unit, "Result") for unit in UNITS] == ["success"] * 2
    assert "/opt/lbadaptor/bin" not in booted.machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    booted.machine.write("/etc/systemd/system/lbadaptor.service.d/more.conf", drop_in("systemd.md"))
    booted.machine.run("systemctl", "daemon-reload")
    booted.machine.run("systemctl", "start", shop.service)
    eventually("the application's page", lambda: booted.status(shop.port) == 200)
    assert booted.visit(shop.port)["visits"] == before + 1
    found = booted.outcomes(
        shop.port, [*MAY, "sorted(name for name in os.listdir('/dev') if name in ('full', 'kmsg'))"]
    )
    assert found.pop("mmap.mmap(-1, 4096, prot=7).close()") in ("EPERM", "EACCES")  # by a filter, or by the kernel
    assert {expression: found[expression] for expression in found if found[expression] != MAY.get(expression)} == {
        "open('/var/tmp/lbadaptor-' + str(os.getpid()), 'w').close()": "EROFS",
        "os.listdir('/home') is None": "EACCES",
        "open('/proc/1/comm').read()": "ENOENT",
        "sorted(name for name in os.listdir('/dev') if name in ('full', 'kmsg'))": "['full']",
    }

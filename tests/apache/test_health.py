"""One of several machines: what the HAProxy in front of it is told, by the agent and by the health page."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster import Cluster, Site, running_cluster

from lbadaptor.contract.address import Address
from lbadaptor.contract.settings import snapshot
from monitor.policy.availability import SLOW_START, STEP
from tests.apache.resources import TIMEOUT, eventually, kill
from tests.ports import free_ports, give_back

HEALTH, HOLDERS = "/__lb__/health", "/__lb__/health/holders"
FRONT, STRANGER = "127.0.0.1", "127.0.0.2"
SLOTS = 2


@pytest.fixture(scope="module")
def machine() -> Iterator[Cluster]:
    """One AppServer, and an agent."""
    port = free_ports()
    settings = {"number": 3, "front": [FRONT], "agent": f"127.0.0.1:{port}"}
    with running_cluster(appservers={"servers": 1, "slots": SLOTS}, adaptor={"wait": 60}, machine=settings) as made:
        yield made
    give_back(port)


def ask(site: Site, path: str, method: str = "GET", source: str = FRONT) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, TIMEOUT, (source, 0))
    with contextlib.closing(connection):
        connection.request(method, site.url.partition(str(site.port))[2] + path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def both(site: Site) -> list[tuple[int, bytes]]:
    """The health page, and that of holders. They never wait, though visitors would, for `wait`."""
    began = time.monotonic()
    found = [ask(site, HEALTH), ask(site, HOLDERS)]
    assert time.monotonic() - began < TIMEOUT / 2
    return found


@pytest.mark.parametrize(
    ("name", "mount", "fast_lane"),
    [
        ("embedded-debian", "", 0),
        ("embedded-debian", "/shop", SLOTS),
        ("daemon-debian", "", SLOTS),
        ("cgi-debian", "/shop", SLOTS),
    ],
)
def test_the_front_sees_the_health_page_in_every_mode_and_lane(
    machine: Cluster, name: str, mount: str, fast_lane: int
) -> None:
    site = machine.site(name, mount, fast_lane=fast_lane)
    assert both(site) == [(200, b"up: OK 1\n")] * 2
    assert ask(site, HEALTH, "HEAD") == (200, b"")
    assert ask(site, HEALTH, source=STRANGER)[1] != b"up: OK 1\n"
    good = machine.address_file.read_text()
    settings, now = machine.settings, snapshot.read(machine.settings.snapshot_file)
    with machine.stopped_monitor():
        machine.write_addresses(good.replace(" OK ", " DYING "))
        assert both(site) == [(503, b"no AppServer takes new visitors: DYING 1\n"), (200, b"up: DYING 1\n")]
        settings.snapshot_file.write_bytes(snapshot.encode(now.settings, now.ticket_cookies, machine.config, True))
        machine.write_addresses(good)
        assert both(site) == [(503, b"drain: this machine is leaving\n"), (200, b"up: OK 1\n")]
        machine.write_addresses("".join(good.splitlines(keepends=True)[:2]).replace("entries 1", "entries 0"))
        assert both(site) == [(503, b"drain: this machine is leaving\n"), (503, b"down: no AppServer serves\n")]
    eventually("the monitor has written its files again", lambda: both(site) == [(200, b"up: OK 1\n")] * 2)
    site.httpd.stop()


def told(machine: Cluster) -> str:
    """What the agent says now; empty: nothing."""
    address = Address.parse(machine.settings.machine.agent)
    with contextlib.suppress(ConnectionError), socket.create_connection(address, TIMEOUT) as asking:
        return asking.recv(1000).decode()
    return ""


def test_the_agent_follows_the_appservers(machine: Cluster) -> None:
    eventually("it asks for visitors", lambda: told(machine).startswith("ready up "))
    [entry] = machine.table().ok
    [server] = machine.status()["appservers"]
    machine.kill_monitor()
    eventually("its agent is gone with it", lambda: told(machine) == "")
    words = []

    def listen() -> bool:
        words.append(told(machine).partition("%")[0].rstrip("0123456789"))
        return words[-1] != ""

    with ThreadPoolExecutor() as listening:
        first = listening.submit(eventually, "the next one says something", listen)
        machine.start()
        first.result()
    assert words[-1] == "ready up ", "the AppServer that it adopts has served all the while"
    assert machine.table().ok[0].identity == entry.identity
    gate, application = machine.gate(), machine.folder / "apps" / "visits.py"
    application.write_text(f"{application.read_text()}\nopen({str(machine.gates / gate.name)!r}).read()\n")
    kill(server["pid"])
    eventually("it is down meanwhile", lambda: told(machine).startswith("down # no AppServer serves"))
    gate.reached()
    opened = time.monotonic()
    gate.open()
    found = eventually("it begins anew", lambda: re.fullmatch(r"ready up (\d+)% # OK 1 of 1\n", told(machine)))
    most = 10 + 90 * (time.monotonic() - opened) / SLOW_START + STEP  # rounded to a step
    assert 10 <= int(found[1]) <= most, "with few visitors"

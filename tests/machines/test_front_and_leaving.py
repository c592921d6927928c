"""HAProxy is reloaded and killed under load; machines leave, are called back, and come and go for good."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator

from tests.apache.resources import TIMEOUT, eventually
from tests.machines.load import Crowd
from tests.machines.machine import Machine, Settings
from tests.machines.site import Site
from tests.machines.verdict import FRONT
from tests.torture.clients import TICKET

SETTINGS: Settings = {"sessions": {}}  # they do not survive: to know that no session waits in files takes 15 seconds


def test_a_reload_of_haproxy_hands_the_table_over(site: Site) -> None:
    """Who comes when the new one has it notices nothing."""
    with site.load() as load:
        with load.resting():
            before, table = _where(load), site.front.sticks()
            assert _tickets(load) <= table
            site.front.reload()
            eventually("the new one has the table", lambda: site.front.sticks() >= table)
        load.go_on()
        site.front.await_old()
        assert _where(load) == before


def test_haproxy_is_reloaded_under_load(site: Site) -> None:
    """The new one takes requests some milliseconds before it has the table, or longer where the processors are busy.

    Who comes in between may be sent elsewhere, and is told. Nobody gets an error.
    """
    with site.load() as load:
        for _ in range(2):
            with _told_who_is_sent_elsewhere(site, load):
                with site.fault(FRONT, "is reloaded", loses=True):
                    site.front.reload()
                load.go_on()
                site.front.await_old()
        assert _tickets(load) <= site.front.sticks()


def test_haproxy_is_killed_and_its_peer_takes_over(site: Site) -> None:
    first, second = site.fronts
    second.start()
    with site.load() as load:
        before = _where(load)
        eventually("the peer knows the table", lambda: second.sticks() == first.sticks())
        with site.fault(FRONT, "is killed", fails=True):
            first.kill()
            load.go_to(second.port)
            load.go_on()
        assert _where(load) == before
        first.start()
        eventually("it knows the table again", lambda: first.sticks() == second.sticks() >= _tickets(load))
        site.await_health()
        load.go_to(first.port)
        load.go_on()
        assert _where(load) == before


def test_haproxy_is_killed_without_a_peer(site: Site) -> None:
    """Its table is gone. Who is sent to another machine is told that their session is lost; nobody is in the dark."""
    with site.load() as load:
        with (
            _told_who_is_sent_elsewhere(site, load),
            site.fault(FRONT, "is killed, and its table is gone", loses=True, fails=True),
        ):
            site.front.kill()
            site.front.start()
            site.await_health()
            # HAProxy learns a ticket again when it is set: until then, those who have it are sent anywhere.
            eventually("HAProxy knows where all are", lambda: _tickets(load) <= site.front.sticks())
            load.go_on()
        after = _where(load)
        load.go_on()
        assert _where(load) == after


def test_a_machine_that_leaves_is_called_back(site: Site) -> None:
    with site.load() as load:
        before = _where(load)
        machine = site.machines["m3"]
        machine.lbctl("drain", "--all")
        site.front.await_state("m3", "DRAIN")
        assert {site.visitor().holder.machine for _ in range(6)} <= {"m1", "m2"}
        machine.lbctl("undrain", "--all")
        site.front.await_state("m3", "UP")
        assert site.visitor("m3")
        load.go_on()
        assert _where(load) == before


def test_a_machine_is_taken_away_for_good_and_another_is_added(site: Site) -> None:
    gone = site.machines["m3"]
    with site.load() as load:
        load.sessions_end.set()
        gone.lbctl("drain", "--all")
        eventually("it is empty", lambda: gone.status()["machine"]["empty"])
        site.configure(["m1", "m2"])
        with site.fault(FRONT, "is reloaded", loses=True):
            site.front.reload()
        assert set(site.front.machines()) <= {"m1", "m2"}
        gone.shut_down()  # no fault: nobody notices
        load.go_on()
        gone.sections["machine"]["number"] = 7
        gone.write_settings()
        gone.boot()
        gone.await_up()
        site.configure(["m1", "m2", "m3"])
        with site.fault(FRONT, "is reloaded", loses=True):
            site.front.reload()
        site.front.await_state("m3", "UP")
        assert site.visitor("m3")


@contextlib.contextmanager
def _told_who_is_sent_elsewhere(site: Site, load: Crowd) -> Iterator[None]:
    """Asserts that visitors who are at another machine than before were told."""
    before = _where(load)
    cookies = {visitor.client: dict(visitor.cookies) for visitor in load.visitors}
    yield
    after = _where(load)
    moved = {client for client in before if before[client] != after[client]}
    assert moved <= {visit.client for visit in site.visits if visit.told and visit.told.lost}
    for client in moved:  # the session of before is still where it was
        assert _log_out(site.machines[before[client]], cookies[client])


def _where(load: Crowd) -> dict[str, str]:
    return {one.client: one.holder.machine for one in load.visitors if one.holder}


def _tickets(load: Crowd) -> set[str]:
    return {one.cookies[TICKET] for one in load.visitors if one.holder}


def _log_out(machine: Machine, cookies: dict[str, str]) -> bool:
    """Without HAProxy. Whether the session was there."""
    connection = http.client.HTTPConnection(machine.plan.address, machine.plan.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        # The host belongs to the scope of a cookie: it is the one that visitors come to.
        headers = {"Host": "127.0.0.1", "Cookie": cookie, "Content-Length": "0"}
        connection.request("POST", "/logout?n=logout", headers=headers)
        told = json.loads(connection.getresponse().headers["X-Told"])
        return not told["new"]

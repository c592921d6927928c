"""A machine of three fails, under load, in every way that there is a name for. The others' visitors notice nothing.

At the end of each `load` the verdict on all that visitors saw is asserted (`verdict.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbadaptor.contract.generation import made_at
from tests.apache.resources import eventually
from tests.machines.machine import SAME_NUMBER, Machine
from tests.machines.site import Site
from tests.torture.clients import Planned, Visitor

DAY = 86400
NO_KEYS = "lbctl key export"
"""Of what is said where a machine has made a key of its own."""
LOOK = Planned("GET", "visit", size=100)


def test_each_machine_has_a_world_of_its_own(site: Site) -> None:
    """With namespaces the monitors have one pid, and the AppServers one port: who mixes them up would be found."""
    told = [(one.status()["pid"], one.table().entries[0].address) for one in site.machines.values()]
    assert len(set(told)) == (1 if site.place.own_file_systems else len(told))


def test_a_machine_loses_power(site: Site) -> None:
    with site.load() as load:
        victim = site.machines["m2"]
        idle = site.visitor("m2")
        others = {name: load.at(name) for name in ("m1", "m3")}
        with site.fault("m2", "loses power", loses=True, fails=True):
            victim.lose_power()
            site.front.await_state("m2", "DOWN")
            load.go_on()
            assert load.at("m2") == []
            for name, visitors in others.items():
                assert set(map(id, visitors)) <= set(map(id, load.at(name)))
            victim.boot()
            victim.await_up()
            site.front.await_state("m2", "UP")
        assert site.visitor("m2")
        assert _still_there(idle, "m2", moved=True)  # `survive` keeps sessions on its disk


def test_a_machine_is_cut_off_from_the_front(site: Site) -> None:
    with site.load() as load:
        victim = site.machines["m2"]
        idle = site.visitor("m2")
        with site.fault("m2", "is cut off", loses=True, fails=True):
            site.place.cut(victim.plan)
            site.front.await_state("m2", "DOWN")
            load.go_on()
            assert load.at("m2") == []
            site.place.heal(victim.plan)
            site.front.await_state("m2", "UP")
        assert _still_there(idle, "m2")
        assert site.visitor("m2")


def test_apache_hangs(site: Site) -> None:
    with site.load() as load:
        victim = site.machines["m2"]
        idle = site.visitor("m2")
        with site.fault("m2", "Apache hangs", loses=True, fails=True):
            with victim.hung("apache"):
                site.front.await_state("m2", "DOWN")
                load.go_on()
                assert load.at("m2") == []
                assert victim.is_whole()
            site.front.await_state("m2", "UP")
        assert _still_there(idle, "m2")


@pytest.mark.parametrize("kinds", [("arbiter", "watcher"), ("watcher",)], ids=["monitor", "agent"])
def test_no_visitor_notices_that_this_hangs(site: Site, kinds: tuple[str, ...]) -> None:
    with site.load() as load:
        victim = site.machines["m2"]
        with victim.hung(*kinds):
            eventually("HAProxy gets no answer of the agent", lambda: site.front.agent("m2") != "L7OK")
            site.front.await_state("m2", "UP")
            load.go_on()
        eventually("the agent answers", lambda: site.front.agent("m2") == "L7OK")


def test_the_run_folder_is_full(site: Site) -> None:
    """Visitors with a session stay, new ones go elsewhere."""
    with site.load() as load:
        victim = site.machines["m2"]
        there = load.at("m2")
        with _full(site, victim, victim.settings.run_folder):
            site.front.await_state("m2", "DRAIN")
            load.go_on()
            assert load.at("m2") == there
            assert {site.visitor().holder.machine for _ in range(6)} <= {"m1", "m3"}
        site.front.await_state("m2", "UP")
        assert site.visitor("m2")


def test_the_session_folder_is_full(site: Site) -> None:
    """Nobody notices, and it is said."""
    with site.load() as load:
        victim = site.machines["m2"]
        there = load.at("m2")
        with _full(site, victim, victim.settings.session_folder):
            load.go_on()
            assert load.at("m2") == there
            eventually("it is said", lambda: _unsaved(victim))
        load.go_on()
        eventually("all sessions are saved again", lambda: not _unsaved(victim))


def test_a_clock_that_was_wrong_by_a_day_and_is_put_right(site: Site) -> None:
    """Tickets stay different on all machines, and each visitor keeps what is theirs."""
    victim = site.machines["m2"]
    with site.load():
        for clock in (DAY, 0):
            idle = site.visitor("m2")
            before = _generations(site)
            with site.fault("m2", "reboots with another clock", loses=True, fails=True):
                victim.shut_down()
                site.front.await_state("m2", "DOWN")
                victim.boot(clock)
                victim.await_up()
                site.front.await_state("m2", "UP")
            born = {entry.identity.generation for entry in victim.table().entries}
            assert not born & before
            assert all(abs(made_at(one) / 1000 - time.time() - clock) < 60 for one in born)
            told = idle.ask(LOOK).told
            assert told is not None
            # A day later by its clock the session is over; put back, the clock says that it has just begun.
            assert told.lost == bool(clock)
            there = site.visitor("m2")
            assert _still_there(there, "m2")
    assert not any(SAME_NUMBER in machine.apache_said() for machine in site.machines.values())


def test_a_machine_starts_with_an_empty_disk(site: Site) -> None:
    """It does not begin with a key of its own, which would be a stranger's to the others; then it is given theirs."""
    victim = site.machines["m2"]
    with site.load() as load:
        with site.fault("m2", "reboots with an empty disk", loses=True, fails=True):
            victim.shut_down()
            said = len(victim.said())
            victim.empty_disk()
            victim.boot()
            victim.await_said(NO_KEYS, said)
            site.front.await_state("m2", "DOWN")
            load.go_on()
            victim.lbctl("key", "import", given=site.machines["m1"].lbctl("key", "export"))
            victim.await_up()
            site.front.await_state("m2", "UP")
        known = site.visitor("m2")
        with site.fault("m2", "is cut off", loses=True, fails=True):
            site.place.cut(victim.plan)
            site.front.await_state("m2", "DOWN")
            told = known.ask(LOOK).told
            site.place.heal(victim.plan)
            site.front.await_state("m2", "UP")
        assert told is not None
        assert told.lost  # it is one of them again: its tickets are not FORGED elsewhere


def test_a_machine_leaves_is_rebooted_and_comes_back(site: Site) -> None:
    leaving = site.machines["m3"]
    with site.load() as load:
        idle = site.visitor("m3")
        load.sessions_end.set()
        leaving.lbctl("drain", "--all")
        site.front.await_state("m3", "DRAIN")
        eventually("its visitors have left, but one", lambda: leaving.sessions() == 1)
        assert not leaving.status()["machine"]["empty"]
        assert _still_there(idle, "m3")
        with site.fault("m3", "reboots", loses=True):  # but for the one session, it is empty
            leaving.shut_down()
            site.front.await_state("m3", "DOWN")
            load.go_on()
            leaving.boot()
            leaving.await_up()
            site.front.await_state("m3", "UP")
        assert not leaving.status()["machine"]["leaving"]
        assert _still_there(idle, "m3", moved=True)
        assert site.visitor("m3")


def _still_there(visitor: Visitor, machine: str, moved: bool = False) -> bool:
    """Whether a visitor finds their session; `moved`: at another AppServer."""
    told = visitor.ask(LOOK).told
    return told is not None and (told.machine, told.new, told.lost, told.moved) == (machine, False, False, moved)


def _unsaved(machine: Machine) -> int:
    """How many sessions are not saved, as its status says."""
    kept = [one["kept"] for one in machine.status()["appservers"]]
    return sum(sum(one["unsaved"].values()) for one in kept if one)


def _generations(site: Site) -> set[int]:
    return {entry.identity.generation for one in site.machines.values() for entry in one.table().entries}


@contextlib.contextmanager
def _full(site: Site, machine: Machine, folder: Path) -> Iterator[None]:
    """Nothing can be written there: the file system is full, or, where it is none of its own, it is forbidden."""
    place = machine.file(folder)
    if not site.place.own_file_systems:
        folders = [place, *(one for one in place.glob("at.*") if one.is_dir())]
        modes = [one.stat().st_mode for one in folders]
        for one in folders:
            one.chmod(0o500)
        yield
        for one, mode in zip(folders, modes, strict=True):
            one.chmod(mode)
        return
    filler = place.parent / "filler" if place.name == "sessions" else place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for piece in (bytes(2**16), bytes(4096), b"1"):
            with contextlib.suppress(OSError):
                while file.write(piece):
                    pass
    try:
        yield
    finally:
        filler.unlink()

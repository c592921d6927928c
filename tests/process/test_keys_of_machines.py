"""Two machines with one key: two monitors, each with a key file of its own, and `lbctl` as people give it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site

from lbadaptor.adaptor.backends import Backends
from lbadaptor.contract.address import Entry, Identity
from lbadaptor.contract.generation import made_at, with_number
from lbadaptor.contract.settings import load
from lbadaptor.contract.ticket import Verdict, read_keys
from tests.ports import held_ports


@pytest.fixture
def machines() -> Iterator[list[Site]]:
    """Machines 1 and 2."""
    with (
        held_ports(SLOTS) as first,
        held_ports(SLOTS) as second,
        tempfile.TemporaryDirectory(prefix="lbt-", dir="/tmp") as folder,
    ):
        made = []
        for number, port in enumerate((first, second), 1):
            Path(folder, str(number)).mkdir()
            site = Site(Path(folder, str(number)), port)
            site.settings("appservers", servers=1)
            site.settings("machine", number=number)
            made.append(site)
        try:
            yield made
        finally:
            for site in made:
                site.clear()


def bring(here: Site, there: Site) -> str:
    """`lbctl key export | ssh there lbctl key import`: what the import says."""
    exported = subprocess.run(
        here.command("key", "export", module="monitor.ctl"), capture_output=True, text=True, timeout=PATIENCE
    )
    assert (exported.returncode, exported.stderr) == (0, "")
    imported = subprocess.run(
        there.command("key", "import", module="monitor.ctl"),
        input=exported.stdout,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert imported.returncode == 0, imported.stderr
    key = exported.stdout.splitlines()[-1]
    assert key not in imported.stdout + imported.stderr + here.said + there.said
    return imported.stdout


def keys_of(site: Site) -> list[str]:
    return [line for line in (site.folder / "keys").read_text().splitlines() if not line.startswith("#")]


def number_in(entry: Entry, site: Site) -> int | None:
    assert made_at(entry.identity.generation) > 10**12
    assert len(str(entry.identity.generation)) == 16
    return read_keys(site.folder / "keys").number_in(entry.ticket)


def test_a_key_goes_over_two_machines_and_nobody_is_unknown_anywhere(machines: list[Site]) -> None:
    one, two = machines
    status, said = one.lbctl("key", "make")
    assert (status, "made" in said) == (0, True)
    one.up()
    assert "it reads the file when it starts" in bring(one, two)
    there, here = (two.folder / "keys").stat(), (one.folder / "keys").stat()
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (0o640, here.st_uid, here.st_gid)
    two.up()
    [old_one], [old_two] = one.ok, two.ok
    assert (number_in(old_one, one), number_in(old_two, two)) == (1, 2)
    assert (number_in(old_one, two), number_in(old_two, one)) == (1, 2), "each knows the other's"

    status, said = one.lbctl("rotate-key", "--believe")
    assert status == 0, said
    assert "a new key is believed" in bring(one, two)
    assert keys_of(one) == keys_of(two)
    new, old = keys_of(one)
    two.wait_control()
    status, said = two.lbctl("rotate-key", "--sign")  # whichever is first
    assert status == 0, said
    assert keys_of(two) == [old, new]
    two.wait(lambda: two.ok and two.ok[0].ticket != old_two.ticket, "one with a ticket of the new key is there")
    [new_two] = two.ok
    assert read_keys(one.folder / "keys").number_in(new_two.ticket) == 2, "known where the key is believed"
    assert new_two.identity.generation > old_two.identity.generation
    assert os.stat(two.folder / "keys").st_mode == there.st_mode
    two.wait_control()
    for site in machines:
        site.end()


def test_another_machine_of_the_same_number_is_found_and_ones_own_dead_are_none(
    machines: list[Site], caplog: pytest.LogCaptureFixture
) -> None:
    """By an adaptor, from the address.text of a real monitor."""
    site = machines[0]
    assert site.lbctl("key", "make")[0] == 0
    site.up()
    [dead] = site.ok
    backends = Backends(load(site.config))
    assert backends.judge([dead.ticket], backends.table())[0] is Verdict.HELD
    os.kill(site.pids()[0], signal.SIGKILL)
    site.wait(lambda: site.ok and site.ok[0].ticket != dead.ticket, "another one is there")
    table, keys = backends.table(), read_keys(site.folder / "keys")
    assert backends.judge([dead.ticket], table)[0] is Verdict.LOST
    assert caplog.text == ""
    assert table.given is not None
    assert (table.given.number, table.given.newest) == (1, site.ok[0].identity.generation)
    for number, said in ((2, 0), (1, 1)):
        later = with_number(number, keys.mask, table.given.newest, 0, 5)
        assert backends.judge([keys.ticket(Identity(5, later))], table)[0] is Verdict.LOST
        assert caplog.text.count("another machine has the number 1 of this one") == said
    site.end()

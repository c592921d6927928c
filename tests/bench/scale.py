"""What ours takes as it grows: memory, the monitor's processor time, the reload of a large table."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from lbadaptor.adaptor.address_table import AddressTable
from lbadaptor.adaptor.backends import Backends
from lbadaptor.contract.address import Address, Entry, Identity, State, Table
from lbadaptor.contract.settings import load
from lbadaptor.contract.ticket import make_keys
from monitor.arbiter.files.address_text import Publisher
from tests.ports import free_ports

from . import cost
from .build_ours import monitored, write_config
from .chain import Chain
from .load import LOGIN, ask, plain
from .servers import Server, folder_of_application

APPSERVERS = 100
ENTRIES = 1000
RELOADS = 50
LOOKS = 1000


def reload(folder: Path) -> dict[str, float]:
    """How long an Apache process takes to read a table of ENTRIES, at first and anew; how often it does when nothing
    changed.

    Anew: with other session counts in all lines, as the worst case; in one line of a hundred.
    """
    config = write_config(folder)
    keys = make_keys(folder / "keys")
    identities = [Identity(slot, 1_763_805_600_000 + slot) for slot in range(ENTRIES)]
    tickets = [keys.ticket(identity) for identity in identities]
    publisher = Publisher(folder / "address.text", None)
    counts = [0] * ENTRIES

    def read(backends: Backends) -> float:
        """ms"""
        entries = (
            Entry(ticket, Address("127.0.0.1", 10_000 + identity.slot), State.OK, identity, sessions=sessions)
            for ticket, identity, sessions in zip(tickets, identities, counts, strict=True)
        )
        publisher.publish(tuple(entries))
        begin = time.perf_counter()
        assert len(backends.table().entries) == ENTRIES
        return (time.perf_counter() - begin) * 1000

    first = [read(Backends(load(config))) for _ in range(RELOADS)]
    backends = Backends(load(config))
    read(backends)
    all_changed, few_changed = [], []
    for number in range(RELOADS):
        counts = [number + 1] * ENTRIES
        all_changed.append(read(backends))
        counts[number :: ENTRIES // 10] = [0] * 10
        few_changed.append(read(backends))
    tables: list[Table] = []
    address_file = AddressTable(folder / "address.text", tables.append)
    address_file.table()
    for _ in range(LOOKS):
        address_file.table()
    return {
        "first_read_ms": median(first),
        "reload_ms": median(all_changed),
        "reload_few_changed_ms": median(few_changed),
        "reloads_unchanged": float(len(tables) - 1),
    }


def monitor(folder: Path, seconds: float) -> dict[str, float]:
    """What the monitor of many AppServers takes, and what an AppServer takes beyond a bare server."""
    folder_of_application(folder)
    home = folder / "run"
    home.mkdir()
    home.chmod(0o711)
    server, _ = monitored(home, APPSERVERS, probe_interval=1.0)
    bare = _bare(home)
    try:
        for one in (server, bare):
            one.start()
            one.await_up()
        ask(bare.port, plain(LOGIN, ""))
        found = cost.processes({server.mark: server.pid, bare.mark: bare.pid})
        appservers = {pid for pid in found[server.mark] if b"lbadaptor.appserver" in _command(pid)}
        own = found[server.mark] - appservers
        before = cost.cpu(own)
        time.sleep(seconds)
        spent = cost.spent(before, cost.cpu(own))
        return {
            "monitor_percent": spent / 1e6 / seconds * 100,
            "arbiter_mb": median(cost.resident([server.pid])),
            "watcher_mb": max(cost.resident(own - {server.pid})),
            "appserver_mb": median(cost.resident(appservers)) - max(cost.resident(found[bare.mark])),
        }
    finally:
        for one in (server, bare):
            one.stop()


def apache_memory(chains: Iterable[Chain]) -> dict[str, float]:
    """Of the largest of each chain's Apache processes, and the adaptor's part of it. They must have been at work."""
    found = {}
    for chain in chains:
        assert chain.built is not None
        parent = chain.built.servers[-1].pid
        found[f"apache_mb {chain.name}"] = max(cost.resident(chain.processes()["httpd"] - {parent}))
    with_it, without = found.get("apache_mb entries-4"), found.get("apache_mb mod_wsgi-embedded")
    if with_it is not None and without is not None:
        found["adaptor_mb"] = with_it - without
    return found


def memory(chains: Iterable[Chain]) -> dict[str, float]:
    """What each chain takes from the machine's memory, all its processes together, where that may be read."""
    found = {}
    for chain in chains:
        with contextlib.suppress(PermissionError):
            pids = [pid for pids in chain.processes().values() for pid in pids]
            found[f"memory_mb {chain.name}"] = cost.proportional(pids)
    return found


def _bare(folder: Path) -> Server:
    """Python's own server, with the same application."""
    port = free_ports()
    code = (
        "from wsgiref.simple_server import make_server; from application import application; "
        f"make_server('127.0.0.1', {port}, application).serve_forever()"
    )
    return Server("bare", folder, port, [sys.executable, "-c", code])


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

"""What the tests of monitors that end and begin have in common."""

from __future__ import annotations

from pathlib import Path

from monitor_fixture import Site, wait_for

from lbadaptor.contract.address import Identity


def crash(site: Site) -> None:
    """SIGKILL for the monitor."""
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    wait_for(lambda: not site.watchers(), "the watcher has ended with the arbiter")


def identities(site: Site) -> set[Identity]:
    return {entry.identity for entry in site.table.entries}


def restart(site: Site, adopted: int) -> None:
    site.start()
    site.wait(lambda: site.said.count("is adopted") == adopted, f"{adopted} AppServers are adopted")
    site.wait_control()


def state(site: Site) -> Path:
    return site.run_folder / "state.json"


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

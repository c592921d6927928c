"""The tutorial's commands, as they stand on the page, do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import eventually, processes_of

from lbadaptor.contract.address import parse
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
"""Commands, and what they print."""
VARIES = re.compile(r"(?<!click )(?<!release )\b\d+(?:\.\d+)?\b|\s+")
SESSIONS = re.compile(r"^\d+ +([A-Z]+) +\d+ s +(\d+) ", re.MULTILINE)
"""The state and the number of sessions in a line of `lbctl status`."""
TICKET = re.compile(r"__PRT__\s+\S+")
PROCESS = re.compile(r"process (\d+)")
PATIENCE = 30.0
"""Seconds within which a command that only looks shows what the page shows."""
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "lbadaptor", "monitor", "apache")
AS_USER = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text())


def essence(text: str) -> list[str]:
    """The lines without what differs from run to run: numbers (but for clicks, releases and sessions), widths of
    columns, tickets, and the order of the slots."""
    lines = TICKET.sub("a ticket", text).splitlines()
    sessions = [" ".join(found) for found in SESSIONS.findall(text)]
    return sorted(sessions) + sorted(
        VARIES.sub(lambda found: " " if found[0].isspace() else "#", line).strip() for line in lines
    )


def are_published(home: Path, printed: str) -> bool:
    """Whether address.text, by which Apache's processes go, has the sessions that `lbctl status` has printed."""
    states = SESSIONS.findall(printed)
    if not states:
        return True
    table = parse((home / "shop" / "run" / "address.text").read_text())
    return sorted(states) == sorted((entry.state.value, str(entry.sessions)) for entry in table.entries)


def same_processes(shown: str, printed: str, known: dict[str, str]) -> bool:
    """Whether each process of the page is one and the same process here. They are added to those known."""
    pairs = zip(PROCESS.findall(shown), PROCESS.findall(printed), strict=True)
    return all(known.setdefault(page_pid, pid) == pid for page_pid, pid in pairs)


@pytest.fixture
def home() -> Iterator[Path]:
    """An ordinary user's home, with a copy of the source; removed with everything that was started there."""
    folder = Path(tempfile.mkdtemp(prefix="lbt-", dir="/tmp"))
    try:
        source = folder / "source"
        source.mkdir()
        for name in SOURCES:
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, source / name)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "nobody:nogroup", folder], check=True)
        yield folder
    finally:
        for pid in processes_of(folder):
            os.kill(pid, 9)
        shutil.rmtree(folder)


def run(home: Path, command: str) -> tuple[int, str]:
    """The exit status of a block of commands, and what it prints."""
    shop = home / "shop"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "HOME": str(home),
        "PIP_QUIET": "2",  # what pip warns of in this machine's configuration is not on the page
        "SOURCE": str(home / "source"),
    }
    with tempfile.TemporaryFile() as output:  # no pipe: the monitor, in the background, would keep it open
        ended = subprocess.run(
            [*(AS_USER if os.geteuid() == 0 else ()), "bash", "-euo", "pipefail", "-c", command],
            cwd=shop if shop.exists() else home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        output.seek(0)
        return ended.returncode, output.read().decode().replace(str(home), "/home/ada")


def test_every_command_prints_what_the_page_shows(home: Path) -> None:
    site, base = free_ports(), free_ports(8)
    processes: dict[str, str] = {}
    for page_command, expected in blocks():
        command = page_command.replace("127.0.0.1:8000", f"127.0.0.1:{site}").replace("= 9000", f"= {base}")
        deadline = time.monotonic() + (PATIENCE if command.rstrip().endswith("status") else 0)
        while True:
            status, printed = run(home, command)
            if status == 0 and essence(printed) == essence(expected) and are_published(home, printed):
                break
            assert time.monotonic() < deadline, f"{command}\n{status}: {printed}\ninstead of\n{expected}"
            time.sleep(0.2)
        assert same_processes(expected, printed, processes), f"{command}\n{printed}\ninstead of\n{expected}"
    assert len({processes[name] for name in ("4714", "4715", "4801")}) == 3  # Ada's, Bob's, Cleo's
    eventually("everything has ended", lambda: not processes_of(home))


def test_the_page_has_commands_and_their_output() -> None:
    found = blocks()
    assert len(found) > 10
    assert sum(1 for _, expected in found if expected) > 8

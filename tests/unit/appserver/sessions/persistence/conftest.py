"""Folders of sessions in tmp_path, and processes that have one open.

Within a process, folders that were opened apart are those of several AppServers: flock belongs to what `open` has
made. One that was abandoned is a dead AppServer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from session_owner import Owner

from lbadaptor.appserver.sessions.persistence.folder import SessionFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def opened(root: Path) -> Iterator[Callable[..., SessionFolder]]:
    """Opens the folder of an AppServer; `slot` and `generation` are in its name."""
    folders: list[SessionFolder] = []

    def make(slot: int = 0, generation: int = 1, **more: str) -> SessionFolder:
        folders.append(SessionFolder(str(root), slot, generation, **more))
        folders[-1].open()
        return folders[-1]

    yield make
    for folder in folders:
        folder.abandon()


@pytest.fixture
def owners(root: Path) -> Iterator[Callable[..., list[Owner]]]:
    """Starts processes of AppServers in slots 0, 1, …; all are ready."""
    started: list[Owner] = []

    def start(number: int, generation: int = 1) -> list[Owner]:
        found = [Owner(root, slot, generation) for slot in range(number)]
        started.extend(found)
        assert [one.result() for one in found] == ["open"] * number
        return found

    yield start
    for one in started:
        one.kill()

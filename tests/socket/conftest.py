from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import ScriptedServer, Step
from stage import Site

from lbadaptor.contract.address import Address


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """A function that starts a ScriptedServer."""
    with contextlib.ExitStack() as stack:

        def start(*steps: Step, default: Step | None = None) -> ScriptedServer:
            server = ScriptedServer(*steps, default=default)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def refusing_address() -> Iterator[Address]:
    """An address that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Address(*bound.getsockname())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()

"""The demos find ports for their AppServers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from monitor.demo.programs import LOOPBACK, DemoFailed, free_ports
from tests.ports import held_ports


@pytest.fixture
def lowest() -> Iterator[int]:
    """The first of ten ports that no other test has."""
    with held_ports(10) as first:
        yield first


def test_the_first_that_are_free_are_found(lowest: int) -> None:
    assert free_ports(4, lowest) == lowest
    with socket.create_server((LOOPBACK, lowest + 2)):
        assert free_ports(2, lowest) == lowest
        assert free_ports(4, lowest) == lowest + 3


def test_above_the_last_port_there_are_none() -> None:
    with pytest.raises(DemoFailed, match=r"no 4 ports in a row are free on 127\.0\.0\.1 from 65533 upwards"):
        free_ports(4, 65533)

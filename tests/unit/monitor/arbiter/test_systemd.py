"""sd_notify over real datagram sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.arbiter.systemd import Systemd


@contextlib.contextmanager
def receiver(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(address)
        receiving.settimeout(5)
        yield receiving


def test_messages_are_lines_of_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with receiver(path) as receiving:
        Systemd({"NOTIFY_SOCKET": path}).notify("READY=1", "STATUS=slots: 0 OK")
        assert receiving.recv(4096) == b"READY=1\nSTATUS=slots: 0 OK"


def test_an_address_that_begins_with_an_at_sign_is_abstract() -> None:
    name = f"lbadaptor-test-{secrets.token_hex(8)}"
    with receiver(f"\0{name}") as receiving:
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).notify("WATCHDOG=1")
        assert receiving.recv(4096) == b"WATCHDOG=1"


def test_without_systemd_nothing_happens() -> None:
    Systemd({}).notify("READY=1")


@pytest.mark.parametrize("address", ["/nonexistent/notify", "/" + "x" * 200], ids=["missing", "too long"])
def test_a_socket_that_cannot_be_reached_is_ignored(address: str) -> None:
    Systemd({"NOTIFY_SOCKET": address}).notify("READY=1")


def test_a_receiver_that_does_not_read_does_not_block(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with receiver(path):
        systemd = Systemd({"NOTIFY_SOCKET": path})
        for _ in range(5000):
            systemd.notify("STATUS=" + "x" * 200)


def test_a_lack_of_descriptors_is_ignored(tmp_path: Path) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, limits[0]), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(1)
        systemd.notify("READY=1")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, float("inf")),
        ({"WATCHDOG_USEC": "0"}, float("inf")),
        ({"WATCHDOG_USEC": "soon"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_signs_of_life_come_twice_as_often_as_asked_for(environment: dict[str, str], seconds: float) -> None:
    assert Systemd(environment).watchdog == seconds

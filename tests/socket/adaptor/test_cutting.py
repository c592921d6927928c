from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbadaptor.adaptor import cutting
from lbadaptor.adaptor.cutting import PEER, cut_visitor


def came_from(address: str, port: int | str, **more: str) -> dict[str, str]:
    return {"REMOTE_ADDR": address, "REMOTE_PORT": str(port), **more}


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The visitor's end of a connection, and the server's."""
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with (
        socket.create_server((host, 0), family=request.param) as listener,
        socket.create_connection(listener.getsockname()[:2]) as visitor,
    ):
        server, _ = listener.accept()
        with server:
            visitor.settimeout(10)
            yield visitor, server


def test_the_visitor_sees_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    visitor, _ = ends
    host, port, *_ = visitor.getsockname()
    assert cut_visitor(came_from(host, port))
    with pytest.raises(ConnectionResetError):
        visitor.recv(1)


def test_what_came_before_the_end_can_still_be_read(ends: tuple[socket.socket, socket.socket]) -> None:
    visitor, server = ends
    host, port, *_ = visitor.getsockname()
    server.sendall(b"first")
    assert visitor.recv(1) == b"f"
    assert cut_visitor(came_from(host, port))
    assert visitor.recv(100) == b"irst"
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        server.send(b"more")


def test_behind_a_proxy_it_is_the_proxys_connection(ends: tuple[socket.socket, socket.socket]) -> None:
    visitor, _ = ends
    host, port, *_ = visitor.getsockname()
    assert not cut_visitor(came_from("192.0.2.7", port))
    assert not cut_visitor(came_from(host, port, **{PEER: "192.0.2.7"}))
    assert cut_visitor(came_from("192.0.2.7", port, **{PEER: host}))


def test_where_it_cannot_be_reset_it_is_shut_down(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, _ = ends
    host, port, *_ = visitor.getsockname()
    monkeypatch.setattr(cutting, "_UNSPECIFIED", b"")  # EINVAL
    assert cut_visitor(came_from(host, port))
    assert visitor.recv(1) == b""


def test_in_a_python_without_ctypes_it_is_shut_down(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, _ = ends
    host, port, *_ = visitor.getsockname()
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert cut_visitor(came_from(host, port))
    assert visitor.recv(1) == b""


def test_a_visitor_by_ipv4_on_a_socket_for_both_is_found() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as visitor,
    ):
        server, _ = listener.accept()
        with server:
            visitor.settimeout(10)
            assert cut_visitor(came_from("127.0.0.1", visitor.getsockname()[1]))
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)


def test_no_other_connection_is_cut(ends: tuple[socket.socket, socket.socket]) -> None:
    visitor, server = ends
    host, port, *_ = visitor.getsockname()
    assert not cut_visitor(came_from("192.0.2.7", port))
    assert not cut_visitor(came_from(host, port % 65535 + 1))
    server.sendall(b"still here")
    assert visitor.recv(100) == b"still here"


@pytest.mark.parametrize("port", ["", "x", "-1", "²", "99999999", "9" * 5000])
def test_a_port_that_does_not_exist_finds_no_connection(port: str) -> None:
    assert not cut_visitor(came_from("127.0.0.1", port))
    assert not cut_visitor(came_from("", port))
    assert not cut_visitor({})


def test_no_descriptor_is_left_and_no_lock_is_lost(ends: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / "lock", "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        before = os.listdir("/proc/self/fd")
        cut_visitor(came_from("192.0.2.7", 50123))
        assert os.listdir("/proc/self/fd") == before
        child = os.fork()
        if not child:
            try:
                with open(tmp_path / "lock", "w") as again:
                    fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0

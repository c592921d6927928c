from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from lbadaptor.appserver.http import listening
from lbadaptor.contract.address import Address


@pytest.fixture
def address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        return Address(*somebody.getsockname())


def test_the_address_comes_first_and_the_unix_socket_is_for_its_group(address: Address, tmp_path: Path) -> None:
    path = tmp_path / "0"
    listeners = listening.bind(address, str(path))
    assert [one.getsockname() for one in listeners] == [tuple(address), str(path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(str(path))  # nobody listens yet
    listening.close(listeners)
    assert all(one.fileno() == -1 for one in listeners)


def test_a_former_lifes_unix_socket_stays_until_the_port_is_ours(address: Address, tmp_path: Path) -> None:
    path = tmp_path / "0"
    listening.close(listening.bind(address, str(path)))
    with socket.create_server(address), pytest.raises(OSError, match="in use"):
        listening.bind(address, str(path))
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(str(path))  # were it missing, callers would come to a stranger
    listeners = listening.bind(address, str(path))
    listeners[1].listen()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    listening.close(listeners)


@pytest.mark.parametrize("path", ["there/is/no/folder", "taken", "x" * 200])
def test_where_there_can_be_none_the_address_must_do_and_that_is_said(
    path: str, address: Address, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").mkdir()
    listeners = listening.bind(address, str(tmp_path / path))
    assert [one.getsockname() for one in listeners] == [tuple(address)]
    assert "requests come by TCP" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
    listening.close(listeners)


def test_an_address_in_use_is_an_error(address: Address, tmp_path: Path) -> None:
    with socket.create_server(address), pytest.raises(OSError, match="in use"):
        listening.bind(address, str(tmp_path / "0"))
    assert not list(tmp_path.iterdir())

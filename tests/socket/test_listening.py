from __future__ import annotations

import socket
import stat
import threading
from pathlib import Path

import pytest

from lbadaptor.address import Address
from lbadaptor.appserver import listening


@pytest.fixture
def address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        return Address(*somebody.getsockname())


def test_the_address_comes_first_and_the_unix_socket_is_for_its_group(address: Address, tmp_path: Path) -> None:
    path = tmp_path / "0"
    listeners = listening.bind(address, str(path))
    assert [one.family for one in listeners] == [socket.AF_INET, socket.AF_UNIX]
    assert listeners[0].getsockname() == tuple(address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(str(path))  # nobody listens yet
    listening.close(listeners)
    assert all(one.fileno() == -1 for one in listeners)


def test_a_unix_socket_takes_the_place_of_a_former_ones_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))  # no longer address can be connected to (unix(7))
    listening.bind_unix(str(path)).close()
    found: set[type[OSError]] = set()
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            with socket.socket(socket.AF_UNIX) as caller:
                try:
                    caller.connect(str(path))
                except OSError as error:
                    found.add(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    for _ in range(500):
        listening.bind_unix(str(path)).close()
    over.set()
    thread.join()
    assert found == {ConnectionRefusedError}, "never missing"
    with listening.bind_unix(str(path)) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.listen()
        caller.connect(str(path))
    assert list(tmp_path.iterdir()) == [path]


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


def test_an_address_that_somebody_listens_on_is_an_error(address: Address, tmp_path: Path) -> None:
    with socket.create_server(address), pytest.raises(OSError, match="in use"):
        listening.bind(address, str(tmp_path / "0"))
    assert not list(tmp_path.iterdir())

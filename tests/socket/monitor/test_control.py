"""The control socket: console and client over a real Unix socket."""

from __future__ import annotations

import json
import os
import pwd
import queue
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from scripted import PATIENCE

from monitor.contract import messages
from monitor.contract.client import NoAnswer, NotAllowed, ask, exchange
from monitor.contract.client import events as ask_events
from monitor.contract.events import NAME, Happened, What, encode
from monitor.contract.messages import Ordered
from monitor.watcher.control import LARGEST_BODY, ControlServer

STATUS: dict[str, Any] = {"pid": 4711, "appservers": [{"slot": 0, "why": "ü · \n"}]}


class Desk:
    """A control server, the orders that came to it, and what it replies."""

    def __init__(self, path: Path, group: int | None = None) -> None:
        self.path = path
        self.orders: list[tuple[str, int]] = []
        self.value: int | None = None
        self.now = False
        self.by = ""
        self.reply = (True, "done")
        self.server = ControlServer(
            path, lambda: Raw(messages.encode(STATUS)), lambda order: self.order(order), group
        )

    def close(self) -> None:
        self.server.close()

    def order(self, order: Ordered) -> tuple[bool, str]:
        self.orders.append((order.order, order.slot))
        self.now, self.value, self.by = "now" in order.options, order.value, order.by
        return self.reply

    def talk(self, data: bytes) -> bytes:
        """Send raw bytes; all that comes until the server hangs up."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.path))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while more := connection.recv(65536):
                received += more
            return received


@pytest.fixture(scope="module")
def only_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("desk") / "control.sock")
    yield desk
    desk.close()


@pytest.fixture
def desk(only_desk: Desk) -> Desk:
    only_desk.orders.clear()
    only_desk.reply = (True, "done")
    return only_desk


def test_the_socket_is_for_its_owner_alone(desk: Desk) -> None:
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600


def test_what_a_dead_console_left_is_replaced_and_the_umask_is_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    before = os.umask(0o027)
    try:
        desk = Desk(path)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert ask(path) == STATUS
    desk.close()


def test_status(desk: Desk) -> None:
    assert ask(desk.path) == STATUS


@pytest.mark.parametrize(
    ("order", "slot", "carried"), [("drain", 3, 3), ("undrain", 0, 0), ("restart", None, -1), ("restart", 2, 2)]
)
def test_orders_are_carried(desk: Desk, order: str, slot: int | None, carried: int) -> None:
    desk.reply = (True, f"{order} it is")
    assert ask(desk.path, order, slot) == {"text": f"{order} it is"}
    assert desk.orders == [(order, carried)]


@pytest.mark.parametrize(
    ("order", "slot", "options", "value"),
    [("scale", None, [], 6), ("scale", None, ["reset"], None), ("weight", 2, [], 0), ("weight", 2, ["reset"], None)],
)
def test_numbers_are_carried(desk: Desk, order: str, slot: int | None, options: list[str], value: int | None) -> None:
    ask(desk.path, order, slot, options, value)
    assert (desk.orders, desk.value) == ([(order, -1 if slot is None else slot)], value)


@pytest.mark.parametrize("order", ["drain", "undrain"])
def test_all_stands_in_place_of_a_slot(desk: Desk, order: str) -> None:
    ask(desk.path, order, options=["all"])
    assert desk.orders == [(order, -1)]


def test_who_gives_an_order_is_known(desk: Desk) -> None:
    ask(desk.path, "drain", 3)
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert desk.by.startswith(f"user {name}")
    assert desk.by.endswith(f", process {os.getpid()}")


def test_no_is_an_answer(desk: Desk) -> None:
    desk.reply = (False, "slot 3 is STARTING")
    with pytest.raises(NoAnswer, match=r"^slot 3 is STARTING$"):
        ask(desk.path, "drain", 3)


def test_an_unknown_order_names_those_that_there_are(desk: Desk) -> None:
    with pytest.raises(NoAnswer, match="there is no order 'explode'; orders are drain, undrain, restart"):
        ask(desk.path, "explode", 3)
    assert desk.orders == []


def test_an_unknown_page(desk: Desk) -> None:
    assert exchange(desk.path, "secrets", None, PATIENCE) == (
        404,
        {"error": "there is no /secrets; ask for /status or /events?since=SECONDS"},
    )


def test_what_happened_after_a_moment_is_told(desk: Desk) -> None:
    lines = [Happened(What.READY, time=5.25, slot=2), Happened(What.SCALED, time=7.5, why="ü")]
    (desk.path.parent / NAME).write_bytes(b"".join(encode(line) + b"\n" for line in lines))
    assert [one["event"] for one in ask_events(desk.path, 0)] == ["ready", "scaled"]
    assert ask_events(desk.path, 5.25) == [{"event": "scaled", "time": 7.5, "why": "ü"}]
    assert ask_events(desk.path, 7.5) == []
    (desk.path.parent / NAME).unlink()
    assert ask_events(desk.path, 0) == []


@pytest.mark.parametrize("query", ["?since=", "?since=x", "?since=-1", "?since=1&x=2", "?Since=1", "/"])
def test_a_moment_has_to_be_said_clearly(desk: Desk, query: str) -> None:
    assert desk.talk(f"GET /events{query} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 404 ")


@pytest.fixture
def for_group(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "status.sock", os.getegid())
    yield desk
    desk.close()


def test_a_group_may_look_and_give_no_orders(for_group: Desk) -> None:
    found = for_group.path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, os.getegid())
    assert ask(for_group.path) == STATUS
    assert ask_events(for_group.path, 0) == []
    with pytest.raises(NoAnswer, match=r"status\.sock is for looking only, and takes no orders"):
        ask(for_group.path, "stop")
    assert for_group.orders == []


def test_who_may_not_open_the_control_socket_looks_at_the_group_s(
    for_group: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = for_group.path.with_name("control.sock")
    control.touch()
    monkeypatch.setattr("monitor.contract.client.os.access", lambda path, _: path == for_group.path)
    assert ask(control) == STATUS
    with pytest.raises(NotAllowed):
        ask(control, "stop")


BAD = [
    b"{",
    b"[]",
    b'"3"',
    b"\xff",
    b"[" * 4000,
    b'{"slot": "3"}',
    b'{"slot": 3.7}',
    b'{"slot": true}',
    b'{"slot": -1}',
    b'{"x": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"slot": 65536}',
    b'{"slot": 1e999}',
    b'{"slot": 1000000000000000000000000000000000}',
    b'{"x": 1}',
    b'{"slot": 3, "Slot": 4}',
    b'{"slot": 3, "x": null}',
    b'{"slot": 3, "slot": 3}',
    b'{"slot": {"slot": 3}}',
    b'{"slot": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"slot": 3} {}',
    b"null",
]
"""Each is refused whatever the interpreter's limits are: no decoder goes deeper than an order does."""


@pytest.mark.parametrize("body", BAD)
def test_what_is_no_order_is_refused(desk: Desk, body: bytes) -> None:
    status, answer = exchange(desk.path, "drain", body, PATIENCE)
    assert status == 400
    assert answer["error"].startswith('the body is to be JSON such as {"slot": 3}: ')
    assert desk.orders == []


@pytest.mark.parametrize(
    ("order", "body", "what"),
    [
        ("drain", {"slot": 3, "now": True}, "drain takes no now"),
        ("undrain", {"now": False}, "undrain takes no now"),
        ("restart", {"servers": 3}, "restart takes no servers"),
        ("drain", {}, "drain needs a slot or all, and not both"),
        ("drain", {"slot": 3, "all": True}, "drain needs a slot or all, and not both"),
        ("undrain", {"all": False}, "undrain needs a slot or all, and not both"),
        ("restart", {"all": True}, "restart takes no all"),
        ("scale", {}, "scale needs a number or reset, and not both"),
        ("scale", {"servers": 3, "reset": True}, "scale needs a number or reset, and not both"),
        ("scale", {"servers": 0}, "servers is to be from 1 to 1000, not 0"),
        ("scale", {"servers": 1001}, "servers is to be from 1 to 1000, not 1001"),
        ("weight", {"weight": 3}, "weight needs a slot"),
        ("weight", {"slot": 3, "weight": -1}, "weight is to be from 0 to 10000, not -1"),
        ("weight", {"slot": 3}, "weight needs a number or reset, and not both"),
        ("stop", {"slot": 3, "now": True}, "stop takes no now, slot"),
        ("reexec", {"slot": 0}, "reexec takes no slot"),
    ],
)
def test_what_does_not_belong_to_an_order_is_refused(desk: Desk, order: str, body: dict[str, Any], what: str) -> None:
    assert exchange(desk.path, order, json.dumps(body).encode(), PATIENCE) == (400, {"error": what})
    assert desk.orders == []


@pytest.mark.parametrize("path", ["drain?slot=3", "drain/", "drain/3", "Drain", "drain#x", "%64rain"])
def test_an_order_is_its_path_and_nothing_else(desk: Desk, path: str) -> None:
    answer = desk.talk(f"POST /{path} HTTP/1.1\r\nContent-Length: 11\r\n\r\n".encode() + b'{"slot": 3}')
    assert (answer.startswith(b"HTTP/1.1 404 "), answer.count(b"HTTP/1.1 ")) == (True, 1)
    assert desk.orders == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Content-Length: 11", "Content-Type: application/json"], 200),
        (["Content-Length: 11", "Content-Type: application/json; charset=utf-8"], 200),
        (["Content-Length: 11", "Content-Length: 11"], 200),
        (["Content-Length: 11", "Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Length: 11", "Content-Type: text/plain"], 415),
        (["Content-Length: 11", "Content-Type: application/json", "Content-Type: text/plain"], 415),
        (["Content-Length: 11", "Content-Length: 2"], 400),
        (["Content-Length: 11", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked"], 400),
        (["Content-Length: +11"], 400),
        (["Content-Length: 1_1"], 400),
        (["Content-Length: 12"], 400),
        (["Content-Length: "], 400),
    ],
)
def test_what_a_body_is_has_to_be_said_clearly(desk: Desk, headers: list[str], status: int) -> None:
    head = "\r\n".join(["POST /drain HTTP/1.1", "Host: monitor", *headers, "", ""])
    answer = desk.talk(head.encode() + b'{"slot": 3}')
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert desk.orders == ([("drain", 3)] if status == 200 else [])


def test_the_body_of_a_question_is_no_order(desk: Desk) -> None:
    order = b"POST /restart HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    answer = desk.talk(b"GET /status HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(order) + order)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert desk.orders == []


@pytest.mark.parametrize("length", [LARGEST_BODY + 1, 10**12, -1, "many", "0x10"])
def test_a_body_too_long_is_not_read(desk: Desk, length: object) -> None:
    answer = desk.talk(f"POST /drain HTTP/1.1\r\nHost: monitor\r\nContent-Length: {length}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert desk.orders == []


@pytest.mark.parametrize("path", ["explode", "drain"])
def test_the_body_of_what_is_refused_is_no_request(desk: Desk, path: str) -> None:
    within = b"POST /restart HTTP/1.1\r\nHost: monitor\r\nContent-Length: 0\r\n\r\n"
    length = len(within) if path == "explode" else -5
    head = f"POST /{path} HTTP/1.1\r\nHost: monitor\r\nContent-Length: {length}\r\n\r\n".encode()
    answer = desk.talk(head + within)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer
    assert desk.orders == []


@pytest.mark.parametrize(("body", "now"), [({}, False), ({"now": False}, False), ({"now": True}, True)])
def test_a_restart_may_end_sessions(desk: Desk, body: dict[str, bool], now: bool) -> None:
    assert exchange(desk.path, "restart", json.dumps(body).encode(), PATIENCE)[0] == 200
    assert (desk.orders, desk.now) == ([("restart", -1)], now)


def test_a_connection_is_kept_for_the_next_order(desk: Desk) -> None:
    order = b'POST /drain HTTP/1.1\r\nHost: monitor\r\nContent-Length: 11\r\n\r\n{"slot": 3}'
    assert desk.talk(order * 2).count(b"HTTP/1.1 200 OK") == 2
    assert desk.orders == [("drain", 3)] * 2


@pytest.mark.parametrize(
    "data", [b"", b"GET", b"\0\xff\r\n\r\n", b"POST /drain HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_malformed_or_broken_off_request_harms_no_other(desk: Desk, data: bytes) -> None:
    desk.talk(data)
    assert ask(desk.path) == STATUS


def test_a_client_that_leaves_without_reading_harms_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at_work: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    gone = threading.Event()

    def slow(order: Ordered) -> tuple[bool, str]:
        at_work.put(threading.current_thread())
        gone.wait(PATIENCE)
        return True, "done"

    monkeypatch.setattr(desk, "order", slow)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(desk.path))
        connection.sendall(b"POST /restart HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        thread = at_work.get(timeout=PATIENCE)
    gone.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert "Traceback" not in capfd.readouterr().err


def test_a_slow_client_keeps_no_other_waiting(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(desk.path))
        slow.sendall(b"POST /drain HTTP/1.1\r\n")
        assert ask(desk.path) == STATUS


# The client's side.


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=r"there is no control socket; is the monitor running\?"):
        ask(tmp_path / "control.sock")


def test_a_socket_without_listener(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NoAnswer, match=r"control\.sock: the monitor does not answer"):
        ask(path)


def test_a_user_without_the_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "control.sock"
    path.touch()
    monkeypatch.setattr("monitor.contract.client.os.access", lambda *_: False)  # root may everything
    with pytest.raises(
        NoAnswer, match="permission denied; orders may be given by the monitor's own user and by root"
    ):
        ask(path)


def test_an_answer_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def stranger() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=stranger)
        thread.start()
        with pytest.raises(NoAnswer, match="the monitor does not answer"):
            ask(path)
        thread.join(PATIENCE)


def test_the_client_asks_no_proxy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ask(desk.path) == STATUS


def test_the_client_leaves_no_connection_behind(desk: Desk) -> None:
    def sockets() -> int:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.path.exists(name) and os.readlink(name).startswith("socket:") for name in names)

    before = sockets()
    for _ in range(20):
        ask(desk.path)
    # The console's own ends close in threads of their own.
    until = time.monotonic() + PATIENCE
    while sockets() > before:
        assert time.monotonic() < until, "connections were left open"
        time.sleep(0.01)

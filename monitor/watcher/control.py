"""The control socket: HTTP over a Unix socket in the run folder. A user that may open it may give orders.

`GET /status`, `GET /events?since=SECONDS` (unix time), and `POST /ORDER` for each order of
`monitor.contract.orders`; JSON both ways. What is not understood in full is refused, and nothing is done. The
client's side is `monitor.contract.client`. A second socket may be for a group that may only look.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Annotated, Any

import msgspec

from monitor.contract import events
from monitor.contract.messages import Ordered
from monitor.contract.orders import MAX_SLOT, NUMBERS, OPTIONS, ORDERS, Order
from monitor.contract.processes import peer
from monitor.contract.threads import start

MODE = 0o600
GROUP_MODE = 0o660
"""Of the socket that is for a group."""
LARGEST_BODY = 4096
PAUSE = 0.1
"""Seconds before the next caller is taken, where one could not be."""

NOBODY_LOGGED_IN = 2**32 - 1
"""The login user of a process that no login began."""

_Body: Any = msgspec.defstruct(
    "_Body",
    [
        ("slot", Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOT)] | None, None),
        *((number, int | None, None) for number in NUMBERS),
        *((option, bool, False) for option in OPTIONS),
    ],
    forbid_unknown_fields=True,
)
"""What may be in the body of any order. Flat: what is nested deeper is refused as soon as it begins."""


class Silent(Exception):
    """There is no status, or none that holds, and why."""


class _Refused(Exception):
    """No order. Its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def _decode(order: Order, body: bytes) -> Ordered:
    """The order that is given. Raises _Refused."""
    try:
        given = msgspec.json.decode(body or b"{}", type=_Body)
        keys = _keys(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f'the body is to be JSON such as {{"slot": 3}}: {error}') from None
    if surplus := keys - order.keys:
        raise _Refused(400, f"{order.name} takes no {', '.join(sorted(surplus))}")
    options = tuple(option.name for option in order.options if getattr(given, option.name))
    value = getattr(given, order.number.name) if order.number else None
    if fault := order.fault(given.slot, value, options):
        raise _Refused(400, fault)
    return Ordered(0, order.name, -1 if given.slot is None else given.slot, options, value)


def _keys(body: bytes) -> set[str]:
    """The keys of an object that is known to be flat. Raises ValueError where a key is there twice."""

    def once(pairs: list[tuple[str, object]]) -> set[str]:
        keys = {key for key, _ in pairs}
        if len(keys) != len(pairs):
            raise ValueError("a key stands there twice")
        return keys

    found: set[str] = json.loads(body, object_pairs_hook=once)
    return found


def caller(connection: socket.socket) -> str:
    """Who is at the other end of a connection, in words. Blocks while the system looks up a user."""
    try:
        pid, user = peer(connection)
    except OSError:
        return "somebody"
    try:
        name = pwd.getpwuid(user).pw_name
    except (KeyError, OSError):
        name = str(user)
    return f"user {name}{_logged_in(pid, user)}, process {pid}"


def _logged_in(pid: int, user: int) -> str:
    """As whom a person logged in who has become another user since, by sudo, say (proc_pid_loginuid(5))."""
    try:
        number = int(Path(f"/proc/{pid}/loginuid").read_text("ascii"))
        return "" if number in (user, NOBODY_LOGGED_IN) else f", logged in as {pwd.getpwuid(number).pw_name}"
    except (OSError, ValueError, KeyError):
        return ""


class ControlServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers people. `status` returns the newest status, in JSON, or raises Silent. `order` gets one that has no
    number yet, and returns (done, text). `group`: members of this one (by number) may look, and nobody may give
    orders here.

    Raises OSError, and MemoryError where there can be no thread.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        path: Path,
        status: Callable[[], msgspec.Raw],
        order: Callable[[Ordered], tuple[bool, str]],
        group: int | None = None,
    ) -> None:
        self.status = status
        self.order = order
        self.takes_orders = group is None
        self.path = path
        path.unlink(missing_ok=True)
        before = os.umask(0o777 & ~MODE)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, GROUP_MODE)
        self._inode = os.stat(path).st_ino
        self._closed = False
        try:
            start(threading.Thread(target=self._serve, name="control", daemon=True))
        except MemoryError:
            self.server_close()
            raise

    def found(self) -> bool:
        """Whether its socket is still at its path."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def _serve(self) -> None:
        """It goes on, whatever this process runs short of."""
        while not self._closed:
            with contextlib.suppress(OSError, MemoryError):
                self.serve_forever()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except (OSError, MemoryError):
            time.sleep(PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """As ThreadingMixIn's. The connection is closed where there can be no thread for it."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        start(thread)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the client gets no answer, and says so."""

    def close(self) -> None:
        """Accept no more connections. Orders under way are answered. Blocks for half a second, about."""
        self._closed = True
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows is no request
        if self.path == "/status":
            try:
                self._answer(200, self.server.status())
            except Silent as error:
                self._answer(503, {"error": str(error)})
        elif since := re.fullmatch(r"/events(?:\?since=([0-9]{1,12}(?:\.[0-9]{1,9})?))?", self.path):
            self._answer_events(float(since[1] or 0))
        else:
            self._answer(404, {"error": f"there is no {self.path}; ask for /status or /events?since=SECONDS"})

    def _answer_events(self, since: float) -> None:
        try:
            found = events.read(self.server.path.parent, since)
        except OSError as error:
            self._answer(500, {"error": f"{error.filename}: {error.strerror}"})
        else:
            self._answer(200, {"events": found})

    def do_POST(self) -> None:
        if not self.server.takes_orders:
            self.close_connection = True  # with a body unread
            self._answer(403, {"error": f"{self.server.path} is for looking only, and takes no orders"})
            return
        order = self.path.removeprefix("/")
        if order not in ORDERS:
            self.close_connection = True  # with a body unread
            self._answer(404, {"error": f"there is no order {order!r}; orders are {', '.join(ORDERS)}"})
            return
        try:
            length = self._length()
            body = self.rfile.read(length)
            if len(body) < length:
                raise _Refused(400, "the body ends too early")
            ordered = _decode(ORDERS[order], body)
        except _Refused as error:
            self.close_connection = True
            self._answer(error.status, {"error": str(error)})
            return
        done, text = self.server.order(msgspec.structs.replace(ordered, by=caller(self.connection)))
        self._answer(200 if done else 409, {"text": text} if done else {"error": text})

    def _length(self) -> int:
        """Of the body. Raises _Refused where that is in doubt, or where it is no JSON."""
        lengths = set(self.headers.get_all("Content-Length") or ["0"])
        length = lengths.pop()
        if lengths or "Transfer-Encoding" in self.headers:
            raise _Refused(400, "how long the body is has to be said by one Content-Length")
        if not re.fullmatch("[0-9]{1,6}", length) or int(length) > LARGEST_BODY:
            raise _Refused(400, f"the body's length is to be 0 to {LARGEST_BODY}")
        kinds = {kind.partition(";")[0].strip().lower() for kind in self.headers.get_all("Content-Type") or ()}
        if kinds - {"application/json"}:
            raise _Refused(415, "the body is to be application/json")
        return int(length)

    def _answer(self, status: int, content: dict[str, Any] | msgspec.Raw) -> None:
        body = msgspec.json.encode(content) + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(body)

    def address_string(self) -> str:
        return "control socket"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the arbiter logs what comes of an order."""

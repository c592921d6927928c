"""The client's side of the control socket: HTTP over a Unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.log import texts
from monitor.contract.orders import ORDERS, REPLY_TIMEOUT

STATUS_SOCKET = "status.sock"
"""Beside the control socket, for the group [files] status_group."""
NOT_YOURS = "permission denied; orders may be given by the monitor's own user and by root"


class NoAnswer(LbadaptorError):
    """The monitor cannot be asked, or said no."""


class NotAllowed(NoAnswer):
    """This user may not ask it."""


class NotInTime(NoAnswer):
    """The monitor is there, and does not answer."""


def ask(
    path: Path, order: str = "", slot: int | None = None, options: Iterable[str] = (), value: int | None = None
) -> dict[str, Any]:
    """The status, or what came of an order. Blocks for REPLY_TIMEOUT, about, at most. Raises NoAnswer.

    `options` are those of the order (`monitor.contract.orders`), by name; `value` is its number's.
    """
    if not order:
        return _get(path, "status")
    body: dict[str, int] = ({} if slot is None else {"slot": slot}) | dict.fromkeys(options, True)
    if value is not None and (number := ORDERS[order].number):
        body[number.name] = value
    return _content(path, order, json.dumps(body).encode(), REPLY_TIMEOUT + 2)


def events(path: Path, since: float) -> list[dict[str, Any]]:
    """What happened after a moment (unix seconds), oldest first. Blocks and raises as `ask` does."""
    found: list[dict[str, Any]] = _get(path, f"events?since={since:.6f}")["events"]
    return found


def exchange(path: Path, page: str, order: bytes | None, timeout: float) -> tuple[int, Any]:
    """Status and content of an answer. `order`: the body of a POST; None: GET. `timeout`: seconds for each step.

    Raises OSError, http.client.HTTPException, and ValueError for an answer that is no JSON.
    """
    connection = _Connection(path, timeout)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it says no without reading the order
            connection.request("GET" if order is None else "POST", f"/{page}", order)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("monitor", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _get(path: Path, page: str) -> dict[str, Any]:
    """Ask; at the socket for a group, where this user may not open the control socket."""
    for_group = path.with_name(STATUS_SOCKET)
    if not os.access(path, os.W_OK) and os.access(for_group, os.W_OK):
        path = for_group
    return _content(path, page, None, REPLY_TIMEOUT)


def _content(path: Path, page: str, order: bytes | None, timeout: float) -> dict[str, Any]:
    """What the monitor answers. Raises NoAnswer, also when that is a no."""
    try:
        status, content = exchange(path, page, order, timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_answer(path, error) from None
    if status != 200:
        raise NoAnswer(str(content.get("error", status)))
    found: dict[str, Any] = content
    return found


def _no_answer(path: Path, error: Exception) -> NoAnswer:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NoAnswer(f"{path}: there is no control socket; is the monitor running?")
    except PermissionError:
        return NotAllowed(f"{path}: {NOT_YOURS}")
    except OSError as why:
        return NoAnswer(f"{path}: {why.strerror}")
    if not os.access(path, os.W_OK):
        return NotAllowed(f"{path}: {NOT_YOURS}")
    if isinstance(error, TimeoutError):
        return NotInTime(f"{path}: the monitor does not answer in time; its log may tell why")
    return NoAnswer(f"{path}: the monitor does not answer: {texts.what(error)}")

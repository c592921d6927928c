"""The client's side of the control socket: HTTP over a Unix socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import requests
import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.log import texts
from monitor.contract.orders import ORDERS

REPLY_TIMEOUT = 10.0
"""Seconds to wait for the arbiter's reply to an order."""
STATUS_SOCKET = "status.sock"
"""Beside the control socket, for the group [files] status_group."""
NOT_YOURS = "permission denied; orders may be given by the monitor's own user and by root"


class NoAnswer(LbadaptorError):
    """The monitor cannot be asked, or said no."""


class NotAllowed(NoAnswer):
    """This user may not ask it."""


def ask(
    path: Path, order: str = "", slot: int | None = None, options: Iterable[str] = (), value: int | None = None
) -> dict[str, Any]:
    """The status, or what came of an order. Blocks for REPLY_TIMEOUT, about, at most. Raises NoAnswer.

    `options` are those of the order (`monitor.contract.orders`), by name; `value` is its number's.
    """
    if not order:
        return _get(path, "status")
    with client(path) as session:
        try:
            body: dict[str, int] = ({} if slot is None else {"slot": slot}) | dict.fromkeys(options, True)
            if value is not None and (number := ORDERS[order].number):
                body[number.name] = value
            return _content(session.post(f"http://monitor/{order}", json=body, timeout=REPLY_TIMEOUT + 2))
        except requests.RequestException as error:
            raise _no_answer(path, error) from None


def events(path: Path, since: float) -> list[dict[str, Any]]:
    """What happened after a moment (unix seconds), oldest first. Blocks and raises as `ask` does."""
    found: list[dict[str, Any]] = _get(path, f"events?since={since:.6f}")["events"]
    return found


def _get(path: Path, what: str) -> dict[str, Any]:
    """Ask; at the socket for a group, where this user may not open the control socket."""
    for_group = path.with_name(STATUS_SOCKET)
    if not os.access(path, os.W_OK) and os.access(for_group, os.W_OK):
        path = for_group
    with client(path) as session:
        try:
            return _content(session.get(f"http://monitor/{what}", timeout=REPLY_TIMEOUT))
        except requests.RequestException as error:
            raise _no_answer(path, error) from None


def _content(answer: requests.Response) -> dict[str, Any]:
    content: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise NoAnswer(str(content.get("error", answer.reason)))
    return content


class _UnixConnection(urllib3.connection.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
        self.sock.connect(self._path)


class _UnixPool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixAdapter(requests.adapters.HTTPAdapter):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._unix_pool = _UnixPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> _UnixPool:
        return self._unix_pool

    def get_connection(self, *_: Any, **__: Any) -> _UnixPool:  # before requests 2.32
        return self._unix_pool

    def close(self) -> None:
        self._unix_pool.close()
        super().close()


def client(path: Path) -> requests.Session:
    """A session whose `http://monitor/…` goes to the control socket."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://monitor/", _UnixAdapter(str(path)))
    return session


def _no_answer(path: Path, error: requests.RequestException) -> NoAnswer:
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
    if isinstance(error, requests.Timeout):
        return NoAnswer(f"{path}: the monitor does not answer in time; its log may tell why")
    return NoAnswer(f"{path}: the monitor does not answer: {_refusal(error)}")


def _refusal(error: BaseException) -> str:
    """What the system said, without the HTTP client's own words around it."""
    for inner in error.args:
        if isinstance(inner, OSError) and inner.errno:
            return texts.what(inner)
        if isinstance(inner, Exception):
            return _refusal(inner)
    return texts.what(error)

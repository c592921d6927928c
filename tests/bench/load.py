"""The load: visitors with a session each, whose requests wrk repeats and whose every answer it checks."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import application

SCRIPT = Path(__file__).with_name("check.lua")
VISITORS = 8
AT_ONCE = 16
TIMEOUT = 90.0
"""Seconds for one answer of those that are awaited one by one."""


class LoadFailed(Exception):
    """The load could not be made, or what was asked does not answer as it should."""


@dataclass(frozen=True)
class Page:
    """A page of the application, and how it is asked for."""

    path: str
    what: str
    length: int = application.SMALL
    upload: int = 0
    first: bool = False
    """who asks has no session yet, and no cookie"""

    @property
    def method(self) -> str:
        return "POST" if self.upload else "GET"


PAGES = {
    "small": Page("/small", "answers 100 bytes"),
    "large": Page("/large", "answers 100 KB", application.LARGE),
    "upload": Page("/upload", "takes an upload of 1 MB", upload=1024 * 1024),
    "compute": Page("/compute", "computes for 2 ms"),
    "wait": Page("/wait", "waits for 20 ms"),
    "long": Page("/long", "waits for 200 ms"),
    "first": Page("/small", "answers 100 bytes to somebody who comes without a cookie", first=True),
    "begin": Page("/begin", "begins a session for somebody who comes without a cookie", first=True),
}
LOGIN = Page("/login", "begins a session")

Request = Callable[[Page, str], bytes]
"""A page and the value of the Cookie header → the head of the request."""


def plain(page: Page, cookies: str) -> bytes:
    """The head of a request as any browser may send it."""
    length = f"Content-Length: {page.upload}\r\n" if page.upload else ""
    cookie = f"Cookie: {cookies}\r\n" if cookies else ""
    return f"{page.method} {page.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{cookie}\r\n".encode()


@dataclass(frozen=True)
class Visitor:
    """Somebody with a session, and the process that holds it."""

    session: str
    backend: str
    cookies: str


@dataclass(frozen=True)
class Run:
    """What wrk tells of one run. Latencies in µs."""

    requests: int
    seconds: float
    p50: float
    p99: float
    wrong: int
    """answers that were not what they had to be"""
    example: str
    """the first wrong answer"""
    broken: dict[str, int]
    """requests that got no answer, by what failed"""

    @property
    def failed(self) -> int:
        return self.wrong + sum(self.broken.values())


def ask(port: int, head: bytes) -> tuple[int, str, str]:
    """One request on a connection of its own: status, the cookies that were set, body. Raises LoadFailed."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.sendall(head)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            cookies = [value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie", [])]
            return answer.status, "; ".join(cookies), answer.read().decode("latin-1")
    except (OSError, http.client.HTTPException) as error:
        raise LoadFailed(f"port {port}: {type(error).__name__}: {error}") from None


def log_in(port: int, request: Request, backends: int) -> list[Visitor]:
    """Visitors with a session, as many at each process. Raises LoadFailed where they do not reach all of them."""
    share = VISITORS // backends
    found: dict[str, list[Visitor]] = {}

    def enter(_: int) -> Visitor:
        status, cookies, body = ask(port, request(LOGIN, ""))
        words = body.split()
        if status != 200 or len(words) != 4:
            raise LoadFailed(f"port {port}: login is answered {status}: {body[:200]}")
        return Visitor(words[0], words[1], cookies)

    deadline = time.monotonic() + TIMEOUT
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            for visitor in pool.map(enter, range(AT_ONCE)):
                found.setdefault(visitor.backend, []).append(visitor)
            if len(found) == backends and all(len(visitors) >= share for visitors in found.values()):
                return [visitor for visitors in found.values() for visitor in visitors[:share]]
            if time.monotonic() > deadline:
                raise LoadFailed(f"port {port}: visitors reach {len(found)} processes, not {backends}")


def write_plan(path: Path, page: Page, request: Request, visitors: list[Visitor], sticky: bool) -> None:
    """Write what wrk has to send, and which process may answer whom."""
    every = {visitor.backend for visitor in visitors}
    if page.first:  # any process may, whatever the session
        allowed = {"": every}
        heads = [request(page, "").decode("latin-1")]
    else:
        allowed = {visitor.session: {visitor.backend} if sticky else every for visitor in visitors}
        heads = [request(page, visitor.cookies).decode("latin-1") for visitor in visitors]
    path.write_text(
        f"return {{ first = {json.dumps(page.first)}, sticky = {json.dumps(sticky)}, length = {page.length},\n"
        f"body = {page.upload},\n"
        f"heads = {{ {', '.join(map(_lua, heads))} }},\n"
        f"allowed = {_table({name: _table(dict.fromkeys(some, 'true')) for name, some in allowed.items()})} }}\n"
    )


def _lua(text: str) -> str:
    return json.dumps(text)  # for visible ASCII and line ends they are the same


def _table(items: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"[{_lua(key)}] = {value}" for key, value in items.items()) + " }"


class Wrk:
    """One wrk at work, for as long as it was told, or until its `end`."""

    def __init__(self, port: int, plan: Path, connections: int, seconds: float) -> None:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/", "--", str(plan)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def over(self, timeout: float) -> bool:
        """Wait so many seconds for its end."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def told(self) -> Run:
        """What it tells, as soon as it is over. Raises LoadFailed."""
        said, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise LoadFailed(f"wrk: {said[-500:]}")
        return Run(**json.loads(said.splitlines()[-1]))

    def end(self) -> None:
        """It is over now."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def absent() -> str:
    """Why there can be no load; empty: there can."""
    return "" if shutil.which("wrk") else "wrk is missing: apt-get install wrk"

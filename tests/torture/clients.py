"""Visitors: each holds a session, does one thing after another in it, and writes down what came of it.

They repeat nothing, so that what the adaptor makes of each request is seen as it is. With the fast lane they do as
browsers do in two cases: they repeat a GET whose kept-alive connection was closed without a byte, for so Apache's
proxy tells that its own was; and they take an answer of no length for whole if its end is that of the connection, in
order, for Apache sends it so where the AppServer was gone that the fast lane led to.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from .application import COOKIE, content
from .records import Name, Outcome, Process, Told, Visit

TICKET = "__PRT__"
PATIENCE = 60.0
"""Seconds that a visitor waits for a byte."""
SMALL_BUFFER = 65536
"""Bytes that the system takes in for a slow reader."""
LONGEST_SLOW = 4.0
"""Seconds for which a slow upload or download lasts, about."""

_numbers = itertools.count(1)


@dataclass
class Heard:
    """What came of one exchange."""

    outcome: Outcome
    port: int = 0
    status: int = 0
    headers: http.client.HTTPMessage | None = None
    body: bytes = b""
    why: str = ""


class Line:
    """A visitor's connection to httpd: kept alive where `keep`, else a fresh one for each request."""

    def __init__(self, port: int, keep: bool, fast_lane: bool = False) -> None:
        self.fast_lane = fast_lane
        self._port = port
        self._keep = keep
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: Any, rate: float, leave: bool
    ) -> Heard:
        """One request and its answer, read at `rate` bytes a second (0: as fast as it comes). Never raises."""
        if self._connection is not None and _readable(self._connection.sock):
            self.close()  # hung up on while it was idle
        used = self._connection is not None
        try:
            connection = self._connection or _connect(self._port, bool(rate))
        except OSError as error:
            return Heard(Outcome.NO_CONNECTION, why=str(error))
        self._connection = connection
        port = connection.sock.getsockname()[1]
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered already
                connection.request(method, target, body, headers, encode_chunked="Content-Length" not in headers)
            answer = connection.getresponse()
        except TimeoutError as error:
            heard = Heard(Outcome.SILENT, port, why=str(error))
        except OSError as error:  # RemoteDisconnected is one
            heard = Heard(Outcome.STALE if used else Outcome.UNANSWERED, port, why=repr(error))
        except http.client.HTTPException as error:
            heard = Heard(Outcome.GARBLED, port, why=repr(error))
        else:
            heard = _read(answer, rate, leave, endless=self.fast_lane)
            heard.port = port
            if heard.outcome is Outcome.ANSWERED and self._keep and not answer.will_close and not rate:
                return heard
        self.close()
        return heard


def _connect(port: int, slow: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.sock = sock = socket.socket()
    try:
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return connection


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _read(answer: http.client.HTTPResponse, rate: float, leave: bool, endless: bool) -> Heard:
    heard = Heard(Outcome.ANSWERED, status=answer.status, headers=answer.headers)
    pieces: list[bytes] = []
    size = 0
    length = answer.headers.get("Content-Length")
    began = time.monotonic()
    try:
        while piece := answer.read(16384 if rate else 65536):
            pieces.append(piece)
            size += len(piece)
            if leave and size > 100_000:
                heard.outcome = Outcome.LEFT
                break
            if rate:
                time.sleep(max(0.0, began + size / rate - time.monotonic()))
    except http.client.IncompleteRead as error:
        pieces.append(error.partial)
        heard.outcome, heard.why = Outcome.CUT, "within a chunk"
    except TimeoutError as error:
        heard.outcome, heard.why = Outcome.SILENT, str(error)
    except OSError as error:
        heard.outcome, heard.why = Outcome.CUT, repr(error)
    heard.body = b"".join(pieces)
    if heard.outcome is Outcome.ANSWERED:
        if length is not None and len(heard.body) < int(length):
            heard.outcome, heard.why = Outcome.CUT, f"{int(length) - len(heard.body)} bytes early"
        elif length is None and not answer.chunked and answer.status not in (204, 304) and not endless:
            heard.outcome, heard.why = Outcome.GARBLED, "framed by nothing"
    return heard


@dataclass
class Wish:
    """A request to be made."""

    method: str
    page: str
    size: int = 0
    body: int = 0
    wait: float = 0.0
    rate: float = 0.0
    """bytes a second; 0: as fast as it goes"""
    chunked: bool = False
    """the answer; and the request's body, where it has one"""
    leave: bool = False


@dataclass
class Visitor:
    """A browser: a line, cookies, and what it knows of its session."""

    client: str
    line: Line
    write_down: Callable[[Visit], None]
    cookies: dict[str, str] = field(default_factory=dict)
    holder: Told | None = None
    heard: float = 0.0
    count: int = 0
    """POSTs that the session counted, as was told"""
    doubtful: int = 0
    """POSTs since, of which that is not known"""

    def forget(self) -> None:
        """Throw the cookies away."""
        self.cookies.clear()
        self.holder, self.count, self.doubtful = None, 0, 0

    def ask(self, wish: Wish) -> Visit:
        """One request, written down. Never raises for what the other side does."""
        name = f"{self.client}-{next(_numbers)}"
        query = {"n": name, "size": wish.size}
        headers: dict[str, str] = {}
        body: Any = None
        if wish.method == "POST":
            query["body"] = wish.body
            body = content(name, wish.body)
            if not wish.chunked:
                headers["Content-Length"] = str(wish.body)
            if wish.rate or wish.chunked:
                body = _paced(body, wish.rate)
        if wish.wait:
            query["wait"] = f"{wish.wait:.3f}"  # type: ignore[assignment]
        if wish.chunked:
            query["chunked"] = 1
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        brought = self.cookies.get(COOKIE, "")
        began = time.time()
        target = f"/{wish.page}?{urlencode(query)}"
        heard = self.line.exchange(wish.method, target, headers, body, wish.rate, wish.leave)
        if heard.outcome is Outcome.STALE and self.line.fast_lane and wish.method == "GET":
            heard = self.line.exchange(wish.method, target, headers, body, wish.rate, wish.leave)
        ended = time.time()
        told, wrong = None, ""
        try:
            told = told_in(heard)
        except (ValueError, KeyError, TypeError) as error:
            wrong = f"X-Told is not to be read: {error!r}"
        if told is not None:
            wrong = wrong or self._take_cookies(heard, told)
        wrong = wrong or _wrong(heard, told, name, wish)
        counts = wish.method == "POST" and wish.page == "visit"
        visit = Visit(
            name=name,
            client=self.client,
            method=wish.method,
            page=wish.page,
            began=began,
            ended=ended,
            outcome=heard.outcome,
            status=heard.status,
            port=heard.port,
            told=told,
            brought=brought,
            holder=self.holder if brought else None,
            heard=self.heard,
            least=self.count + counts,
            most=self.count + self.doubtful + counts,
            wrong=wrong,
            why=heard.why,
        )
        self.write_down(visit)
        if told is None:
            self.doubtful += counts
        elif wish.page == "visit":
            self.holder, self.heard, self.count, self.doubtful = told, ended, told.count, 0
        elif brought and not told.lost:
            self.heard = ended
        return visit

    def _take_cookies(self, heard: Heard, told: Told) -> str:
        """What is wrong with the cookies; empty: nothing."""
        assert heard.headers is not None
        came: dict[str, str] = {}
        for line in heard.headers.get_all("Set-Cookie") or []:
            key, _, value = line.partition(";")[0].strip().partition("=")
            came[key] = value
            if value:
                self.cookies[key] = value
            else:
                self.cookies.pop(key, None)
        for key in heard.headers:
            if key.lower().startswith("lb-"):
                return f"the visitor is shown {key}"
        if came.keys() not in ({COOKIE, TICKET}, set()):
            return f"the cookies {', '.join(came)} came without the other"
        if came.get(TICKET) and not came[TICKET].startswith(f"{told.appserver}."):
            return f"the ticket {came[TICKET]} is not of AppServer {told.appserver}, which gave the session"
        return ""


def _paced(body: bytes, rate: float) -> Iterator[bytes]:
    began = time.monotonic()
    for begin in range(0, len(body), 16384):
        if rate:
            time.sleep(max(0.0, began + begin / rate - time.monotonic()))
        yield body[begin : begin + 16384]


def told_in(heard: Heard) -> Told | None:
    if heard.headers is None or "X-Told" not in heard.headers:
        return None
    told = json.loads(heard.headers["X-Told"])
    return Told(
        name=told["name"],
        process=Process(told["pid"], told["born"]),
        appserver=Name(told["slot"], told["generation"]),
        lost=told["lost"],
        good=told["good"],
        sid=told.get("sid", ""),
        new=told.get("new", False),
        count=told.get("count", 0),
    )


def _wrong(heard: Heard, told: Told | None, name: str, wish: Wish) -> str:
    """What is wrong with the content of an answer, as far as it came; empty: nothing."""
    if heard.status == 503 and heard.headers is not None and "Retry-After" not in heard.headers:
        return "503 without Retry-After"
    if told is None:
        return "200 without a word of the application" if heard.status == 200 else ""
    if told.name != name:
        return f"this is the answer to {told.name}"
    expected = content(name, wish.size)
    if not expected.startswith(heard.body):
        return f"{len(heard.body)} bytes of another content"
    if heard.outcome is Outcome.ANSWERED and len(heard.body) != wish.size:
        return f"short: {len(heard.body)} of {wish.size} bytes, and looks whole"
    return "" if told.good else "the application got another body than was sent"


class Crowd:
    """Visitors who come all the time, each in a thread. `start`, then `stop`."""

    def __init__(
        self, port: int, count: int, seed: int, write_down: Callable[[Visit], None], fast_lane: bool = False
    ) -> None:
        self.sessions = 0
        """sessions that ended in order"""
        self.faults: list[str] = []
        self._port = port
        self._seed = seed
        self._write_down = write_down
        self._fast_lane = fast_lane
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish what it is at. Blocks for two minutes at most."""
        self._over.set()
        deadline = time.monotonic() + 2 * PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.faults.append(f"{thread.name} does not end")

    def _live(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-visitor-{number}")
        visitor = Visitor(f"v{number}", Line(self._port, number % 3 != 0, self._fast_lane), self._write_down)
        try:
            while not self._over.is_set():
                self._session(visitor, chance)
        except Exception as error:
            self.faults.append(f"visitor {number}: {error!r}")
        finally:
            visitor.line.close()

    def _session(self, visitor: Visitor, chance: random.Random) -> None:
        for _ in range(chance.randint(3, 40)):
            visitor.ask(_wish(chance))
            if self._over.wait(chance.uniform(0.0, 0.08)):
                return
        if chance.random() < 0.95:
            visit = visitor.ask(Wish("POST", "logout"))
            self.sessions += visit.told is not None and not visit.told.new
        visitor.forget()


def _wish(chance: random.Random) -> Wish:
    kind = chance.choices(
        ("read", "count", "upload", "slow upload", "download", "slow download", "slow page", "plain", "leave"),
        (80, 50, 12, 3, 12, 4, 16, 16, 3),
    )[0]
    size = int(2 ** chance.uniform(16.6, 21))  # 100 KB to 2 MB
    chunked = chance.random() < 0.4
    body = chance.choice((0, 100, 5000))
    wait = chance.uniform(0.05, 0.5)
    rate = size / (LONGEST_SLOW * chance.uniform(0.3, 1.0))
    return {
        "read": Wish("GET", "visit", size=chance.choice((0, 100, 5000))),
        "count": Wish("POST", "visit", size=100, body=body),
        "upload": Wish("POST", "visit", size=100, body=size, chunked=chunked),
        "slow upload": Wish("POST", "visit", size=100, body=size, rate=rate, chunked=chunked),
        "download": Wish("GET", "file", size=size, chunked=chunked),
        "slow download": Wish("GET", "file", size=size, rate=rate, chunked=chunked),
        "slow page": Wish(chance.choice(("GET", "POST")), "visit", size=100, wait=wait),
        "plain": Wish(chance.choice(("GET", "POST")), "plain", size=1000, body=body),
        "leave": Wish("GET", "file", size=2**20, rate=2**20, chunked=chunked, leave=True),
    }[kind]


def burst(
    port: int, visitors: int, requests: int, client: str, write_down: Callable[[Visit], None]
) -> list[threading.Thread]:
    """Many at once who have no session yet. The threads end by themselves."""

    def come(number: int) -> None:
        visitor = Visitor(f"{client}.{number}", Line(port, keep=True), write_down)
        try:
            for turn in range(requests):
                method = "POST" if (number + turn) % 2 else "GET"
                visitor.ask(Wish(method, "plain", size=1000, body=100, wait=0.05))
        finally:
            visitor.line.close()

    threads = [threading.Thread(target=come, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    return threads

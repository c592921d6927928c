"""Visitors: each has a session, sends one request after another, and records the answers.

They repeat no request, so that the records show what the adaptor does with each. With the fast lane there are two
exceptions, as in browsers. They repeat a GET if a kept-alive connection was closed without a byte: Apache's proxy
does that when its own connection was closed. They take an answer without a length for whole if the connection then
ends in order: Apache sends such an answer if the AppServer at the end of the fast lane was gone.
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
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from .application import COOKIE, LARGE, content
from .records import Name, Outcome, Process, Told, Visit

TICKET = "__PRT__"
PATIENCE = 60.0
"""Seconds that a visitor waits for a byte."""
SMALL_BUFFER = 65536
"""Bytes that the kernel buffers for a slow reader."""
LONGEST_SLOW = 4.0
"""Seconds for which a slow upload or download lasts, about."""
ENDED_KEPT = 60
"""Sessions that have ended and may be brought again, at most."""

_numbers = itertools.count(1)


@dataclass
class Result:
    """How one request ended."""

    outcome: Outcome
    port: int = 0
    status: int = 0
    headers: http.client.HTTPMessage | None = None
    body: bytes = b""
    why: str = ""


class Line:
    """A visitor's connection to httpd: kept alive if `keep`, else a new one for each request."""

    def __init__(self, port: int, keep: bool, fast_lane: bool = False) -> None:
        self.fast_lane = fast_lane
        self.port = port
        self._keep = keep
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: Any, rate: float, leave: bool
    ) -> Result:
        """One request and its answer, read at `rate` bytes a second (0: as fast as it comes). Never raises."""
        if self._connection is not None and _readable(self._connection.sock):
            self.close()  # it was closed while it was idle
        used = self._connection is not None
        try:
            connection = self._connection or _connect(self.port, bool(rate))
        except OSError as error:
            return Result(Outcome.NO_CONNECTION, why=str(error))
        self._connection = connection
        port = connection.sock.getsockname()[1]
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered already
                connection.request(method, target, body, headers, encode_chunked="Content-Length" not in headers)
            answer = connection.getresponse()
        except TimeoutError as error:
            result = Result(Outcome.SILENT, port, why=str(error))
        except OSError as error:  # RemoteDisconnected is one
            result = Result(Outcome.STALE if used else Outcome.UNANSWERED, port, why=repr(error))
        except http.client.HTTPException as error:
            result = Result(Outcome.GARBLED, port, why=repr(error))
        else:
            result = _read(answer, rate, leave, endless=self.fast_lane)
            result.port = port
            if result.outcome is Outcome.ANSWERED and self._keep and not answer.will_close and not rate:
                return result
        self.close()
        return result


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


def _read(answer: http.client.HTTPResponse, rate: float, leave: bool, endless: bool) -> Result:
    result = Result(Outcome.ANSWERED, status=answer.status, headers=answer.headers)
    pieces: list[bytes] = []
    size = 0
    length = answer.headers.get("Content-Length")
    began = time.monotonic()
    try:
        while piece := answer.read(16384 if rate else 65536):
            pieces.append(piece)
            size += len(piece)
            if leave and size > 100_000:
                result.outcome = Outcome.LEFT
                break
            if rate:
                time.sleep(max(0.0, began + size / rate - time.monotonic()))
    except http.client.IncompleteRead as error:
        pieces.append(error.partial)
        result.outcome, result.why = Outcome.CUT, "within a chunk"
    except TimeoutError as error:
        result.outcome, result.why = Outcome.SILENT, str(error)
    except OSError as error:
        result.outcome, result.why = Outcome.CUT, repr(error)
    result.body = b"".join(pieces)
    if result.outcome is Outcome.ANSWERED:
        if length is not None and len(result.body) < int(length):
            result.outcome, result.why = Outcome.CUT, f"{int(length) - len(result.body)} bytes early"
        elif length is None and not answer.chunked and answer.status not in (204, 304) and not endless:
            result.outcome, result.why = Outcome.GARBLED, "without framing"
    return result


@dataclass
class Planned:
    """A request to send."""

    method: str
    page: str
    size: int = 0
    body: int = 0
    wait: float = 0.0
    rate: float = 0.0
    """bytes a second; 0: as fast as it goes"""
    chunked: bool = False
    """the answer is, and so is the request's body if there is one"""
    leave: bool = False
    large: bool = False
    """a session that begins with it is large"""

    @property
    def counts(self) -> bool:
        """The session counts it."""
        return self.method == "POST" and self.page in ("visit", "login")


@dataclass
class Visitor:
    """A browser: a connection, cookies, and what it knows about its session."""

    client: str
    line: Line
    record: Callable[[Visit], None]
    cookies: dict[str, str] = field(default_factory=dict)
    holder: Told | None = None
    told_at: float = 0.0
    asked_at: float = 0.0
    count: int = 0
    """POSTs that the session had counted at the last answer"""
    doubtful: int = 0
    """POSTs since then without an answer: the session may have counted them"""
    ended_session: bool = False
    """it brings again what the application has ended"""

    def forget(self) -> None:
        """Throw the cookies away."""
        self.cookies.clear()
        self.holder, self.count, self.doubtful = None, 0, 0

    def ask(self, planned: Planned) -> Visit:
        """Send one request and record it. Raises nothing because of what the other side does."""
        counts = planned.counts
        visit, headers = self._exchange(planned, self.count + counts, self.count + self.doubtful + counts)
        told = visit.told
        if headers is not None:
            self._take_cookies(headers)
        if told is None:
            self.doubtful += counts
        elif planned.page in ("visit", "login"):
            self.holder, self.count, self.doubtful = told, told.count, 0
            self.asked_at, self.told_at = visit.began, visit.ended
        elif visit.brought and not told.lost:
            self.asked_at, self.told_at = visit.began, visit.ended
            if told.moved:  # by a page without a session, too
                self.holder = told
        return visit

    def ask_together(self, planned: list[Planned]) -> None:
        """Send several requests for visits at once, each by a connection of its own, and record them."""
        counts = sum(one.counts for one in planned)
        answers: list[tuple[Visit, http.client.HTTPMessage | None]] = []

        def ask(one: Planned) -> None:
            line = Line(self.line.port, keep=False, fast_lane=self.line.fast_lane)
            least, most = self.count + one.counts, self.count + self.doubtful + counts
            answers.append(replace(self, line=line)._exchange(one, least, most, together=True))

        threads = [threading.Thread(target=ask, args=(one,)) for one in planned]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = [(visit, headers) for visit, headers in answers if visit.told]
        answered = sum(visit.method == "POST" for visit, _ in told)
        fresh = [(visit, headers) for visit, headers in told if visit.told and visit.told.new]
        if fresh:  # each has begun a session: the visitor goes on with one of them
            (last, headers), answered, counts = fresh[-1], 0, 0
            self.count, self.doubtful = last.told.count if last.told else 0, 0
        elif told:
            last, headers = max(told, key=lambda one: one[0].ended)
            self.count = max(self.count + answered, *(visit.told.count for visit, _ in told if visit.told), 0)
        else:
            last, headers = None, None
        self.doubtful += counts - answered
        if headers is not None:
            self._take_cookies(headers)
        if last is not None:
            self.holder, self.asked_at, self.told_at = last.told, last.began, last.ended

    def _exchange(
        self, planned: Planned, least: int, most: int, together: bool = False
    ) -> tuple[Visit, http.client.HTTPMessage | None]:
        """Send one request and record it. The visit, and the head of an answer that is the application's."""
        name = f"{self.client}-{next(_numbers)}"
        query = {"n": name, "size": planned.size}
        headers: dict[str, str] = {}
        body: Any = None
        if planned.method == "POST":
            query["body"] = planned.body
            body = content(name, planned.body)
            if not planned.chunked:
                headers["Content-Length"] = str(planned.body)
            if planned.rate or planned.chunked:
                body = _paced(body, planned.rate)
        if planned.wait:
            query["wait"] = f"{planned.wait:.3f}"  # type: ignore[assignment]
        if planned.chunked:
            query["chunked"] = 1
        if planned.large:
            query[LARGE] = 1
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        brought = self.cookies.get(COOKIE, "")
        began = time.time()
        target = f"/{planned.page}?{urlencode(query)}"
        result = self.line.exchange(planned.method, target, headers, body, planned.rate, planned.leave)
        if result.outcome is Outcome.STALE and self.line.fast_lane and planned.method == "GET":
            result = self.line.exchange(planned.method, target, headers, body, planned.rate, planned.leave)
        ended = time.time()
        told, wrong = None, ""
        try:
            told = told_in(result)
        except (ValueError, KeyError, TypeError) as error:
            wrong = f"X-Told cannot be read: {error!r}"
        if told is not None and result.headers is not None:
            wrong = wrong or _wrong_cookies(result.headers, told, self.cookies.get(TICKET, ""))
        wrong = wrong or _wrong(result, told, name, planned)
        visit = Visit(
            name=name,
            client=self.client,
            method=planned.method,
            page=planned.page,
            began=began,
            ended=ended,
            outcome=result.outcome,
            status=result.status,
            port=result.port,
            told=told,
            brought=brought,
            holder=self.holder if brought else None,
            told_at=self.told_at,
            asked_at=self.asked_at,
            least=least,
            most=most,
            ended_session=self.ended_session,
            together=together,
            wrong=wrong,
            why=result.why,
        )
        self.record(visit)
        return visit, result.headers if told is not None else None

    def _take_cookies(self, headers: http.client.HTTPMessage) -> None:
        """Keep the cookies of an answer."""
        for key, value in _cookies(headers).items():
            if value:
                self.cookies[key] = value
            else:
                self.cookies.pop(key, None)


def _cookies(headers: http.client.HTTPMessage) -> dict[str, str]:
    came: dict[str, str] = {}
    for line in headers.get_all("Set-Cookie") or []:
        key, _, value = line.partition(";")[0].strip().partition("=")
        came[key] = value
    return came


def _wrong_cookies(headers: http.client.HTTPMessage, told: Told, ticket: str) -> str:
    """What is wrong with the cookies of an answer; empty: nothing. `ticket`: the one that the request brought."""
    for key in headers:
        if key.lower().startswith("lb-"):
            return f"the visitor got {key}"
    came = _cookies(headers)
    named = f"{told.appserver}."
    if told.moved and TICKET not in came and not ticket.startswith(named):
        return "the session has moved, and the ticket is that of before"
    renewed = came.keys() == {TICKET} and ticket and not ticket.startswith(named)
    if not renewed and came.keys() not in ({COOKIE, TICKET}, set()):
        return f"the cookies {', '.join(came)} came without the other"
    if came.get(TICKET) and not came[TICKET].startswith(named):
        return f"the ticket {came[TICKET]} does not name AppServer {told.appserver}, which has the session"
    return ""


def _paced(body: bytes, rate: float) -> Iterator[bytes]:
    began = time.monotonic()
    for begin in range(0, len(body), 16384):
        if rate:
            time.sleep(max(0.0, began + begin / rate - time.monotonic()))
        yield body[begin : begin + 16384]


def told_in(result: Result) -> Told | None:
    """What the header X-Told says; None: there is none."""
    if result.headers is None or "X-Told" not in result.headers:
        return None
    told = json.loads(result.headers["X-Told"])
    return Told(
        name=told["name"],
        process=Process(told["pid"], told["born"]),
        appserver=Name(told["slot"], told["generation"]),
        lost=told["lost"],
        good=told["good"],
        sid=told.get("sid", ""),
        new=told.get("new", False),
        count=told.get("count", 0),
        moved=told.get("moved", False),
        machine=told.get("machine", ""),
    )


def _wrong(result: Result, told: Told | None, name: str, planned: Planned) -> str:
    """What is wrong with the content of an answer, as far as it came; empty: nothing."""
    if result.status == 503 and result.headers is not None and "Retry-After" not in result.headers:
        return "503 without Retry-After"
    if told is None:
        return "200 without the application's X-Told" if result.status == 200 else ""
    if told.name != name:
        return f"this is the answer to {told.name}"
    expected = content(name, planned.size)
    if not expected.startswith(result.body):
        return f"another content, bytes: {len(result.body)}"
    if result.outcome is Outcome.ANSWERED and len(result.body) != planned.size:
        return f"short: {len(result.body)} of {planned.size} bytes, and looks whole"
    return "" if told.good else "the application got another body than the one that was sent"


class Crowd:
    """Visitors that send requests all the time, each in a thread. `start`, then `stop`.

    `lively`: they log in, and bring sessions again that have ended. `together`: they send some requests at once, too.
    """

    def __init__(
        self,
        port: int,
        count: int,
        seed: int,
        record: Callable[[Visit], None],
        fast_lane: bool = False,
        lively: bool = False,
        together: bool = False,
    ) -> None:
        self.sessions = 0
        """sessions that ended with a logout"""
        self.test_errors: list[str] = []
        self._port = port
        self._seed = seed
        self._record = record
        self._fast_lane = fast_lane
        self._lively = lively
        self._together = together
        self._ended: deque[dict[str, str]] = deque(maxlen=ENDED_KEPT)
        """cookies of sessions that have ended"""
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish its request. Blocks for two minutes at most."""
        self._over.set()
        deadline = time.monotonic() + 2 * PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.test_errors.append(f"{thread.name} does not end")

    def _live(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-visitor-{number}")
        visitor = Visitor(f"v{number}", Line(self._port, number % 3 != 0, self._fast_lane), self._record)
        try:
            while not self._over.is_set():
                self._session(visitor, chance)
        except Exception as error:
            self.test_errors.append(f"visitor {number}: {error!r}")
        finally:
            visitor.line.close()

    def _session(self, visitor: Visitor, chance: random.Random) -> None:
        for _ in range(chance.randint(3, 40)):
            if not self._lively or not self._lively_step(visitor, chance):
                visitor.ask(_planned(chance))
            if self._over.wait(chance.uniform(0.0, 0.08)):
                return
        if chance.random() < 0.95:
            self._end(visitor, "logout")
        visitor.forget()

    def _end(self, visitor: Visitor, page: str) -> None:
        """Log out, or in, which ends the session under its cookie of before."""
        before = dict(visitor.cookies)
        visit = visitor.ask(Planned("POST", page))
        there = visit.told is not None and not visit.told.new
        self.sessions += there and page == "logout"
        if there and before:
            self._ended.append(before)

    def _lively_step(self, visitor: Visitor, chance: random.Random) -> bool:
        """Whether anything was done."""
        step = chance.choices(("login", "together", "again", ""), (3, 8, 8, 81))[0]
        if step == "login" and visitor.holder is not None:
            self._end(visitor, "login")
        elif step == "together" and self._together and visitor.holder is not None:
            methods = chance.choices(("GET", "POST"), k=chance.randint(2, 3))
            waits = (chance.choice((0.0, chance.uniform(0.05, 0.3))) for _ in methods)
            visitor.ask_together(
                [Planned(method, "visit", size=100, wait=wait) for method, wait in zip(methods, waits, strict=True)]
            )
        elif step == "again" and self._ended:
            cookies = dict(chance.choice(list(self._ended)))
            line = Line(self._port, keep=False, fast_lane=self._fast_lane)
            again = Visitor(f"{visitor.client}-again", line, self._record, cookies, ended_session=True)
            again.ask(Planned("GET", "peek", size=100))
        else:
            return False
        return True


def _planned(chance: random.Random) -> Planned:
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
        "read": Planned("GET", "visit", size=chance.choice((0, 100, 5000))),
        "count": Planned("POST", "visit", size=100, body=body),
        "upload": Planned("POST", "visit", size=100, body=size, chunked=chunked),
        "slow upload": Planned("POST", "visit", size=100, body=size, rate=rate, chunked=chunked),
        "download": Planned("GET", "file", size=size, chunked=chunked),
        "slow download": Planned("GET", "file", size=size, rate=rate, chunked=chunked),
        "slow page": Planned(chance.choice(("GET", "POST")), "visit", size=100, wait=wait),
        "plain": Planned(chance.choice(("GET", "POST")), "plain", size=1000, body=body),
        "leave": Planned("GET", "file", size=2**20, rate=2**20, chunked=chunked, leave=True),
    }[kind]


def burst(
    port: int, visitors: int, requests: int, client: str, record: Callable[[Visit], None]
) -> list[threading.Thread]:
    """Many visitors at once, without sessions. The threads end by themselves."""

    def come(number: int) -> None:
        visitor = Visitor(f"{client}.{number}", Line(port, keep=True), record)
        try:
            for turn in range(requests):
                method = "POST" if (number + turn) % 2 else "GET"
                visitor.ask(Planned(method, "plain", size=1000, body=100, wait=0.05))
        finally:
            visitor.line.close()

    threads = [threading.Thread(target=come, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    return threads


def with_large_sessions(
    port: int, visitors: int, seconds: float, client: str, record: Callable[[Visit], None]
) -> bool:
    """Many visitors with large sessions at once, who log out after so many seconds. Whether all have. Blocks."""
    ended: list[bool] = []

    def come(number: int) -> None:
        visitor = Visitor(f"{client}.{number}", Line(port, keep=False), record)
        visitor.ask(Planned("POST", "visit", size=100, large=True))
        time.sleep(seconds)
        tries = (visitor.ask(Planned("POST", "logout")) for _ in range(3))
        ended.append(not visitor.cookies or any(visit.told for visit in tries))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(ended) == visitors and all(ended)

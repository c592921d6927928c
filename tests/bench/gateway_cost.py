"""What one request costs the AppServer's gateway: microseconds of CPU, without the kernel's share of a socket.

    python -m tests.bench.gateway_cost [quick | profile]

It calls the gateway as its polling thread does, in this thread, with an object in a socket's place: `recv` gives the
head of a request (as the adaptor sends it: a visitor with a session, 16 different ports), `send` drops the answer.
The application is the benchmark's smallest page, and is part of `whole`. Every figure is the best of several runs:
other work on the machine makes a run slower and never faster.

    receive   reading the head, without the gateway
    environ   the environ for it
    whole     all of it: reading, admission, the session, the environ, the application, the answer

`quick` measures less: whether the benchmark runs, not what a request costs. `profile` prints cProfile's table of
`whole` instead.
"""

from __future__ import annotations

import cProfile
import pstats
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.schedule_fast import FastSchedule
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.http1.states import ANSWERED

sys.path.insert(0, str(Path(__file__).parent))
import application  # as the AppServer imports it

SESSION = "a" * 16
HEADS = [
    "\r\n".join(
        (
            "GET /app/page HTTP/1.1",
            *("Host: x", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Accept: text/html,*/*"),
            *(
                "Accept-Encoding: gzip, deflate",
                "Accept-Language: de,en",
                f"Cookie: __PRT__={'t' * 60}; sid={SESSION}",
            ),
            *("LB-Path: /small", "LB-Request-Uri: /small", "LB-Remote-Addr: 192.0.2.7"),
            *(f"LB-Remote-Port: {50000 + number}", "LB-Scheme: http", "LB-Script-Name: "),
            *("LB-Server-Name: www.example.org", "LB-Server-Port: 80", "LB-Server-Protocol: HTTP/1.1"),
            *(f"LB-Key: {'k' * 43}", "LB-Generation: 17", "LB-Session: held", "", ""),
        )
    ).encode()
    for number in range(16)
]


class Socket:
    """A caller that sends one head for each `recv`."""

    def __init__(self) -> None:
        self.received = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.received += 1
        return HEADS[self.received % len(HEADS)]

    def send(self, data: bytes, flags: int = 0) -> int:
        return len(data)

    def sendall(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the answer is {data!r}")

    def fileno(self) -> int:
        return 99

    def shutdown(self, how: int) -> None:
        raise SystemExit("the gateway hung up")

    close = shutdown


def gateway() -> Gateway:
    application.sessions.add(SESSION)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    assignment = Assignment(
        "x:y",
        session_cookie="sid",
        threads=8,
        generation=17,
        ticket="t" * 60,
        caller_key="k" * 43,
        probe_key="p" * 43,
    )
    admission: Admission[Any] = Admission(8, assignment.queue)
    return Gateway([listener], application.application, assignment, Status(0, 17, admission), SessionTable(1800.0))


def best(work: Callable[[int], object]) -> float:
    """Microseconds of CPU for each time."""
    runs, times = (2, 1000) if sys.argv[1:] == ["quick"] else (9, 20000)
    costs = []
    for _ in range(runs):
        began = time.process_time()
        work(times)
        costs.append((time.process_time() - began) / times)
    return min(costs) * 1e6


def main() -> None:
    served = gateway()
    assert isinstance(served.schedule, FastSchedule), "the plain schedule serves in other threads"
    served.schedule.leadership.wait()
    connection = Connection(Socket(), ("192.0.2.1", 1))  # type: ignore[arg-type]

    def whole(times: int) -> None:
        assert isinstance(served.schedule, FastSchedule)
        readable, serve = served.dispatcher.readable, served.schedule._serve_waiting
        worker = served.schedule._admission.workers[0]
        for _ in range(times):
            readable(connection)
            serve(worker)

    def receive(times: int) -> None:
        for _ in range(times):
            connection.receive()
            connection.state = ANSWERED[connection.state]

    def environ(times: int) -> None:
        for _ in range(times):
            served.serving._environ(connection, request)

    whole(2000)
    if sys.argv[1:] == ["profile"]:
        profile = cProfile.Profile()
        profile.runcall(whole, 50000)
        pstats.Stats(profile).sort_stats("tottime").print_stats(28)
        return
    connection.receive()
    assert connection.request is not None
    request = connection.request
    print(f"environ {best(environ):.2f}")
    connection.answered()
    print(f"receive {best(receive):.2f}")
    print(f"whole   {best(whole):.2f}")


if __name__ == "__main__":
    main()

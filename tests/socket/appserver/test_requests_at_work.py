"""What an AppServer tells a probe of its requests: which are at work since when, and how long others were."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lbadaptor.appserver.http import schedule
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from monitor.contract.messages import ProbeAnswer, Probed, Target
from monitor.watcher.probe import Line

WAIT = 10.0
FIELDS = {
    "LB-Key": "caller's",
    "LB-Generation": "17",
    "LB-Session": "none",
    "LB-Path": "/",
    "LB-Remote-Addr": "192.0.2.7",
    "LB-Remote-Port": "51234",
    "LB-Scheme": "https",
    "LB-Script-Name": "",
    "LB-Server-Name": "www.example.org",
    "LB-Server-Port": "443",
    "LB-Server-Protocol": "HTTP/1.1",
}


class Closing:
    """An answer whose `close` waits until it is let go."""

    def __init__(self, reached: threading.Semaphore, go_on: threading.Semaphore) -> None:
        self._reached, self._go_on = reached, go_on

    def __iter__(self) -> Iterator[bytes]:
        yield b"hello"

    def close(self) -> None:
        self._reached.release()
        assert self._go_on.acquire(timeout=WAIT)


class Stage:
    """An AppServer of two threads. Its application waits until it is let go; for `/closes` only after its answer."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.admission: Admission[Any] = Admission(2, 4)
        assignment = Assignment("", generation=17, ticket="t", caller_key="caller's", probe_key="probe's")
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        status = Status(0, 17, self.admission)
        self.gateway = Gateway([listener], self._application, assignment, status, SessionTable(1800.0))
        self.gateway.start()
        self._line = Line(Target(0, 17, *self.address, "probe's"), WAIT)
        self._callers = contextlib.ExitStack()

    def _application(self, environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        if environ["REQUEST_URI"] == "/closes":
            return Closing(self.reached, self.go_on)
        self.reached.release()
        assert self.go_on.acquire(timeout=WAIT)
        return [b"hello"]

    def caller(self) -> http.client.HTTPConnection:
        return self._callers.enter_context(
            contextlib.closing(http.client.HTTPConnection(*self.address, timeout=WAIT))
        )

    def send(self, caller: http.client.HTTPConnection, method: str, uri: str) -> None:
        """A request, which is at work then or waits for a thread."""
        caller.request(method, "/", headers={**FIELDS, "LB-Request-Uri": uri, "LB-Request-Id": f"id-of-{uri[1:6]}"})

    def at_work(self) -> None:
        assert self.reached.acquire(timeout=WAIT)

    def probe(self) -> ProbeAnswer:
        found = self._line.probe()
        assert isinstance(found, Probed)
        return found.answer

    def probe_until(self, true: Callable[[ProbeAnswer], bool]) -> ProbeAnswer:
        for _ in range(10_000):
            if true(answer := self.probe()):
                return answer
        raise AssertionError(answer)

    def end(self) -> None:
        self.go_on.release(100)
        self._line.close()
        self._callers.close()
        self.gateway.stop(WAIT)


@pytest.fixture(params=["fast", "plain"])
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv(schedule.VARIABLE, request.param)
    made = Stage()
    yield made
    made.end()


def test_the_oldest_requests_at_work_are_named_and_the_others_are_counted(stage: Stage) -> None:
    callers = [stage.caller() for _ in range(3)]
    for caller, uri in zip(callers, ["/stuck?token=secret", "/later", "/waits"], strict=True):
        stage.send(caller, "POST", uri)
        if uri != "/waits":
            stage.at_work()
    before = stage.probe_until(lambda answer: answer.in_flight == 3)
    after = stage.probe()
    assert before.at_work is not None
    assert after.at_work is not None
    assert [(one.method, one.path, one.id) for one in before.at_work] == [
        ("POST", "/stuck", "id-of-stuck"),
        ("POST", "/later", "id-of-later"),
    ]
    assert WAIT > before.at_work[0].seconds >= before.at_work[1].seconds
    assert after.at_work[0].seconds >= before.at_work[0].seconds
    assert abs(after.at_work[0].since - before.at_work[0].since) < 1.0
    assert (before.waiting, before.served, before.durations) == (1, 0, {})
    lasted = after.at_work[1].seconds
    stage.go_on.release(3)
    assert [caller.getresponse().status for caller in callers] == [200] * 3
    assert stage.admission.wait_idle(WAIT)
    answer = stage.probe_until(lambda answer: answer.served == 3)
    assert (answer.at_work, answer.waiting) == ([], 0)
    assert answer.durations is not None
    assert sum(answer.durations.values()) == 3
    assert sum(count for bound, count in answer.durations.items() if float(bound) >= lasted) >= 2


def test_a_request_is_at_work_until_its_close_has_returned(stage: Stage) -> None:
    """By then its caller has the answer, and the next request on the same connection is at work."""
    caller = stage.caller()
    stage.send(caller, "GET", "/closes")
    assert caller.getresponse().read() == b"hello"
    stage.at_work()
    stage.send(caller, "GET", "/next")
    stage.at_work()
    told = stage.probe().at_work
    assert told is not None
    assert [one.path for one in told] == ["/closes", "/next"]

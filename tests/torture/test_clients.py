"""What visitors record of answers: whole, short, of another request, cut, or missing."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing

import pytest

from .application import content
from .clients import Line, Planned, Visitor
from .records import Outcome, Visit

NAME = b"{name}"
TOLD = {"pid": 7, "born": 1, "slot": 2, "generation": 3, "lost": False, "good": True}


class Peer:
    """Gives each request the next of its answers. Closes the connection after the last one, and instead of a None.

    In an answer `{name}` stands for the request's name, and `{content}` for the hundred bytes that belong to it.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        answers = list(self._answers)
        while answers:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as lines:
                while answers and (line := lines.readline()):
                    name = line.split()[1].partition(b"n=")[2].partition(b"&")[0]
                    while lines.readline().strip():
                        pass
                    answer = answers.pop(0)
                    if answer is None:
                        break
                    body = content(name.decode(), 100)
                    connection.sendall(answer.replace(b"{content}", body).replace(NAME, name))


def head(*more: str, status: str = "200 OK", name: str = "{name}", **told: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"X-Told: {json.dumps({'name': name, **TOLD, **told})}", *more, "", ""]
    return "\r\n".join(lines).encode()


WHOLE = head("Content-Length: 100") + b"{content}"
CHUNKED = head("Transfer-Encoding: chunked") + b"64\r\n{content}\r\n0\r\n\r\n"


@pytest.fixture
def visits() -> list[Visit]:
    return []


def ask(visits: list[Visit], *answers: bytes | None, requests: int = 1, fast_lane: bool = False) -> Visit:
    """The last of so many visits to a peer with these answers."""
    with closing(Peer(*answers)) as peer, closing(Line(peer.port, True, fast_lane)) as line:
        visitor = Visitor("v", line, visits.append)
        for _ in range(requests):
            visitor.ask(Planned("GET", "file", size=100))
    assert len(visits) == requests
    return visits[-1]


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["counted", "chunked"])
def test_an_answer_is_whole(visits: list[Visit], answer: bytes) -> None:
    visit = ask(visits, answer)
    assert (visit.outcome, visit.status, visit.wrong) == (Outcome.ANSWERED, 200, "")
    assert visit.told is not None
    assert visit.told.appserver == (2, 3)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (head("Content-Length: 3") + b"xyz", "another content, bytes: 3"),
        (head("Transfer-Encoding: chunked") + b"0\r\n\r\n", "short: 0 of 100 bytes"),
        (head("Content-Length: 0"), "short: 0 of 100 bytes"),
        (head("Content-Length: 100") + b"x" * 100, "another content"),
        (head("Content-Length: 100", name="other") + b"{content}", "the answer to other"),
        (head("Content-Length: 100", "LB-Load: 1/2/3") + b"{content}", "got LB-Load"),
        (head("Content-Length: 100", "Set-Cookie: sid=1") + b"{content}", "without the other"),
        (
            head("Content-Length: 100", "Set-Cookie: sid=1", "Set-Cookie: __PRT__=9.9.x") + b"{content}",
            "does not name",
        ),
        (head("Content-Length: 100", moved=True) + b"{content}", "the ticket is that of before"),
        (head("Content-Length: 100", good=False) + b"{content}", "another body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "without the application's X-Told"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "without Retry-After"),
    ],
)
def test_an_answer_is_wrong_though_it_looks_whole(visits: list[Visit], answer: bytes, wrong: str) -> None:
    visit = ask(visits, answer)
    assert visit.outcome is Outcome.ANSWERED
    assert wrong in visit.wrong


@pytest.mark.parametrize(
    "answer",
    [
        head("Content-Length: 101") + b"{content}",
        head("Transfer-Encoding: chunked") + b"64\r\n{content}\r\n",
        head("Transfer-Encoding: chunked") + b"65\r\n{content}",
    ],
    ids=["counted", "between chunks", "within a chunk"],
)
def test_an_answer_is_cut(visits: list[Visit], answer: bytes) -> None:
    visit = ask(visits, answer)
    assert visit.outcome is Outcome.CUT
    assert visit.told is not None
    assert visit.wrong == ""


def test_no_answer_on_a_fresh_connection(visits: list[Visit]) -> None:
    assert ask(visits, None).outcome is Outcome.UNANSWERED


def test_no_answer_on_a_connection_that_was_used_before(visits: list[Visit]) -> None:
    assert ask(visits, WHOLE, None, requests=2).outcome is Outcome.STALE


def test_no_connection(visits: list[Visit]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    visit = Visitor("v", Line(port, keep=True), visits.append).ask(Planned("GET", "file", size=100))
    assert visit.outcome is Outcome.NO_CONNECTION


def test_no_http(visits: list[Visit]) -> None:
    assert ask(visits, b"SSH-2.0\r\n\r\n").outcome is Outcome.GARBLED


def test_an_answer_without_framing(visits: list[Visit]) -> None:
    assert ask(visits, head() + b"{content}").outcome is Outcome.GARBLED


def test_with_the_fast_lane_an_answer_may_end_with_the_connection(visits: list[Visit]) -> None:
    whole, short = head() + b"{content}", head() + b"{con"
    assert ask(visits, whole, fast_lane=True).outcome is Outcome.ANSWERED
    assert visits.pop().wrong == ""
    assert "another content" in ask(visits, short, fast_lane=True).wrong


def test_with_the_fast_lane_a_visitor_repeats_a_get_whose_connection_was_closed(visits: list[Visit]) -> None:
    assert ask(visits, WHOLE, None, WHOLE, requests=2, fast_lane=True).outcome is Outcome.ANSWERED
    assert ask([], None, fast_lane=True).outcome is Outcome.UNANSWERED  # that was the connection's first


def test_a_ticket_may_be_renewed_alone_where_it_was_another_ones(visits: list[Visit]) -> None:
    answer = head("Content-Length: 100", "Set-Cookie: __PRT__=2.3.x", moved=True) + b"{content}"
    with closing(Peer(answer, answer)) as peer, closing(Line(peer.port, True)) as line:
        visitor = Visitor("v", line, visits.append, {"sid": "s", "__PRT__": "1.1.x"})
        visitor.ask(Planned("GET", "file", size=100))
        assert visitor.cookies == {"sid": "s", "__PRT__": "2.3.x"}
        assert visitor.holder == visits[0].told
        visitor.ask(Planned("GET", "file", size=100))
    assert [visit.wrong for visit in visits] == ["", "the cookies __PRT__ came without the other"]


def counted(count: int, **told: object) -> bytes:
    return head("Content-Length: 100", count=count, **told) + b"{content}"


def together(visits: list[Visit], *answers: bytes, doubtful: int = 0) -> Visitor:
    """A visitor whose session has counted 5 has sent so many POSTs at once, and got these answers."""
    with closing(Peer(*answers)) as peer, closing(Line(peer.port, True)) as line:
        visitor = Visitor("v", line, visits.append, {"sid": "s"}, count=5, doubtful=doubtful)
        visitor.ask_together([Planned("POST", "visit", size=100)] * len(answers))
    return visitor


def test_requests_at_once_may_count_in_any_order(visits: list[Visit]) -> None:
    visitor = together(visits, counted(7), counted(6), doubtful=1)
    assert {(visit.least, visit.most, visit.together) for visit in visits} == {(6, 8, True)}
    assert (visitor.count, visitor.doubtful) == (7, 1)


def test_of_requests_at_once_one_without_an_answer_may_have_counted(visits: list[Visit]) -> None:
    failed = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    visitor = together(visits, counted(6), failed)
    assert (visitor.count, visitor.doubtful) == (6, 1)


def test_of_sessions_that_begin_at_once_a_visitor_keeps_one(visits: list[Visit]) -> None:
    cookies = "Set-Cookie: sid=t", "Set-Cookie: __PRT__=2.3.x"
    fresh = head("Content-Length: 100", *cookies, count=1, new=True, lost=True) + b"{content}"
    visitor = together(visits, fresh, fresh)
    assert (visitor.cookies, visitor.count, visitor.doubtful) == ({"sid": "t", "__PRT__": "2.3.x"}, 1, 0)


def test_a_visitor_leaves(visits: list[Visit]) -> None:
    size = 300_000
    with closing(Peer(head(f"Content-Length: {size}") + content("v", size))) as peer:
        line = Line(peer.port, keep=True)
        Visitor("v", line, visits.append).ask(Planned("GET", "file", size=size, leave=True))
    assert visits[-1].outcome is Outcome.LEFT

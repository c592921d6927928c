"""The gateway: sessions, tickets and affinity."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from gateway_stage import (
    ASSIGNMENT,
    TICKET,
    WAIT,
    Serve,
    head,
    hello,
    login,
)


def test_the_ticket_goes_along_with_a_session(serve: Serve) -> None:
    harness = serve(login)
    reply = harness.ask(head())
    assert reply.headers.get_all("Set-Cookie") == ["_SID_=new; Path=/app", f"__PRT__={TICKET}; Path=/app; HttpOnly"]
    assert reply.headers["Cache-Control"] == "private"
    assert harness.sessions.count(0.0) == 1


def spoken(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """The application says itself who has a session: before its answer, in it, or behind its head."""
    sessions = environ["lbadaptor.sessions"]
    environ["SCRIPT_NAME"] = environ["wsgi.url_scheme"] = "its own"
    when, _, word = environ["QUERY_STRING"].partition("=")
    if when == "before":
        getattr(sessions, word)()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if when == "after":
        getattr(sessions, word)()
    yield b""
    if when == "empty":
        getattr(sessions, word)()
    yield b"head "
    try:
        if when == "late":
            getattr(sessions, word)()
        yield b"in time"
    except RuntimeError as error:
        yield str(error).encode()


@pytest.mark.parametrize("when", ["before", "after", "empty"])
def test_the_application_may_say_that_a_session_begins_until_its_head_is_out(serve: Serve, when: str) -> None:
    harness = serve(spoken)
    reply = harness.ask(head("GET", f"/app/page?{when}=begin"))
    session, ticket = reply.headers.get_all("Set-Cookie")
    assert reply.body == b"head in time"
    assert ticket == f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly"
    assert harness.sessions.count(0.0) == 1
    harness.admission.dying = True
    brought = f"Cookie: {session.partition(';')[0]}"
    reply = harness.ask(head("GET", f"/app/page?{when}=begin", brought, Session="held"))
    assert reply.status == 200
    assert "Set-Cookie" not in reply.headers
    reply = harness.ask(head("GET", f"/app/page?{when}=end", brought, Session="held"))
    assert reply.headers["Set-Cookie"] == "__PRT__=; Path=/app; SameSite=Lax; Secure; HttpOnly; Max-Age=0"
    assert harness.sessions.count(0.0) == 0
    assert harness.ask(head("GET", "/app/page", brought, Session="held")).refused == "DYING"


def test_once_the_head_is_out_a_session_may_end_and_none_begin(serve: Serve) -> None:
    harness = serve(spoken)
    harness.sessions.assign("mine", [], time.monotonic())
    assert b"too late" in harness.ask(head("GET", "/app/page?late=begin")).body
    assert (
        harness.ask(head("GET", "/app/page?late=begin", "Cookie: _SID_=mine", Session="held")).body == b"head in time"
    )
    assert harness.sessions.count(time.monotonic()) == 1
    assert (
        harness.ask(head("GET", "/app/page?late=end", "Cookie: _SID_=mine", Session="held")).body == b"head in time"
    )
    assert harness.sessions.count(time.monotonic()) == 0


def test_without_a_session_cookie_there_is_nothing_to_say_it_to(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [str("lbadaptor.sessions" in environ).encode()]

    for cookie in ("_SID_", ""):
        harness = serve(application, assignment=msgspec.structs.replace(ASSIGNMENT, session_cookie=cookie))
        assert harness.ask(head()).body == str(bool(cookie)).encode()


@pytest.mark.parametrize(
    ("session", "cookie", "lost"),
    [
        ("lost", "Cookie: a=b; _SID_=old", b"1"),
        ("lost", "Cookie: a=b", b"0"),
        ("held", "Cookie: _SID_=old", b"0"),
        ("none", "Cookie: _SID_=old", b"0"),
    ],
)
def test_a_session_is_lost_when_ticket_and_old_cookie_say_so(
    serve: Serve, session: str, cookie: str, lost: bytes
) -> None:
    assert serve(login).ask(head("GET", "/", cookie, Session=session)).body == lost


def test_dying_admits_known_sessions_only(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    harness.admission.dying = True
    caller = harness.caller()
    for cookie, refused in [
        ("X: y", "DYING"),
        ("Cookie: _SID_=other", "DYING"),
        ("Cookie: __PRT__=" + TICKET, "DYING"),
        ("Cookie: _SID_=mine", None),
        ("Cookie: a=b\r\nCookie: _SID_=other; _SID_=mine", None),
    ]:
        reply = caller.ask(head("POST", "/", cookie, "Content-Length: 2", Session="held") + b"ab")
        assert reply.refused == refused
        assert reply.status == (421 if refused else 200)
        assert reply.headers["LB-Status"] == "DYING"
    harness.admission.dying = False
    assert caller.ask(head()).headers["LB-Status"] == "OK"


def test_dying_admits_a_value_that_a_login_has_just_replaced(serve: Serve) -> None:
    harness = serve(login)
    harness.sessions.assign("old", [], time.monotonic())
    assert harness.ask(head("GET", "/", "Cookie: _SID_=old")).status == 200
    harness.admission.dying = True
    assert harness.ask(head("GET", "/", "Cookie: _SID_=old")).status == 200


def test_stopping_admits_no_request(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    harness.admission.stopping = True
    reply = harness.ask(head("GET", "/", "Cookie: _SID_=mine"))
    assert (reply.status, reply.refused, reply.headers["LB-Status"]) == (421, "DYING", "DYING")


AFFINITY = msgspec.structs.replace(ASSIGNMENT, session_cookie="", affinity=True)


@pytest.mark.parametrize(("session", "lost"), [("none", b"0"), ("lost", b"1")])
def test_with_affinity_the_first_answer_has_the_ticket(serve: Serve, session: str, lost: bytes) -> None:
    harness = serve(login, assignment=AFFINITY)
    reply = harness.ask(head(Session=session))
    assert reply.headers.get_all("Set-Cookie") == [
        "_SID_=new; Path=/app",
        f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly",
    ]
    assert reply.headers["Cache-Control"] == "private"
    assert reply.body == lost
    assert harness.sessions.count(0.0) == 1


def test_with_affinity_a_holder_gets_no_ticket_again(serve: Serve) -> None:
    harness = serve(login, assignment=AFFINITY)
    reply = harness.ask(head(Session="held"))
    assert reply.headers.get_all("Set-Cookie") == ["_SID_=new; Path=/app"]
    assert reply.headers["Cache-Control"] is None
    assert reply.body == b"0"
    assert harness.sessions.count(0.0) == 1


def test_with_affinity_the_ticket_is_for_the_mount_whatever_the_application_makes_of_it(serve: Serve) -> None:
    def dispatcher(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["SCRIPT_NAME"] += "/inner"
        environ["wsgi.url_scheme"] = "http"
        return hello(environ, start_response)

    reply = serve(dispatcher, assignment=AFFINITY).ask(head())
    assert reply.headers["Set-Cookie"] == f"__PRT__={TICKET}; Path=/app; SameSite=Lax; Secure; HttpOnly"


def test_with_affinity_dying_admits_only_holders(serve: Serve) -> None:
    harness = serve(hello, assignment=AFFINITY)
    harness.admission.dying = True
    caller = harness.caller()
    for session, status in (("none", 421), ("lost", 421), ("held", 200)):
        assert caller.ask(head(Session=session)).status == status
    assert harness.sessions.count(0.0) == 1  # a visitor that is refused is not counted


def test_another_visitor_does_not_keep_a_session_alive(serve: Serve) -> None:
    harness = serve(hello)
    harness.sessions.assign("mine", [], time.monotonic())
    before = dict(harness.sessions._last_use)
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine", Key="wrong")).status == 403
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine", Generation="18")).status == 421
    assert dict(harness.sessions._last_use) == before
    assert harness.ask(head("GET", "/", "Cookie: _SID_=mine")).status == 200
    assert dict(harness.sessions._last_use) != before


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_session_that_began_with_an_undelivered_answer_is_none(serve: Serve, size: int) -> None:
    """Where its head may have been read, the session stays."""
    asked, gone = threading.Event(), threading.Event()

    def login(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.set()
        gone.wait(WAIT)
        start_response("200 OK", [("Set-Cookie", "_SID_=new; Path=/")])
        return [b"x" * size]

    harness = serve(login)
    caller = harness.caller()
    caller.socket.sendall(head())
    assert asked.wait(WAIT)
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.socket.close()  # by a reset
    gone.set()
    assert harness.admission.wait_idle(WAIT)
    assert harness.sessions.count(time.monotonic()) == (size > 1)

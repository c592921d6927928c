"""The usual request is read in a few steps, and understood as when it is read line by line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.adaptor.forward import Heads, head_end
from lbadaptor.adaptor.spool import Body
from lbadaptor.appserver.wsgi import request_cache
from lbadaptor.appserver.wsgi.environ import Request, know_key
from lbadaptor.contract.ticket import Verdict
from lbadaptor.http1.lines import ProtocolError
from lbadaptor.http1.request import RequestHead

FAST_LANE = Path(__file__).parents[4] / "apache" / "lbadaptor-fastlane.conf"
KEY = "k" * 43
COMPARED = (
    *("method", "target", "version", "fields", "keep_alive", "framing"),
    *("key", "generation", "path", "fast", "held", "lost", "probe", "timed"),
)
assert {*COMPARED, "nothing_missing", "since"} == {*Request.__slots__, *RequestHead.__slots__}, (
    "all of a request is compared"
)
LINE = "GET /at/?x=1 HTTP/1.1"
OWN = ("Host: www.example.org", "Cookie: a=b; c=%41")
PLACE = ("LB-Path: /app/page", "LB-Request-Uri: /app/./page?x=1")
PEER = ("LB-Remote-Addr: 192.0.2.7", "LB-Remote-Port: 51234")
BLOCK = (
    *(
        "LB-Scheme: https",
        f"LB-Key: {KEY}",
        "LB-Generation: 17",
        "LB-Session: held",
        "LB-Server-Name: www.example.org",
    ),
    *("LB-Server-Port: 443", "LB-Server-Protocol: HTTP/2.0", "LB-Script-Name: /app"),
)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    know_key(KEY)
    request_cache._blocks.clear()


def text(*lines: str) -> str:
    return "\r\n".join(lines)


def said(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in COMPARED}


def outcome(read: Callable[[str], Request], head: str) -> object:
    """What is understood, with what is missing; or why it is refused."""
    try:
        request = read(head)
    except ProtocolError as error:
        return str(error), error.status
    assert not request.nothing_missing or not request.missing()
    return said(request), request.missing()


def is_read_in_a_few_steps(head: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a head is not read line by line, when its block is known."""
    request_cache.read(head)
    read = []
    with monkeypatch.context() as patch:
        patch.setattr(
            request_cache, "Request", type("Spy", (Request,), {"__init__": lambda self, text: read.append(text)})
        )
        request = request_cache.read(head)
    return not read and request.nothing_missing


@pytest.mark.parametrize(
    "lines",
    [
        (LINE, *OWN, *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Remote-User: J%C3%BCrgen", "LB-Auth-Type: Basic", *PLACE, *PEER, *BLOCK),
        ("HEAD /x HTTP/1.1", *OWN, "LB-Path: /app/%C3%A4%0A", "LB-Request-Uri: /app/%25?%0D", *PEER, *BLOCK),
        (LINE, "Host: x", *PLACE, "LB-Remote-Addr: 2001:db8::7", "LB-Remote-Port: 1", *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Variables: HTTPS", "LB-Var-HTTPS: on", "Connection: Keep-Alive"),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Var-HTTPS: on"),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "Connection: close"),
        (LINE, *OWN, *PLACE, *PEER, "LB-Request-Id: aZ@09-_~+/=:.", *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Variables: LB-Time HTTPS"),
    ],
)
def test_the_usual_request_is_read_in_a_few_steps(lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_read_in_a_few_steps(text(*lines), monkeypatch)
    assert said(request_cache.read(text(*lines))) == said(Request(text(*lines)))


@pytest.mark.parametrize(
    "lines",
    [
        ("GET / HTTP/1.1",),
        ("GET / HTTP/1.1", *PLACE, *PEER, *BLOCK),
        ("GET / HTTP/1.0", *OWN, *PLACE, *PEER, *BLOCK),
        ("get / HTTP/1.1", *OWN, *PLACE, *PEER, *BLOCK),
        ("GET  / HTTP/1.1", *OWN, *PLACE, *PEER, *BLOCK),
        (LINE, "Host: ", *PLACE, *PEER, *BLOCK),
        (LINE, "no header", *PLACE, *PEER, *BLOCK),
        (LINE, "Host: a\x01", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "Content-Length: 3", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "Content-Length: x", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "Transfer-Encoding: chunked", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "Connection: close", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "TE: trailers", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "X-One: 1", "X-One: 2", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Path: /other", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "lb-path: /other", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "lb-key: other", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Session: lost", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Probe: p", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Scheme: http", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Remote-Port: 1", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Server-Name: x", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Remote-User: a", "LB-Remote-User: b", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, "LB-Variables: ", *PLACE, *PEER, *BLOCK, "LB-Var-HTTPS: on"),
        (LINE, *OWN, "LB-Var-HTTPS: off", *PLACE, *PEER, *BLOCK, "LB-Var-HTTPS: on"),
        (LINE, *OWN, *PEER, *PLACE, *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, "LB-Request-Id: ", *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, "LB-Request-Id: a b", *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, f"LB-Request-Id: {'x' * 129}", *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, "LB-Request-Id: a", "LB-Request-Id: b", *BLOCK),
        (LINE, *OWN, "LB-Request-Id: a", *PLACE, *PEER, "LB-Request-Id: b", *BLOCK),
        (LINE, *OWN, "LB-Request-Id: a", *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Request-Id: a"),
        (LINE, *OWN, "LB-Path: /a b", PLACE[1], *PEER, *BLOCK),
        (LINE, *OWN, "LB-Path: /\xe4", PLACE[1], *PEER, *BLOCK),
        (LINE, *OWN, *PLACE, "LB-Remote-Addr: fe80::1%25eth0", PEER[1], *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "Host: other"),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "Content-Length: 3"),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Scheme: http"),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, *PLACE, *PEER, *BLOCK),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Remote-User: x", "LB-Var-SSL-CLIENT-S-DN: CN=x", "LB-Unknown: x"),
        (LINE, *OWN, *PLACE, *PEER, BLOCK[0], "LB-Key: other", *BLOCK[2:]),
        (LINE, *OWN, *PLACE, *PEER, *BLOCK[:-1]),
    ],
)
def test_every_other_request_is_understood_as_line_by_line(lines: tuple[str, ...]) -> None:
    request_cache.read(text(LINE, *OWN, *PLACE, *PEER, *BLOCK))
    request_cache.read(text(LINE, *OWN, *PLACE, *PEER, *BLOCK, "LB-Var-HTTPS: on"))
    expected = outcome(Request, text(*lines))
    for _ in range(2):  # its own block may be kept the first time
        assert outcome(request_cache.read, text(*lines)) == expected


def test_what_is_missing_in_the_block_is_found_missing() -> None:
    head = text(LINE, *OWN, *PLACE, *PEER, *BLOCK[:-1])
    for _ in range(2):
        request = request_cache.read(head)
        assert not request.nothing_missing
        assert request.missing() == ["LB-Script-Name"]


def test_the_next_request_does_not_see_what_became_of_this_one() -> None:
    head = text(LINE, *OWN, *PLACE, *PEER, *BLOCK)
    request_cache.read(head)
    request_cache.read(head).fields["SERVER_NAME"] = "changed"
    assert request_cache.read(head).fields["SERVER_NAME"] == "www.example.org"


@pytest.mark.parametrize(
    "line", ["LB-Key: wrong", "LB-Remote-User: me", "LB-Var-SSL-CLIENT-S-DN: me", "Cookie: me", "LB-Probe: me"]
)
def test_a_block_with_a_secret_is_not_kept(line: str) -> None:
    block = BLOCK[:1] + BLOCK[2:] if line.startswith("LB-Key") else BLOCK
    request_cache.read(text(LINE, OWN[0], *PLACE, *PEER, *block, line))
    assert not request_cache._blocks


def test_the_adaptor_sends_the_usual_request(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/page",
        "QUERY_STRING": "x=1",
        "REQUEST_URI": "/app/page?x=1",
        "SERVER_NAME": "www.example.org",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/2.0",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "50123",
        "REMOTE_USER": "me",
        "UNIQUE_ID": "aZ@09-",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "HTTP_HOST": "www.example.org",
        "HTTP_COOKIE": "a=b",
    }
    head = Heads(()).common(environ, Body(b"", 0)) + head_end(KEY, 17, Verdict.HELD)
    assert is_read_in_a_few_steps(head.decode("latin-1")[: -len("\r\n\r\n")], monkeypatch)


def test_the_fast_lane_sends_the_usual_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines in the order of its file, and those that a <Proxy> adds."""
    values = dict(line.split(": ") for line in (*PLACE, *PEER, *BLOCK))
    order = dict.fromkeys(re.findall(r"^RequestHeader set (LB-\S+)", FAST_LANE.read_text(), re.MULTILINE))
    lines = [f"{name}: {values.get(name, 'x')}" for name in order]
    assert {line.partition(":")[0] for line in (*PLACE, *PEER, *BLOCK)} - order.keys() == {"LB-Script-Name"}
    assert "LB-Request-Id" in order
    more = (BLOCK[-1], "LB-Variables: HTTPS", "LB-Var-HTTPS: on", "Connection: Keep-Alive")
    assert is_read_in_a_few_steps(text(LINE, *OWN, *lines, *more), monkeypatch)

"""Which requests take the fast lane, and what the application sees of them."""

from __future__ import annotations

import re
import secrets
import socket

import pytest
import requests
from cluster import TIMEOUT, eventually
from fast_site import PASSWORD, FastSite, holder, raw, replaced

from lbadaptor.contract.headers import LONGEST_LINE

# Which requests take it.


def test_who_holds_a_ticket_goes_by_it_and_everybody_else_by_the_adaptor(fast: FastSite) -> None:
    visitor = fast.site.visitor()
    answer, lane = fast.ask(visitor, "count", "POST")
    assert lane == "slow"
    for _ in range(3):
        again, lane = fast.ask(visitor, "count")
        assert (again.json()["pid"], lane) == (answer.json()["pid"], "fast")
    assert fast.ask(visitor, "logout")[1] == "fast"
    assert visitor.ticket is None
    assert fast.ask(visitor, "count", "POST")[1] == "slow"
    visitor.close()


REQUESTS: dict[str, tuple[str, list[str], bytes, str]] = {
    "GET": ("GET /plain HTTP/1.1", [], b"", "fast"),
    "HEAD": ("HEAD /plain HTTP/1.1", [], b"", "fast"),
    "HTTP/1.0": ("GET /plain HTTP/1.0", [], b"", "slow"),
    "query": ("GET /plain?a=1&b=%20|x HTTP/1.1", [], b"", "fast"),
    "other cookies": ("GET /plain HTTP/1.1", ["Cookie: a=1; {ticket}; b=__PRT__"], b"", "fast"),
    "absolute": ("GET http://elsewhere.example/plain HTTP/1.1", [], b"", "fast"),
    "POST": ("POST /plain HTTP/1.1", ["Content-Length: 2"], b"ab", "slow"),
    "PUT": ("PUT /plain HTTP/1.1", ["Content-Length: 0"], b"", "slow"),
    "DELETE": ("DELETE /plain HTTP/1.1", [], b"", "slow"),
    "OPTIONS": ("OPTIONS /plain HTTP/1.1", [], b"", "slow"),
    "lower case": ("get /plain HTTP/1.1", [], b"", "slow"),
    "body": ("GET /plain HTTP/1.1", ["Content-Length: 2"], b"ab", "slow"),
    "no body, said": ("GET /plain HTTP/1.1", ["Content-Length: 0"], b"", "slow"),
    "chunks": ("GET /plain HTTP/1.1", ["Transfer-Encoding: chunked"], b"0\r\n\r\n", "slow"),
    "upgrade": ("GET /plain HTTP/1.1", ["Connection: close, Upgrade", "Upgrade: frob/1"], b"", "slow"),
    "upgrade alone": ("GET /plain HTTP/1.1", ["Upgrade: frob/1"], b"", "slow"),
    "forwards": ("GET /plain HTTP/1.1", ["Max-Forwards: 10"], b"", "slow"),
    "no forwards": ("GET /plain HTTP/1.1", ["Max-Forwards: 0"], b"", "slow"),
    "expect": ("GET /plain HTTP/1.1", ["Expect: 100-continue"], b"", "slow"),
    "connection": ("GET /plain HTTP/1.1", ["Connection: close, LB-Key"], b"", "slow"),
    "two connections": ("GET /plain HTTP/1.1", ["Connection: X", "Connection: close"], b"", "slow"),
    "query beyond ASCII": ("GET /plain?\xe9 HTTP/1.1", [], b"", "slow"),
    "two tickets": ("GET /plain HTTP/1.1", ["Cookie: {ticket}; {ticket}"], b"", "slow"),
    "two cookies": ("GET /plain HTTP/1.1", ["{cookie}", "Cookie: __PRT__=x"], b"", "slow"),
    "quotes": ("GET /plain HTTP/1.1", ['Cookie: __PRT__="{value}"'], b"", "slow"),
    "a longer ticket": ("GET /plain HTTP/1.1", ["{cookie}x"], b"", "slow"),
    "a made-up ticket": ("GET /plain HTTP/1.1", ["Cookie: __PRT__=0.1763805600123." + 43 * "x"], b"", "slow"),
    "another name": ("GET /plain HTTP/1.1", ["Cookie: x{ticket}"], b"", "slow"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_takes_it(embedded: FastSite, name: str) -> None:
    visitor = embedded.visitor()
    line, headers, body, lane = REQUESTS[name]
    cookie = f"Cookie: __PRT__={visitor.ticket}"
    words = {"ticket": f"__PRT__={visitor.ticket}", "value": visitor.ticket, "cookie": cookie}
    headers = [header.format(**words) for header in headers]
    if not any("ookie:" in header for header in headers):
        headers.append(cookie)
    if not any(header.startswith("Connection:") for header in headers):
        headers.append("Connection: close")
    line = line.replace("/plain", "/deep/mount/plain")
    tag = secrets.token_hex(8)
    answer = raw(embedded.site, line, "Host: shop.example", f"X-Tag: {tag}", *headers, body=body)
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert embedded.lane(tag) == lane
    visitor.close()


@pytest.mark.parametrize("path", ["/deep/mountain/plain", "/deep", "/"])
def test_beyond_the_mount_the_fast_lane_carries_no_request(embedded: FastSite, path: str) -> None:
    visitor = embedded.visitor()
    tag = secrets.token_hex(8)
    lines = ("Host: x", "Connection: close", f"Cookie: __PRT__={visitor.ticket}", f"X-Tag: {tag}")
    assert not raw(embedded.site, f"GET {path} HTTP/1.1", *lines).startswith(b"HTTP/1.1 200")
    assert embedded.lane(tag) == "slow"
    visitor.close()


# What the application sees.


def test_a_visitor_cannot_say_who_they_are(fast: FastSite) -> None:
    visitor = fast.visitor()
    lies = {
        "LB-Remote-Addr": "6.6.6.6",
        "LB-Remote-User": "root",
        "LB-Auth-Type": "Basic",
        "LB-Method": "POST",
        "LB-Query": "lie",
        "LB-Session": "lost",
        "LB-Scheme": "https",
        "LB-Script-Name": "/lie",
        "LB-Var-SSL-CLIENT-VERIFY": "SUCCESS",
        "LB-Var-SSL-TLS-SNI": "lie",
        "LB-Variables": "SSL-CLIENT-VERIFY",
        "LB_Var_LIE": "lie",
        "LB-Lie": "lie",
    }
    answer, lane = fast.ask(visitor, "environ?a=b", headers=lies)
    assert lane == "fast"
    seen = answer.json()["seen"]
    assert (seen["REMOTE_ADDR"], seen["QUERY_STRING"], seen["SCRIPT_NAME"]) == ("127.0.0.1", "a=b", "")
    assert (seen["REQUEST_METHOD"], seen["wsgi.url_scheme"]) == ("GET", "http")
    assert seen["lbadaptor.session_lost"] is False
    assert not {"REMOTE_USER", "AUTH_TYPE"} & seen.keys()
    assert not [key for key in seen if "LIE" in key or "SSL" in key or "LB_" in key]
    visitor.close()


def test_a_visitor_cannot_ask_as_the_monitor_does(fast: FastSite) -> None:
    visitor = fast.visitor()
    answer, lane = fast.ask(visitor, "__lb__/status", headers={"LB-Probe": "x"})
    assert (answer.status_code, answer.text, lane) == (404, "no such page", "fast")
    visitor.close()


def test_the_user_is_who_apache_says(fast: FastSite) -> None:
    visitor = fast.visitor()
    assert fast.ask(visitor, "environ/private/x")[0].status_code == 401
    answer, lane = fast.ask(visitor, "environ/private/x", headers=PASSWORD)
    seen = answer.json()["seen"]
    assert (seen["REMOTE_USER"], seen["AUTH_TYPE"], lane) == ("somebody", "Basic", "fast")
    visitor.close()


def everything(answer: requests.Response) -> tuple[int, str, dict[str, str], bytes]:
    """Of an answer, but for what differs from one to the next."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("Date", "Keep-Alive")}
    if answer.status_code == 304:
        # Apache's proxy passes on all headers; its own handlers' are cut down to those of RFC 9110 §15.4.5.
        headers = {name: value for name, value in headers.items() if name in ("Server", "Connection")}
    return answer.status_code, answer.reason, headers, answer.content


PAGES = [
    *("plain", "empty", "stream", "echo", "none", "large?size=1000000", "large?size=0"),
    *(f"status?code={code}" for code in (301, 304, 401, 404, 418, 421, 500, 502, 503, 504)),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("page", PAGES)
def test_both_lanes_give_the_same_answers(embedded: FastSite, method: str, page: str) -> None:
    visitor = embedded.visitor()
    answer, lane = embedded.ask(visitor, page, method, allow_redirects=False)
    slow, slow_lane = embedded.ask(visitor, page, method, allow_redirects=False, headers={"Upgrade": "the/slow-lane"})
    assert everything(answer) == everything(slow)
    # The application's own 421 cannot be told from a refusal: it is asked again.
    assert (lane, slow_lane) == ("back after 421" if "421" in page else "fast", "slow")
    visitor.close()


def test_a_part_of_an_answer_is_the_applications_to_give(embedded: FastSite) -> None:
    visitor = embedded.visitor()
    part = {"Range": "bytes=0-1"}
    answer, lane = embedded.ask(visitor, "large?size=1000", headers=part)
    slow, _ = embedded.ask(visitor, "large?size=1000", headers={**part, "Upgrade": "the/slow-lane"})
    assert (lane, answer.status_code, len(answer.content)) == ("fast", 200, 1000)
    assert everything(answer) == everything(slow)
    visitor.close()


LONGEST_REASON = LONGEST_LINE - 1 - len("HTTP/1.1 200 ")
HEADS = [
    ("X-Large", 8000, 1, 2, 200),
    ("X-Large", 8000, 60, 2, 200),
    ("Set-Cookie", 1000, 150, 2, 200),
    ("X-Large", LONGEST_LINE, 1, 2, 200),
    ("Set-Cookie", LONGEST_LINE, 2, 2, 200),
    ("X-Large", LONGEST_LINE + 1, 1, 2, 502),
    ("Set-Cookie", 200_000, 2, 2, 502),
    ("X-Large", 100, 0, LONGEST_REASON, 200),
    ("X-Large", 100, 0, LONGEST_REASON + 1, 502),
]


@pytest.mark.parametrize(("header", "size", "count", "reason", "fast_status"), HEADS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_with_a_large_head_is_executed_once(
    embedded: FastSite, header: str, size: int, count: int, reason: int, fast_status: int, method: str
) -> None:
    """What is longest here is the longest that mod_proxy takes: with a byte more, it would not be `fast`."""
    visitor = embedded.visitor()
    notes = embedded.cluster.gates / "notes"
    for status, lane in ((fast_status, "fast"), (200, "slow")):
        name = secrets.token_hex(8)
        headers = {"Upgrade": "the/slow-lane"} if lane == "slow" else {}
        tag = secrets.token_hex(8)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        target = f"/deep/mount/head?name={name}&header={header}&size={size}&count={count}&reason={reason}"
        answer = raw(
            embedded.site,
            f"{method} {target} HTTP/1.1",
            *("Host: x", "Connection: close", f"X-Tag: {tag}", f"Cookie: __PRT__={visitor.ticket}", *lines),
        )
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
        assert embedded.lane(tag) == lane
        assert notes.read_text().split().count(name) == 1
        if status == 200:
            lines = re.findall(rf"^{header}: c\d+=x+\r$".encode(), answer, re.MULTILINE)
            assert [len(line) for line in lines] == [size + 1] * count
    visitor.close()


def test_the_log_names_a_header_that_is_too_long(embedded: FastSite) -> None:
    visitor = embedded.visitor()
    slot = holder(embedded.cluster, visitor).identity.slot
    page = f"head?name=once&header=X-Trace&size={LONGEST_LINE + 1}&count=1"
    assert embedded.ask(visitor, page)[0].status_code == 502
    said = f"AppServer {slot}: GET /deep/mount/head: the answer's header X-Trace is too long for the fast lane"
    eventually("the log says so", lambda: said in embedded.cluster.said())
    visitor.close()


def test_an_answer_arrives_as_it_is_produced(fast: FastSite) -> None:
    visitor = fast.visitor()
    gate = fast.cluster.gate()
    with visitor.get(f"stream?gate={gate.name}", stream=True, headers={"X-Tag": gate.name}) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"first"
        gate.reached()
        gate.open()
        assert next(lines) == b"second"
    assert fast.lane(gate.name) == "fast"
    visitor.close()


@pytest.mark.parametrize("page", ["broken?gate={gate}", "broken?gate={gate}&length=100", "break?gate={gate}"])
def test_an_answer_that_breaks_off_does_not_look_whole(embedded: FastSite, page: str) -> None:
    visitor = embedded.visitor()
    entry = holder(embedded.cluster, visitor)
    gate = embedded.cluster.gate()
    with socket.create_connection(("127.0.0.1", embedded.site.port), TIMEOUT) as connection:
        connection.sendall(
            f"GET /deep/mount/{page.format(gate=gate.name)} HTTP/1.1\r\nHost: x\r\nX-Tag: {gate.name}\r\n"
            f"Cookie: __PRT__={visitor.ticket}\r\n\r\n".encode()
        )
        data = b""
        while b"first\n" not in data:
            data += connection.recv(65536)
        gate.reached()
        gate.open()
        while more := connection.recv(65536):
            data += more
    assert embedded.lane(gate.name) == "fast"
    head, _, body = data.partition(b"\r\n\r\n")
    assert body.rstrip() in (b"first", b"6\r\nfirst")  # no end of the chunks, and of 100 bytes but 6
    assert (b"Content-Length: 100" in head) is ("length" in page)
    if page.startswith("break?"):
        replaced(embedded.cluster, entry)
    visitor.close()

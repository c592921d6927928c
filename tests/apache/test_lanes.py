"""Both lanes agree on what the application sees and on what the visitor gets, but for docs/reference/fast-lane.md."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from cluster import TIMEOUT, Cluster, Site, running_cluster
from corpus import prepare

from monitor.demo import httpd

EXTRA = """
LoadModule deflate_module {modules}/mod_deflate.so
LoadModule filter_module {modules}/mod_filter.so
AddOutputFilterByType DEFLATE text/plain text/html
"""


LANES = ("fast", "first", "slow")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(app="trials:application", appservers={"servers": 1}) as made:
        prepare(made.folder)
        yield made


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Site:
    extra = EXTRA.format(modules=httpd.installed()[0].modules)
    return cluster.site("embedded-debian", extra=extra, lint=False, fast_lane=cluster.settings.slots)


def ask(site: Site, lane: str, target: str, *headers: str, method: str = "GET") -> bytes:
    """The whole answer. One ticket, or none, takes the fast lane; two take the slow one, whatever else there is."""
    ticket = f"__PRT__={site.cluster.table().entries[0].ticket}"
    cookie = {"fast": ticket, "first": "a=1", "slow": f"{ticket}; {ticket}"}[lane]
    lines = (
        *(f"{method} {target} HTTP/1.1", "Host: shop.example", "Connection: close", f"Cookie: {cookie}"),
        *(*headers, "", ""),
    )
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        visitor.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b""
        while more := visitor.recv(65536):
            answer += more
    return answer


def parts(answer: bytes) -> tuple[str, list[str], bytes]:
    """Status line, headers in the order of their names, and body; but for Date, and what mod_deflate says of itself:
    it leaves alone small answers that come at once, as they do in the fast lane."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    kept = [line for line in lines if not line.startswith("Date: ") and line != "Vary: Accept-Encoding"]
    return status, sorted(kept, key=lambda line: line.partition(":")[0].lower()), body


REQUESTS: dict[str, list[str]] = {
    "TE": ["TE: trailers"],
    "Trailer": ["Trailer: X-Late"],
    "Range": ["Range: bytes=0-1", 'If-Range: "x"'],
    "If-*": ['If-None-Match: "x", "y"', "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT", "If-Match: *"],
    "X-Forwarded-*": [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Host: x",
        "X-Forwarded-Proto: https",
        "Forwarded: for=x",
    ],
    "Via": ["Via: 1.1 other"],
    "Proxy-Authorization": ["Proxy-Authorization: Basic eDp4"],
    "Proxy-Authenticate": ["Proxy-Authenticate: Basic"],
    "Proxy-Connection": ["Proxy-Connection: keep-alive"],
    "Proxy": ["Proxy: http://x/"],
    "Keep-Alive": ["Keep-Alive: timeout=5"],
    "Authorization": ["Authorization: Bearer x.y"],
    "Accept-Encoding": ["Accept-Encoding: gzip, br"],
    "repeated": ["X-Twice: 1", "X-Twice: 2", "Accept: a", "Accept: b"],
    "large": ["X-Large: " + 8000 * "x"],
    "many": [f"X-{number}: {number}" for number in range(80)],
    "latin-1": ["X-Text: caf\xe9", "X-Tab: a\tb"],
    "Content-Type": ["Content-Type: text/plain; charset=x"],
    "Expect": ["Expect: x"],
    "Max-Forwards": ["Max-Forwards: 0"],
    "Cache-Control": ["Cache-Control: no-cache", "Pragma: no-cache"],
    "HTTP2-Settings": ["HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
    "Early-Data": ["Early-Data: 1"],
    "Origin": ["Origin: null", "Sec-Fetch-Mode: cors", "Upgrade-Insecure-Requests: 1"],
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_application_sees_the_same(site: Site, name: str) -> None:
    seen = {}
    for lane in LANES:
        status, _, body = parts(ask(site, lane, "/environ/x?a=%20b", *REQUESTS[name]))
        if " 417 " in status:
            seen[lane] = {"status": status}
            continue
        assert " 200 " in status, status
        seen[lane] = json.loads(re.search(rb"\{.*\}", body, re.DOTALL)[0])["seen"]  # type: ignore[index]
        for key in ("HTTP_COOKIE", "REMOTE_PORT", "lbadaptor.pid"):
            seen[lane].pop(key, None)
    assert seen["fast"] == seen["slow"]
    assert seen["first"] == seen["slow"]


ANSWERS: dict[str, tuple[str, list[tuple[str, str]], str]] = {
    "plain": ("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")], "ok"),
    "no length": ("200 OK", [("Content-Type", "text/plain")], "ok" * 10),
    "no type": ("200 OK", [("Content-Length", "2")], "ok"),
    "reason": ("200 Quite Well", [("Content-Length", "2")], "ok"),
    "no reason": ("200 ", [("Content-Length", "2")], "ok"),
    "unknown status": ("299 Odd", [("Content-Length", "2")], "ok"),
    "404": ("404 Nowhere", [("Content-Type", "text/plain"), ("Content-Length", "2")], "no"),
    "500": ("500 Oh", [("Content-Type", "text/plain"), ("Content-Length", "2")], "no"),
    "204": ("204 No Content", [], ""),
    "301": ("301 Moved Permanently", [("Location", "/else where?a=b#c"), ("Content-Length", "0")], ""),
    "location of the AppServer": (
        "302 Found",
        [("Location", "http://127.0.0.1:9000/at/x"), ("Content-Length", "0")],
        "",
    ),
    "200 with location": ("200 OK", [("Location", "/plain"), ("Content-Length", "2")], "ok"),
    "401": ("401 Unauthorized", [("WWW-Authenticate", "Basic realm=x"), ("WWW-Authenticate", "Bearer")], "no"),
    "407": (
        "407 Proxy Authentication Required",
        [("Proxy-Authenticate", "Basic realm=x"), ("Content-Length", "0")],
        "",
    ),
    "proxy headers": (
        "200 OK",
        [("Proxy-Authentication-Info", "x"), ("Proxy-Authenticate", "Basic"), ("Content-Length", "2")],
        "ok",
    ),
    "cookies": (
        "200 OK",
        [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2; Expires=Sat, 29 Oct 2044 19:43:31 GMT"),
            ("Set-Cookie", "a=3"),
        ],
        "ok",
    ),
    "repeated": (
        "200 OK",
        [("X-Twice", "1"), ("X-Twice", "2"), ("Vary", "A"), ("Vary", "B"), ("Link", "<a>"), ("Link", "<b>")],
        "",
    ),
    "Server": ("200 OK", [("Server", "mine"), ("X-Powered-By", "x"), ("Content-Length", "2")], "ok"),
    "Via": ("200 OK", [("Via", "1.1 mine"), ("Content-Length", "2")], "ok"),
    "LB-": ("200 OK", [("LB-Status", "DYING"), ("LB-Load", "1/1/1"), ("LB-X", "y"), ("Content-Length", "2")], "ok"),
    "Expires": (
        "200 OK",
        [("Expires", "0"), ("Last-Modified", "Sat, 29 Oct 1994 19:43:31 GMT"), ("ETag", 'W/"x"')],
        "ok",
    ),
    "Accept-Ranges": (
        "200 OK",
        [("Accept-Ranges", "bytes"), ("Content-Range", "bytes 0-1/2"), ("Content-Length", "2")],
        "ok",
    ),
    "encoded": ("200 OK", [("Content-Encoding", "x"), ("Content-Length", "2")], "ok"),
    "empty value": ("200 OK", [("X-Empty", ""), ("Content-Length", "2")], "ok"),
    "latin-1": ("200 OK", [("X-Text", "caf\xe9"), ("Content-Length", "2")], "ok"),
    "large": ("200 OK", [("Content-Type", "text/html"), ("Content-Length", "3000")], "x" * 3000),
    "Warning": ("200 OK", [("Warning", '110 - "x"'), ("Age", "5"), ("Refresh", "5"), ("Content-Length", "2")], "ok"),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_visitor_gets_the_same(site: Site, name: str, method: str) -> None:
    target = f"/answer?told={quote(json.dumps(ANSWERS[name]))}"
    fast, first, slow = (parts(ask(site, lane, target, method=method)) for lane in LANES)
    assert fast == slow
    assert first == slow


def unpacked(answer: bytes) -> tuple[str, list[str], bytes]:
    """The same of a compressed answer, but for its length."""
    status, lines, body = parts(answer)
    assert "Content-Encoding: gzip" in lines
    if "Transfer-Encoding: chunked" in lines:
        whole = b""
        while body != b"0\r\n\r\n":
            size, _, rest = body.partition(b"\r\n")
            whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    return (
        status,
        [line for line in lines if not re.match("Content-Length|Transfer-Encoding", line)],
        gzip.decompress(body),
    )


@pytest.mark.parametrize("name", ["large", "large, cookies"])
def test_filters_hold_in_both(site: Site, name: str) -> None:
    status, headers, body = ANSWERS["large"]
    headers = headers + (ANSWERS["cookies"][1] if "cookies" in name else [])
    target = f"/answer?told={quote(json.dumps([status, headers, body]))}"
    fast, slow = (unpacked(ask(site, lane, target, "Accept-Encoding: gzip")) for lane in ("fast", "slow"))
    assert fast == slow
    assert fast[2] == body.encode()


FAILURES: dict[str, tuple[str, list[tuple[str, str]], str]] = {
    "no byte": ("200 OK", [("Content-Length", "5")], ""),
    "short": ("200 OK", [("Content-Length", "5")], "abc"),
    "long": ("200 OK", [("Content-Length", "2")], "abc"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_application_that_fails_is_called_once(site: Site, name: str) -> None:
    notes = site.cluster.gates / "notes"
    for lane in LANES:
        call = secrets.token_hex(8)
        answer = ask(site, lane, f"/answer?name={call}&told={quote(json.dumps(FAILURES[name]))}")
        assert notes.read_text().split().count(call) == 1, f"{lane}: {answer!r}"

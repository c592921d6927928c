"""Apache behind a real HAProxy: whom it believes, what a broken answer looks like, who waits for its restart."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster import LANES, TIMEOUT, Cluster, Site, eventually, running_cluster
from haproxy_front import HaProxy
from visitors import Visitor

CLAIMS = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n"
"""What any visitor may send."""
VISITOR = "127.0.0.7"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    machine = {"number": 1, "front": ["127.0.0.1"]}
    with running_cluster(app="trials:application", appservers={"servers": 1}, machine=machine) as made:
        yield made


@pytest.fixture(scope="module", params=LANES)
def site(cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    return cluster.site(request.param)


@pytest.fixture(scope="module")
def haproxy(cluster: Cluster, site: Site) -> Iterator[HaProxy]:
    made = HaProxy(cluster, site)
    yield made
    made.stop()


def exchange(port: int, request: str, source: str = VISITOR, tls: bool = False) -> bytes:
    """All that comes for a request, up to the end of the connection."""
    visitor = socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0))
    if tls:
        visitor = ssl._create_unverified_context().wrap_socket(visitor)
    with visitor:
        visitor.sendall(request.encode())
        data = b""
        while more := visitor.recv(65536):
            data += more
    return data


def seen(
    port: int, method: str, source: str = VISITOR, headers: str = CLAIMS, tls: bool = False
) -> dict[str, object]:
    """What the application sees of a visitor who sends these headers."""
    length = "" if method == "GET" else "Content-Length: 0\r\n"
    request = f"{method} /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n"
    head, _, body = exchange(port, request, source, tls).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    if b"chunked" in head.lower():
        body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    environ = json.loads(body)["seen"]
    names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO")
    return {name: environ.get(name) for name in names}


def as_seen(address: str, scheme: str, told: str | None) -> dict[str, object]:
    return {
        "REMOTE_ADDR": address,
        "wsgi.url_scheme": scheme,
        "HTTP_X_FORWARDED_FOR": None,
        "HTTP_X_FORWARDED_PROTO": told,
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_is_believed_but_the_front(site: Site, haproxy: HaProxy, method: str) -> None:
    """POST takes the Python lane on each site."""
    assert seen(haproxy.port, method) == as_seen(VISITOR, "http", "http")
    assert seen(haproxy.tls, method, tls=True, headers="X-Forwarded-Proto: http\r\n") == as_seen(
        VISITOR, "https", "https"
    )
    assert seen(site.port, method) == as_seen(VISITOR, "http", None)  # round HAProxy
    assert seen(site.port, method, "127.0.0.1") == as_seen("192.0.2.1", "https", "https")  # what a front says


def test_the_front_is_believed_where_the_fast_lane_hands_over(site: Site) -> None:
    """An application's own 421 is asked for again in the Python lane."""
    request = f"GET /status?code=421 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{CLAIMS}\r\n"
    answer = exchange(site.port, request, "127.0.0.1")
    assert answer.startswith(b"HTTP/1.1 421")
    assert b"X-Visitor: https 192.0.2.1\r\n" in answer


@pytest.mark.parametrize("framing", ["", "&length=1000"], ids=["chunked", "Content-Length"])
def test_a_broken_answer_is_cut_through_both(site: Site, haproxy: HaProxy, framing: str) -> None:
    gate = site.cluster.gate()
    with socket.create_connection(("127.0.0.1", haproxy.port), TIMEOUT) as visitor:
        visitor.sendall(f"GET /broken?gate={gate.name}{framing} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while b"first\n" not in data:
            data += visitor.recv(65536)
        gate.reached()
        gate.open()
        while more := visitor.recv(65536):  # HAProxy ends the connection, though nobody has asked for that
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == (b"first\n" if framing else b"6\r\nfirst\n\r\n")  # short; without the last chunk


def test_haproxy_learns_tickets_and_nothing_else(haproxy: HaProxy) -> None:
    visitor = Visitor(f"http://127.0.0.1:{haproxy.port}")
    visitor.tell("plain")
    assert not visitor.ticket
    visitor.http.cookies.set("__PRT__", f"0.1763805600123.{'x' * 43}")  # made up
    visitor.tell("plain")
    visitor.http.cookies.clear()
    visitor.count()
    assert haproxy.table() == [visitor.ticket]
    other = Visitor(visitor.url)
    other.count()
    assert haproxy.table() == [visitor.ticket]  # it is the AppServer's ticket, for all its visitors
    for one in (visitor, other):
        one.tell("logout")
        one.close()
    assert len(haproxy.table()) == 1


def test_a_visitor_with_a_session_waits_for_apaches_restart(site: Site, haproxy: HaProxy) -> None:
    visitor = Visitor(f"http://127.0.0.1:{haproxy.port}")
    visitor.count()
    before = int(haproxy.of_server("web0", "wretr"))
    site.httpd.stop()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(visitor.count)
        eventually("HAProxy tries again", lambda: int(haproxy.of_server("web0", "wretr")) > before)
        site.httpd.start()
        coming.result(TIMEOUT)
    visitor.close()

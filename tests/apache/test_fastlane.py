"""The fast lane: which requests take it, what the application sees of them, and what comes back to the adaptor."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import itertools
import json
import os
import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import TIMEOUT, Cluster, Site, Visitor, eventually, running_cluster, short_folder
from corpus import PRIVATE, prepare

from lbadaptor.contract.address import Entry, State
from monitor.demo import httpd

APP = "trials:application"
LANES = (
    PRIVATE
    + """
CustomLog {log} "%{{X-Tag}}i %{{LBADAPTOR_GENERATION}}e %{{REDIRECT_STATUS}}e %{{Vary}}o"
<LocationMatch "/closed/">
    Require all denied
    ErrorDocument 403 {mount}/environ/sorry
</LocationMatch>
AllowEncodedSlashes On
"""
)
MODES = ["embedded-debian", "embedded-pypi", "daemon-debian", "cgi-debian"]
PASSWORD = {"Authorization": "Basic " + base64.b64encode(b"somebody:secret").decode()}


class FastSite:
    """A site with a fast lane, and a log of which requests took it."""

    def __init__(self, cluster: Cluster, name: str, mount: str = "", slots: int | None = None) -> None:
        self.cluster = cluster
        self._log = cluster.folder / f"lanes-{secrets.token_hex(4)}.log"
        words = {"folder": cluster.folder, "modules": httpd.installed()[0].modules, "log": self._log, "mount": mount}
        slots = cluster.settings.slots if slots is None else slots
        self.site: Site = cluster.site(name, mount, LANES.format(**words), lint=False, fast_lane=slots)

    def visitor(self) -> Visitor:
        """Somebody with a session."""
        visitor = self.site.visitor()
        visitor.count()
        return visitor

    def ask(self, visitor: Visitor, page: str, method: str = "GET", **options: Any) -> tuple[requests.Response, str]:
        """An answer, and how it came about: fast, back (to the adaptor), slow."""
        tag = secrets.token_hex(8)
        headers = {"X-Tag": tag, **options.pop("headers", {})}
        return visitor.get(page, method, headers=headers, **options), self.lane(tag)

    def lane(self, tag: str) -> str:
        """How the request with a tag was brought to an answer; Apache tells that a little later."""

        def look() -> str | None:
            found = re.search(rf"^{tag} (.*) (\S+)$", self._log.read_text(), re.MULTILINE)
            return found and found[0]

        _, generation, redirected, vary = eventually("the request is logged", look).split()
        assert vary == "-"
        if redirected != "-":
            return f"back after {redirected}"
        return "slow" if generation == "-" else "fast"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    servers = {"servers": 2, "threads": 2}
    monitor = {"probe_interval": 0.1, "backoff_limit": 0.1}
    with running_cluster(app=APP, appservers=servers, adaptor={"wait": 10}, monitor=monitor) as made:
        prepare(made.folder)
        yield made


@pytest.fixture(scope="module", params=MODES)
def fast(request: pytest.FixtureRequest, cluster: Cluster) -> FastSite:
    return FastSite(cluster, request.param)


@pytest.fixture(scope="module")
def embedded(cluster: Cluster) -> FastSite:
    return FastSite(cluster, "embedded-debian", "/deep/mount")


def raw(site: Site, *lines: str, body: bytes = b"") -> bytes:
    """A request of our own making; the whole answer, till Apache hangs up."""
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        visitor.sendall("\r\n".join((*lines, "", "")).encode("latin-1") + body)
        answer = b""
        while more := visitor.recv(65536):
            answer += more
    return answer


# Which requests take it.


def test_who_holds_a_ticket_goes_by_it_and_everybody_else_by_the_adaptor(fast: FastSite) -> None:
    visitor = fast.site.visitor()
    answer, lane = fast.ask(visitor, "count")
    assert lane == "slow"
    for _ in range(3):
        again, lane = fast.ask(visitor, "count")
        assert (again.json()["pid"], lane) == (answer.json()["pid"], "fast")
    assert fast.ask(visitor, "logout")[1] == "fast"
    assert visitor.ticket is None
    assert fast.ask(visitor, "count")[1] == "slow"
    visitor.close()


REQUESTS: dict[str, tuple[str, list[str], bytes, str]] = {
    "GET": ("GET /plain HTTP/1.1", [], b"", "fast"),
    "HEAD": ("HEAD /plain HTTP/1.1", [], b"", "fast"),
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


@pytest.mark.parametrize(("host", "lane"), [("Host: x", "fast"), ("X: y", "slow")])
def test_without_a_host_it_is_slow(embedded: FastSite, host: str, lane: str) -> None:
    visitor = embedded.visitor()
    tag = secrets.token_hex(8)
    lines = (host, f"Cookie: __PRT__={visitor.ticket}", f"X-Tag: {tag}")
    answer = raw(embedded.site, "GET /deep/mount/plain HTTP/1.0", *lines)
    assert b" 200 OK" in answer
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


LARGEST_LINE = 65536
"""Bytes of a header's line in an answer (responsefieldsize)."""
HEADS = [
    ("X-Large", 8000, 1, 200, 200),
    ("X-Large", 60000, 1, 200, 200),
    ("X-Large", 8000, 60, 200, 200),
    ("Set-Cookie", 1000, 150, 200, 200),
    ("X-Large", LARGEST_LINE + 1, 1, 502, 200),
]


@pytest.mark.parametrize(("header", "size", "count", "fast_status", "slow_status"), HEADS)
def test_a_request_with_a_large_head_is_executed_once(
    embedded: FastSite, header: str, size: int, count: int, fast_status: int, slow_status: int
) -> None:
    visitor = embedded.visitor()
    notes = embedded.cluster.gates / "notes"
    for status, lane in ((fast_status, "fast"), (slow_status, "slow")):
        name = secrets.token_hex(8)
        headers = {"Upgrade": "the/slow-lane"} if lane == "slow" else {}
        tag = secrets.token_hex(8)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        target = f"/deep/mount/head?name={name}&header={header}&size={size}&count={count}"
        answer = raw(
            embedded.site,
            f"GET {target} HTTP/1.1",
            *("Host: x", "Connection: close", f"X-Tag: {tag}", f"Cookie: __PRT__={visitor.ticket}", *lines),
        )
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
        assert embedded.lane(tag) == ("back after 502" if status == 502 else lane)
        assert notes.read_text().split().count(name) == 1
        if status == 200:
            assert len(re.findall(rf"^{header}: c\d+=x+\r$".encode(), answer, re.MULTILINE)) == count
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


# What comes back.


@contextlib.contextmanager
def gone(cluster: Cluster, visitor: Visitor) -> Iterator[int]:
    """The visitor's AppServer is killed, and nothing is done about it as long as this is a context."""
    with cluster.stopped_monitor():
        entry = holder(cluster, visitor)
        pid = int(visitor.tell("plain")["pid"])
        os.kill(pid, signal.SIGKILL)
        eventually("its port is free", lambda: not listens(entry.address))
        yield pid
    replaced(cluster, entry)


def holder(cluster: Cluster, visitor: Visitor) -> Entry:
    entry = cluster.entry(visitor.ticket)
    assert entry is not None
    return entry


def replaced(cluster: Cluster, entry: Entry) -> None:
    """Wait until another has taken its place."""
    eventually("it has left address.text", lambda: cluster.entry(entry.ticket) is None)
    cluster.await_ok()


def listens(address: tuple[str, int]) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(address) == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_when_its_holder_is_gone_a_visitor_goes_elsewhere(fast: FastSite, method: str) -> None:
    visitor = fast.visitor()
    with gone(fast.cluster, visitor) as pid:
        answer, lane = fast.ask(visitor, "environ/a%20b?x=%20y&z", method)
    assert (answer.status_code, lane) == (200, "back after 503")
    if method == "HEAD":
        assert answer.content == b""
        assert int(answer.headers["Content-Length"]) > 100
    else:
        told = answer.json()
        assert told["pid"] != pid
        assert told["lost"]
        seen = told["seen"]
        assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/environ/a b", "x=%20y&z")
        assert seen["REQUEST_URI"] == "/environ/a%20b?x=%20y&z"
        assert seen["REQUEST_METHOD"] == "GET"
        assert not [key for key in seen if "REDIRECT" in key or "LB_" in key]
    visitor.close()


PLACES = [
    "/environ/a%20b%25c%3Fd;e=f/%C3%A9?x=%20y&z?",
    "/environ/http:%2F%2Felsewhere%2F/x?http://elsewhere/",
    "/environ//a///b/",
    "//environ/./a/../b?",
    "/environ/%0A%0D/%7F%80%FF?lbadaptor",
    "/environ/'\"<>|^`{}?'\"<>|^`{}lbadaptor1",
]


def test_a_mount_and_what_is_encoded_survive_the_way_back(embedded: FastSite) -> None:
    visitor = embedded.visitor()
    with gone(embedded.cluster, visitor):
        answer, lane = embedded.ask(visitor, "environ/a%25b%3F;x=/%C3%A9?%3F?")
    assert lane == "back after 503"
    assert answer.status_code == 200, answer.text
    seen = answer.json()["seen"]
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/deep/mount", "/environ/a%b?;x=/\xc3\xa9")
    assert seen["QUERY_STRING"] == "%3F?"
    visitor.close()


def test_all_lanes_tell_the_application_the_same_place(fast: FastSite) -> None:
    visitor = fast.visitor()

    def seen(target: str, lane: str, header: str) -> dict[str, str]:
        tag = secrets.token_hex(8)
        lines = ("Host: x", "Connection: close", f"Cookie: __PRT__={visitor.ticket}", f"X-Tag: {tag}", header)
        answer = raw(fast.site, f"GET {target} HTTP/1.1", *lines)
        assert fast.lane(tag) == lane
        told = json.loads(answer.partition(b"\r\n\r\n")[2])["seen"]
        return {name: told[name] for name in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI")}

    fast_lane = [seen(target, "fast", "X: y") for target in PLACES]
    slow_lane = [seen(target, "slow", "Upgrade: the/slow-lane") for target in PLACES]
    with gone(fast.cluster, visitor):
        way_back = [seen(target, "back after 503", "X: y") for target in PLACES]
    assert fast_lane == slow_lane
    assert way_back == slow_lane
    visitor.close()


def test_a_page_of_apaches_own_choice_opens_no_other(fast: FastSite) -> None:
    """ErrorDocument may lead to the application: from what was refused, too, and not to it."""
    visitor = fast.visitor()
    answer, lane = fast.ask(visitor, "environ/closed/x?lbadaptor")
    assert lane == "back after 403"
    assert answer.json()["seen"]["PATH_INFO"] == "/environ/sorry"
    visitor.close()


def test_who_was_authorised_is_so_after_coming_back(fast: FastSite) -> None:
    visitor = fast.visitor()
    with gone(fast.cluster, visitor):
        assert fast.ask(visitor, "environ/private/x")[0].status_code == 401
        answer, lane = fast.ask(visitor, "environ/private/x", headers=PASSWORD)
    seen = answer.json()["seen"]
    assert (seen["REMOTE_USER"], seen["AUTH_TYPE"], lane) == ("somebody", "Basic", "back after 503")
    visitor.close()


def test_one_whose_process_dies_under_it_is_asked_again_elsewhere(fast: FastSite) -> None:
    visitor = fast.visitor()
    entry = holder(fast.cluster, visitor)
    pid = int(visitor.tell("plain")["pid"])
    visitor.http.close()  # of a later request on its connection, Apache says nothing, and browsers ask again
    gate = fast.cluster.gate()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(fast.ask, visitor, f"plain?gate={gate.name}")
        gate.reached()
        os.kill(pid, signal.SIGKILL)
        eventually("its port is free", lambda: not listens(entry.address))
        gate.reached()
        gate.open()
        answer, lane = asking.result(TIMEOUT)
    assert (answer.status_code, lane) == (200, "back after 502")
    assert answer.json()["pid"] != pid
    replaced(fast.cluster, entry)
    visitor.close()


def test_a_dying_one_still_gets_its_holders_and_refuses_the_others(fast: FastSite) -> None:
    visitor, robot = fast.visitor(), fast.site.visitor()
    entry = holder(fast.cluster, visitor)
    robot.http.cookies.set("__PRT__", entry.ticket)  # a ticket, and no session
    fast.cluster.lbctl("drain", str(entry.identity.slot))
    eventually("it is DYING", lambda: holder(fast.cluster, visitor).state is State.DYING)
    answer, lane = fast.ask(visitor, "count")
    assert (answer.json()["visits"], lane) == (2, "fast")
    # address.text says so a moment before the AppServer has got the order.
    eventually("it refuses the robot", lambda: fast.ask(robot, "plain")[1] == "back after 421")
    answer, lane = fast.ask(robot, "plain")
    assert (answer.status_code, lane) == (200, "back after 421")
    assert answer.json()["slot"] != entry.identity.slot
    fast.cluster.lbctl("undrain", str(entry.identity.slot))
    fast.ask(visitor, "logout")
    for one in (visitor, robot):
        one.close()


@contextlib.contextmanager
def moved_to(path: str, identity: object) -> Iterator[list[str]]:
    """Who asks at this Unix socket is told that the session is at another AppServer. Yields the heads that came."""
    heads: list[str] = []
    refusal = "\r\n".join(
        (
            "HTTP/1.1 421 Misdirected Request",
            *("LB-Refused: MOVED", f"LB-Moved-To: {identity}", "LB-Status: DYING", "LB-Load: 0/2/0"),
            *("Content-Length: 0", "Connection: close", "", ""),
        )
    )

    def serve(listener: socket.socket) -> None:
        while True:
            with contextlib.suppress(ConnectionError), listener.accept()[0] as caller:
                head = b""
                while b"\r\n\r\n" not in head and (more := caller.recv(65536)):
                    head += more
                if b"LB-Probe" not in head:  # the monitor may think what it likes
                    heads.append(head.decode("latin-1"))
                caller.sendall(refusal.encode())

    found = os.stat(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        os.chown(path, found.st_uid, found.st_gid)
        os.chmod(path, found.st_mode)
        listener.listen()
        pool.submit(serve, listener)
        try:
            yield heads
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # accept raises OSError


def test_who_has_moved_comes_back_to_the_adaptor_and_follows(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2})
    prepare(cluster.folder)
    before, now = cluster.table().entries
    cookies = f"__PRT__={before.ticket}; sid=abc"
    socket_ = cluster.settings.unix_socket(before.identity.slot)
    with cluster.stopped_monitor(), moved_to(socket_, now.identity) as heads:
        for fast, method in itertools.product([FastSite(cluster, name) for name in MODES], ("GET", "HEAD")):
            heads.clear()
            visitor = fast.site.visitor()
            answer, lane = fast.ask(visitor, "plain?a=%20b", method, headers={"Cookie": cookies})
            assert (answer.status_code, lane) == (200, "back after 421")
            assert [name for name in answer.headers if name.lower().startswith("lb")] == []
            if method == "GET":
                assert answer.json()["slot"] == now.identity.slot
            assert ["\r\nLB-Variables: " in head for head in heads] == [True, False]  # the fast lane's first
            for head in heads:
                assert head.startswith(f"{method} ")
                assert "?a=%20b HTTP/1.1\r\n" in head
                assert f"\r\nCookie: {cookies}\r\n" in head
                assert "\r\nLB-Session: held\r\n" in head
            visitor.close()


def test_one_that_is_failing_is_the_adaptors_business(new_cluster: Callable[..., Cluster]) -> None:
    monitor = {"probe_interval": 0.1, "probe_timeout": 0.3, "fall": 2, "failing_limit": 20}
    cluster = new_cluster(app=APP, appservers={"servers": 2}, monitor=monitor)
    prepare(cluster.folder)
    fast = FastSite(cluster, "embedded-debian")
    with no_unix_sockets(cluster):  # the adaptor goes by TCP, of which one can see what nobody has read
        visitor = fast.visitor()
    pid = int(visitor.tell("plain")["pid"])
    keys = cluster.settings.caller_keys_file
    assert holder(cluster, visitor).ticket in keys.read_text()
    os.kill(pid, signal.SIGSTOP)
    eventually("it is FAILING", lambda: holder(cluster, visitor).state is State.FAILING)
    eventually("its key is taken away", lambda: holder(cluster, visitor).ticket not in keys.read_text())
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(fast.ask, visitor, "count")
        eventually("the adaptor asks it", lambda: unread(holder(cluster, visitor).address))
        os.kill(pid, signal.SIGCONT)
        answer, lane = asking.result(TIMEOUT)
    assert (answer.json()["visits"], lane) == (2, "slow")
    eventually("it is OK again", lambda: holder(cluster, visitor).ticket in keys.read_text())
    assert fast.ask(visitor, "count")[1] == "fast"
    visitor.close()


@contextlib.contextmanager
def no_unix_sockets(cluster: Cluster) -> Iterator[None]:
    """Nobody who connects meanwhile finds them."""
    folder = cluster.settings.socket_folder
    hidden = folder.rename(folder.with_name("hidden"))
    yield
    hidden.rename(folder)


def unread(address: tuple[str, int]) -> bool:
    """Whether bytes that nobody has read wait at an address."""
    port = f":{address[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and int(fields[4].partition(":")[2], 16):
            return True
    return False


def test_no_answer_in_time_is_not_asked_again(new_cluster: Callable[..., Cluster]) -> None:
    monitor = {"probe_interval": 0.1, "probe_timeout": 0.2, "fall": 3, "failing_limit": 0.5}
    cluster = new_cluster(app=APP, appservers={"servers": 1}, adaptor={"answer_timeout": 2}, monitor=monitor)
    prepare(cluster.folder)
    fast = FastSite(cluster, "embedded-debian")
    visitor = fast.visitor()
    visitor.http.close()
    gate = cluster.gate()
    answer, lane = fast.ask(visitor, f"plain?gate={gate.name}")
    assert (answer.status_code, lane) == (504, "back after 502")
    gate.reached()
    gate.open()
    visitor.close()


def test_a_release_costs_no_request_and_needs_no_reload(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian")
    visitor = fast.visitor()
    before = visitor.count()["pid"]
    cluster.lbctl("restart")
    eventually("everybody is replaced", lambda: not cluster.status()["release"])
    assert visitor.count()["pid"] == before
    visitor.tell("logout")
    visitor.forget()
    assert visitor.count()["pid"] != before
    assert fast.ask(visitor, "count")[1] == "fast"
    visitor.close()


def test_made_up_tickets_leave_nothing(embedded: FastSite) -> None:
    """mod_rewrite remembers what it did not find, until address.text is written anew; and that is never long."""

    def resident() -> int:
        parent = embedded.site.httpd.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in children)

    def ask(first: int) -> None:
        for number in range(first, first + 500):
            ticket = {"Cookie": f"__PRT__=0.{number}.{'x' * 43}"}
            robot.request("HEAD", "/deep/mount/plain", headers=ticket)
            with robot.getresponse() as answer:
                assert answer.status == 200

    robot = http.client.HTTPConnection("127.0.0.1", embedded.site.port, timeout=TIMEOUT)
    with contextlib.closing(robot):
        ask(10**12)
        before = resident()
        for turn in range(1, 5):
            ask(10**12 + 500 * turn)
        assert resident() - before < 4 * 1024 * 1024


# Writing its configuration.


ALONGSIDE = """
LoadModule rewrite_module {modules}/mod_rewrite.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule status_module {modules}/mod_status.so
Alias /plain/static {folder}/static
<Directory {folder}/static>
    Require all granted
</Directory>
<Location /plain/status>
    SetHandler server-status
</Location>
CustomLog {folder}/lane.log "%{{X-Tag}}i %{{LBADAPTOR_GENERATION}}e"
IncludeOptional {folder}/lane.conf
"""


def test_what_lbctl_writes_leads_to_the_application_and_leaves_apache_its_own(cluster: Cluster) -> None:
    found = httpd.installed()[0]
    (cluster.folder / "static").mkdir()
    (cluster.folder / "static").chmod(0o755)
    (cluster.folder / "static" / "x.txt").write_text("a file\n")
    site = cluster.site("embedded-debian", extra=ALONGSIDE.format(folder=cluster.folder, modules=found.modules))
    program = f"{found.binary} -f {site.httpd.folder}/httpd.conf"
    (cluster.folder / "lane.conf").write_text(cluster.lbctl("apache-config", "--apache", program))
    site.httpd.reload()
    visitor = site.visitor()
    visitor.count()
    log = cluster.folder / "lane.log"

    def is_fast() -> bool:
        tag = secrets.token_hex(8)
        visitor.get("plain", headers={"X-Tag": tag, "Connection": "close"})
        line = eventually("it is logged", lambda: re.search(f"^{tag} (.*)$", log.read_text(), re.MULTILINE))
        return str(line[1]) != "-"

    eventually("the fast lane is open", is_fast)
    assert visitor.get("plain/static/x.txt").text == "a file\n"
    assert "Apache Server Status" in visitor.get("plain/status").text
    assert visitor.count()["visits"] == 2
    visitor.close()


def test_an_appserver_beyond_its_slots_is_not_in_it(cluster: Cluster) -> None:
    fast = FastSite(cluster, "embedded-debian", slots=min(entry.identity.slot for entry in cluster.table().ok) + 1)
    lanes = {}
    for visitor in fast.site.visitors(2):
        answer, lane = fast.ask(visitor, "plain")
        lanes[answer.json()["slot"]] = lane
        visitor.close()
    first, second = sorted(lanes)
    assert (lanes[first], lanes[second]) == ("fast", "slow")


# Before the monitor has ever run, as after a boot.


def in_fast_lane(fast: FastSite, visitor: Visitor) -> bool:
    return fast.ask(visitor, "count", headers={"Connection": "close"})[1] == "fast"


@pytest.mark.parametrize(
    ("run_folder", "host"),
    [
        ("run", "127.0.0.1"),
        ("run", "::1"),
        ("run 'a' \"b\\c\" %{d}$e#", "::1"),  # no Unix sockets by such a path
    ],
)
def test_apache_starts_without_a_run_folder_and_needs_no_reload_when_there_is_one(run_folder: str, host: str) -> None:
    with short_folder() as folder:
        servers = {"servers": 2, "host": host}
        cluster = Cluster(
            folder, app=APP, appservers=servers, adaptor={"wait": 0.1}, files={"run_folder": run_folder}
        )
        try:
            prepare(folder)
            (folder / "run").rmdir()
            assert not cluster.settings.run_folder.exists()
            fast = FastSite(cluster, "embedded-debian")
            stranger = fast.site.visitor()
            assert stranger.get("plain").status_code == 503
            ticket = {"Cookie": f"__PRT__=0.1763805600123.{43 * 'x'}"}
            assert stranger.get("plain", headers=ticket).status_code == 503
            (folder / "run").mkdir()
            cluster.start()
            visitors = fast.site.visitors(2)
            for visitor in visitors:
                first = visitor.count()
                answer, lane = fast.ask(visitor, "count?a=%20b")
                assert (answer.json()["pid"], answer.json()["visits"]) == (first["pid"], 3)
                assert lane == ("slow" if " " in run_folder else "fast")
                # What the file does not hold is not looked for twice.
                forged = {"Cookie": f"__PRT__=0.1763805600123.{43 * 'x'}"}
                assert fast.ask(stranger, "plain", headers=forged)[1] == "slow"
            # A reload finds the maps.
            fast.site.httpd.reload()
            eventually("Apache has reloaded", lambda: fast.site.log().count("resuming normal") == 2)
            for one in visitors:
                assert eventually("Apache has reloaded", functools.partial(in_fast_lane, fast, one))
                one.close()
            stranger.close()
        finally:
            cluster.stop()


def test_without_maps_too_no_request_goes_to_an_appserver_that_is_gone() -> None:
    with short_folder() as folder:
        cluster = Cluster(folder, app=APP, appservers={"servers": 2}, adaptor={"wait": 10})
        try:
            prepare(folder)
            fast = FastSite(cluster, "embedded-debian")
            cluster.start()
            visitor = fast.visitor()
            assert fast.ask(visitor, "count")[1] == "fast"
            with gone(cluster, visitor) as pid:
                answer, lane = fast.ask(visitor, "count")
            assert (answer.json()["pid"] != pid, lane) == (True, "back after 503")
            robot = fast.site.visitor()
            keys = cluster.settings.caller_keys_file.read_text()
            answer, lane = fast.ask(robot, "environ/x", headers={"Cookie": f"__PRT__={visitor.ticket}; sid=x"})
            assert lane == "fast"
            assert not any(word in answer.text for word in keys.split() if len(word) > 30 and word != visitor.ticket)
            for one in (visitor, robot):
                one.close()
        finally:
            cluster.stop()


# By Unix socket, or by TCP.


def connections(cluster: Cluster) -> tuple[int, int]:
    """To AppServers, by Unix socket and by TCP (proc_net(5))."""
    folder = f"{cluster.settings.socket_folder}/"
    by_unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    by_tcp = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {f":{entry.address.port:04X}" for entry in cluster.table().entries}
    return (
        sum(words[-1].startswith(folder) and words[5] == "03" for words in by_unix),
        sum(words[1][-5:] in ports and words[3] == "01" for words in by_tcp),
    )


def test_both_lanes_and_the_monitor_go_by_unix_sockets(cluster: Cluster) -> None:
    before = eventually(
        "the monitor has asked both", lambda: connections(cluster)[0] >= 2 and connections(cluster)[0]
    )
    fast = FastSite(cluster, "embedded-debian")
    visitor = fast.visitor()
    assert fast.ask(visitor, "count", "POST")[1] == "slow"
    between, _ = connections(cluster)
    assert between > before
    assert fast.ask(visitor, "count")[1] == "fast"
    by_unix, by_tcp = connections(cluster)
    assert (by_unix, by_tcp) == (between + 1, 0)
    visitor.close()


@pytest.mark.parametrize("name", ["embedded-debian", "daemon-debian"])
def test_where_the_sockets_were_deleted_all_goes_by_tcp(name: str) -> None:
    with running_cluster(app=APP, appservers={"servers": 2}) as cluster:
        for path in cluster.settings.socket_folder.iterdir():
            path.unlink()
        fast = FastSite(cluster, name)
        visitor = fast.visitor()
        pid = visitor.count()["pid"]
        answer, lane = fast.ask(visitor, "count")
        assert (answer.json()["pid"], lane) == (pid, "back after 503")
        assert connections(cluster)[1] > 0
        visitor.close()

"""Bodies of every kind under a real Apache, the lints of PEP 3333 around adaptor and application."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import secrets
import socket
import threading
from collections.abc import Iterator

import pytest
from cluster import SITES, TIMEOUT, Cluster, Site, eventually, running_cluster
from corpus import Case, ask_by_http2
from transfers import BLOCK, Peaks, ask, download, upload

from monitor.demo import httpd

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    adaptor = {"body_spool": MIB}
    with running_cluster(app="bodies:application", lint=True, appservers={"servers": 1}, adaptor=adaptor) as made:
        yield made


@pytest.fixture(scope="module", params=SITES)
def site(cluster: Cluster, request: pytest.FixtureRequest) -> Site:
    modules = httpd.installed()[0].modules
    extra = f"LoadModule http2_module {modules}/mod_http2.so\nProtocols h2c http/1.1\n"
    for module in ("filter", "deflate"):
        extra += f"LoadModule {module}_module {modules}/mod_{module}.so\n"
    extra += "<Location /taken>\nSetInputFilter DEFLATE\n</Location>\n"
    return cluster.site(request.param, extra=extra)


@contextlib.contextmanager
def visit(site: Site) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        yield visitor


def closed(site: Site, note: str) -> int:
    """How many answers with this note were closed until now."""
    notes = site.cluster.gates / "closed"
    return notes.read_text().split().count(note) if notes.exists() else 0


# Requests.


@pytest.mark.parametrize(
    ("framing", "body", "content", "length"),
    [
        ("Content-Length: 5", b"whole", b"whole", "5"),
        ("Content-Length: 0", b"", b"", "0"),
        ("X: none", b"", b"", "none"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", b"abcd", "4"),
        ("Transfer-Encoding: chunked", b"0\r\n\r\n", b"", "none"),
    ],
    ids=["a length", "length 0", "none", "chunks", "no chunk"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_body_arrives_as_it_is(
    site: Site, framing: str, body: bytes, content: bytes, length: str, method: str
) -> None:
    with visit(site) as visitor:
        head = f"{method} /taken HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
        for _ in range(2):  # the second on the same connection, where it is kept
            visitor.sendall(head + body)
            answer = http.client.HTTPResponse(visitor)
            answer.begin()
            assert answer.status == 200
            assert answer.read().decode() == f"{len(content)} {hashlib.sha256(content).hexdigest()}"
            assert answer.headers["X-Length"] == length
            if answer.will_close:
                break


def test_a_body_with_a_coding_that_nobody_removes_is_refused(site: Site) -> None:
    """By mod_wsgi itself; as CGI by the adaptor, to which Apache gives it without the chunks."""
    with visit(site) as visitor:
        head = b"POST /taken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        visitor.sendall(head + b"3\r\nabc\r\n0\r\n\r\n")
        answer = http.client.HTTPResponse(visitor)
        answer.begin()
        assert answer.status == 501


def test_who_expects_100_is_told_to_continue_and_sends_then(site: Site) -> None:
    with visit(site) as visitor:
        head = "PUT /taken HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
        visitor.sendall(f"{head}Connection: close\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += visitor.recv(1000)
        assert data.startswith(b"HTTP/1.1 100 Continue\r\n")
        visitor.sendall(b"body")
        data = data.partition(b"\r\n\r\n")[2]
        while piece := visitor.recv(1000):
            data += piece
        assert data.startswith(b"HTTP/1.1 200")
        assert hashlib.sha256(b"body").hexdigest().encode() in data


def test_a_body_by_http_2_without_a_length_arrives_or_is_refused(site: Site) -> None:
    """mod_wsgi's daemon mode hands on none of it, and the adaptor must not take it for an empty one."""
    case = Case("POST", method=b"POST", body=b"body")
    for _ in range(10):
        with visit(site) as visitor:
            status, told = ask_by_http2(visitor, case, b"/taken")
        if site.mode == "daemon":
            assert status == 411
            assert b"Content-Length" in told
        else:
            assert (status, told.decode()) == (200, f"4 {hashlib.sha256(b'body').hexdigest()}")


@pytest.mark.parametrize("size", [1000, 500_000, 5_000_000], ids=["in memory", "in a file", "streamed"])
def test_an_answer_may_come_before_the_body_is_read(site: Site, size: int) -> None:
    """The application reads nothing of it, and its next requests are not disturbed."""
    for _ in range(3):
        with visit(site) as visitor:
            head = f"POST /pid HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
            visitor.sendall(head.encode() + bytes(size))
            answer = http.client.HTTPResponse(visitor)
            answer.begin()
            assert (answer.status, answer.read()) == (200, ask(site, "/pid"))


@pytest.mark.parametrize("size", [1000, 100_000, 5_000_000], ids=["in memory", "in a file", "streamed"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_a_filter_inflates_is_the_applications_as_in_mod_wsgi(
    site: Site, size: int, chunked: bool
) -> None:
    data = os.urandom(size // 2) + bytes(size // 2)
    packed = gzip.compress(data)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        for _ in range(2):  # the second on the same connection, where it is kept
            framing = {"Transfer-Encoding": "chunked"} if chunked else {}
            body = iter([packed]) if chunked else packed
            headers = {"Content-Encoding": "gzip", **framing}
            connection.request("POST", "/taken", body, headers, encode_chunked=chunked)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read().decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}"
            if not chunked:
                assert answer.headers["X-Length"] == str(len(packed))


@pytest.mark.parametrize("coding", ["", "Content-Encoding: gzip\r\n"])
def test_a_visitor_who_leaves_within_a_body_is_found(site: Site, coding: str) -> None:
    """The application is not called; or, where Apache tells nobody (daemon mode, a coded body), reads what came."""
    packed = gzip.compress(os.urandom(200_000))
    with visit(site) as visitor:
        head = f"POST /taken HTTP/1.1\r\nHost: x\r\n{coding}Content-Length: {len(packed)}\r\n\r\n"
        visitor.sendall(head.encode() + packed[:100_000])
        visitor.shutdown(socket.SHUT_WR)
        answer = visitor.recv(1000)
        assert not answer.startswith(b"HTTP/1.1 200")


class Echo:
    """A POST to an application that answers while it reads: the visitor reads while they send."""

    def __init__(self, site: Site, size: int) -> None:
        self.size = size
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.status = 0
        self.taken = 0
        self._socket = socket.create_connection(("127.0.0.1", site.port), TIMEOUT)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._socket.close()
        assert (self.status, self.taken) == (200, self.size)
        assert self.sent.digest() == self.got.digest()

    def _send(self) -> None:
        head = f"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {self.size}\r\n\r\n"
        self._socket.sendall(head.encode())
        left = self.size
        while left:
            piece = (os.urandom(1000) * 66)[: min(left, 65536)]
            self._socket.sendall(piece)
            self.sent.update(piece)
            left -= len(piece)

    def _receive(self) -> None:
        answer = http.client.HTTPResponse(self._socket)
        answer.begin()
        self.status = answer.status
        while piece := answer.read(65536):
            self.got.update(piece)
            self.taken += len(piece)


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
def test_an_application_may_answer_while_it_reads(site: Site, size: int) -> None:
    """If they waited for each other, it would be for 60 s, and the visitor's patience ends sooner (TIMEOUT)."""
    Echo(site, size).join()


def test_as_many_may_answer_while_they_read_as_there_are_threads(site: Site) -> None:
    echoes = [Echo(site, 3 * MIB) for _ in range(8)]
    for echo in echoes:
        echo.join()


# Answers.


def test_events_arrive_as_they_are_made(site: Site) -> None:
    note, gates = secrets.token_hex(8), [site.cluster.gate() for _ in range(3)]
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", f"/events?note={note}&gates={','.join(gate.name for gate in gates)}")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        for number, gate in enumerate(gates):
            assert (answer.readline(), answer.readline()) == (f"data: {number}\n".encode(), b"\n")
            gate.reached()  # the application has made no more than this
            assert not closed(site, note)
            gate.open()
        assert answer.read() == b"data: last\n\n"
    eventually("it is closed", lambda: closed(site, note))


def test_what_is_written_comes_first_and_at_once(site: Site) -> None:
    gate = site.cluster.gate()
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", f"/written?gate={gate.name}")
        answer = connection.getresponse()
        assert answer.read(4) == b"one "
        gate.reached()
        gate.open()
        assert answer.read() == b"two three four"


@pytest.mark.parametrize("blocks", [1, 20])
def test_a_file_is_sent_from_where_it_stands(site: Site, blocks: int) -> None:
    content = b"".join(bytes([number]) * 65536 for number in range(blocks))
    assert ask(site, f"/file?blocks={blocks}") == content
    assert ask(site, f"/file?blocks={blocks}&part=1") == content[65536:]


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunks"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_answer_is_closed_once(site: Site, method: str, length: bool) -> None:
    note = secrets.token_hex(8)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request(method, f"/large?blocks=10&note={note}{'&length=1' if length else ''}")
        answer = connection.getresponse()
        assert answer.read() == (BLOCK * 10 if method == "GET" else b"")
        if length:
            assert answer.headers["Content-Length"] == str(10 * len(BLOCK))
        eventually("it is closed", lambda: closed(site, note))
        connection.request("GET", "/pid")  # nothing of the last one stands before it
        assert int(connection.getresponse().read())
    assert closed(site, note) == 1


def test_an_answer_is_closed_when_the_visitor_went_away(site: Site) -> None:
    note = secrets.token_hex(8)
    with visit(site) as visitor:
        visitor.sendall(f"GET /endless?note={note} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        taken = 0
        while taken < 2 * MIB:
            taken += len(visitor.recv(65536))
        assert not closed(site, note)
    eventually("it is closed", lambda: closed(site, note) == 1)


def test_events_that_never_pause_arrive_too_and_are_closed_when_the_visitor_went_away(site: Site) -> None:
    note = secrets.token_hex(8)
    with visit(site) as visitor:
        visitor.sendall(f"GET /ticks?note={note} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while b"data: 70\n\n" not in data:
            data += visitor.recv(1000)
        assert not closed(site, note)
    eventually("it is closed", lambda: closed(site, note) == 1)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_answer_without_body_has_none(site: Site, status: str, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request(method, f"/bare?status={status.replace(' ', '%20')}")
        answer = connection.getresponse()
        assert (f"{answer.status} {answer.reason}", answer.read()) == (status, b"")
        assert (answer.headers["X-Page"], answer.headers["Transfer-Encoding"]) == ("bare", None)
        assert answer.headers["ETag"] == ('"x"' if answer.status == 304 else None)
        connection.request("GET", "/pid")
        assert int(connection.getresponse().read())


def test_heads_as_large_as_apache_takes_them_go_both_ways(site: Site) -> None:
    """Seventeen fields of 8,000 bytes there, 150 cookies of 1 kB back; once each."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    sent = {f"X-Large-{number}": f"{number}" + "x" * 8000 for number in range(17)}
    with contextlib.closing(connection):
        connection.request("GET", "/heads?cookies=20", headers=sent)
        answer = connection.getresponse()
        told = hashlib.sha256("".join(sent.values()).encode()).hexdigest()
        assert (answer.status, answer.read().decode()) == (200, told)
        if site.mode == "embedded":  # mod_wsgi's daemon mode takes no more than its header-buffer-size, 32 KiB
            http.client._MAXHEADERS = 200  # type: ignore[attr-defined]
            connection.request("GET", "/heads?cookies=150", headers=sent)
            answer = connection.getresponse()
            assert answer.status == 200
            assert len(answer.headers.get_all("Set-Cookie") or []) == 150


# Memory.

SMALL, LARGE = 4 * MIB // len(BLOCK), 80 * MIB // len(BLOCK)


@pytest.mark.parametrize("name", ["embedded-debian", "embedded-pypi", "daemon-debian", "cgi-debian", "fast-debian"])
def test_twenty_times_the_body_takes_no_more_memory(name: str) -> None:
    """What is large is neither kept whole in httpd nor in the AppServer, up or down."""
    adaptor = {"body_spool": 2 * MIB}
    with running_cluster(app="bodies:application", lint=True, appservers={"servers": 1}, adaptor=adaptor) as cluster:
        site = cluster.site(name, extra="StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n")

        def peaks(blocks: int) -> list[Peaks]:
            seen = [Peaks(site), Peaks(site)]
            for framed, peak in zip((True, False), seen, strict=True):  # with a length, and in chunks
                with peak:
                    upload(site, blocks, chunked=not framed)
                    Echo(site, blocks * len(BLOCK)).join()
                    download(site, blocks, length=framed)
            return seen

        small, large = peaks(SMALL), peaks(LARGE)
    assert max(peak.httpd for peak in large) - min(peak.httpd for peak in small) < 12 * MIB
    assert max(peak.appserver for peak in large) - min(peak.appserver for peak in small) < 12 * MIB

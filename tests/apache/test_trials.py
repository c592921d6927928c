"""What can still be mended, and what the visitor is told where it cannot, under a real Apache httpd."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from cluster import ADAPTOR_SITES, SITES, TIMEOUT, Cluster, Site, eventually, running_cluster, short_folder
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from posts import Posts

from lbadaptor.adaptor.error_pages import MEANING
from monitor.demo import httpd
from tests.apache.resources import kill
from tests.ports import free_ports

NewCluster = Callable[..., Cluster]

APP = "trials:application"
ONE_PROCESS = "StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n"
SMALL_BUFFERS = "SendBufferSize 4096\nReceiveBufferSize 4096\n"
"""So that not the kernel takes over what is meant for a slow reader."""


def ask(site: Site, target: str, method: str = "GET", body: bytes | None = None) -> requests.Response:
    with requests.Session() as visitor:
        visitor.trust_env = False
        return visitor.request(method, site.url + target, data=body, timeout=TIMEOUT)


def until(connection: socket.socket, what: bytes) -> bytes:
    """Everything up to some bytes that come."""
    data = b""
    while what not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def the_rest(connection: socket.socket) -> tuple[bytes, bool]:
    """What still comes, and whether the connection was reset in the end."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, True
    return data, False


# One AppServer with one thread: who holds it, holds it alone.


@pytest.fixture(scope="module")
def one_thread() -> Iterator[Cluster]:
    settings = {"body_memory": 1000, "body_spool": 300_000}
    with running_cluster(app=APP, appservers={"servers": 1, "threads": 1}, adaptor=settings) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=SITES)
def narrow(one_thread: Cluster, request: pytest.FixtureRequest) -> Site:
    return one_thread.site(request.param, extra=SMALL_BUFFERS)


@pytest.mark.parametrize("code", [421, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_applications_own_5xx_and_421_pass_untouched(narrow: Site, code: int, method: str) -> None:
    answer = ask(narrow, f"/status?code={code}", method)
    assert (answer.status_code, answer.content) == (code, b"the application's own")
    assert answer.headers["X-Own"] == method
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("size", [900, 200_000], ids=["memory", "spool file"])
def test_a_slow_upload_holds_no_thread_of_an_appserver(narrow: Site, size: int) -> None:
    body = os.urandom(size)
    with socket.create_connection(("127.0.0.1", narrow.port), TIMEOUT) as slow:
        slow.sendall(
            f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
        )
        slow.sendall(body[: size // 2])
        for _ in range(3):
            assert ask(narrow, "/plain").status_code == 200
        slow.sendall(body[size // 2 :])
        assert the_rest(slow)[0].endswith(body)


def test_a_slow_reader_holds_no_thread_of_an_appserver(narrow: Site) -> None:
    size = 262_144
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(TIMEOUT)
        slow.connect(("127.0.0.1", narrow.port))
        slow.sendall(f"GET /large?size={size} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = slow.recv(100)
        for _ in range(3):
            assert ask(narrow, "/plain").status_code == 200
        assert data.startswith(b"HTTP/1.1 200")
        assert (data + the_rest(slow)[0]).count(b"x") >= size


def test_an_early_answer_ends_an_upload_that_is_streamed(narrow: Site) -> None:
    """In daemon mode, and as CGI, Apache hands on the whole body before it looks for an answer."""
    embedded, sent = narrow.mode == "embedded", 0
    size = 1_000_000_000 if embedded else 2_000_000
    with socket.create_connection(("127.0.0.1", narrow.port), TIMEOUT) as visitor:
        visitor.sendall(f"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        while sent < size and not select.select([visitor], [], [], 0)[0]:
            sent += visitor.send(bytes(min(100_000, size - sent)))
        assert until(visitor, b"too large").startswith(b"HTTP/1.1 413")
    assert not embedded or sent < size / 2
    assert ask(narrow, "/plain").status_code == 200


# An answer that breaks off when the visitor has a part of it.


class Transport:
    """How a visitor's requests come to Apache."""

    def __init__(self, port: int, preface: bytes = b"", headers: str = "") -> None:
        self._port = port
        self._preface = preface
        self.headers = headers

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        connection.sendall(self._preface)
        return connection

    def request(self, target: str, version: str = "1.1") -> bytes:
        return f"GET {target} HTTP/{version}\r\nHost: x\r\n{self.headers}\r\n".encode()


class Front:
    """An httpd of one process that visitors reach in several ways."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        modules = httpd.installed()[0].modules
        port = free_ports()
        self.site = cluster.site(
            name,
            extra=f"""{ONE_PROCESS}
LoadModule http2_module {modules}/mod_http2.so
LoadModule remoteip_module {modules}/mod_remoteip.so
Protocols h2c http/1.1
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy 127.0.0.1
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    RemoteIPProxyProtocol On
    <IfModule rewrite_module>
        RewriteEngine On
        RewriteOptions Inherit
    </IfModule>
</VirtualHost>
""",
        )
        self.transports = {
            "directly": Transport(self.site.port),
            "mod_remoteip": Transport(self.site.port, headers="X-Forwarded-For: 198.51.100.7\r\n"),
            "PROXY protocol": Transport(port, b"PROXY TCP4 198.51.100.8 192.0.2.1 5555 80\r\n"),
        }

    @contextlib.contextmanager
    def one_cut(self, in_python: bool = False) -> Iterator[None]:
        """By the end, one connection more was cut; in the fast lane Apache does it, and tells nobody.

        `in_python`: by a request that takes the Python lane on each site.
        """
        if self.site.fast and not in_python:
            yield
            return

        def cuts() -> int:
            return self.site.log().count("an answer broke off, the visitor's connection is cut")

        before = cuts()
        yield
        eventually("the log says so", lambda: cuts() == before + 1)


WAYS = ["directly", "mod_remoteip", "PROXY protocol"]


@pytest.fixture(scope="module")
def one_appserver() -> Iterator[Cluster]:
    with running_cluster(app=APP, appservers={"servers": 1}) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["embedded-debian", "embedded-pypi", "fast-debian"])
def front(one_appserver: Cluster, request: pytest.FixtureRequest) -> Front:
    return Front(one_appserver, request.param)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", ["", "&length=1000"], ids=["chunked", "Content-Length"])
def test_http_1_1_with_a_pipelined_request(front: Front, way: str, framing: str) -> None:
    transport, gate = front.transports[way], front.site.cluster.gate()
    with front.one_cut(), transport.connect() as visitor, transport.connect() as bystander:
        bystander.sendall(transport.request("/plain"))
        until(bystander, b'"method"')
        target = f"/broken?gate={gate.name}{framing}"
        visitor.sendall(transport.request(target) + transport.request("/plain"))
        data = until(visitor, b"first\n")
        gate.reached()
        gate.open()
        rest, _ = the_rest(visitor)
        data += rest
        head, _, body = data.partition(b"\r\n\r\n")
        assert data.count(b"HTTP/1.1 ") == 1  # nothing of a second answer
        if framing:
            assert b"Content-Length: 1000" in head
            assert body == b"first\n"
        else:
            assert b"Transfer-Encoding: chunked" in head
            assert body == b"6\r\nfirst\n\r\n"  # and no last chunk
        bystander.sendall(transport.request("/plain"))
        assert until(bystander, b'"method"').startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("way", WAYS)
def test_http_1_0_where_the_end_of_the_connection_is_the_end_of_the_answer(front: Front, way: str) -> None:
    """A reset tells the visitor that it is not the end of the answer. Such a request does not take the fast lane."""
    transport, gate = front.transports[way], front.site.cluster.gate()
    with front.one_cut(in_python=True), transport.connect() as visitor:
        visitor.sendall(transport.request(f"/broken?gate={gate.name}", "1.0"))
        until(visitor, b"first\n")
        gate.reached()
        gate.open()
        assert the_rest(visitor) == (b"", True)


class H2Visitor:
    """A visitor by HTTP/2 with prior knowledge."""

    def __init__(self, connection: socket.socket, headers: str) -> None:
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._socket = connection
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._more = [(name.lower(), value) for name, value in (line.split(": ") for line in headers.splitlines())]

    def get(self, target: str) -> int:
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", target), (":scheme", "http"), (":authority", "x"), *self._more]
        self._h2.send_headers(stream, head, end_stream=True)
        self._socket.sendall(self._h2.data_to_send())
        self.data[stream] = b""
        return stream

    def receive(self) -> bool:
        """Take what comes; false at the end of the connection."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                self.data[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(self._h2.data_to_send())
        return bool(data)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", ["", "&length=1000"], ids=["open", "Content-Length"])
def test_http_2(front: Front, way: str, framing: str) -> None:
    transport, gate = front.transports[way], front.site.cluster.gate()
    with front.one_cut(), transport.connect() as connection:
        visitor = H2Visitor(connection, transport.headers)
        broken = visitor.get(f"/broken?gate={gate.name}{framing}")
        while visitor.data[broken] != b"first\n":
            assert visitor.receive()
        whole = visitor.get("/plain")
        while whole not in visitor.ended:
            assert visitor.receive()
        gate.reached()
        gate.open()
        while visitor.receive():
            pass
    assert visitor.ended == {whole}
    assert visitor.data[broken] == b"first\n"


@pytest.mark.parametrize("name", ["daemon-debian", "daemon-pypi", "cgi-debian"])
def test_where_the_visitors_connection_is_out_of_reach(one_appserver: Cluster, name: str) -> None:
    """In daemon mode and as CGI an answer with a length is short, and nothing follows it: the visitor can tell. One
    without a length looks whole: nobody but Apache could cut the connection.
    """
    site = one_appserver.site(name)
    transport = Transport(site.port)
    bodies = {}
    for framing in ("&length=1000", ""):
        gate = site.cluster.gate()
        with transport.connect() as visitor:
            visitor.sendall(transport.request(f"/broken?gate={gate.name}{framing}") + transport.request("/plain"))
            data = until(visitor, b"first\n")
            gate.reached()
            gate.open()
            data += the_rest(visitor)[0]
        assert data.count(b"HTTP/1.1 ") == 1
        head, _, bodies[framing] = data.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
    assert bodies == {"&length=1000": b"first\n", "": b"6\r\nfirst\n\r\n0\r\n\r\n"}
    eventually("the log says so", lambda: site.log().count("the visitor's connection is out of reach") == 2)


@pytest.mark.parametrize("name", ["daemon-debian", "daemon-pypi"])
def test_that_nothing_may_follow_ends_no_connection_of_http_2(one_appserver: Cluster, name: str) -> None:
    front = Front(one_appserver, name)
    with front.transports["directly"].connect() as connection:
        visitor = H2Visitor(connection, "")
        for _ in range(2):
            stream = visitor.get("/large?size=700000")
            while stream not in visitor.ended:
                assert visitor.receive()
            assert visitor.data[stream] == b"x" * 700_000


# A spool folder that takes nothing.


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module", params=["missing", "not writable", "full"])
def useless_folder(request: pytest.FixtureRequest, short: Path) -> Iterator[tuple[Path, str]]:
    """A folder for temporary files, and the system's word on it."""
    folder = short / f"spool-{request.param_index}"
    if request.param == "missing":
        yield folder, "No such file or directory"
        return
    folder.mkdir()
    folder.chmod(0o555)
    if request.param == "full" and os.geteuid() == 0:  # an ordinary user mounts nothing
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "lbadaptor-test", folder], check=True)
        try:
            yield folder, "No space left on device"
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        yield folder, "Permission denied"


@pytest.fixture(scope="module")
def spooling(useless_folder: tuple[Path, str]) -> Iterator[Cluster]:
    adaptor = {"spool_folder": str(useless_folder[0])}
    with running_cluster(app=APP, appservers={"servers": 1}, adaptor=adaptor) as cluster:
        yield cluster


@pytest.mark.parametrize("name", ADAPTOR_SITES)
def test_a_spool_folder_that_takes_nothing_is_a_503_and_said(
    spooling: Cluster, useless_folder: tuple[Path, str], name: str
) -> None:
    cluster, why = spooling, useless_folder[1]
    (cluster.gates / "notes").unlink(missing_ok=True)
    site = cluster.site(name)
    answer = ask(site, "/note", "POST", b"x" * 500_000)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    said = eventually("the log says so", lambda: re.search(r"503 POST /note: .*request's body: (.*)", site.log()))
    assert said[1] == why
    assert not (cluster.gates / "notes").exists()
    assert ask(site, "/note", "POST", b"small").content == b"small"


# The keep-alive race.


def test_no_post_fails_and_none_is_doubled_while_appservers_are_recycled(new_cluster: NewCluster) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 3, "max_requests": 60})
    site = cluster.site("embedded-debian")

    def enough() -> bool:
        """However fast the machine is: many POSTs, and a few lives of every AppServer."""
        return bool(posts.failures) or (posts.done >= 3000 and cluster.said().count(" starts: pid ") > 9)

    with Posts(site, visitors=6) as posts:
        while not enough():
            cluster.lbctl("restart", "--no-wait")
            eventually("the release is over", lambda: enough() or not cluster.status()["release"])
    posts.check()


# Nobody is available.


@pytest.fixture(scope="module")
def patient() -> Iterator[Cluster]:
    with running_cluster(app=APP, appservers={"servers": 2}, adaptor={"wait": 25}) as cluster:
        yield cluster


@pytest.mark.parametrize("name", SITES)
def test_a_restart_of_everything_costs_a_pause_and_no_error(patient: Cluster, name: str) -> None:
    cluster = patient
    (cluster.gates / "notes").unlink(missing_ok=True)
    site = cluster.site(name)
    gate = cluster.gate()
    visitor = site.visitor()
    old = visitor.count()["pid"]
    with ThreadPoolExecutor() as pool:
        at_work = pool.submit(ask, site, f"/note?gate={gate.name}", "POST", b"at-work")
        gate.reached()
        with Posts(site, visitors=4) as posts:
            eventually("visitors come", lambda: posts.done > 10 or posts.failures)
            cluster.order_to_stop()
            eventually("nobody takes visitors", lambda: not cluster.table().ok)
            gate.open()
            cluster.await_end()
            waiting = pool.submit(visitor.tell, "count")
            cluster.start()
            done = posts.done
            eventually("visitors go on", lambda: posts.done > done + 10 or posts.failures)
        told = waiting.result()
    visitor.close()
    assert (at_work.result().status_code, at_work.result().content) == (200, b"at-work")
    assert (told["visits"], told["lost"]) == (1, True)
    assert told["pid"] != old
    assert (posts.failures, posts.doubled(), posts.missing()) == ([], [], set())


def test_when_the_waiting_is_over_there_is_the_administrators_page(new_cluster: NewCluster) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 1}, adaptor={"wait": 0.1, "sorry_page": "sorry.html"})
    sites = [cluster.site(name) for name in SITES]
    page = cluster.folder / "sorry.html"
    assert {ask(site, "/plain").status_code for site in sites} == {200}
    cluster.order_to_stop()
    cluster.await_end()

    def sorry(site: Site) -> bytes:
        answer = ask(site, "/plain")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        return answer.content

    for site in sites:
        assert MEANING[503].encode() in sorry(site)
        assert f"sorry_page {page}: No such file or directory" in site.log()
    page.write_text("<h1>Back at noon – sorry</h1>")
    page.chmod(0o644)
    for site in sites:
        assert sorry(site) == "<h1>Back at noon – sorry</h1>".encode()
    page.write_text("<h1>Back at one</h1>")
    for site in sites:
        assert sorry(site) == b"<h1>Back at one</h1>"


@pytest.mark.parametrize(("key", "status", "times"), [(None, 502, 1), ("k-1", 200, 2)])
def test_a_post_with_an_idempotency_key_is_repeated_where_the_setting_says_so(
    new_cluster: NewCluster, key: str | None, status: int, times: int
) -> None:
    cluster = new_cluster(app=APP, appservers={"servers": 2}, adaptor={"repeat_idempotency_key": True})
    visitor, gate = cluster.site("embedded-debian").visitor(), cluster.gate()
    pid = visitor.count()["pid"]
    with ThreadPoolExecutor() as pool:
        headers = {"Idempotency-Key": key} if key else {}
        answer = pool.submit(visitor.get, f"note?gate={gate.name}", "POST", data=b"once", headers=headers)
        gate.reached()
        kill(pid)
        if key:
            gate.reached()
        gate.open()
        assert answer.result().status_code == status
    visitor.close()
    assert (cluster.gates / "notes").read_text().split() == ["once"] * times
    cluster.await_ok()

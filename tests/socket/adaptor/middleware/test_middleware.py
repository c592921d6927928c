"""The story of a request, the AppServers being scripted peers."""

from __future__ import annotations

import io
import os
import resource
import threading
from collections.abc import Callable

import pytest
from scripted import PATIENCE, ScriptedServer, Talk, answer, total
from stage import Site, cookies

from lbadaptor.adaptor.error_pages import RETRY_AFTER

Serve = Callable[..., ScriptedServer]
CHUNKED = "Transfer-Encoding: chunked"

# An answer comes.


def test_an_answer_is_passed_on_as_it_is(site: Site, serve: Serve) -> None:
    lines = ["Set-Cookie: sid=abc; Path=/", "Set-Cookie: __PRT__=t", "X-Foo: bar"]
    site.publish_servers(serve(answer(b"gone", "410 Gone", *lines)))
    got = site.ask()
    assert (got.status, got.reason, got.body) == (410, "Gone", b"gone")
    assert got.headers == [
        ("Set-Cookie", "sid=abc; Path=/"),
        ("Set-Cookie", "__PRT__=t"),
        ("X-Foo", "bar"),
        ("Content-Type", "text/plain"),
        ("Content-Length", "4"),
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", ["421 Misdirected Request", "500 Oops", "502 Bad", "503 Busy", "504 Slow"])
@pytest.mark.parametrize("held", [True, False])
def test_the_applications_own_421_and_5xx_are_answers(
    site: Site, serve: Serve, status: str, method: str, held: bool
) -> None:
    servers = [serve(default=answer(b"mine", status)) for _ in range(2)]
    entry, _ = site.publish_servers(*servers)
    got = site.ask(method, b"x" if method == "POST" else b"", **(cookies(entry.ticket) if held else {}))
    assert (f"{got.status} {got.reason}", got.body, got.get("Retry-After")) == (status, b"mine", None)
    assert total(*servers) == 1


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (answer(b"hello"), b"hello"),
        (answer(b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", framing=CHUNKED), b"hello!"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"hello"), b"hello"),
        (answer(b""), b""),
        (answer(b"x" * 1_000_000), b"x" * 1_000_000),
        (answer(b"h", "200 OK", f"X: {'x' * 60_000}"), b"h"),
    ],
    ids=["length", "chunked", "interim", "empty", "streamed", "large head"],
)
def test_an_answer_in_any_framing_and_the_connection_is_kept(
    site: Site, serve: Serve, data: bytes, body: bytes
) -> None:
    server = serve(data, data)
    site.publish_servers(server)
    for _ in range(2):
        got = site.ask()
        assert (got.status, got.body, got.get("Link")) == (200, body, None)
    assert server.connections == 1


def test_an_answer_that_ends_with_its_connection(site: Site, serve: Serve) -> None:
    def step(talk: Talk) -> None:
        talk.send(answer(b"hello", framing=""))
        talk.close()

    server = serve(step, step)
    site.publish_servers(server)
    assert [site.ask().body for _ in range(2)] == [b"hello"] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    ("method", "data", "status"),
    [
        ("HEAD", answer(b"", framing="Content-Length: 1000"), 200),
        ("HEAD", answer(b"", framing=CHUNKED), 200),
        ("GET", answer(b"", "204 No Content", framing="", kind=""), 204),
        ("GET", answer(b"", "304 Not Modified", "ETag: x", framing="", kind=""), 304),
    ],
)
def test_an_answer_without_body(site: Site, serve: Serve, method: str, data: bytes, status: int) -> None:
    server = serve(data, data)
    site.publish_servers(server)
    for _ in range(2):
        got = site.ask(method)
        assert (got.status, got.body) == (status, b"")
    assert server.connections == 1


def test_the_length_of_what_head_asks_about_is_passed_on(site: Site, serve: Serve) -> None:
    site.publish_servers(serve(answer(b"", framing="Content-Length: 1000")))
    with site.begin("HEAD") as got:
        assert got.get("Content-Length") == "1000"
        assert list(got.blocks) == []  # not one empty block, of which a server would make a length of 0


def test_an_answer_that_was_taken_over_goes_out_in_one_block(site: Site, serve: Serve) -> None:
    site.publish_servers(serve(answer(b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", framing=CHUNKED)))
    with site.begin() as got:
        assert list(got.blocks) == [b"hello!"]


def test_an_appserver_that_pauses_is_passed_on_event_by_event(site: Site, serve: Serve) -> None:
    seen = [threading.Event() for _ in range(3)]

    def step(talk: Talk) -> None:
        talk.send(answer(b"", framing=CHUNKED, kind="text/event-stream"))
        for number, event in enumerate(seen):
            talk.send(b"2\r\n%d\n\r\n" % number)
            assert event.wait(PATIENCE)
        talk.send(b"0\r\n\r\n")

    server = serve(step, answer())
    site.publish_servers(server)
    with site.begin() as got:
        assert got.get("Content-Type") == "text/event-stream"
        blocks = iter(got.blocks)
        for number, event in enumerate(seen):
            assert next(blocks) == b"%d\n" % number
            event.set()
        assert list(blocks) == []
    assert site.ask().status == 200
    assert server.connections == 1


def test_a_visitor_who_leaves_within_a_stream_frees_the_appserver(site: Site, serve: Serve) -> None:
    left = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"1\r\nx\r\n", framing=CHUNKED))
        if talk.connection.recv(1) == b"":
            left.set()
        talk.close()

    site.publish_servers(serve(step))
    with site.begin() as got:
        assert next(iter(got.blocks)) == b"x"
    assert left.wait(PATIENCE)


def test_a_server_that_refuses_the_headers_leaves_nothing_behind(site: Site, serve: Serve) -> None:
    server = serve(answer(b"x" * 2_000_000), answer())
    (entry,) = site.publish_servers(server)

    def start_response(status: str, headers: object) -> None:
        raise ValueError("bad header")

    with pytest.raises(ValueError, match="bad header"):
        site.adaptor(
            {"REQUEST_METHOD": "GET", "SERVER_NAME": "x", "wsgi.input": io.BytesIO()},
            start_response,
        )
    assert site.adaptor.backends.load(entry).in_flight == 0


# What reaches the AppServer.


def test_nothing_a_visitor_sends_under_our_names_reaches_the_appserver(site: Site, serve: Serve) -> None:
    server = serve()
    site.publish_servers(server)
    forged = ("HTTP_LB_KEY", "HTTP_LB_PROBE", "HTTP_LB_SESSION", "HTTP_LB_REMOTE_USER", "HTTP_LB_VAR_HTTPS")
    site.ask(**dict.fromkeys(forged, "forged"))
    (request,) = server.requests
    assert "forged" not in [value for _, value in request.headers]
    assert request.get("LB-Session") == "none"
    assert request.get("LB-Probe") is None


@pytest.mark.parametrize("evil", ["a\r\nLB-Key: x", "a\nb", "a\rb", "a\0b"])
def test_a_line_break_in_a_header_is_a_400_and_no_appserver_is_asked(site: Site, serve: Serve, evil: str) -> None:
    server = serve()
    site.publish_servers(server)
    assert site.ask(HTTP_X_FOO=evil).status == 400
    assert server.connections == 0


@pytest.mark.parametrize("length", ["-1", "x", "1, 1", "9" * 5000])
def test_a_length_that_is_none_is_a_400(site: Site, serve: Serve, length: str) -> None:
    server = serve()
    site.publish_servers(server)
    assert site.ask("POST", b"x", valid=False, CONTENT_LENGTH=length).status == 400
    assert server.connections == 0


@pytest.mark.parametrize("size", [10, 200_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_any_size_arrives_whole(site: Site, serve: Serve, size: int, chunked: bool) -> None:
    site.configure(body_spool=1_000_000)
    server = serve()
    site.publish_servers(server)
    data = os.urandom(size)
    assert site.ask("POST", data, **({"HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {})).status == 200
    (request,) = server.requests
    assert request.body == data
    streamed = size > 1_000_000
    assert (request.get("Transfer-Encoding") == "chunked") is streamed
    assert request.get("Content-Length") == (None if streamed else str(size))
    assert request.get("LB-Content-Length") == (str(size) if streamed and not chunked else None)


def test_a_body_that_ends_early_is_a_400_and_no_appserver_is_asked(site: Site, serve: Serve) -> None:
    server = serve()
    site.publish_servers(server)
    assert site.ask("POST", b"short", CONTENT_LENGTH="50").status == 400
    assert server.connections == 0


def test_a_body_that_ends_early_while_it_is_streamed_is_not_whole_for_the_appserver(site: Site, serve: Serve) -> None:
    site.configure(body_spool=0)
    cut = threading.Event()

    def step(talk: Talk) -> None:
        with pytest.raises(ConnectionResetError, match="within the body"):
            talk.read_body()
        cut.set()
        talk.close()

    site.publish_servers(serve(step))
    assert site.ask("POST", b"x" * 500_000, CONTENT_LENGTH="600000").status == 400
    assert cut.wait(PATIENCE)


def test_a_full_disk_is_a_503_and_said(site: Site, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve()
    site.publish_servers(server)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # for any user, and no mount needed
    try:
        got = site.ask("POST", b"x" * 300_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert "503 POST /cart: keeping a request's body: File too large" in caplog.text
    assert server.connections == 0
    assert site.ask("POST", b"x" * 300_000).status == 200


def test_no_spool_folder_is_a_503(site: Site, serve: Serve) -> None:
    site.configure(spool_folder="/nonexistent")
    server = serve()
    site.publish_servers(server)
    assert site.ask("POST", b"x" * 100_000).status == 503
    assert server.connections == 0

"""The story of a request, the AppServers being scripted peers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import PATIENCE, ScriptedServer, Step, Talk, answer, hang_up, refusal, total
from stage import GENERATION, MASTER, Site, at_the_first_pause, cookies

from lbadaptor.adaptor.error_pages import RETRY_AFTER
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.contract.address import Address, Identity, State, Table, write
from lbadaptor.contract.errors import OurOwnFault
from lbadaptor.contract.ticket import Keys

Serve = Callable[..., ScriptedServer]
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def await_total(number: int, *servers: ScriptedServer) -> None:
    """Wait until so many requests came."""
    deadline = time.monotonic() + PATIENCE
    while total(*servers) < number:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def take(step: Step, talk: Talk) -> None:
    """A step as the server takes it, and then hang up."""
    if callable(step):
        step(talk)
    else:
        talk.read_body()
        talk.send(step)
        talk.close()


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


# Tickets.


def test_a_holder_gets_its_visitor_every_time(site: Site, serve: Serve) -> None:
    servers = [serve() for _ in range(3)]
    entries = site.publish_servers(*servers)
    for _ in range(10):
        assert site.ask(**cookies(entries[2].ticket)).status == 200
    assert [len(server.requests) for server in servers] == [0, 0, 10]
    assert {request.get("LB-Session") for request in servers[2].requests} == {"held"}


def test_a_dying_holder_gets_its_visitor_and_no_other(site: Site, serve: Serve) -> None:
    dying, ok = serve(), serve()
    entry = site.entry(dying, 0, State.DYING)
    site.publish(entry, site.entry(ok, 1))
    site.ask(**cookies(entry.ticket))
    for _ in range(10):
        site.ask()
    assert [len(dying.requests), len(ok.requests)] == [1, 10]


def test_of_two_tickets_the_one_that_is_held_wins(site: Site, serve: Serve) -> None:
    servers = [serve() for _ in range(3)]
    entries = site.publish_servers(*servers)
    lost = site.keys.ticket(Identity(7, 7))
    for order in ([lost, "forged", entries[1].ticket], [entries[1].ticket, lost, "forged"]):
        site.ask(**cookies(*order))
    assert [request.get("LB-Session") for request in servers[1].requests] == ["held", "held"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "0.1763805600000.forged",
        f"0.1763805600000.{'A' * 43}",
        "\xe4\xf6\xfc",
        '"',
        "x" * 100_000,
        "0." * 10_000,
        "=;=;__PRT__==",
        Keys(["x" * 48]).ticket(Identity(0, 1763805600000)),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_cookie_that_is_forged_enormous_or_not_ascii_is_as_good_as_none(
    site: Site, serve: Serve, value: str
) -> None:
    server = serve()
    site.publish_servers(server)
    assert site.ask(HTTP_COOKIE=f"__PRT__={value}").status == 200
    assert server.requests[0].get("LB-Session") == "none"


def test_a_ticket_of_an_older_key_still_counts(site: Site, serve: Serve) -> None:
    site.key_file.write_text(f"{MASTER}\n{'n' * 48}\n")
    server = serve()
    (entry,) = site.publish_servers(server)
    site.ask(**cookies(entry.ticket))
    site.ask(**cookies(site.keys.ticket(Identity(7, 7))))
    assert [request.get("LB-Session") for request in server.requests] == ["held", "lost"]
    assert server.requests[0].get("LB-Key") == site.keys.caller_key(entry.ticket)


def test_parallel_requests_of_a_visitor_without_holder_go_to_one_appserver(site: Site, serve: Serve) -> None:
    together = threading.Barrier(4)

    def step(talk: Talk) -> None:
        together.wait(PATIENCE)  # all four are at work at once
        talk.send(answer())

    servers = [serve(default=step) for _ in range(5)]
    site.publish_servers(*servers)
    lost = cookies(site.keys.ticket(Identity(7, 7)))
    threads = [threading.Thread(target=site.ask, kwargs=lost) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(server.requests) for server in servers) == [0, 0, 0, 0, 4]
    assert {request.get("LB-Session") for server in servers for request in server.requests} == {"lost"}


def test_without_a_session_cookie_the_ticket_of_a_visitor_without_holder_decides(site: Site, serve: Serve) -> None:
    servers = [serve(default=answer(b"%d" % slot)) for slot in range(3)]
    site.publish_servers(*servers)
    chosen = set()
    for generation in range(20):
        lost = {"HTTP_COOKIE": f"__PRT__={site.keys.ticket(Identity(7, generation))}"}
        bodies = {site.ask(**lost).body for _ in range(3)}
        assert len(bodies) == 1
        chosen |= bodies
    assert chosen == {b"0", b"1", b"2"}


def test_without_sessions_visitors_without_holder_are_spread_by_load(site: Site, serve: Serve) -> None:
    at_work, together = threading.Event(), threading.Barrier(2)

    def step(talk: Talk) -> None:
        at_work.set()
        together.wait(PATIENCE)
        talk.send(answer())

    servers = [serve(default=step) for _ in range(2)]
    site.configure_affinity()
    site.publish_servers(*servers)
    lost = cookies(site.keys.ticket(Identity(7, 7)))
    first = threading.Thread(target=site.ask, kwargs=lost)
    first.start()
    assert at_work.wait(PATIENCE)
    assert site.ask(**lost).status == 200
    first.join()
    assert [len(server.requests) for server in servers] == [1, 1]
    assert {request.get("LB-Session") for server in servers for request in server.requests} == {"lost"}


def test_the_adaptor_sets_and_deletes_no_cookie(site: Site, serve: Serve, refusing_address: Address) -> None:
    site.publish_servers(serve())
    for ticket in ("forged", site.keys.ticket(Identity(7, 7))):
        assert site.ask(**cookies(ticket)).get("Set-Cookie") is None
    site.publish()
    assert site.ask(**cookies("forged")).get("Set-Cookie") is None


# Files.


def test_a_missing_key_file_is_a_503_until_it_is_there(site: Site, serve: Serve) -> None:
    site.publish_servers(serve())
    site.key_file.unlink()
    assert site.ask().status == 503
    assert site.ask(**cookies(site.keys.ticket(Identity(7, 7)))).status == 503
    site.key_file.write_text(f"{MASTER}\n")
    assert site.ask().status == 200


@pytest.mark.parametrize("text", [None, "", "# address.text 1 · serial 1 · entries 0\n", "nonsense\n", "cut off"])
def test_no_table_or_an_empty_one_is_a_503_until_it_is_mended(site: Site, serve: Serve, text: str | None) -> None:
    site.configure(wait=0.0)
    if text is not None:
        site.publish_text(text)
    got = site.ask("POST", b"x")
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    site.publish_servers(serve())
    assert site.ask().status == 200


def test_a_malformed_table_leaves_the_last_good_one(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 0.0)
    old, new = serve(), serve()
    site.publish_servers(old)
    assert site.ask().status == 200
    whole = write(Table(9, (site.entry(new, 1),)), "test", "now")
    site.publish_text(whole[:-20])
    for _ in range(3):
        assert site.ask().status == 200
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert "address.text, line 3:" in said[0]
    assert (total(old), total(new)) == (4, 0)
    site.publish_text(whole)
    assert site.ask().status == 200
    assert (total(old), total(new)) == (4, 1)


def test_a_request_waits_for_a_table_that_names_an_appserver(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    site.publish()
    server = serve()
    at_the_first_pause(monkeypatch, lambda: site.publish_servers(server))
    assert site.ask("POST", b"x").status == 200


def test_only_so_many_requests_wait(site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    site.configure(wait=PATIENCE, waiters=1)
    site.publish()
    server = serve()
    others: list[int] = []

    def meanwhile() -> None:
        others.append(site.ask().status)
        site.publish_servers(server)

    at_the_first_pause(monkeypatch, meanwhile)
    assert site.ask().status == 200
    assert others == [503]
    site.publish()
    at_the_first_pause(monkeypatch, lambda: site.publish_servers(server))
    assert site.ask().status == 200  # the one that waited has made room again


# Nobody there, refused, busy.


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_that_refuses_connections_is_passed_over(
    site: Site, serve: Serve, refusing_address: Address, method: str
) -> None:
    server = serve()
    site.publish_servers(refusing_address, server)
    for _ in range(10):
        assert site.ask(method, b"x" if method == "POST" else b"").status == 200
    assert total(server) == 10


def test_a_holder_that_refuses_connections_twice_is_lost(site: Site, serve: Serve, refusing_address: Address) -> None:
    server = serve()
    gone, _ = site.publish_servers(refusing_address, server)
    assert site.ask("POST", b"x", **cookies(gone.ticket)).status == 200
    assert server.requests[0].get("LB-Session") == "lost"


def test_a_holder_that_refuses_a_connection_once_keeps_its_visitor(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends

    holder, other = serve(), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, refusals = backends.connect, [ConnectionRefusedError(111, "Connection refused")]

    def connect_later(*args: object) -> socket.socket:
        if refusals:
            raise refusals.pop()
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_later)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert (total(holder), total(other)) == (1, 0)
    assert holder.requests[0].get("LB-Session") == "held"


def test_being_busy_before_does_not_count_as_having_refused_a_connection(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends

    def busy(talk: Talk) -> None:
        talk.send(refusal("BUSY").replace(b"LB-Refused", b"Connection: close\r\nLB-Refused"))
        talk.close()

    holder, other = serve(busy), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, calls = backends.connect, []

    def connect_the_second_time_in_vain(*args: object) -> socket.socket:
        calls.append(args)
        if len(calls) == 2:
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_the_second_time_in_vain)
    assert site.ask(**cookies(entry.ticket)).status == 200
    assert (total(holder), total(other)) == (2, 0)


@pytest.mark.parametrize("kind", ["STALE", "DYING", "BUSY", "INCOMPLETE", "KEY"])
@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300_000])
def test_what_is_refused_is_served_elsewhere_whatever_the_method(
    site: Site, serve: Serve, kind: str, body: bytes
) -> None:
    refusing, server = serve(default=refusal(kind)), serve()
    site.publish_servers(refusing, server)
    for _ in range(8):
        got = site.ask("POST", body)
        assert (got.status, got.body) == (200, b"hello")
    assert {request.body for request in server.requests} == {body}
    assert total(server) == 8
    assert total(refusing) > 0


@pytest.mark.parametrize("kind", ["STALE", "DYING", "INCOMPLETE", "KEY"])
def test_what_its_holder_refuses_is_served_elsewhere_as_lost(site: Site, serve: Serve, kind: str) -> None:
    holder, other = serve(default=refusal(kind)), serve()
    entry, _ = site.publish_servers(holder, other)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert [request.get("LB-Session") for request in holder.requests] == ["held"]
    assert [request.get("LB-Session") for request in other.requests] == ["lost"]


def test_a_busy_holder_is_asked_again_until_it_has_time(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    holder, other = serve(refusal("BUSY"), refusal("BUSY"), answer()), serve()
    entry, _ = site.publish_servers(holder, other)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert [request.get("LB-Session") for request in holder.requests] == ["held"] * 3
    assert total(other) == 0


def test_a_holder_that_stays_busy_is_a_503_and_the_session_is_not_moved(site: Site, serve: Serve) -> None:
    site.configure(wait=0.12)
    holder, other = serve(default=refusal("BUSY")), serve()
    entry, _ = site.publish_servers(holder, other)
    got = site.ask(**cookies(entry.ticket))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert total(holder) > 1
    assert total(other) == 0


def test_a_busy_holder_that_leaves_the_table_is_lost(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    holder, other = serve(default=refusal("BUSY")), serve()
    entry, left = site.publish_servers(holder, other)
    at_the_first_pause(monkeypatch, lambda: site.publish(left))
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert other.requests[0].get("LB-Session") == "lost"


def test_when_all_refuse_each_is_asked_once_and_then_it_is_a_503(site: Site, serve: Serve) -> None:
    servers = [serve(default=refusal("DYING")) for _ in range(3)]
    site.publish_servers(*servers)
    got = site.ask("POST", b"x")
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert [len(server.requests) for server in servers] == [1, 1, 1]


@pytest.mark.parametrize("ticket", ["none", "lost"])
def test_when_all_are_busy_they_are_asked_again(site: Site, serve: Serve, ticket: str) -> None:
    site.configure(wait=PATIENCE)
    busy = refusal("BUSY")
    servers = [serve(busy, busy, default=answer()) for _ in range(3)]
    site.publish_servers(*servers)
    lost = {} if ticket == "none" else cookies(site.keys.ticket(Identity(7, 1)))
    got = site.ask("POST", b"x", **lost)
    assert (got.status, got.body) == (200, b"hello")
    assert sorted(len(server.requests) for server in servers) in ([2, 2, 3], [2, 2, 2])


def test_who_stays_busy_is_asked_until_the_time_is_over_and_is_a_503(site: Site, serve: Serve) -> None:
    servers = [serve(default=refusal("BUSY")) for _ in range(2)]
    site.publish_servers(*servers)
    began = time.monotonic()
    assert site.ask().status == 503
    assert time.monotonic() - began >= 0.3  # the setting `wait`
    assert min(len(server.requests) for server in servers) > 1


def test_the_one_repetition_is_not_for_another_that_was_killed_along_with_the_first(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, too, left = serve(default=hang_up), serve(default=hang_up), serve()
    *_, entry = site.publish_servers(killed, too, left)
    site.publish_servers(killed, too)
    at_the_first_pause(monkeypatch, lambda: site.publish(entry))
    assert site.ask().status == 200
    assert total(killed, too) == 1


@pytest.mark.parametrize("held", [True, False], ids=["held", "new"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_killed_process_that_still_accepts_connections_costs_no_request(
    site: Site, serve: Serve, method: str, held: bool
) -> None:
    """However long it takes to end: what it has not read never began."""
    site.configure(connect_timeout=PATIENCE)
    path = site.settings.unix_socket(0)
    os.mkdir(os.path.dirname(path))
    asked = 0
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        listener.listen()

        def end_slowly() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    with listener.accept()[0] as connection:
                        asked += bool(connection.recv(1, socket.MSG_PEEK))

        pool.submit(end_slowly)
        left = serve()
        dying = site.entry(Address("127.0.0.1", 1))
        site.publish(dying, site.entry(left, 1, weight=0))  # a standby: the other is asked first
        assert site.ask(method, **cookies(dying.ticket) if held else {}).status == 200
        listener.shutdown(socket.SHUT_RDWR)
    assert total(left) == 1
    assert asked == (2 if held else 1)


def test_a_refusal_that_comes_while_all_that_was_sent_is_kept_is_repeated_elsewhere(site: Site, serve: Serve) -> None:
    site.configure(body_memory=1000, body_spool=16_000_000)  # more than the buffers of a connection

    def refuse(talk: Talk) -> None:
        talk.send(refusal("DYING"))
        talk.read_body()

    refusing, server = serve(refuse), serve()
    entry, _ = site.publish_servers(refusing, server)
    data = bytes(range(256)) * 66_000
    assert site.ask("POST", data, **cookies(entry.ticket)).status == 200
    assert [request.body == data for request in server.requests] == [True]


def test_a_refusal_that_comes_later_is_a_503(site: Site, serve: Serve) -> None:
    site.configure(body_memory=1000, body_spool=0)

    def refuse(talk: Talk) -> None:
        talk.read_body()
        talk.send(refusal("DYING"))

    refusing, server = serve(refuse), serve()
    entry, _ = site.publish_servers(refusing, server)
    assert site.ask("POST", b"x" * 300_000, **cookies(entry.ticket)).status == 503
    assert total(server) == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory")])
@pytest.mark.parametrize(
    "place", ["lbadaptor.adaptor.pool.Connection.recv", "lbadaptor.adaptor.pool.Connection.ready"]
)
def test_when_memory_runs_out_it_is_a_503_and_goes_on_afterwards(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, error: BaseException, place: str
) -> None:
    server = serve(default=answer(b"5\r\nhello\r\n0\r\n\r\n", framing=CHUNKED))
    (entry,) = site.publish_servers(server)
    assert site.ask().status == 200

    def fail(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, fail, raising=False)
        got = site.ask("POST", b"x")
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert "503 POST /cart" in caplog.text
    assert site.adaptor.backends.load(entry).in_flight == 0
    assert site.ask().body == b"hello"


def test_a_shortage_of_the_adaptor_is_a_503_and_no_failure_of_an_appserver(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def connect(*args: object) -> None:
        calls.append(args)
        raise OurOwnFault("connecting: Too many open files")

    servers = serve(), serve()
    entry, _ = site.publish_servers(*servers)
    with monkeypatch.context() as patch:
        patch.setattr("lbadaptor.adaptor.backends.connect", connect)
        for changes in ({}, cookies(entry.ticket)):
            got = site.ask(**changes)
            assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert len(calls) == 2
    assert site.ask(**cookies(entry.ticket)).status == 200


# No connection in time.


@pytest.fixture
def silent_address() -> Iterator[Address]:
    """An address where connections are neither taken nor refused: the queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield Address(*listener.getsockname())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_is_not_taken_in_time_is_tried_elsewhere(
    site: Site, serve: Serve, silent_address: Address, method: str
) -> None:
    site.configure(connect_timeout=0.1)
    server = serve()
    lost = site.keys.ticket(Identity(7, 7))
    site.publish_servers(silent_address, server)
    for changes in ({}, cookies("forged"), cookies(lost)):
        assert site.ask(method, b"x" if method == "POST" else b"", **changes).status == 200
    assert total(server) == 3


def test_a_holder_that_takes_no_connection_is_a_503_and_the_session_is_not_moved(
    site: Site, serve: Serve, silent_address: Address
) -> None:
    site.configure(connect_timeout=0.1, wait=0.25)
    other = serve()
    entry, _ = site.publish_servers(silent_address, other)
    began = time.monotonic()
    got = site.ask(**cookies(entry.ticket))
    assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert time.monotonic() - began >= 0.25
    assert total(other) == 0


def test_a_holder_that_takes_connections_again_keeps_its_visitor(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends
    from lbadaptor.adaptor.pool import ConnectTimeout

    site.configure(wait=PATIENCE)
    holder, other = serve(), serve()
    entry, _ = site.publish_servers(holder, other)
    connect, timeouts = backends.connect, [ConnectTimeout("no connection")] * 2

    def connect_later(*args: object) -> socket.socket:
        if timeouts:
            raise timeouts.pop()
        return connect(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "connect", connect_later)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert (holder.requests[0].get("LB-Session"), total(other)) == ("held", 0)


# FAILING.


def test_a_failing_appserver_gets_no_new_visitors(site: Site, serve: Serve) -> None:
    failing, ok = serve(), serve()
    site.publish(site.entry(failing, 0, State.FAILING), site.entry(ok, 1))
    for _ in range(10):
        site.ask()
    assert (total(failing), total(ok)) == (0, 10)


class Hanging:
    """What an AppServer does that answers no request before it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.arrived = threading.Semaphore(0)
        """released for each request"""

    def __call__(self, talk: Talk) -> None:
        self.arrived.release()
        assert self.go.wait(PATIENCE)
        talk.send(answer())


def test_only_a_few_wait_for_a_failing_holder_the_rest_get_a_503_at_once(site: Site, serve: Serve) -> None:
    site.configure(wait=PATIENCE)
    hanging = Hanging()
    failing, other = serve(default=hanging), serve()
    entry = site.entry(failing, 0, State.FAILING)
    site.publish(entry, site.entry(other, 1))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(site.ask(**cookies(entry.ticket)).status)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        assert hanging.arrived.acquire(timeout=PATIENCE)
    for _ in range(5):
        got = site.ask(**cookies(entry.ticket))
        assert (got.status, got.get("Retry-After")) == (503, str(RETRY_AFTER))
    assert site.ask().status == 200
    hanging.go.set()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert total(failing) == 2
    assert site.ask(**cookies(entry.ticket)).status == 200


def test_a_holder_that_is_failing_when_the_table_names_it_again_gets_only_a_few(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(wait=PATIENCE)
    hanging = Hanging()
    failing = serve(default=hanging)
    entry = site.entry(failing, 0, State.FAILING)
    threads = [threading.Thread(target=lambda: site.ask(**cookies(entry.ticket))) for _ in range(2)]

    def meanwhile() -> None:
        site.publish(entry)
        for thread in threads:
            thread.start()
            assert hanging.arrived.acquire(timeout=PATIENCE)

    site.publish()
    at_the_first_pause(monkeypatch, meanwhile)
    assert site.ask(**cookies(entry.ticket)).status == 503
    hanging.go.set()
    for thread in threads:
        thread.join()
    assert total(failing) == 2


# Lost on the way.


@pytest.mark.parametrize(
    "step",
    [
        hang_up,
        lambda talk: talk.reset(),
        b"garbage\r\n\r\n",
        lambda talk: (talk.send(b"HTTP/1.1 200 OK\r\n"), talk.close()),
        lambda talk: (talk.send(answer(b"half", framing="Content-Length: 8")), talk.close()),
        lambda talk: (talk.send(answer(b"9\r\nhalf", framing=CHUNKED)), talk.close()),
    ],
    ids=["hung up", "reset", "garbage", "half a head", "half a body", "half a chunk"],
)
class TestLost:
    @pytest.mark.parametrize("method", ["GET", "OPTIONS", "TRACE", "PUT", "DELETE"])
    def test_what_may_be_repeated_is_repeated_elsewhere(
        self, site: Site, serve: Serve, step: Step, method: str
    ) -> None:
        def crash(talk: Talk) -> None:
            site.publish(crashing, site.entry(other, 1))
            take(step, talk)

        server, other = serve(crash), serve()
        crashing = site.entry(server, 0)
        site.publish(crashing)
        assert site.ask(method, b"x" * 100_000 if method == "PUT" else b"").status == 200
        assert (total(server), total(other)) == (1, 1)

    @pytest.mark.parametrize("method", ["POST", "PATCH", "PURGE"])
    def test_what_may_not_be_repeated_is_a_502(self, site: Site, serve: Serve, step: Step, method: str) -> None:
        servers = serve(default=step), serve(default=step)
        site.publish_servers(*servers)
        assert site.ask(method, b"x", valid=False).status == 502
        assert total(*servers) == 1

    def test_a_request_that_crashes_its_process_does_not_run_through_all(
        self, site: Site, serve: Serve, step: Step
    ) -> None:
        servers = [serve(default=step) for _ in range(4)]
        site.publish_servers(*servers)
        assert site.ask().status == 502
        assert total(*servers) == 2

    def test_a_holder_that_is_gone_then_is_lost(self, site: Site, serve: Serve, step: Step) -> None:
        def crash(talk: Talk) -> None:
            site.publish(left)
            take(step, talk)

        crashing, other = serve(crash), serve()
        gone, left = site.entry(crashing, 0), site.entry(other, 1)
        site.publish(gone, left)
        assert site.ask(**cookies(gone.ticket)).status == 200
        assert [request.get("LB-Session") for request in other.requests] == ["lost"]

    def test_a_holder_that_is_still_there_is_asked_again(self, site: Site, serve: Serve, step: Step) -> None:
        holder, other = serve(step), serve()
        entry, _ = site.publish_servers(holder, other)
        assert site.ask(**cookies(entry.ticket)).status == 200
        assert [request.get("LB-Session") for request in holder.requests] == ["held", "held"]
        assert total(other) == 0

    def test_if_there_is_no_other_the_same_appserver_is_asked_again(
        self, site: Site, serve: Serve, step: Step
    ) -> None:
        server = serve(step)
        site.publish_servers(server)
        assert site.ask().status == 200
        assert total(server) == 2


class Mortal:
    """AppServers that die of a request, each replaced by another in its slot."""

    def __init__(self, site: Site, serve: Serve) -> None:
        self.deaths = 0
        self.deadly = True
        self._site = site
        self._servers = [serve(default=self._step(slot)) for slot in range(4)]
        self._lives = [0] * 4
        self._lock = threading.Lock()
        self._publish()

    def _publish(self) -> None:
        self._site.publish(
            *(
                self._site.entry(server, slot, generation=GENERATION + 10 * self._lives[slot])
                for slot, server in enumerate(self._servers)
            )
        )

    def _step(self, slot: int) -> Step:
        def step(talk: Talk) -> None:
            talk.read_body()
            if not self.deadly or talk.request.line.startswith("GET /safe"):
                talk.send(answer())
                return
            with self._lock:
                self.deaths += 1
                self._lives[slot] += 1
                self._publish()
            talk.close()

        return step


def test_a_request_that_ends_two_is_not_repeated_any_more_and_at_five_it_is_refused(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.circuit_breaker.TOGETHER_SECONDS", 0.0)
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 0.0)
    mortal = Mortal(site, serve)
    assert site.ask(PATH_INFO="/deadly", QUERY_STRING="token=x").status == 502
    assert mortal.deaths == 2
    for deaths in (3, 4, 5):
        assert site.ask(PATH_INFO="/deadly", QUERY_STRING="token=x").status == 502
        assert mortal.deaths == deaths
    got = site.ask(PATH_INFO="/deadly", QUERY_STRING="token=x")
    assert (got.status, got.get("Retry-After"), mortal.deaths) == (503, str(RETRY_AFTER), 5)
    assert site.ask(PATH_INFO="/safe").status == 200
    assert "GET /deadly: 2 AppServers in a row died at work on such a request" in caplog.text
    assert "503 GET /deadly: refused: 5 AppServers" in caplog.text
    assert "token" not in caplog.text
    monkeypatch.setattr("lbadaptor.adaptor.circuit_breaker.OPEN_SECONDS", 0.0)
    assert site.ask(PATH_INFO="/deadly").status == 502  # one is let through
    assert mortal.deaths == 6
    mortal.deadly = False
    for _ in range(3):
        assert site.ask(PATH_INFO="/deadly", QUERY_STRING="token=x").status == 200
    assert not site.adaptor.circuit_breaker.deaths


def test_appservers_that_are_killed_one_after_the_other_cost_no_request(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has such a request since before the first one died: it is not that of which they die."""
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 0.0)
    dies, answers = [threading.Event() for _ in range(4)], threading.Event()

    def held(dies: threading.Event) -> Step:
        def step(talk: Talk) -> None:
            talk.read_body()
            dies.wait(PATIENCE)
            talk.close()

        return step

    def slow(talk: Talk) -> None:
        talk.read_body()
        answers.wait(PATIENCE)
        talk.send(answer())

    mortals, heir = [serve(held(event)) for event in dies], serve(default=slow)
    asked = []
    with ThreadPoolExecutor(len(mortals)) as visitors:
        for slot, mortal in enumerate(mortals):
            site.publish(site.entry(mortal, slot))
            asked.append(visitors.submit(site.ask))
            await_total(1, mortal)
        site.publish(site.entry(heir, len(mortals)))
        for number, event in enumerate(dies):
            event.set()
            await_total(number + 1, heir)
        answers.set()
    assert [got.result().status for got in asked] == [200] * len(mortals)


@pytest.mark.parametrize(("lasting", "forgotten"), [(0.0, True), (60.0, False)], ids=["long", "at once"])
def test_a_stream_that_the_visitor_leaves_after_some_time_is_an_answer(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch, lasting: float, forgotten: bool
) -> None:
    """Events have no end that could tell that nobody dies of them."""
    monkeypatch.setattr("lbadaptor.adaptor.circuit_breaker.STREAM_SECONDS", lasting)

    def events(talk: Talk) -> None:
        talk.send(answer(b"1\r\nx\r\n", framing=CHUNKED))
        talk.connection.recv(1)
        talk.close()

    site.publish_servers(serve(hang_up, events))
    with site.begin(valid=False) as got:
        for block in got.blocks:
            assert block == b"x"
            assert site.adaptor.circuit_breaker.deaths
            break
    assert bool(site.adaptor.circuit_breaker.deaths) is not forgotten


def test_a_post_that_ends_five_is_refused_too(site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.circuit_breaker.TOGETHER_SECONDS", 0.0)
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 0.0)
    mortal = Mortal(site, serve)
    statuses = [site.ask("POST", b"x").status for _ in range(7)]
    assert statuses == [502] * 5 + [503] * 2
    assert mortal.deaths == 5


def test_each_one_that_was_killed_from_outside_costs_its_visitors_nothing(site: Site, serve: Serve) -> None:
    """As often as it happens: in between, others were answered."""
    mortal = Mortal(site, serve)
    for round_ in range(1, 8):
        mortal.deadly = True
        at_death = mortal.deaths

        def revive(at_death: int = at_death) -> None:
            while mortal.deaths == at_death:
                time.sleep(0.001)
            mortal.deadly = False

        thread = threading.Thread(target=revive)
        thread.start()
        assert site.ask().status == 200
        thread.join()
        assert mortal.deaths == round_


def test_what_another_lane_has_lost_is_asked_once_and_not_repeated(site: Site, serve: Serve) -> None:
    servers = [serve(default=hang_up) for _ in range(3)]
    site.publish_servers(*servers)
    assert site.ask(valid=False, **{"lbadaptor.asked_once": True}).status == 502
    assert total(*servers) == 1


def stay(data: bytes) -> Step:
    """Answer, send no more, and stay: the AppServer lives."""

    def step(talk: Talk) -> None:
        talk.read_body()
        talk.send(data)
        talk.connection.shutdown(socket.SHUT_WR)
        while talk.connection.recv(1000):
            pass
        talk.close()

    return step


@pytest.mark.parametrize(
    "step",
    [
        stay(answer(b"half", framing="Content-Length: 8")),
        stay(answer(b"", framing="Content-Length: 5")),
        stay(answer(b"9\r\nhalf", framing=CHUNKED)),
        stay(b"HTTP/1.1 200 OK\r\n"),
        stay(b""),
        answer(framing="Content-Length: x"),
        answer(b"", "200 OK", "Location: /to/\x7fa"),
        answer(b"", "200 OK", "a b: c"),
        answer(b"", "200 O\x01K"),
        answer(b"", "101 Switching Protocols"),
        answer(b"h", "200 OK", f"X: {'x' * 2_000_000}"),
    ],
    ids=[
        *("half a body", "no byte", "half a chunk", "half a head", "no head", "bad length", "control character"),
        *("bad name", "bad reason", "another protocol", "huge head"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("held", [True, False])
def test_what_a_living_appserver_did_wrong_is_a_502_and_is_not_repeated(
    site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, step: Step, method: str, held: bool
) -> None:
    servers = [serve(default=step) for _ in range(2)]
    entry, _ = site.publish_servers(*servers)
    got = site.ask(method, b"" if method == "GET" else b"x", **(cookies(entry.ticket) if held else {}))
    assert got.status == 502
    assert total(*servers) == 1
    assert f"502 {method} /cart: AppServer" in caplog.text


@pytest.mark.parametrize("name", ["LB-Status", "LB_Status", "lb_status", "Lb_X", "LB-X", "lb-", "LB-Moved-To"])
def test_no_name_that_passes_for_ours_reaches_the_visitor(site: Site, serve: Serve, name: str) -> None:
    site.publish_servers(serve(answer(b"", "200 OK", f"{name}: OK")))
    assert [key for key, _ in site.ask().headers if key.lower().startswith("lb")] == []


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_key_makes_it_repeatable_where_the_setting_says_so(site: Site, serve: Serve, method: str) -> None:
    site.configure(repeat_idempotency_key=True)
    server = serve(hang_up, answer(), hang_up, hang_up, hang_up)
    site.publish_servers(server)
    assert site.ask(method, b"x", HTTP_IDEMPOTENCY_KEY="k").status == 200
    assert [request.get("Idempotency-Key") for request in server.requests] == ["k", "k"]
    assert site.ask(method, b"x", HTTP_IDEMPOTENCY_KEY="k").status == 502  # only once
    assert total(server) == 4
    assert site.ask(method, b"x", HTTP_IDEMPOTENCY_KEY="").status == 502
    assert total(server) == 5


def test_a_key_counts_for_nothing_without_the_setting(site: Site, serve: Serve) -> None:
    server = serve(hang_up)
    site.publish_servers(server)
    assert site.ask("POST", b"x", HTTP_IDEMPOTENCY_KEY="k").status == 502
    assert total(server) == 1


def test_head_is_repeated_too(site: Site, serve: Serve) -> None:
    server = serve(hang_up, answer(b""))
    site.publish_servers(server)
    assert site.ask("HEAD").status == 200
    assert total(server) == 2


def test_a_kept_connection_that_was_closed_is_not_used(site: Site, serve: Serve) -> None:
    closed = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer())
        talk.close()
        closed.set()

    server = serve(step)
    site.publish_servers(server)
    assert site.ask().status == 200
    assert closed.wait(PATIENCE)
    assert site.ask("POST", b"x").status == 200
    assert (server.connections, total(server)) == (2, 2)


def test_a_kept_connection_that_is_closed_under_the_request(site: Site, serve: Serve) -> None:
    server = serve(answer(), hang_up, answer(), hang_up)
    site.publish_servers(server)
    assert [site.ask().status for _ in range(2)] == [200, 200]  # the second one was repeated
    assert site.ask("POST", b"x").status == 502
    assert total(server) == 4


def test_a_stall_is_a_504_and_is_not_repeated(site: Site, serve: Serve) -> None:
    site.configure(answer_timeout=0.15)
    done = threading.Event()

    def stall(talk: Talk) -> None:
        done.wait(PATIENCE)
        talk.close()

    servers = serve(default=stall), serve(default=stall)
    site.publish_servers(*servers)
    assert site.ask().status == 504
    done.set()
    assert total(*servers) == 1


@pytest.mark.parametrize("end", [Talk.close, Talk.reset])
def test_an_answer_that_breaks_off_when_part_of_it_was_passed_on_cuts_the_visitor(
    site: Site, serve: Serve, end: Callable[[Talk], None]
) -> None:
    go = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"half", framing="Content-Length: 8"))
        assert go.wait(PATIENCE)
        end(talk)

    server = serve(step)
    (entry,) = site.publish_servers(server)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as visitor,
    ):
        apache, (host, port) = listener.accept()
        with apache, site.begin(REMOTE_ADDR=host, REMOTE_PORT=str(port)) as got:
            blocks = iter(got.blocks)
            assert next(blocks) == b"half"
            go.set()
            assert list(blocks) == []
            visitor.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)
    assert site.adaptor.backends.load(entry).in_flight == 0
    assert total(server) == 1


def test_if_the_visitors_connection_is_out_of_reach_the_server_gets_an_exception(site: Site, serve: Serve) -> None:
    go = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"half", framing="Content-Length: 8"))
        assert go.wait(PATIENCE)
        talk.close()

    (entry,) = site.publish_servers(serve(step))
    with site.begin() as got:
        blocks = iter(got.blocks)
        assert next(blocks) == b"half"
        go.set()
        with pytest.raises(ExchangeFailed, match="missing bytes: 4"):
            next(blocks)
    assert site.adaptor.backends.load(entry).in_flight == 0


@pytest.mark.parametrize(("group", "expected"), [("", None), ("lbadaptor", "close")])
def test_in_daemon_mode_nothing_may_follow_an_answer_that_is_streamed(
    site: Site, serve: Serve, group: str, expected: str | None
) -> None:
    site.publish_servers(serve(answer(b"x" * 1_000_000), answer()))
    mode = {"mod_wsgi.process_group": group}
    assert site.ask(**mode).get("Connection") == expected
    assert site.ask(**mode).get("Connection") is None  # taken over in full


def test_nothing_is_in_flight_when_all_is_done(site: Site, serve: Serve, refusing_address: Address) -> None:
    server = serve(refusal("BUSY"), hang_up, b"garbage\r\n", answer(b"x" * 1_000_000), answer())
    entries = site.publish_servers(server, refusing_address)
    for _ in range(6):
        site.ask(**cookies(entries[0].ticket))
    site.ask("POST", b"x")
    assert [site.adaptor.backends.load(entry).in_flight for entry in entries] == [0, 0]


# Between two looks at address.text.


@pytest.fixture
def _no_other_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 1000.0)


@pytest.mark.usefixtures("_no_other_look")
def test_the_ticket_of_a_new_appserver_is_held(site: Site, serve: Serve) -> None:
    old, new = serve(), serve()
    site.publish_servers(old)
    assert site.ask().status == 200
    _, entry = site.publish_servers(old, new)
    assert site.ask("POST", b"x", **cookies(entry.ticket)).status == 200
    assert new.requests[0].get("LB-Session") == "held"


@pytest.mark.usefixtures("_no_other_look")
def test_who_left_just_now_is_asked_once_and_then_looked_for(
    site: Site, serve: Serve, refusing_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lbadaptor.adaptor import backends

    server, asked, connect = serve(), [], backends.connect

    def watched(address: Address, *rest: object) -> socket.socket:
        asked.append(address)
        return connect(address, *rest)  # type: ignore[arg-type]

    gone, _ = site.publish_servers(refusing_address, server)
    assert site.ask().status == 200
    site.publish_text(write(Table(9, (site.entry(server, 1),)), "test", "now"))
    monkeypatch.setattr(backends, "connect", watched)
    assert site.ask("POST", b"x", **cookies(gone.ticket)).status == 200
    assert server.requests[-1].get("LB-Session") == "lost"
    assert asked.count(refusing_address) == 1


@pytest.mark.usefixtures("_no_other_look")
def test_address_text_is_read_again_before_a_503_says_that_no_appserver_is_available(
    site: Site, serve: Serve
) -> None:
    site.configure(wait=0.0)
    site.publish_servers()
    assert site.ask().status == 503
    site.publish_servers(serve())
    assert site.ask().status == 200

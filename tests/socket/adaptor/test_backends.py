from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from scripted import ScriptedServer, Step, Talk, answer, hang_up, refusal
from stage import GENERATION, MASTER, Site

from lbadaptor.adaptor.backends import Backends, BufferedResponse
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.adaptor.pool import ConnectTimeout
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import EMPTY, Body, VisitorGone
from lbadaptor.contract.address import Address, Entry, Given, Identity, Table, write
from lbadaptor.contract.errors import KeyFileError, OurOwnFault
from lbadaptor.contract.generation import with_number
from lbadaptor.contract.ticket import Keys, Verdict

Serve = Callable[..., ScriptedServer]
COMMON = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def backends(site: Site) -> Iterator[Backends]:
    backends = Backends(site.settings)
    yield backends
    site.publish()
    backends.table()  # nobody in it: the idle connections are closed


def ask(backends: Backends, entry: Entry, body: Body = EMPTY, verdict: Verdict = Verdict.NONE) -> BufferedResponse:
    common = COMMON if body is EMPTY else COMMON + b"Transfer-Encoding: chunked\r\n"
    return backends.ask(entry, "GET", common, verdict, body, backends.table().serial)


def test_an_appserver_gets_its_own_key_its_generation_and_the_verdict(
    backends: Backends, site: Site, serve: Serve
) -> None:
    server = serve()
    (entry,) = site.publish_servers(server)
    ask(backends, entry, verdict=Verdict.LOST).close()
    request = server.requests[0]
    assert request.get("LB-Key") == site.keys.caller_key(entry.ticket)
    assert request.get("LB-Generation") == str(entry.identity.generation)
    assert request.get("LB-Session") == "lost"


def test_a_connection_is_kept_for_the_next_request(backends: Backends, site: Site, serve: Serve) -> None:
    server = serve(answer(), refusal("BUSY"), answer())
    (entry,) = site.publish_servers(server)
    ask(backends, entry).close()
    with pytest.raises(ExchangeFailed):
        ask(backends, entry)
    ask(backends, entry).close()
    assert (server.connections, len(server.requests)) == (1, 3)


def test_another_life_in_the_same_slot_gets_connections_of_its_own(
    backends: Backends, site: Site, serve: Serve
) -> None:
    server = serve()
    for number, connections in ((0, 1), (1, 2), (1, 2)):
        entry = site.entry(server, generation=GENERATION + number)
        site.publish(entry)
        ask(backends, entry).close()
        assert server.connections == connections


def test_a_connection_is_not_kept_when_its_answer_was_not_read_to_its_end(
    backends: Backends, site: Site, serve: Serve
) -> None:
    server = serve(answer(b"x" * 2_000_000))
    (entry,) = site.publish_servers(server)
    ask(backends, entry).close()
    ask(backends, entry).close()
    assert server.connections == 2


def test_closing_twice_counts_once(backends: Backends, site: Site, serve: Serve) -> None:
    (entry,) = site.publish_servers(serve(answer(b"x" * 2_000_000)))
    backends.table()
    buffered = ask(backends, entry)
    assert backends.load(entry).in_flight == 1
    buffered.close()
    buffered.close()
    assert backends.load(entry).in_flight == 0


def test_an_answer_that_was_taken_over_in_full_needs_no_closing(backends: Backends, site: Site, serve: Serve) -> None:
    server = serve()
    (entry,) = site.publish_servers(server)
    for _ in range(2):
        assert ask(backends, entry).response.complete
        assert backends.load(entry).in_flight == 0
    assert server.connections == 1


@pytest.mark.parametrize(
    ("step", "failure"),
    [
        (refusal("STALE"), Failure.STALE),
        (refusal("DYING"), Failure.DYING),
        (refusal("BUSY"), Failure.BUSY),
        (refusal("INCOMPLETE"), Failure.INCOMPLETE),
        (refusal("KEY"), Failure.FORBIDDEN),
        (refusal("WHIM"), Failure.NOT_HTTP),
        (hang_up, Failure.LOST),
        (lambda talk: talk.reset(), Failure.LOST),
        (b"garbage\r\n", Failure.NOT_HTTP),
        (answer(framing="Content-Length: x"), Failure.MALFORMED),
        (answer().replace(b"LB-Status: OK\r\n", b""), Failure.NOT_HTTP),  # a stranger on a dead one's port
    ],
)
def test_every_failure_is_named_and_leaves_nothing_behind(
    backends: Backends, site: Site, serve: Serve, step: Step, failure: Failure
) -> None:
    (entry,) = site.publish_servers(serve(step))
    backends.table()
    with pytest.raises(ExchangeFailed) as caught:
        ask(backends, entry)
    assert caught.value.failure is failure
    assert backends.load(entry).in_flight == 0


def test_a_port_without_listener_is_unreachable(backends: Backends, site: Site, refusing_address: Address) -> None:
    (entry,) = site.publish_servers(refusing_address)
    backends.table()
    with pytest.raises(ExchangeFailed) as caught:
        ask(backends, entry)
    assert caught.value.failure is Failure.UNREACHABLE
    assert backends.load(entry).in_flight == 0


def test_a_shortage_of_ours_blames_no_appserver(
    backends: Backends, site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = site.publish_servers(serve())
    backends.table()

    def connect(*_: object) -> None:
        raise OurOwnFault("Too many open files")

    monkeypatch.setattr("lbadaptor.adaptor.backends.connect", connect)
    with pytest.raises(ExchangeFailed) as caught:
        ask(backends, entry)
    assert caught.value.failure is Failure.OURS
    assert backends.load(entry).in_flight == 0


def test_a_visitor_who_leaves_within_the_body_leaves_nothing_behind(
    backends: Backends, site: Site, serve: Serve
) -> None:
    def gone() -> Iterator[bytes]:
        yield b"x"
        raise VisitorGone("the body ended early")

    (entry,) = site.publish_servers(serve(lambda talk: talk.read_body()))
    backends.table()
    with pytest.raises(VisitorGone):
        ask(backends, entry, Body(b"x", None, gone()))
    assert backends.load(entry).in_flight == 0


def test_dying_is_heeded_until_a_newer_table_comes(backends: Backends, site: Site, serve: Serve) -> None:
    (entry,) = site.publish_servers(serve(answer().replace(b"LB-Status: OK", b"LB-Status: DYING")))
    assert backends.choose(backends.table(), ()) == entry
    ask(backends, entry).close()
    assert backends.choose(backends.table(), ()) is None
    site.publish(entry)
    assert backends.choose(backends.table(), ()) == entry


def test_an_appservers_word_on_its_load_is_heeded(backends: Backends, site: Site, serve: Serve) -> None:
    busy = serve(answer().replace(b"LB-Load: 1/8/5", b"LB-Load: 8/8/5"))
    entries = site.publish_servers(busy, serve())
    for entry in entries:
        ask(backends, entry).close()
    assert {backends.choose(backends.table(), ()) for _ in range(50)} == {entries[1]}


def test_a_choice_avoids_those_tried_the_standby_and_those_that_are_not_ok(
    backends: Backends, site: Site, refusing_address: Address
) -> None:
    entries = [site.entry(refusing_address._replace(port=port), port) for port in (1, 2)]
    standby = site.entry(refusing_address._replace(port=3), 3, weight=0)
    site.publish(*entries, standby)
    table = backends.table()
    assert {backends.choose(table, ()) for _ in range(50)} == set(entries)
    assert {backends.choose(table, (), f"visitor {number}") for number in range(50)} == set(entries)
    assert backends.choose(table, {entries[0].ticket}) == entries[1]
    assert backends.choose(table, {entry.ticket for entry in entries}) == standby
    assert backends.choose(table, {entry.ticket for entry in (*entries, standby)}) is None


def stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment for which somebody is avoided is not over before the test is."""
    now = time.monotonic()
    monkeypatch.setattr("lbadaptor.adaptor.backends.time.monotonic", lambda: now)


@pytest.mark.parametrize("how", [ConnectionRefusedError(111, "Connection refused"), ConnectTimeout("no connection")])
def test_who_cannot_be_connected_to_is_avoided_for_a_moment(
    backends: Backends, site: Site, refusing_address: Address, monkeypatch: pytest.MonkeyPatch, how: OSError
) -> None:
    def connect(*_: object) -> None:
        raise how

    monkeypatch.setattr("lbadaptor.adaptor.backends.connect", connect)
    stop_the_clock(monkeypatch)
    first, second = (site.entry(refusing_address._replace(port=port), port) for port in (1, 2))
    standby = site.entry(refusing_address._replace(port=3), 3, weight=0)
    site.publish(first, second, standby)
    table = backends.table()
    with pytest.raises(ExchangeFailed):
        ask(backends, first)
    assert {backends.choose(table, ()) for _ in range(50)} == {second}
    assert {backends.choose(table, (), f"visitor {number}") for number in range(50)} == {second}
    assert backends.choose(table, {second.ticket}) == standby
    assert backends.choose(table, {second.ticket, standby.ticket}) == first  # there is nobody else
    with pytest.raises(ExchangeFailed):
        ask(backends, second)
    assert backends.choose(table, ()) == standby
    until = backends.load(first).avoided_until
    monkeypatch.setattr("lbadaptor.adaptor.backends.time.monotonic", lambda: until)
    assert {backends.choose(table, {second.ticket}) for _ in range(50)} == {first}


def test_who_does_not_answer_in_time_is_avoided_for_a_moment(
    site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(answer_timeout=0.2)
    stop_the_clock(monkeypatch)
    backends = Backends(site.settings)
    silence = threading.Event()

    def silent(talk: Talk) -> None:
        silence.wait()

    entry, other = site.publish_servers(serve(silent), serve(answer(b"hello")))
    table = backends.table()
    with pytest.raises(ExchangeFailed) as raised:
        ask(backends, entry)
    silence.set()
    assert raised.value.failure is Failure.SILENT
    assert {backends.choose(table, ()) for _ in range(50)} == {other}


def test_an_adaptor_with_a_shortage_of_its_own_avoids_no_appserver(
    backends: Backends, site: Site, refusing_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise OurOwnFault("Too many open files")

    monkeypatch.setattr("lbadaptor.adaptor.backends.connect", connect)
    entry, other = (site.entry(refusing_address._replace(port=port), port) for port in (1, 2))
    site.publish(entry, other)
    table = backends.table()
    with pytest.raises(ExchangeFailed):
        ask(backends, entry)
    assert len({backends.choose(table, ()) for _ in range(50)}) == 2


def test_a_visitor_without_holder_gets_the_same_appserver_every_time(
    backends: Backends, site: Site, refusing_address: Address
) -> None:
    site.publish(*(site.entry(refusing_address._replace(port=port), port) for port in range(1, 9)))
    table = backends.table()
    assert len({backends.choose(table, (), "visitor") for _ in range(50)}) == 1
    assert len({backends.choose(table, (), f"visitor {number}") for number in range(50)}) > 4


def ask_then_add_key(backends: Backends, site: Site, server: ScriptedServer) -> Entry:
    """An AppServer was asked, so that the keys are known; then a new one comes. The AppServer's entry."""
    (entry,) = site.publish_servers(server)
    ask(backends, entry).close()
    site.keys = Keys(["m" * 48, "n" * 48])
    site.key_file.write_text(f"{'m' * 48}\n{'n' * 48}\n")
    return entry


def test_a_ticket_of_a_new_key_is_known_as_soon_as_an_appserver_has_it(
    backends: Backends, site: Site, serve: Serve
) -> None:
    server = serve()
    ask_then_add_key(backends, site, server)
    newer = site.entry(server, 1)
    site.publish(newer)
    ask(backends, newer).close()
    assert server.requests[-1].get("LB-Key") == site.keys.caller_key(newer.ticket)


def test_a_ticket_of_a_new_key_is_not_forged_where_no_appserver_of_that_key_was_asked(
    backends: Backends, site: Site, serve: Serve
) -> None:
    entry = ask_then_add_key(backends, site, serve())
    gone = site.keys.ticket(Identity(1, 5))
    assert backends.judge([gone], backends.table())[0] is Verdict.FORGED
    site.publish(entry, site.entry(serve(), 1))
    assert backends.judge([gone], backends.table())[0] is Verdict.LOST
    site.key_file.unlink()
    site.keys = Keys(["o" * 48])
    site.publish(entry, site.entry(serve(), 2))
    assert backends.judge([gone], backends.table())[0] is Verdict.LOST  # what was read before is still good


def test_a_table_with_a_ticket_that_is_not_ours_says_so_and_harms_no_other(
    backends: Backends, site: Site, serve: Serve
) -> None:
    server = serve()
    (ours,) = site.publish_servers(server)
    alien = Entry(Keys(["x" * 48]).ticket(Identity(1, 5)), server.address, ours.state, Identity(1, 5))
    site.key_file.unlink()
    with pytest.raises(KeyFileError):
        ask(backends, ours)
    site.key_file.write_text(f"{'m' * 48}\n")
    assert backends.judge([ours.ticket + "x", site.keys.ticket(Identity(9, 9))], backends.table())[0] is Verdict.LOST
    site.key_file.unlink()
    with pytest.raises(KeyFileError):
        ask(backends, alien)
    ask(backends, ours).close()  # what was read before is still good


def test_forged_tickets_are_logged_rarely(backends: Backends, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(150):
        assert backends.judge(["0.1.forged"], backends.table())[0] is Verdict.FORGED
    counts = [record.getMessage() for record in caplog.records if "forged tickets" in record.getMessage()]
    assert counts == [f"lbadaptor: forged tickets so far: {number}" for number in (1, 10, 100)]
    cures = [record.getMessage() for record in caplog.records if "give each its own" in record.getMessage()]
    assert len(cures) == 1
    assert "another application on this host name has the same ticket_cookie" in cures[0]
    assert "`__PRT__`" in cures[0]


def test_no_header_of_ours_or_of_the_connection_reaches_the_visitor(
    backends: Backends, site: Site, serve: Serve
) -> None:
    lines = ["Connection: keep-alive", "lb-load: 1/1/1", "LB-Secret: x", "Keep-Alive: 5", "Upgrade: h2c", "X: y"]
    (entry,) = site.publish_servers(serve(answer(b"hello", "200 OK", *lines)))
    buffered = ask(backends, entry)
    assert buffered.response.headers == [("X", "y"), ("Content-Type", "text/plain"), ("Content-Length", "5")]
    assert buffered.response.status_line == "200 OK"
    buffered.close()


def test_an_answer_still_streamed_counts_as_in_flight_until_it_is_closed(
    backends: Backends, site: Site, serve: Serve
) -> None:
    go = threading.Event()

    def step(talk: Talk) -> None:
        talk.send(answer(b"a", framing="Content-Length: 2"))
        go.wait(10)
        talk.send(b"b")

    server = serve(step)
    (entry,) = site.publish_servers(server)
    backends.table()
    buffered = ask(backends, entry)
    assert buffered.blocks == [b"a"]
    assert backends.load(entry).in_flight == 1
    go.set()
    assert b"".join(buffered) == b"ab"
    buffered.close()
    assert backends.load(entry).in_flight == 0
    ask(backends, entry).close()
    assert server.connections == 1


def test_a_recent_table_is_enough_except_for_tickets_that_are_not_in_it(
    backends: Backends, site: Site, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbadaptor.adaptor.backends.MAX_TABLE_AGE", 1000.0)
    (one,) = site.publish_servers(serve())
    assert backends.table_for(()).entries == (one,)
    one, other = site.publish_servers(serve(), serve())
    before = backends.table_for(())
    assert len(before.entries) == 1
    assert backends.table_for([before.entries[0].ticket]) is before
    assert backends.table_for([before.entries[0].ticket, other.ticket]).entries == (one, other)


# The key file.


def test_a_key_file_that_has_changed_is_taken_up_although_no_appserver_has_come(
    backends: Backends, site: Site, serve: Serve
) -> None:
    """Another machine's tickets are of a new key: those of this machine's AppServers are not, so far."""
    entries = site.publish_servers(serve())
    others = Keys(["n" * 48]).ticket(Identity(3, GENERATION))
    ours = site.keys.ticket(Identity(7, 7))

    def verdict(ticket: str) -> Verdict:
        return backends.judge([ticket], backends.table())[0]

    assert verdict(others) is Verdict.FORGED
    beside = site.folder / "keys.new"
    beside.write_text(f"# believed: x\n{'n' * 48}\n{MASTER}\n")
    beside.rename(site.key_file)
    assert verdict(others) is Verdict.FORGED, "the file is not looked at with each request"
    site.publish(*entries)  # a heartbeat
    assert (verdict(others), verdict(ours)) == (Verdict.LOST, Verdict.LOST)
    site.key_file.write_text(f"{'n' * 48}\n")
    site.publish(*entries)
    assert (verdict(others), verdict(ours)) == (Verdict.LOST, Verdict.FORGED)


@pytest.mark.parametrize("content", [None, "short\n"])
def test_a_key_file_that_is_broken_is_said_once_and_the_known_keys_count(
    backends: Backends, site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    entries = site.publish_servers(serve())
    ours = [site.keys.ticket(Identity(7, 7))]
    assert backends.judge(ours, backends.table())[0] is Verdict.LOST
    site.key_file.unlink()
    if content is not None:
        site.key_file.write_text(content)
    for _ in range(3):
        site.publish(*entries)
        assert backends.judge(ours, backends.table())[0] is Verdict.LOST
    assert caplog.text.count("going on with the keys that were there") == 1
    site.key_file.write_text(f"{'n' * 48}\n")
    site.publish(*entries)
    assert backends.judge(ours, backends.table())[0] is Verdict.FORGED


# Two machines with one number.


def test_only_a_lost_ticket_is_looked_at_for_the_number_of_its_machine(
    backends: Backends, site: Site, serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    number_in = Keys.number_in

    def look(keys: Keys, ticket: str) -> int | None:
        looked.append(ticket)
        return number_in(keys, ticket)

    monkeypatch.setattr(Keys, "number_in", look)
    entry = site.entry(serve())
    given = Given(7, with_number(7, site.keys.mask, 0, GENERATION + 1000, 0), GENERATION, GENERATION + 9000)
    site.publish_text(write(Table(1, (entry,), given=given), "test", "now"))
    table = backends.table()
    other = site.keys.ticket(Identity(3, with_number(7, site.keys.mask, 0, GENERATION + 2000, 3)))
    forged = Keys(["x" * 48]).ticket(Identity(3, with_number(7, site.keys.mask, 0, GENERATION + 2000, 3)))
    for tickets, verdict in (([], Verdict.NONE), ([entry.ticket], Verdict.HELD), ([forged], Verdict.FORGED)):
        assert backends.judge(tickets, table)[0] is verdict
    assert "another machine" not in caplog.text
    assert looked == []
    for _ in range(3):
        assert backends.judge([other], table)[0] is Verdict.LOST
    assert caplog.text.count("another machine has the number 7 of this one") == 1
    site.publish(entry)  # no number any more
    assert backends.judge([other], backends.table())[0] is Verdict.LOST
    assert len(looked) == 3

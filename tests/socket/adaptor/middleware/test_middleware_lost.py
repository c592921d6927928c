"""The middleware: requests and answers that are lost on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import PATIENCE, ScriptedServer, Step, Talk, answer, hang_up, refusal, total
from stage import GENERATION, Site, cookies

from lbadaptor.adaptor.error_pages import RETRY_AFTER
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.contract.address import Address

Serve = Callable[..., ScriptedServer]
CHUNKED = "Transfer-Encoding: chunked"


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

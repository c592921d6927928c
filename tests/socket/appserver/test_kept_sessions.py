"""Sessions that outlive their process, through real gateways: what a visitor and an adaptor see."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from gateway_stage import ASSIGNMENT, WAIT, Harness, Reply, head
from msgspec.structs import replace

from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import decode, name_of
from lbadaptor.appserver.sessions.persistence.keeper import Keeper
from lbadaptor.appserver.sessions.persistence.saver import Bounds, Saver
from lbadaptor.contract.cookies import values
from tests.apps.dictionary_store import Store


class AppServer(Harness):
    """One AppServer with a store of its own; the application counts visits in it."""

    def __init__(self, root: Path, slot: int, everything: bool, threads: int) -> None:
        self.store = Store()
        self.root = root
        self.within: Callable[[dict[str, Any]], object] = lambda environ: None
        """called by the application when its session is found"""
        self.set_cookie = ""
        """the session cookie that the next answer sets"""
        folder = SessionFolder(str(root), slot, 17 + slot)
        folder.open()
        saver = Saver(self.store, folder, "shop:app", everything, Bounds(1 << 20, 100), 600.0)
        self.keeper = Keeper(saver, lambda *gone: self.sessions.forget(*gone))
        self.keeper.active = True
        self.own = root / folder.name
        ticket = f"{slot}.{17 + slot}.signature"
        super().__init__(self.count, threads, replace(ASSIGNMENT, generation=17 + slot, ticket=ticket))

    def _gateway(self, *parts: Any) -> Gateway:
        return Gateway(*parts, self.keeper)

    def count(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        ident = "".join(values(environ.get("HTTP_COOKIE", ""), "_SID_"))
        headers = []
        path = environ["PATH_INFO"]
        if ident not in self.store.sessions and path == "/login":
            ident = f"id{len(self.store.sessions)}"
            self.store.sessions[ident] = b"0"
            headers.append(("Set-Cookie", f"_SID_={ident}; Path=/app; Max-Age=1000; HttpOnly"))
        self.within(environ)
        if self.set_cookie:
            headers.append(("Set-Cookie", self.set_cookie))
            self.set_cookie = ""
        visits = None
        if ident in self.store.sessions:
            visits = int(self.store.sessions[ident]) + 1
            self.store.sessions[ident] = str(visits).encode()
        if path == "/logout":
            del self.store.sessions[ident]
        told = {name: environ[f"lbadaptor.session_{name}"] for name in ("lost", "moved")}
        start_response("200 OK", headers)
        return self.body(json.dumps({"visits": visits, **told}).encode(), ident)

    def body(self, data: bytes, ident: str) -> Iterable[bytes]:
        return [data]

    def visit(self, page: str = "/", cookie: str = "", session: str = "none", method: str = "GET") -> Reply:
        lines = [f"Cookie: {cookie}"] if cookie else []
        lb = {"Session": session, "Path": f"/app{page}", "Generation": str(self.status.generation)}
        return self.ask(head(method, f"/app{page}", *lines, **lb), method)

    def login(self) -> str:
        """The cookies of a new visitor."""
        reply = self.visit("/login")
        return "; ".join(value.partition(";")[0] for value in reply.headers.get_all("Set-Cookie"))

    def saved(self, ident: str = "id0") -> bytes | None:
        path = self.own / name_of("dictionary", ident)
        return decode(path.read_bytes())[1] if path.exists() else None

    def drain(self) -> None:
        self.admission.dying = True
        assert self.admission.wait_idle(WAIT)
        while self.keeper.leave(1.0):
            pass


Start = Callable[..., AppServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    root = tmp_path / "sessions"
    root.mkdir(0o700)
    started: list[AppServer] = []

    def one(everything: bool = True, threads: int = 4) -> AppServer:
        started.append(AppServer(root, len(started), everything, threads))
        return started[-1]

    yield one
    for server in started:
        server.end()
        server.keeper.close()


def told(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    found: dict[str, Any] = json.loads(reply.body)
    return found


@pytest.mark.parametrize("everything", [True, False])
def test_a_session_goes_from_one_to_another_and_its_ticket_is_renewed(start: Start, everything: bool) -> None:
    old, new = start(everything), start(everything)
    cookies = old.login()
    assert told(old.visit("/", cookies, "held"))["visits"] == 2
    old.drain()
    assert old.visit("/", cookies, "held").refused == "DYING"
    reply = new.visit("/", cookies, "lost")
    assert told(reply) == {"visits": 3, "lost": False, "moved": True}
    ticket = reply.headers["Set-Cookie"]
    assert ticket.startswith("__PRT__=1.18.signature; Path=/app; HttpOnly; Max-Age=")
    assert 990 <= int(ticket.rpartition("=")[2]) <= 1000
    assert reply.headers["Cache-Control"] == "private"
    reply = new.visit("/", cookies.replace("0.17", "1.18"), "held")
    assert told(reply) == {"visits": 4, "lost": False, "moved": False}
    assert "Set-Cookie" not in reply.headers
    new.status.look(lambda: new.sessions.count(monotonic()))
    assert new.status.sessions == 1


def test_another_who_has_the_old_ticket_gets_a_new_one_too(start: Start) -> None:
    old, new = start(), start()
    cookies = old.login()
    old.drain()
    new.visit("/", cookies, "lost")
    reply = new.visit("/", cookies, "lost")  # sent before the first one's answer came
    assert told(reply) == {"visits": 3, "lost": False, "moved": False}
    assert reply.headers["Set-Cookie"].startswith("__PRT__=1.18.")


def test_one_whom_the_adaptor_has_sent_after_the_session_gets_a_new_ticket(start: Start) -> None:
    old, new = start(), start()
    cookies = old.login()
    old.drain()
    new.visit("/", cookies, "lost")
    reply = new.visit("/", cookies, "held")  # by LB-Moved-To
    assert reply.headers["Set-Cookie"].startswith("__PRT__=1.18.")


def test_no_ticket_of_ours_no_search(start: Start) -> None:
    old, new = start(), start()
    cookies = old.login()
    old.drain()
    assert told(new.visit("/", cookies, "none")) == {"visits": None, "lost": False, "moved": False}


def test_a_living_owner_is_named_to_the_adaptor_before_the_application_is_called(start: Start) -> None:
    owner, other = start(), start()
    cookies = owner.login()
    called: list[object] = []
    other.within = called.append
    for method in ("GET", "POST"):
        reply = other.visit("/", cookies, "lost", method)
        assert (reply.status, reply.refused, reply.headers["LB-Moved-To"]) == (421, "MOVED", "0.17")
    assert not called
    assert told(other.visit())


def test_a_dying_one_takes_nothing_over(start: Start) -> None:
    old, dying = start(), start()
    cookies = old.login()
    old.drain()
    dying.admission.dying = True
    assert dying.visit("/", cookies, "lost").refused == "DYING"
    assert not dying.store.sessions


def test_a_bare_head_tells_that_the_session_is_lost(start: Start) -> None:
    killed, other = start(False), start(False)
    cookies = killed.login()
    killed.keeper.abandon()
    assert told(other.visit("/", cookies, "held")) == {"visits": None, "lost": True, "moved": False}


def test_what_was_answered_is_saved_before_the_visitor_has_it(start: Start) -> None:
    """Each time the application is called, the file holds the answer before."""
    server = start()
    cookies = server.login()
    seen: list[bytes | None] = []
    server.within = lambda environ: seen.append(server.saved())
    for _ in range(3):
        server.visit("/", cookies, "held")
    assert seen == [b"1", b"2", b"3"]


def test_what_changes_after_the_head_is_saved_before_the_last_byte_and_after_close(start: Start) -> None:
    server = start()
    caller_read = threading.Event()

    class Blocks:
        def __init__(self, data: bytes, ident: str) -> None:
            self.data, self.ident = data, ident

        def __iter__(self) -> Iterator[bytes]:
            yield self.data
            server.store.sessions[self.ident] = b"10"

        def close(self) -> None:
            assert caller_read.wait(WAIT)
            server.store.sessions[self.ident] = b"20"

    cookies = server.login()
    server.body = Blocks  # type: ignore[method-assign,assignment]
    reply = server.visit("/", cookies, "held")
    assert (reply.chunked, server.saved()) == (True, b"10")
    caller_read.set()
    assert server.admission.wait_idle(WAIT)
    assert server.saved() == b"20"


@pytest.mark.parametrize("kind", [list, iter])
def test_where_nothing_ran_since_the_head_the_store_is_not_read_again(start: Start, kind: Callable[..., Any]) -> None:
    server = start()
    cookies = server.login()
    reads: list[None] = []
    server.store.reading = lambda: reads.append(None)
    server.body = lambda data, ident: kind([data])  # type: ignore[method-assign]
    server.visit("/", cookies, "held")
    assert server.admission.wait_idle(WAIT)
    assert (len(reads) == 1) == (kind is list)


def test_a_logout_is_on_disk_before_its_answer_is_out(start: Start) -> None:
    server = start()
    cookies = server.login()
    assert server.saved() == b"1"
    server.visit("/logout", cookies, "held")
    assert server.saved() is None
    server.drain()
    assert told(start().visit("/", cookies, "lost"))["visits"] is None


def test_a_request_that_lasts_holds_its_own_session_only(start: Start) -> None:
    old, new = start(), start()
    first, second = old.login(), old.login()
    at_work, go_on = threading.Event(), threading.Event()

    def hold(environ: dict[str, Any]) -> None:
        at_work.set()
        assert go_on.wait(WAIT)

    old.within = hold
    long = threading.Thread(target=old.visit, args=("/", first, "held"))
    long.start()
    assert at_work.wait(WAIT)
    old.admission.dying = True
    while old.keeper.leave(1.0):
        pass
    assert list(old.store.sessions) == ["id0"]
    assert told(new.visit("/", second, "lost"))["moved"]
    assert new.visit("/", first, "lost").headers["LB-Moved-To"] == "0.17"
    go_on.set()
    long.join(WAIT)
    old.drain()
    assert told(new.visit("/", first, "lost")) == {"visits": 3, "lost": False, "moved": True}


def test_twenty_parallel_requests_during_the_move_all_find_the_session(start: Start) -> None:
    old, new = start(threads=20), start(threads=20)
    cookies = old.login()
    old.drain()
    begin = threading.Barrier(20)
    replies: list[dict[str, Any]] = []

    def ask() -> None:
        begin.wait(WAIT)
        replies.append(told(new.visit("/", cookies, "lost")))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(replies) == 20
    assert all(reply["visits"] for reply in replies)
    assert not any(reply["lost"] for reply in replies)
    assert any(reply["moved"] for reply in replies)


def test_a_refused_request_does_not_hold_the_session(start: Start) -> None:
    """A queue that is full, and an AppServer that stops."""
    server = start(threads=1)
    cookies = server.login()
    server.admission.stopping = True
    assert server.visit("/", cookies, "held").refused == "DYING"
    server.admission.stopping = False
    server.drain()
    assert not server.store.sessions


def test_an_application_that_fails_does_not_hold_the_session(start: Start) -> None:
    server = start()
    cookies = server.login()

    def fail(environ: dict[str, Any]) -> None:
        raise RuntimeError("the basket has a hole")

    server.within = fail
    assert server.visit("/", cookies, "held").status == 500
    server.drain()
    assert not server.store.sessions


def test_one_that_begins_to_die_does_not_call_the_application_without_the_session(start: Start) -> None:
    """The request was admitted before the order to drain, and waited for a thread."""
    old, dying = start(), start(threads=1)
    cookies = old.login()
    old.drain()
    at_work, go_on = threading.Event(), threading.Event()
    called: list[str] = []

    def hold(environ: dict[str, Any]) -> None:
        called.append(environ["PATH_INFO"])
        at_work.set()
        assert go_on.wait(WAIT)

    dying.within = hold
    first = threading.Thread(target=dying.visit, args=("/first",))
    first.start()
    assert at_work.wait(WAIT)
    replies: list[Reply] = []
    second = threading.Thread(target=lambda: replies.append(dying.visit("/second", cookies, "lost")))
    second.start()
    while dying.admission.in_flight < 2:
        sleep(0.001)
    dying.admission.dying = True
    go_on.set()
    first.join(WAIT)
    second.join(WAIT)
    assert replies[0].refused == "MOVED"
    assert called == ["/first"]


def test_a_session_that_the_store_has_only_after_the_answer_is_kept(start: Start) -> None:
    """As with CherryPy's `response.stream`."""
    server = start()

    class Late:
        def __init__(self, data: bytes, ident: str) -> None:
            self.data = data
            self.content = server.store.sessions.pop("id0")

        def __iter__(self) -> Iterator[bytes]:
            return iter([self.data, self.data])

        def close(self) -> None:
            server.store.sessions["id0"] = self.content

    server.body = Late  # type: ignore[method-assign,assignment]
    server.visit("/login")
    assert server.admission.wait_idle(WAIT)
    assert server.saved() == b"1"
    server.drain()
    assert not server.store.sessions
    assert server.sessions.count(monotonic()) == 0


def test_a_session_that_lives_longer_than_the_idle_time_is_known_by_the_store(start: Start) -> None:
    server = start()
    cookies = server.login()
    server.store.unsaveable = "_thread.lock"
    server.sessions.clear()
    server.admission.dying = True
    assert told(server.visit("/", cookies, "lost"))["lost"] is False
    assert server.sessions.count(monotonic()) == 1


def test_after_a_login_that_changes_the_id_the_session_counts_and_is_admitted(start: Start) -> None:
    server = start()
    cookies = server.login()

    def rotate(environ: dict[str, Any]) -> None:
        server.store.sessions["id7"] = server.store.sessions.pop("id0")
        server.set_cookie = "_SID_=id7; Path=/app; Max-Age=1000; HttpOnly"

    server.within = rotate
    server.visit("/", cookies, "held")
    server.within = lambda environ: None
    assert server.sessions.count(monotonic()) == 1
    server.admission.dying = True
    assert told(server.visit("/", cookies.replace("id0", "id7"), "held"))["visits"] == 2

"""The middleware: tickets, and the files that it goes by."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import pytest
from scripted import PATIENCE, ScriptedServer, Talk, answer, total
from stage import MASTER, Site, at_the_first_pause, cookies

from lbadaptor.adaptor.error_pages import RETRY_AFTER
from lbadaptor.contract.address import Address, Identity, State, Table, write
from lbadaptor.contract.ticket import Keys

Serve = Callable[..., ScriptedServer]

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
    site.configure(wait=0.3)
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

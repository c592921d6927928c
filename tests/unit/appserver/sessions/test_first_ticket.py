"""Affinity without session: the ticket on the first answer, and who counts."""

from __future__ import annotations

import pytest

from lbadaptor.appserver.sessions.affinity import MAX_VISITORS, Affinity, AffinityVisit, visitor
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.appserver.wsgi.environ import Request

IDLE = 100.0
TICKET = "0.1763805600123.kX93bTz4x6vFdh2kQ0hG8w"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(IDLE, MAX_VISITORS)


@pytest.fixture
def affinity(table: SessionTable, clock: Clock) -> Affinity:
    return Affinity("__PRT__", TICKET, table, clock)


def request(address: str, agent: str | None = "a browser") -> Request:
    lines = ["GET / HTTP/1.1", f"LB-Remote-Addr: {address}"]
    if agent is not None:
        lines.append(f"User-Agent: {agent}")
    return Request("\r\n".join(lines))


@pytest.mark.parametrize(
    ("mount", "https", "attributes"),
    [
        ("", False, "Path=/; SameSite=Lax; HttpOnly"),
        ("", True, "Path=/; SameSite=Lax; Secure; HttpOnly"),
        ("/shop", False, "Path=/shop; SameSite=Lax; HttpOnly"),
        ("/~me/@shop", False, "Path=/~me/@shop; SameSite=Lax; HttpOnly"),
        ("/caf\u00c3\u00a9", False, "Path=/caf%C3%A9; SameSite=Lax; HttpOnly"),
        ("/a;Domain=b c", False, "Path=/a%3BDomain=b%20c; SameSite=Lax; HttpOnly"),
    ],
)
def test_the_ticket_is_for_the_mount(affinity: Affinity, mount: str, https: bool, attributes: str) -> None:
    told = {"SCRIPT_NAME": mount, "wsgi.url_scheme": "https" if https else "http"}
    headers = AffinityVisit(affinity, "somebody", False, told).answered([("Content-Type", "text/html")])
    assert headers == [
        ("Content-Type", "text/html"),
        ("Cache-Control", "private"),
        ("Set-Cookie", f"__PRT__={TICKET}; {attributes}"),
    ]


@pytest.mark.parametrize(("said", "sent"), [("public, max-age=60", "private, max-age=60"), ("no-store", "no-store")])
def test_an_answer_with_a_ticket_is_private_unless_stricter(affinity: Affinity, said: str, sent: str) -> None:
    headers = AffinityVisit(affinity, "somebody", False, {}).answered([("Cache-Control", said)])
    assert [value for name, value in headers if name == "Cache-Control"] == [sent]


def test_a_visitor_counts_from_the_first_answer_until_the_idle_time_after_the_last_request(
    affinity: Affinity, table: SessionTable, clock: Clock
) -> None:
    AffinityVisit(affinity, "somebody", False, {}).answered([])
    clock.now = IDLE - 1
    assert table.count(clock.now) == 1
    AffinityVisit(affinity, "somebody", True, {}).answered([])
    clock.now += IDLE - 1
    assert table.count(clock.now) == 1
    clock.now += 1
    assert table.count(clock.now) == 0


def test_a_holder_gets_no_ticket_again_and_counts_though_not_in_the_table(
    affinity: Affinity, table: SessionTable, clock: Clock
) -> None:
    sent = [("Cache-Control", "public")]
    assert AffinityVisit(affinity, "somebody", True, {}).answered(sent) == sent
    assert table.count(clock.now) == 1


def test_visitors_are_told_apart_by_address_and_browser() -> None:
    known = [visitor(request(*told)) for told in [("192.0.2.1",), ("192.0.2.2",), ("192.0.2.1", "another")]]
    assert len(set(known)) == 3
    assert visitor(request("192.0.2.1")) == known[0]
    assert visitor(request("192.0.2.1", None)) == visitor(request("192.0.2.1", ""))


def test_what_is_kept_of_a_visitor_is_short() -> None:
    assert len(visitor(request("192.0.2.1", "x" * 100_000))) == 16

"""The ticket that goes along with the application's session cookie."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from lbadaptor.appserver.ledger import Ledger
from lbadaptor.appserver.sessions import Headers, Sessions

NOW = 1_763_805_600.0
TICKET = "0.1763805600123.kX93bTz4x6vFdh2kQ0hG8w"
WEBWARE_DELETES = "_SID_=None; expires=Mon, 01-Jan-1900 00:00:00 GMT; Max-Age=0; Path=/"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(1800.0)


@pytest.fixture
def sessions(ledger: Ledger) -> Sessions:
    return Sessions("_SID_", "__PRT__", TICKET, ledger, lambda: 0.0, lambda: NOW)


def tickets(headers: Headers) -> list[str]:
    return [value for name, value in headers if name == "Set-Cookie" and value.startswith("__PRT__=")]


def set_cookie(sessions: Sessions, cookie: str, brought: tuple[str, ...] = ()) -> list[str]:
    return tickets(sessions.answered([("Set-Cookie", cookie)], brought))


def test_no_session_cookie_no_ticket_and_no_change(sessions: Sessions, ledger: Ledger) -> None:
    sent = [("Content-Type", "text/html"), ("Cache-Control", "public"), ("Set-Cookie", "colour=blue; Path=/")]
    assert sessions.answered(sent, ["a"]) == sent
    assert ledger.count(0.0) == 0


def test_the_ticket_goes_along_with_the_session_cookie(sessions: Sessions, ledger: Ledger) -> None:
    sent = [("Set-Cookie", "_SID_=a"), ("Content-Type", "text/html")]
    headers = sessions.answered(sent, [])
    assert [header for header in headers if header in sent] == sent
    assert tickets(headers) == [f"__PRT__={TICKET}; HttpOnly"]
    assert ledger.use(["a"], 1.0)


@pytest.mark.parametrize(
    "attribute",
    [
        "Path=/app",
        "path=/app",
        "Domain=example.org",
        "Expires=" + formatdate(NOW + 3600, usegmt=True),
        "Max-Age=3600",
        "SameSite=None",
        "SameSite=Strict",
        "Secure",
        "secure",
        "Partitioned",
    ],
)
def test_the_ticket_takes_over_scope_and_lifetime(sessions: Sessions, attribute: str) -> None:
    assert set_cookie(sessions, f"_SID_=a; {attribute}") == [f"__PRT__={TICKET}; {attribute}; HttpOnly"]


def test_all_attributes_are_taken_over_in_their_order(sessions: Sessions) -> None:
    attributes = "Path=/; Domain=example.org; Max-Age=60; Secure; SameSite=Lax"
    assert set_cookie(sessions, f"_SID_=a; {attributes}") == [f"__PRT__={TICKET}; {attributes}; HttpOnly"]


@pytest.mark.parametrize("attribute", ["HttpOnly", "httponly", "Priority=High", "Comment=x"])
def test_the_ticket_is_httponly_whatever_the_session_cookie_is(sessions: Sessions, attribute: str) -> None:
    assert set_cookie(sessions, f"_SID_=a; {attribute}; Path=/") == [f"__PRT__={TICKET}; Path=/; HttpOnly"]


@pytest.mark.parametrize("cookie", ["_SID_2=a", "X_SID_=a", "colour=_SID_", "other=1; _SID_=a", "_sid_=a", "_SID_"])
def test_another_cookie_is_not_the_session(sessions: Sessions, ledger: Ledger, cookie: str) -> None:
    assert set_cookie(sessions, cookie) == []
    assert ledger.count(0.0) == 0


@pytest.mark.parametrize(
    ("cookie", "ticket"),
    [
        (WEBWARE_DELETES, "__PRT__=; expires=Mon, 01-Jan-1900 00:00:00 GMT; Max-Age=0; Path=/; HttpOnly"),
        ("_SID_=a; Max-Age=0; Path=/", "__PRT__=; Max-Age=0; Path=/; HttpOnly"),
        ("_SID_=a; Max-Age=-1", "__PRT__=; Max-Age=-1; HttpOnly"),
        ("_SID_=; Path=/", "__PRT__=; Path=/; Max-Age=0; HttpOnly"),
        ('_SID_=""; Path=/', "__PRT__=; Path=/; Max-Age=0; HttpOnly"),
        ("_SID_=; Max-Age=3600", "__PRT__=; Max-Age=3600; Max-Age=0; HttpOnly"),
        (
            "_SID_=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "__PRT__=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly",
        ),
    ],
)
def test_the_ticket_is_deleted_along(sessions: Sessions, ledger: Ledger, cookie: str, ticket: str) -> None:
    ledger.assign("a", [], 0.0)
    assert set_cookie(sessions, cookie, brought=("a",)) == [ticket]
    assert ledger.count(0.0) == 0
    assert not ledger.use(["a"], 0.0)


def test_a_lifetime_that_cannot_be_read_deletes_nothing(sessions: Sessions, ledger: Ledger) -> None:
    set_cookie(sessions, "_SID_=a; Max-Age=soon; Expires=tomorrow")
    assert ledger.count(0.0) == 1


def test_max_age_wins_over_expires(sessions: Sessions, ledger: Ledger) -> None:
    set_cookie(sessions, "_SID_=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60")
    assert ledger.count(0.0) == 1


def test_a_login_that_rotates_the_session_does_not_count_twice(sessions: Sessions, ledger: Ledger) -> None:
    set_cookie(sessions, "_SID_=before")
    set_cookie(sessions, "_SID_=after", brought=("before",))
    assert ledger.count(0.0) == 1
    assert ledger.use(["before"], 1.0)


def test_each_of_several_session_cookies_gets_its_ticket(sessions: Sessions) -> None:
    headers = sessions.answered(
        [("Set-Cookie", "_SID_=a; Path=/"), ("set-cookie", "_SID_=; Path=/old; Max-Age=0"), ("Set-Cookie", "b=c")], []
    )
    assert tickets(headers) == [f"__PRT__={TICKET}; Path=/; HttpOnly", "__PRT__=; Path=/old; Max-Age=0; HttpOnly"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["set first", "cleared first"])
def test_clearing_the_cookies_old_path_does_not_end_the_session(
    sessions: Sessions, ledger: Ledger, order: tuple[int, int]
) -> None:
    cookies = [("Set-Cookie", "_SID_=a; Path=/"), ("Set-Cookie", "_SID_=; Path=/old; Max-Age=0")]
    ledger.assign("a", [], 0.0)
    sessions.answered([cookies[number] for number in order], ["a"])
    assert ledger.use(["a"], 1.0)


def test_a_quoted_value_is_the_value_a_browser_brings_back(sessions: Sessions, ledger: Ledger) -> None:
    set_cookie(sessions, '_SID_="a"')
    assert ledger.use(["a"], 1.0)


def test_an_appserver_without_ticket_counts_sessions_and_sets_nothing(ledger: Ledger) -> None:
    alone = Sessions("_SID_", "__PRT__", "", ledger, lambda: 0.0, lambda: NOW)
    sent = [("Set-Cookie", "_SID_=a"), ("Cache-Control", "public")]
    assert alone.answered(sent, []) == sent
    assert ledger.count(0.0) == 1


def test_the_tickets_name_is_a_setting(ledger: Ledger) -> None:
    other = Sessions("_SID_", "__SHOP__", TICKET, ledger, lambda: 0.0, lambda: NOW)
    assert ("Set-Cookie", f"__SHOP__={TICKET}; HttpOnly") in other.answered([("Set-Cookie", "_SID_=a")], [])


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([], ["private"]),
        (["public"], ["private"]),
        (["public, max-age=60"], ["private, max-age=60"]),
        (["max-age=60", "must-revalidate"], ["private, max-age=60, must-revalidate"]),
        (["s-maxage=60, Max-Age=5"], ["private, Max-Age=5"]),
        (["no-cache"], ["private, no-cache"]),
        (["no-store"], ["no-store"]),
        (["NO-STORE, max-age=0"], ["NO-STORE, max-age=0"]),
        (["private"], ["private"]),
        (["private, max-age=60"], ["private, max-age=60"]),
        (["Private"], ["private"]),
        (['private="Set-Cookie"'], ["private"]),
        (['private="Set-Cookie, X-A", max-age=1'], ["private, max-age=1"]),
        (['no-cache="Set-Cookie, X-A"'], ['private, no-cache="Set-Cookie, X-A"']),
        ([""], ["private"]),
    ],
)
def test_an_answer_with_a_ticket_is_private_unless_stricter(
    sessions: Sessions, said: list[str], sent: list[str]
) -> None:
    headers = sessions.answered([*(("cache-CONTROL", value) for value in said), ("Set-Cookie", "_SID_=a")], [])
    assert [value for name, value in headers if name.lower() == "cache-control"] == sent

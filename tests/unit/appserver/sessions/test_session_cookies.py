"""The ticket that goes along with the application's session cookie."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

import pytest

from lbadaptor.appserver.sessions.cookies import Headers, Sessions, Visit
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.appserver.wsgi.environ import Request

NOW = 1_763_805_600.0
TICKET = "0.1763805600123.kX93bTz4x6vFdh2kQ0hG8w"
WEBWARE_DELETES = "_SID_=None; expires=Mon, 01-Jan-1900 00:00:00 GMT; Max-Age=0; Path=/"


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(1800.0)


@pytest.fixture
def sessions(table: SessionTable) -> Sessions:
    return Sessions("_SID_", "__PRT__", TICKET, table, lambda: 0.0, lambda: NOW)


def tickets(headers: Headers) -> list[str]:
    return [value for name, value in headers if name == "Set-Cookie" and value.startswith("__PRT__=")]


def answered(sessions: Sessions, headers: Headers, brought: Sequence[str] = ()) -> Headers:
    return Visit(sessions, brought, held=False, fields={}).answered(headers)


def set_cookie(sessions: Sessions, cookie: str, brought: tuple[str, ...] = ()) -> list[str]:
    return tickets(answered(sessions, [("Set-Cookie", cookie)], brought))


def test_no_session_cookie_no_ticket_and_no_change(sessions: Sessions, table: SessionTable) -> None:
    sent = [("Content-Type", "text/html"), ("Cache-Control", "public"), ("Set-Cookie", "colour=blue; Path=/")]
    assert answered(sessions, sent, ["a"]) == sent
    assert table.count(0.0) == 0


def test_the_ticket_goes_along_with_the_session_cookie(sessions: Sessions, table: SessionTable) -> None:
    sent = [("Set-Cookie", "_SID_=a"), ("Content-Type", "text/html")]
    headers = answered(sessions, sent, [])
    assert [header for header in headers if header in sent] == sent
    assert tickets(headers) == [f"__PRT__={TICKET}; HttpOnly"]
    assert table.use(["a"], 1.0)


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
def test_another_cookie_is_not_the_session(sessions: Sessions, table: SessionTable, cookie: str) -> None:
    assert set_cookie(sessions, cookie) == []
    assert table.count(0.0) == 0


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
def test_the_ticket_is_deleted_along(sessions: Sessions, table: SessionTable, cookie: str, ticket: str) -> None:
    table.assign("a", [], 0.0)
    assert set_cookie(sessions, cookie, brought=("a",)) == [ticket]
    assert table.count(0.0) == 0
    assert not table.use(["a"], 0.0)


def test_a_lifetime_that_cannot_be_read_deletes_nothing(sessions: Sessions, table: SessionTable) -> None:
    set_cookie(sessions, "_SID_=a; Max-Age=soon; Expires=tomorrow")
    assert table.count(0.0) == 1


def test_max_age_wins_over_expires(sessions: Sessions, table: SessionTable) -> None:
    set_cookie(sessions, "_SID_=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60")
    assert table.count(0.0) == 1


def test_a_login_that_rotates_the_session_does_not_count_twice(sessions: Sessions, table: SessionTable) -> None:
    set_cookie(sessions, "_SID_=before")
    set_cookie(sessions, "_SID_=after", brought=("before",))
    assert table.count(0.0) == 1
    assert table.use(["before"], 1.0)


def test_each_of_several_session_cookies_gets_its_ticket(sessions: Sessions) -> None:
    headers = answered(
        sessions,
        [("Set-Cookie", "_SID_=a; Path=/"), ("set-cookie", "_SID_=; Path=/old; Max-Age=0"), ("Set-Cookie", "b=c")],
        [],
    )
    assert tickets(headers) == [f"__PRT__={TICKET}; Path=/; HttpOnly", "__PRT__=; Path=/old; Max-Age=0; HttpOnly"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["set first", "cleared first"])
def test_clearing_the_cookies_old_path_does_not_end_the_session(
    sessions: Sessions, table: SessionTable, order: tuple[int, int]
) -> None:
    cookies = [("Set-Cookie", "_SID_=a; Path=/"), ("Set-Cookie", "_SID_=; Path=/old; Max-Age=0")]
    table.assign("a", [], 0.0)
    answered(sessions, [cookies[number] for number in order], ["a"])
    assert table.use(["a"], 1.0)


def test_a_quoted_value_is_the_value_a_browser_brings_back(sessions: Sessions, table: SessionTable) -> None:
    set_cookie(sessions, '_SID_="a"')
    assert table.use(["a"], 1.0)


def test_an_appserver_without_ticket_counts_sessions_and_sets_nothing(table: SessionTable) -> None:
    alone = Sessions("_SID_", "__PRT__", "", table, lambda: 0.0, lambda: NOW)
    sent = [("Set-Cookie", "_SID_=a"), ("Cache-Control", "public")]
    assert answered(alone, sent, []) == sent
    assert table.count(0.0) == 1


def test_the_tickets_name_is_a_setting(table: SessionTable) -> None:
    other = Sessions("_SID_", "__SHOP__", TICKET, table, lambda: 0.0, lambda: NOW)
    assert ("Set-Cookie", f"__SHOP__={TICKET}; HttpOnly") in answered(other, [("Set-Cookie", "_SID_=a")], [])


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
    headers = answered(sessions, [*(("cache-CONTROL", value) for value in said), ("Set-Cookie", "_SID_=a")], [])
    assert [value for name, value in headers if name.lower() == "cache-control"] == sent


def test_a_value_that_is_not_ascii_is_known_again(sessions: Sessions, table: SessionTable) -> None:
    set_cookie(sessions, "_SID_=m\xfcller; Path=/")
    visit = sessions.of(Request("GET / HTTP/1.1\r\nCookie: a=b; _SID_=m\xfcller"))
    assert visit.known
    assert not sessions.of(Request("GET / HTTP/1.1\r\nCookie: _SID_=m\xe4ller")).known


def test_an_appserver_that_runs_alone_knows_a_pages_folder(sessions: Sessions, table: SessionTable) -> None:
    for page, cookie in (("/shop/login?next=/", "_SID_=a"), ("/shop/logout", "_SID_=; Path=/shop; Max-Age=0")):
        visit = sessions.of(Request(f"GET {page} HTTP/1.1\r\nHost: www.example\r\nCookie: _SID_=a"))
        visit.answered([("Set-Cookie", cookie)])
        assert table.count(0.0) == (page == "/shop/login?next=/")


# What the application declares (begin, end).

OWN = "Path=/app; SameSite=Lax; Secure; HttpOnly"


def visit_of(sessions: Sessions, brought: Sequence[str] = (), held: bool = False, https: bool = True) -> Visit:
    return Visit(sessions, brought, held, fields("/app", https))


def fields(mount: str, https: bool) -> dict[str, str]:
    return {"SCRIPT_NAME": mount, "wsgi.url_scheme": "https" if https else "http"}


def test_without_a_declaration_nothing_changes(sessions: Sessions, table: SessionTable) -> None:
    assert visit_of(sessions, ["a"]).answered([("X", "y")]) == [("X", "y")]
    assert table.count(0.0) == 0


def test_a_session_that_is_said_to_begin_gets_a_cookie_and_the_ticket(
    sessions: Sessions, table: SessionTable
) -> None:
    visit = visit_of(sessions)
    visit.begin()
    assert table.count(0.0) == 0, "the visitor has no cookie yet"
    cache, (_, cookie), ticket = visit.answered([])
    value = cookie.removeprefix("_SID_=").removesuffix(f"; {OWN}")
    assert len(value) >= 22
    assert (cache, ticket) == (("Cache-Control", "private"), ("Set-Cookie", f"__PRT__={TICKET}; {OWN}"))
    assert table.use([value], 1.0)
    assert visit_of(sessions, [value]).living


def test_every_cookie_that_is_set_so_is_another(sessions: Sessions) -> None:
    visits = [visit_of(sessions), visit_of(sessions)]
    for visit in visits:
        visit.begin()
    assert visits[0].answered([]) != visits[1].answered([])


@pytest.mark.parametrize(
    ("mount", "https", "attributes"),
    [
        ("", False, "Path=/; SameSite=Lax; HttpOnly"),
        ("/a b;c\xe4", True, "Path=/a%20b%3Bc%E4; SameSite=Lax; Secure; HttpOnly"),
    ],
)
def test_the_tickets_scope_is_the_mount(sessions: Sessions, mount: str, https: bool, attributes: str) -> None:
    visit = Visit(sessions, ["a"], False, fields(mount, https))
    visit.begin()
    assert tickets(visit.answered([])) == [f"__PRT__={TICKET}; {attributes}"]


def test_a_session_cookie_that_was_brought_is_what_the_session_is_known_by(
    sessions: Sessions, table: SessionTable
) -> None:
    visit = visit_of(sessions, ["a"])
    assert not visit.living
    visit.begin()
    headers = visit.answered([])
    assert [value for _, value in headers] == ["private", f"__PRT__={TICKET}; {OWN}"]
    assert table.use(["a"], 1.0)
    assert table.count(0.0) == 1


@pytest.mark.parametrize(("held", "sent"), [(True, 0), (False, 1)])
def test_who_has_session_and_ticket_gets_nothing_again(
    sessions: Sessions, table: SessionTable, held: bool, sent: int
) -> None:
    table.assign("a", [], 0.0)
    visit = visit_of(sessions, ["a"], held)
    assert visit.living
    visit.begin()
    assert len(tickets(visit.answered([("X", "y")]))) == sent
    assert table.count(0.0) == 1


def test_a_session_cookie_that_the_answer_sets_is_what_counts(sessions: Sessions, table: SessionTable) -> None:
    table.assign("old", [], 0.0)
    visit = visit_of(sessions, ["old"], held=True)
    visit.begin()
    headers = visit.answered([("Set-Cookie", "_SID_=new; Path=/")])
    assert tickets(headers) == [f"__PRT__={TICKET}; Path=/; HttpOnly"]
    assert table.count(0.0) == 1
    assert table.use(["new"], 1.0)


def test_a_session_that_is_said_to_end_is_gone_at_once_and_the_ticket_with_the_answer(
    sessions: Sessions, table: SessionTable
) -> None:
    table.assign("a", [], 0.0)
    visit = visit_of(sessions, ["a"], held=True)
    visit.end()
    assert table.count(0.0) == 0
    assert not visit.living
    assert tickets(visit.answered([])) == [f"__PRT__=; {OWN}; Max-Age=0"]


def test_a_cookie_for_a_visitor_without_session_does_not_count(sessions: Sessions, table: SessionTable) -> None:
    visit = visit_of(sessions)
    visit.end()
    sent = [("Set-Cookie", "_SID_=tracked; Path=/")]
    assert visit.answered(sent) == sent
    assert table.count(0.0) == 0


def test_the_ticket_goes_in_the_scope_of_the_session_cookie_too(sessions: Sessions, table: SessionTable) -> None:
    visit = visit_of(sessions, ["a"], held=True)
    visit.end()
    headers = visit.answered([("Set-Cookie", "_SID_=b; Path=/; Domain=example.org")])
    assert tickets(headers) == [
        "__PRT__=; Path=/; Domain=example.org; Max-Age=0; HttpOnly",
        f"__PRT__=; {OWN}; Max-Age=0",
    ]
    assert table.count(0.0) == 0


@pytest.mark.parametrize("words", ["begin end", "end begin"])
def test_the_last_declaration_counts(sessions: Sessions, table: SessionTable, words: str) -> None:
    table.assign("a", [], 0.0)
    visit = visit_of(sessions, ["a"], held=True)
    for name in words.split():
        getattr(visit, name)()
    visit.answered([])
    assert table.count(0.0) == (1 if words.endswith("begin") else 0)


def test_once_the_head_is_out_none_begins(sessions: Sessions, table: SessionTable) -> None:
    table.assign("a", [], 0.0)
    for brought, held in (([], False), (["b"], True), (["a"], False)):
        visit = visit_of(sessions, brought, held)
        visit.answered([])
        with pytest.raises(RuntimeError, match="too late"):
            visit.begin()
    visit = visit_of(sessions, ["a"], held=True)
    visit.answered([])
    visit.begin()
    assert table.count(0.0) == 1


@pytest.mark.parametrize("cookie", ["_SID_=new; Path=/", ""])
def test_once_the_head_is_out_one_can_still_end(sessions: Sessions, table: SessionTable, cookie: str) -> None:
    visit = visit_of(sessions)
    visit.begin()
    visit.answered([("Set-Cookie", cookie)] if cookie else [])
    assert table.count(0.0) == 1
    visit.end()
    assert table.count(0.0) == 0


def test_alone_there_is_a_session_and_no_ticket(table: SessionTable) -> None:
    alone = Sessions("_SID_", "__PRT__", "", table, lambda: 0.0, lambda: NOW)
    visit = visit_of(alone)
    visit.begin()
    assert [name for name, _ in visit.answered([])] == ["Cache-Control", "Set-Cookie"]
    assert table.count(0.0) == 1


# A cookie's identity is its name, domain and path.

WHERE = {"HTTP_HOST": "www.example.org:8080", "REQUEST_URI": "/shop/cart?a=b", "SCRIPT_NAME": "/shop"}
SET = "_SID_=a; Path=/"


def browse(sessions: Sessions, *cookies: str, brought: Sequence[str] = (), **where: str) -> None:
    visit = Visit(sessions, list(brought), held=False, fields={**WHERE, **where})
    visit.answered([("Set-Cookie", cookie) for cookie in cookies])


@pytest.mark.parametrize(
    ("first", "deletion", "living"),
    [
        (SET, "_SID_=; Path=/old; Max-Age=0", 1),
        (SET, "_SID_=a; Path=/old; Max-Age=0", 1),
        (SET, "_SID_=; Path=/shop; Max-Age=0", 1),
        (SET, "_SID_=; Max-Age=0", 1),
        (SET, "_SID_=; Path=/; Domain=example.org; Max-Age=0", 1),
        (SET, "_sid_=; Path=/; Max-Age=0", 1),
        (SET, "_SID_=; Path=/; Max-Age=0", 0),
        (SET, "_SID_=; PATH=/; MAX-AGE=-1", 0),
        (SET, "_SID_=x; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (SET, "_SID_=; Path=/; Domain=www.example.org; Max-Age=0", 0),
        (SET, "_SID_=; Path=/", 0),
        ("_SID_=a", "_SID_=; Path=/shop; Max-Age=0", 0),
        ("_SID_=a", "_SID_=; Max-Age=0", 0),
        ("_SID_=a; Path=x", "_SID_=; Max-Age=0; Path=", 0),
        ("_SID_=a", "_SID_=; Path=/; Max-Age=0", 1),
        ("_SID_=a; Path=/; Domain=.Example.org", "_SID_=; Path=/; Domain=example.ORG; Max-Age=0", 0),
        ("_SID_=a; Path=/; Domain=example.org", "_SID_=; Path=/; Max-Age=0", 1),
    ],
)
def test_only_the_cookie_of_the_same_scope_is_deleted(
    sessions: Sessions, table: SessionTable, first: str, deletion: str, living: int
) -> None:
    browse(sessions, first)
    browse(sessions, deletion, brought=["a"])
    assert table.count(0.0) == living
    assert table.use(["a"], 0.0) is bool(living)


def test_a_cookie_without_a_path_is_of_the_folder_of_its_page(sessions: Sessions, table: SessionTable) -> None:
    browse(sessions, "_SID_=a")
    browse(sessions, "_SID_=; Max-Age=0", brought=["a"], REQUEST_URI="/other/page")
    assert table.count(0.0) == 1
    browse(sessions, "_SID_=; Max-Age=0", brought=["a"], REQUEST_URI="/shop/logout")
    assert table.count(0.0) == 0


@pytest.mark.parametrize(("uri", "living"), [("/login", 2), ("/login/x", 1)])
def test_another_scope_is_another_session_and_the_same_one_is_not(
    sessions: Sessions, table: SessionTable, uri: str, living: int
) -> None:
    browse(sessions, "_SID_=a; Path=/login")
    browse(sessions, "_SID_=b", brought=["a"], REQUEST_URI=uri)
    assert table.count(0.0) == living


OLD, NEW = "_SID_=; Path=/; Max-Age=0", "_SID_=b; Path=/"


@pytest.mark.parametrize(
    ("cookies", "living"),
    [
        ([OLD, NEW], ["b"]),
        ([NEW, OLD], []),
        ([NEW, "_SID_=c; Path=/"], ["c"]),
        (["_SID_=; Path=/shop; Max-Age=0", NEW], ["b"]),
        ([NEW, "_SID_=; Path=/shop; Max-Age=0"], ["b"]),
        ([OLD, "_SID_=b; Path=/shop"], ["b"]),
        (["_SID_=b; Path=/shop", OLD], ["b"]),
        ([NEW, "_SID_=c; Path=/shop"], ["b", "c"]),
    ],
)
def test_several_cookies_of_the_name_in_one_answer(
    sessions: Sessions, table: SessionTable, cookies: list[str], living: list[str]
) -> None:
    browse(sessions, SET)
    browse(sessions, *cookies, brought=["a"])
    assert table.count(0.0) == len(living)
    assert [value for value in "bc" if table.use([value], 0.0)] == living


def test_one_value_under_two_paths_lives_until_both_are_deleted(sessions: Sessions, table: SessionTable) -> None:
    browse(sessions, "_SID_=a; Path=/", "_SID_=a; Path=/shop")
    assert table.count(0.0) == 1
    browse(sessions, "_SID_=; Path=/; Max-Age=0", brought=["a", "a"])
    assert table.use(["a"], 0.0)
    browse(sessions, "_SID_=; Path=/shop; Max-Age=0", brought=["a"])
    assert table.count(0.0) == 0


@pytest.mark.parametrize(
    ("deletion", "living"),
    [
        ("_SID_=; Path=/old; Max-Age=0", 1),
        ("_SID_=; Path=/; Domain=example.com; Max-Age=0", 1),
        ("_SID_=; Path=/; Max-Age=0", 0),
        ("_SID_=; Path=/shop; Max-Age=0", 0),
    ],
)
def test_a_brought_cookie_that_another_program_set_is_what_it_may_be(
    sessions: Sessions, table: SessionTable, deletion: str, living: int
) -> None:
    """Its scope is not known: a browser would not have sent one of a scope that does not match the request."""
    visit = Visit(sessions, ["a"], False, WHERE)
    visit.begin()
    visit.answered([])
    assert table.count(0.0) == 1
    browse(sessions, deletion, brought=["a"])
    assert table.count(0.0) == living


def test_a_cookie_that_we_set_for_the_application_can_be_deleted_by_it(
    sessions: Sessions, table: SessionTable
) -> None:
    visit = Visit(sessions, [], False, WHERE)
    visit.begin()
    (cookie,) = [value for name, value in visit.answered([]) if value.startswith("_SID_=")]
    value = cookie.partition(";")[0].removeprefix("_SID_=")
    browse(sessions, "_SID_=; Path=/; Max-Age=0", brought=[value])
    assert table.count(0.0) == 1
    browse(sessions, "_SID_=; Path=/shop; Max-Age=0", brought=[value])
    assert table.count(0.0) == 0


def test_the_applications_end_ends_a_session_whatever_its_scope(sessions: Sessions, table: SessionTable) -> None:
    browse(sessions, "_SID_=a; Path=/", "_SID_=b; Path=/shop")
    visit = Visit(sessions, ["b", "a"], True, WHERE)
    visit.end()
    assert table.count(0.0) == 0


# Names with a prefix.


@pytest.mark.parametrize(
    ("name", "cookie", "ticket"),
    [
        ("__PRT__", "__Host-sid=a; Path=/; Secure", "__PRT__={}; Path=/; Secure; HttpOnly"),
        (
            "__PRT__",
            "__Host-sid=a; Path=/; Secure; SameSite=Strict",
            "__PRT__={}; Path=/; Secure; SameSite=Strict; HttpOnly",
        ),
        ("__Host-PRT", "__Host-sid=a; Path=/; Secure", "__Host-PRT={}; Path=/; Secure; HttpOnly"),
        ("__Host-PRT", "__Host-sid=a; Path=/shop; Domain=x", "__Host-PRT={}; Path=/; Secure; HttpOnly"),
        (
            "__Secure-PRT",
            "__Host-sid=a; Path=/shop; Domain=x",
            "__Secure-PRT={}; Path=/shop; Domain=x; Secure; HttpOnly",
        ),
        ("__secure-prt", "__Host-sid=a; secure", "__secure-prt={}; secure; HttpOnly"),
    ],
)
def test_the_ticket_has_what_its_own_name_demands(table: SessionTable, name: str, cookie: str, ticket: str) -> None:
    sessions = Sessions("__Host-sid", name, TICKET, table, lambda: 0.0, lambda: NOW)
    headers = Visit(sessions, [], False, WHERE).answered([("Set-Cookie", cookie)])
    assert headers[-1] == ("Set-Cookie", ticket.format(TICKET))


def test_cookies_that_we_set_have_what_their_names_demand(table: SessionTable) -> None:
    sessions = Sessions("__Host-sid", "__Host-PRT", TICKET, table, lambda: 0.0, lambda: NOW)
    visit = Visit(sessions, [], False, {**WHERE, "wsgi.url_scheme": "https"})
    visit.begin()
    _, (_, session), (_, ticket) = visit.answered([])
    for cookie in (session, ticket):
        assert cookie.partition("; ")[2] == "Path=/; SameSite=Lax; Secure; HttpOnly"

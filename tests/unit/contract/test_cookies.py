from __future__ import annotations

import pytest

from lbadaptor.contract.cookies import Scope, SetCookie, date, finder, host_of, unquote, values

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("__PRT__=a", ["a"]),
        ("x=1; __PRT__=a; y=2", ["a"]),
        ("__PRT__=a; __PRT__=b", ["a", "b"]),
        ("__PRT__=a;__PRT__=b", ["a", "b"]),
        ('__PRT__="a"', ["a"]),
        (" __PRT__ = a ", ["a"]),
        ("__PRT__=", [""]),
        ("__PRT__", []),
        ("__PRT__=a=b", ["a=b"]),
        ("__prt__=a", []),
        ("x__PRT__=a; __PRT__x=b", []),
        ("x=__PRT__=a", []),
        ("__PRT__=\xe4", []),
        ("__PRT__=\xe4; __PRT__=a; y=\xff", ["a"]),
        (";;; =; __PRT__=a;", ["a"]),
    ],
)
def test_all_values_of_a_cookie_in_their_order(header: str, found: list[str]) -> None:
    assert values(header, "__PRT__") == found
    assert finder("__PRT__")(header) == found


def test_values_that_are_not_ascii_can_be_read() -> None:
    assert values("sid=\xe4; sid=a", "sid", only_ascii=False) == ["\xe4", "a"]


@pytest.mark.parametrize(("text", "value"), [('"', '"'), ('""', ""), ('"a', '"a'), (' "a" ', "a"), ("a", "a")])
def test_quotes_are_taken_off_in_pairs(text: str, value: str) -> None:
    assert unquote(text) == value


def parsed(header: str) -> SetCookie:
    cookie = SetCookie.parse(header)
    assert cookie is not None
    return cookie


def test_a_set_cookie_is_read_with_its_attributes() -> None:
    cookie = parsed('sid="abc"; Path=/shop;HttpOnly ; samesite = Lax')
    assert (cookie.name, cookie.value) == ("sid", "abc")
    assert cookie.attributes == ("Path=/shop", "HttpOnly", "samesite = Lax")
    assert cookie.attribute("path") == "/shop"
    assert cookie.attribute("httponly") == ""
    assert cookie.attribute("samesite") == "Lax"
    assert cookie.attribute("domain") is None


def test_the_last_of_two_attributes_counts() -> None:
    assert parsed("sid=a; Path=/a; Path=/b").attribute("path") == "/b"


@pytest.mark.parametrize("header", ["", "sid", "=value", "  =value; Path=/"])
def test_what_sets_no_cookie_is_none(header: str) -> None:
    assert SetCookie.parse(header) is None


@pytest.mark.parametrize(
    ("attributes", "lifetime"),
    [
        ("", None),
        ("Max-Age=60", 60),
        ("Max-Age=-1", -1),
        ("Max-Age=0", 0),
        ("Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", 60),
        ("Expires=Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Expires=Tuesday, 14-Nov-23 22:13:10 GMT", -10),
        ("Expires=soon", None),
        ("Expires=", None),
        ("Expires=Tue, 14 Nov 99999999 22:13:30 GMT", None),
        ("Max-Age=; Expires=Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Max-Age=--5", None),
        ("Max-Age=-", None),
        ("Max-Age=5s", None),
        ("Max-Age=²", None),
        ("Max-Age=" + "9" * 5000, float("inf")),
    ],
)
def test_the_lifetime_and_never_an_error(attributes: str, lifetime: float | None) -> None:
    assert parsed(f"sid=a; {attributes}").lifetime(NOW) == lifetime


@pytest.mark.parametrize(
    ("header", "deletes"),
    [
        ("sid=a", False),
        ("sid=a; Max-Age=1", False),
        ("sid=a; Max-Age=0", True),
        ("sid=a; Max-Age=-5", True),
        ("sid=; Path=/", True),
        ('sid=""', True),
        ("sid=a; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("sid=a; Max-Age=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
    ],
)
def test_a_cookie_is_deleted_by_being_emptied_or_expired(header: str, deletes: bool) -> None:
    assert parsed(header).deletes(NOW) is deletes


# Where a cookie is kept (RFC 6265 §5.3): what tells it apart from another one of its name.


@pytest.mark.parametrize(
    ("attributes", "host", "uri", "scope"),
    [
        ("", "www.example", "/", ("www.example", "/")),
        ("", "www.example", "/shop", ("www.example", "/")),
        ("", "www.example", "/shop/", ("www.example", "/shop")),
        ("", "www.example", "/shop/cart?next=/a/b", ("www.example", "/shop")),
        ("", "www.example", "http://www.example/shop/cart", ("www.example", "/shop")),
        ("", "www.example", "*", ("www.example", "/")),
        ("Path=/old", "www.example", "/shop/cart", ("www.example", "/old")),
        ("path=/Old/", "www.example", "/shop/cart", ("www.example", "/Old/")),
        ("Path=", "www.example", "/shop/cart", ("www.example", "/shop")),
        ("Path=old", "www.example", "/shop/cart", ("www.example", "/shop")),
        ("Path", "www.example", "/shop/cart", ("www.example", "/shop")),
        ("Path=/a; Path=/b", "www.example", "/", ("www.example", "/b")),
        ("Path=/a; Path=b", "www.example", "/shop/cart", ("www.example", "/shop")),
        ("Domain=Example.ORG", "www.example.org", "/", ("example.org", "/")),
        ("DOMAIN=.example.org", "www.example.org", "/", ("example.org", "/")),
        ("Domain=", "www.example.org", "/", ("www.example.org", "/")),
        ("Domain=example.org; Domain=", "www.example.org", "/", ("example.org", "/")),
        ("Domain=www.example.org", "www.example.org", "/", ("www.example.org", "/")),
    ],
)
def test_the_scope_of_a_cookie(attributes: str, host: str, uri: str, scope: tuple[str, str]) -> None:
    assert parsed(f"sid=a; {attributes}").scope(host, uri) == scope


@pytest.mark.parametrize(
    ("scope", "host", "uri", "sent"),
    [
        (("www.example", "/"), "www.example", "/shop/cart", True),
        (("example", "/"), "www.example", "/", True),
        (("example", "/"), "wwwexample", "/", False),
        (("www.example", "/"), "example", "/", False),
        (("www.example", "/shop"), "www.example", "/shop", True),
        (("www.example", "/shop"), "www.example", "/shop/cart?a=/", True),
        (("www.example", "/shop/"), "www.example", "/shop/cart", True),
        (("www.example", "/shop/"), "www.example", "/shop", False),
        (("www.example", "/shop"), "www.example", "/shopping", False),
        (("www.example", "/old"), "www.example", "/?/old", False),
        (("www.example", "/Shop"), "www.example", "/shop", False),
    ],
)
def test_whether_a_browser_sends_it(scope: tuple[str, str], host: str, uri: str, sent: bool) -> None:
    assert Scope(*scope).sent_to(host, uri) is sent


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("www.example", "www.example"),
        ("WWW.Example:8080", "www.example"),
        ("[::1]:8000", "[::1]"),
        ("[::1]", "[::1]"),
        (" a ", "a"),
        ("", ""),
    ],
)
def test_the_host_of_a_request(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Tue, 14 Nov 2023 22:13:30 GMT", NOW + 10),
        ("Tuesday, 14-Nov-23 22:13:30 GMT", NOW + 10),
        ("Tue Nov 14 22:13:30 2023", NOW + 10),
        ("Tue, 14 Nov 2023 22:13:30", NOW + 10),
        ("Tue, 14 Nov 2023 22:13:30 +0500", NOW + 10),
        ("14 november 2023 22:13:30", NOW + 10),
        ("22:13:30 2023 Nov 14", NOW + 10),
        ("Thu, 01-Jan-1970 00:00:00 GMT", 0),
        ("Mon, 01-Jan-1900 00:00:00 GMT", -2208988800),
        ("Thu, 01 Jan 69 00:00:00 GMT", 3124224000),
        ("0", None),
        ("-1", None),
        ("", None),
        ("Thu, 31 Feb 2023 00:00:00 GMT", None),
        ("Thu, 01 Jan 1600 00:00:00 GMT", None),
        ("Thu, 01 Jan 2023 24:00:00 GMT", None),
        ("Thu, 01 Jan 2023", None),
        ("x" * 100_000, None),
    ],
)
def test_dates_are_read_as_browsers_read_them(text: str, moment: float | None) -> None:
    assert date(text) == moment


@pytest.mark.parametrize(
    ("attributes", "lifetime"),
    [
        ("Max-Age=60; Max-Age=x", 60),
        ("Max-Age=60; Max-Age=0", 0),
        ("Expires=Tue, 14 Nov 2023 22:13:30 GMT; Expires=0", 10),
    ],
)
def test_an_attribute_that_cannot_be_read_takes_no_place(attributes: str, lifetime: float) -> None:
    assert parsed(f"sid=a; {attributes}").lifetime(NOW) == lifetime

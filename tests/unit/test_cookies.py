from __future__ import annotations

import pytest

from lbadaptor.cookies import SetCookie, unquote, values

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

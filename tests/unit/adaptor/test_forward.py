from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from lbadaptor.adaptor import forward
from lbadaptor.adaptor.forward import BadRequest, Heads, LengthRequired, body_length, head_end, refuse_lost
from lbadaptor.adaptor.spool import EMPTY, Body
from lbadaptor.contract import headers
from lbadaptor.contract.ticket import Verdict


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/cart",
        "QUERY_STRING": "",
        "REQUEST_URI": "/shop/cart",
        "SERVER_NAME": "www.example",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/2.0",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "50123",
        "HTTP_HOST": "www.example:443",
        "wsgi.url_scheme": "https",
    } | changes


def common_head(environ: dict[str, Any], body: Body = EMPTY, patterns: tuple[str, ...] = ()) -> str:
    return Heads(patterns).common(environ, body).decode("latin-1")


def sent(body: Body = EMPTY, **changes: Any) -> tuple[str, list[tuple[str, str]]]:
    """The request line and the headers that an environ becomes."""
    first, *rest = common_head(environ(**changes), body).removesuffix("\r\n").split("\r\n")
    return first, [(name, value) for name, _, value in (line.partition(": ") for line in rest)]


def fields(**changes: Any) -> dict[str, str]:
    pairs = sent(**changes)[1]
    assert len({name.lower() for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_every_mandatory_header_is_there_and_says_what_apache_said() -> None:
    found = fields()
    assert {name: found[name] for name in headers.MANDATORY} == {
        "LB-Remote-Addr": "192.0.2.7",
        "LB-Remote-Port": "50123",
        "LB-Scheme": "https",
        "LB-Script-Name": "/shop",
        "LB-Request-Uri": "/shop/cart",
        "LB-Server-Name": "www.example",
        "LB-Server-Port": "443",
        "LB-Server-Protocol": "HTTP/2.0",
    }
    assert found["LB-Path"] == "/shop/cart"


def test_mandatory_headers_are_there_when_a_gateway_sets_less() -> None:
    bare = environ(QUERY_STRING="a=b")
    for key in ("REQUEST_URI", "REMOTE_PORT", "SERVER_PROTOCOL", "wsgi.url_scheme", "HTTP_HOST"):
        del bare[key]
    text = common_head(bare)
    assert all(f"\r\n{name}: " in text for name in headers.MANDATORY)
    assert "\r\nLB-Request-Uri: /shop/cart?a=b\r\n" in text
    assert "\r\nHost: \r\n" in text  # nobody makes one up


@pytest.mark.parametrize(
    ("path", "query", "line"),
    [
        ("/cart", "", "GET /shop/cart HTTP/1.1"),
        ("/cart", "a=b&c=%20", "GET /shop/cart?a=b&c=%20 HTTP/1.1"),
        ("/a b", "", "GET /shop/a%20b HTTP/1.1"),
        ("/a?b#c", "", "GET /shop/a%3Fb%23c HTTP/1.1"),
        ("/\xc3\xa4", "", "GET /shop/%C3%A4 HTTP/1.1"),
        ("/a\r\nX: y", "", "GET /shop/a%0D%0AX:%20y HTTP/1.1"),
        ("/cart", "a=b\r\nX: y", "GET /shop/cart?a=b%0D%0AX:%20y HTTP/1.1"),
        ("/cart", "\xe4 b", "GET /shop/cart?%E4%20b HTTP/1.1"),
    ],
)
def test_the_request_line_carries_any_path_and_query(path: str, query: str, line: str) -> None:
    assert sent(PATH_INFO=path, QUERY_STRING=query)[0] == line


def test_a_path_of_nothing_is_the_root() -> None:
    assert sent(SCRIPT_NAME="", PATH_INFO="")[0] == "GET / HTTP/1.1"


def test_a_query_that_the_request_line_cannot_carry_travels_in_a_header_too() -> None:
    found = fields(QUERY_STRING="q=\xe4 %41")
    assert headers.decode(found["LB-Query"]) == "q=\xe4 %41"
    assert "LB-Query" not in fields(QUERY_STRING="q=%E4+1")


@pytest.mark.parametrize("method", ["PROPFIND", "get", "CONNECT", "M-SEARCH", "X\r\nY: z"])
def test_a_method_that_parsers_do_not_know_travels_in_a_header(method: str) -> None:
    line, pairs = sent(REQUEST_METHOD=method)
    assert line == "POST /shop/cart HTTP/1.1"
    assert headers.decode(dict(pairs)["LB-Method"]) == method


def test_a_known_method_needs_no_header() -> None:
    assert "LB-Method" not in fields(REQUEST_METHOD="DELETE")


def test_the_visitors_headers_go_along() -> None:
    found = fields(HTTP_X_FOO="bar", HTTP_COOKIE="a=1; b=2", CONTENT_TYPE="text/plain", HTTP_ACCEPT="*/*")
    assert (found["X-Foo"], found["Cookie"], found["Accept"]) == ("bar", "a=1; b=2", "*/*")
    assert found["Content-Type"] == "text/plain"
    assert found["Host"] == "www.example:443"


@pytest.mark.parametrize(
    "key",
    [
        "HTTP_LB_KEY",
        "HTTP_LB_PROBE",
        "HTTP_LB_REMOTE_USER",
        "HTTP_LB_",
        "HTTP_Lb_Key",
        "HTTP_LB-KEY",
        "HTTP_LB_VAR_X",
    ],
)
def test_what_a_visitor_sends_under_our_names_is_dropped(key: str) -> None:
    assert "forged" not in common_head(environ(**{key: "forged"}))


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP | {"expect", "content-length", "content-type"}))
def test_what_concerns_one_connection_or_the_framing_is_not_handed_on(name: str) -> None:
    key = f"HTTP_{name.upper().replace('-', '_')}"
    assert "handed-on" not in common_head(environ(**{key: "handed-on"}))


@pytest.mark.parametrize("evil", ["a\r\nLB-Key: x", "a\nb", "a\rb", "a\0b", "a\r\n\r\nGET / HTTP/1.1"])
@pytest.mark.parametrize("key", ["HTTP_X_FOO", "HTTP_HOST", "HTTP_COOKIE", "CONTENT_TYPE", "HTTP_X\r\nEVIL"])
def test_a_line_break_or_nul_in_a_header_is_a_bad_request(key: str, evil: str) -> None:
    with pytest.raises(BadRequest):
        common_head(environ(**{key: evil}))


@pytest.mark.parametrize("evil", ["a\r\nLB-Key: x", "a\0b", "\xe4 \xff"])
@pytest.mark.parametrize(
    ("key", "name"),
    [("REMOTE_USER", "LB-Remote-User"), ("AUTH_TYPE", "LB-Auth-Type"), ("REQUEST_URI", "LB-Request-Uri")],
)
def test_text_of_apaches_is_encoded(key: str, name: str, evil: str) -> None:
    found = fields(**{key: evil})
    assert headers.decode(found[name]) == evil
    assert found[name].isascii()


def test_user_and_auth_type_are_left_out_without_a_login() -> None:
    assert not {"LB-Remote-User", "LB-Auth-Type"} & fields(REMOTE_USER="").keys()


@pytest.mark.parametrize(
    ("body", "length", "framing"),
    [
        (EMPTY, "", {}),
        (EMPTY, "0", {"Content-Length": "0"}),
        (Body(b"abc", 3), "3", {"Content-Length": "3"}),
        (Body(b"abc", 3), "", {"Content-Length": "3"}),  # it came in chunks, and was kept
        (Body(b"abc", None, iter([b"d"])), "", {"Transfer-Encoding": "chunked"}),
        (Body(b"abc", None, iter([b"d"])), "9", {"Transfer-Encoding": "chunked", "LB-Content-Length": "9"}),
        (Body(b"abc", 3), "003", {"Content-Length": "3"}),
        (Body(b"abc", 3), "9", {"Content-Length": "3", "LB-Content-Length": "9"}),  # a filter has shortened it,
        (Body(b"abc", 3), "02", {"Content-Length": "3", "LB-Content-Length": "2"}),  # or lengthened it
        (Body(b"", 0), "9", {"Content-Length": "0", "LB-Content-Length": "9"}),
    ],
)
def test_the_framing_is_our_own_and_fits_the_body(body: Body, length: str, framing: dict[str, str]) -> None:
    pairs = sent(body, CONTENT_LENGTH=length, HTTP_TRANSFER_ENCODING="gzip", HTTP_CONTENT_LENGTH="77")[1]
    assert {
        n: v for n, v in pairs if n.lower() in ("content-length", "transfer-encoding", "lb-content-length")
    } == framing


@pytest.mark.parametrize(("length", "expected"), [("", 0), ("0", 0), ("12", 12), ("9" * 18, 10**18 - 1)])
def test_the_length_of_a_body(length: str, expected: int) -> None:
    assert body_length(environ(CONTENT_LENGTH=length)) == expected


def test_a_chunked_body_has_no_length() -> None:
    assert body_length(environ(HTTP_TRANSFER_ENCODING="Chunked")) is None


@pytest.mark.parametrize("codings", ["gzip, chunked", "chunked, chunked", "identity", "x"])
def test_a_body_with_another_coding_is_refused_with_501(codings: str) -> None:
    with pytest.raises(BadRequest) as caught:
        body_length(environ(HTTP_TRANSFER_ENCODING=codings))
    assert caught.value.status == 501


@pytest.mark.parametrize("length", ["-1", "+1", "1.5", "1e3", "0x10", "²", "1 ", "1_0", "9" * 5000, "3, 3"])
def test_a_length_that_is_none_is_a_bad_request(length: str) -> None:
    with pytest.raises(BadRequest):
        body_length(environ(CONTENT_LENGTH=length))


@pytest.mark.parametrize(
    ("verdict", "session"),
    [(Verdict.NONE, "none"), (Verdict.HELD, "held"), (Verdict.LOST, "lost"), (Verdict.FORGED, "none")],
)
def test_a_heads_end_says_key_generation_and_session(verdict: Verdict, session: str) -> None:
    key = "k" * 64
    lines = f"LB-Key: {key}\r\nLB-Generation: 17\r\nLB-Session: {session}\r\n\r\n"
    assert head_end(key, 17, verdict) == lines.encode()


def test_variables_that_match_travel_encoded() -> None:
    text = common_head(
        environ(
            HTTPS="on",
            SSL_CLIENT_CERT="-----BEGIN\nabc\n",
            GEOIP_COUNTRY="AT",
            GEOIP_CITY="Graz",
            SSL_NUMBER=3,
            HTTP_SSL_FORGED="x",
        ),
        patterns=("SSL_*", "GEOIP_COUNTRY"),
    )
    assert {line for line in text.split("\r\n") if line.startswith("LB-Var-")} == {
        "LB-Var-HTTPS: on",
        "LB-Var-SSL-CLIENT-CERT: -----BEGIN%0Aabc%0A",
        "LB-Var-GEOIP-COUNTRY: AT",
    }


def test_without_patterns_only_https_is_handed_on() -> None:
    text = common_head(environ(HTTPS="on", SSL_PROTOCOL="TLSv1.3"))
    assert [line for line in text.split("\r\n") if line.startswith("LB-Var-")] == ["LB-Var-HTTPS: on"]


def test_names_that_visitors_make_up_take_no_memory_without_bound() -> None:
    heads = Heads(("SSL_*",))
    bound = forward._MAX_SHAPES + forward._MAX_SHAPE
    for length, count in ((1, 3000), (2000, 300)):
        tracemalloc.start()
        for number in range(count):
            name = f"HTTP_X_{number}_{'A' * length}"
            line = f"\r\nX-{number}-A{'a' * (length - 1)}: y\r\n"
            assert line.encode() in heads.common(environ(**{name: "y"}), EMPTY)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < bound


def test_ninety_names_of_seven_thousand_characters_are_not_remembered() -> None:
    heads = Heads(())
    for number in range(20):
        names = {f"HTTP_{place}_{number}_{'A' * 7000}": "y" for place in range(90)}
        text = heads.common(environ(**names), EMPTY)
        assert text.count(b": y\r\n") == 90
    assert heads._shapes == {}


def test_a_url_for_the_log_has_no_query_and_an_end() -> None:
    assert forward.url(environ(PATH_INFO="/a b\n\xe4", QUERY_STRING="token=x")) == "GET /shop/a%20b%0A%E4"
    assert len(forward.url(environ(PATH_INFO="/" + "x" * 8000))) < 600


def test_a_url_for_the_log_has_the_requests_id() -> None:
    assert forward.url(environ(UNIQUE_ID="aZ09@-")) == "GET /shop/cart (aZ09@-)"
    for bad in ("", "a b", "a\nb", "x" * 129):
        assert forward.url(environ(UNIQUE_ID=bad)) == "GET /shop/cart"


@pytest.mark.parametrize("patterns", [(), ("UNIQUE_ID",), ("U*",)])
def test_the_id_stands_where_the_appserver_looks_for_it(patterns: tuple[str, ...]) -> None:
    head = common_head(environ(UNIQUE_ID="aZ09@-", HTTP_LB_REQUEST_ID="made-up"), patterns=patterns)
    assert "\r\nLB-Remote-Port: 50123\r\nLB-Request-Id: aZ09@-\r\nLB-Scheme: https\r\n" in head
    assert head.count("LB-Request-Id") == 1
    assert ("LB-Var-UNIQUE-ID: aZ09@-" in head) == bool(patterns)
    assert "LB-Request-Id" not in common_head(environ(), patterns=patterns)


def test_a_name_may_hold_what_a_text_with_gaps_would_take_for_one() -> None:
    assert fields(**{"HTTP_X_%S%(A)S%": "%s"})["X-%S%(A)S%"] == "%s"


@pytest.mark.parametrize(
    ("group", "protocol", "refused"),
    [("lbadaptor", "HTTP/2.0", True), ("", "HTTP/2.0", False), ("lbadaptor", "HTTP/1.1", False)],
)
def test_an_empty_body_without_length_is_refused_where_it_may_have_been_lost(
    group: str, protocol: str, refused: bool
) -> None:
    found = environ(SERVER_PROTOCOL=protocol, **{"mod_wsgi.process_group": group})
    if refused:
        with pytest.raises(LengthRequired) as caught:
            refuse_lost(found)
        assert caught.value.status == 411
    else:
        refuse_lost(found)

"""What the application sees of a request: built from the LB- headers alone."""

from __future__ import annotations

import pytest

from lbadaptor.appserver.wsgi.environ import Incomplete, Request, base_environ, build, build_alone
from lbadaptor.contract import headers
from lbadaptor.http1.framing import CHUNKED
from lbadaptor.http1.lines import ProtocolError

BASE = base_environ(3, 17, 8, object)
LB = {
    "LB-Key": "key",
    "LB-Generation": "17",
    "LB-Remote-Addr": "192.0.2.7",
    "LB-Remote-Port": "51234",
    "LB-Scheme": "https",
    "LB-Script-Name": "/app",
    "LB-Path": "/app/page",
    "LB-Request-Uri": "/app/./page?x=1",
    "LB-Server-Name": "www.example.org",
    "LB-Server-Port": "443",
    "LB-Server-Protocol": "HTTP/2.0",
}


def request(*fields: tuple[str, str], method: str = "GET", target: str = "/x", **lb: str) -> Request:
    ours = LB | {"LB-" + name.replace("_", "-"): value for name, value in lb.items()}
    return head(f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in (*ours.items(), *fields)))


def head(*lines: str) -> Request:
    return Request("\r\n".join(lines))


def test_the_environ_says_what_the_lb_headers_say() -> None:
    environ = build(request(target="/other?x=1"), BASE)
    assert {key: value for key, value in environ.items() if key not in BASE} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/page",
        "QUERY_STRING": "x=1",
        "REQUEST_URI": "/app/./page?x=1",
        "SERVER_NAME": "www.example.org",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/2.0",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "51234",
        "wsgi.url_scheme": "https",
    }


def test_all_that_is_mandatory_is_demanded() -> None:
    assert request().missing() == []
    assert head("GET / HTTP/1.1").missing() == sorted(LB)


def test_the_base_is_not_touched() -> None:
    before = dict(BASE)
    build(request(("Cookie", "a=b")), BASE)["x"] = "y"
    assert before == BASE


def test_the_base_says_what_pep_3333_asks_for() -> None:
    assert BASE["wsgi.version"] == (1, 0)
    assert BASE["wsgi.multiprocess"] is True
    assert BASE["wsgi.run_once"] is False
    assert BASE["wsgi.input_terminated"] is True
    assert BASE["wsgi.file_wrapper"] is object
    assert (BASE["lbadaptor.slot"], BASE["lbadaptor.generation"]) == (3, 17)
    assert BASE["lbadaptor.session_lost"] is False


@pytest.mark.parametrize(("threads", "multithread"), [(1, False), (2, True)])
def test_one_thread_is_not_multithreaded(threads: int, multithread: bool) -> None:
    assert base_environ(0, 0, threads, object)["wsgi.multithread"] is multithread


@pytest.mark.parametrize(
    ("script_name", "path", "path_info"),
    [
        ("", "/", "/"),
        ("", "/a%20b", "/a b"),
        ("/app", "/app", ""),
        ("/app", "/app/%C3%A4", "/\xc3\xa4"),
        ("/%C3%A4", "/%C3%A4/x", "/x"),
        ("", "/a%252Fb", "/a%2Fb"),
        ("", "/a//b", "/a//b"),
        ("", "/%0D%0AX:%20y", "/\r\nX: y"),
    ],
)
def test_the_path_is_the_one_that_apache_authorised(script_name: str, path: str, path_info: str) -> None:
    environ = build(request(Script_Name=script_name, Path=path), BASE)
    assert environ["PATH_INFO"] == path_info
    assert environ["SCRIPT_NAME"] + environ["PATH_INFO"] == headers.decode(path)


def test_a_path_outside_the_script_name_is_refused() -> None:
    with pytest.raises(Incomplete):
        build(request(Script_Name="/app", Path="/other"), BASE)


def test_the_query_comes_from_the_request_line_as_it_is() -> None:
    assert build(request(target="/x?a=%41&b=c?d"), BASE)["QUERY_STRING"] == "a=%41&b=c?d"
    assert build(request(target="/x"), BASE)["QUERY_STRING"] == ""


def test_lb_method_and_lb_query_win_over_the_request_line() -> None:
    environ = build(request(method="POST", target="/x?wire", Method="PROPFIND%20", Query="a=%E4"), BASE)
    assert environ["REQUEST_METHOD"] == "PROPFIND "
    assert environ["QUERY_STRING"] == "a=\xe4"


def test_user_and_variables_arrive_under_their_own_names() -> None:
    environ = build(
        request(Remote_User="J%C3%BCrgen", Auth_Type="Basic", Var_HTTPS="on", Var_SSL_CLIENT_S_DN="CN=%0A"), BASE
    )
    assert environ["REMOTE_USER"] == "J\xc3\xbcrgen"
    assert environ["AUTH_TYPE"] == "Basic"
    assert environ["HTTPS"] == "on"
    assert environ["SSL_CLIENT_S_DN"] == "CN=\n"


@pytest.mark.parametrize(
    "key", ["REMOTE_USER", "AUTH_TYPE", "HTTPS", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_COOKIE"]
)
def test_what_was_not_sent_is_not_there(key: str) -> None:
    assert key not in build(request(), BASE)


def test_in_the_fast_lane_only_the_variables_that_apache_names_are_believed() -> None:
    """It sets those itself, and cannot drop others that a visitor sends."""
    sent = {"Var_HTTPS": "on", "Var_SSL_CLIENT_VERIFY": "SUCCESS", "Var_NONE": "x"}
    for named, believed in {"": [], "ssl-client-verify": ["SSL_CLIENT_VERIFY"], "HTTPS A": ["HTTPS"]}.items():
        environ = build(request(Variables=named, **sent), BASE)
        assert environ.keys() - build(request(), BASE).keys() == set(believed)
    assert build(request(Variables=""), BASE) == build(request(), BASE)


def test_no_lb_header_reaches_the_application() -> None:
    environ = build(request(("LB-Whatever", "x"), ("LB_Key", "x"), Session="held"), BASE)
    assert not [key for key in environ if "LB" in key]


def test_the_visitors_headers_arrive() -> None:
    environ = build(
        request(
            ("Host", "www.example.org"), ("X-Foo-Bar", "\xe4 b"), ("Content-Type", "a/b"), ("Content-Length", "3")
        ),
        BASE,
    )
    assert environ["HTTP_HOST"] == "www.example.org"
    assert environ["HTTP_X_FOO_BAR"] == "\xe4 b"
    assert environ["CONTENT_TYPE"] == "a/b"
    assert environ["CONTENT_LENGTH"] == "3"
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


@pytest.mark.parametrize("name", ["Content_Length", "Remote_User", "X_Foo", "lb_remote_user", "LB_Var_HTTPS"])
def test_a_name_with_an_underscore_passes_for_no_other(name: str) -> None:
    assert build(request((name, "made up")), BASE) == build(request(), BASE)


@pytest.mark.parametrize("name", ["Proxy", "proxy", "X.Dot", "X!", "~"])
def test_a_name_that_mod_wsgi_would_drop_does_not_arrive(name: str) -> None:
    assert build(request((name, "made up")), BASE) == build(request(), BASE)


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP - {"transfer-encoding"}))
def test_what_concerns_one_connection_only_does_not_arrive(name: str) -> None:
    assert build(request((name, "x")), BASE) == build(request(), BASE)


def test_the_application_sees_that_the_body_comes_in_chunks() -> None:
    environ = build(request(("Transfer-Encoding", "chunked")), BASE)
    assert (environ["HTTP_TRANSFER_ENCODING"], environ.get("CONTENT_LENGTH")) == ("chunked", None)


def test_an_empty_host_is_none() -> None:
    assert "HTTP_HOST" not in build(request(("Host", "")), BASE)


def test_repeated_headers_are_joined_and_cookies_by_semicolon() -> None:
    environ = build(request(("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("cookie", "b=2")), BASE)
    assert environ["HTTP_X_A"] == "1, 2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize("name", [*LB, "LB-Remote-User", "LB-Var-HTTPS", "LB-Session", "Content-Length"])
def test_what_is_said_but_once_is_not_believed_twice(name: str) -> None:
    lines = [f"{key}: 1" for key in (LB.keys() - {name}) | {"LB-Remote-User"} - {name}]
    with pytest.raises(ProtocolError, match="said twice"):
        head("GET / HTTP/1.1", *lines, f"{name}: 1", f"{name.lower()}: 1")


@pytest.mark.parametrize("framing", [("Content-Length", "40502"), ("Transfer-Encoding", "chunked")])
def test_the_length_that_the_visitor_said_is_the_applications_to_see(framing: tuple[str, str]) -> None:
    got = request(framing, Content_Length="018741")
    assert got.framing == (40502 if framing[0] == "Content-Length" else CHUNKED)
    environ = build(got, BASE)
    assert environ["CONTENT_LENGTH"] == "18741"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert not [key for key in environ if key.upper().startswith("LB-")]


def test_without_a_body_there_is_no_content_length() -> None:
    assert "CONTENT_LENGTH" not in build(request(Content_Length="5"), BASE)


@pytest.mark.parametrize("value", ["", "x", "-1", "1, 1"])
def test_a_visitors_length_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        request(("Content-Length", "5"), Content_Length=value)


def test_more_header_names_than_are_remembered_still_arrive() -> None:
    environ = build(request(*((f"X-{number}", "v") for number in range(3000))), BASE)
    assert sum(key.startswith("HTTP_X_") for key in environ) == 3000


@pytest.mark.parametrize(
    ("field", "framing"),
    [
        (("Content-Length", "3"), 3),
        (("Transfer-Encoding", "Chunked"), CHUNKED),
        (("Content-Length", "0"), 0),
        (("Content-Type", "a/b"), 0),
    ],
)
def test_a_head_announces_a_body(field: tuple[str, str], framing: int) -> None:
    assert request(field).framing == framing


def test_alone_the_environ_is_built_from_the_request_line() -> None:
    made = head("GET /a%20b?c=%20 HTTP/1.1", "Host: localhost", "LB-Remote-User: made up")
    environ = build_alone(made, BASE, ("192.0.2.7", 51234), ("127.0.0.1", 9000))
    assert {key: value for key, value in environ.items() if key not in BASE} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=%20",
        "REQUEST_URI": "/a%20b?c=%20",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "9000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "51234",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "localhost",
    }

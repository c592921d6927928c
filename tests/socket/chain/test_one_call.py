"""What a living AppServer's application does wrong, or large: it is called once, and the visitor is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from living import Application, living
from stage import Site

TEXT = ("Content-Type", "text/plain")


def raises_in_the_body(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    yield b"half"
    raise RuntimeError("this answer breaks off")


def shorter_than_it_says(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "8")])
    return [b"half"]


def not_a_byte(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    return []


def writes_and_raises(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [TEXT])
    write(b"half")
    raise SystemExit(1)


def raises_at_once(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    raise RuntimeError("this answer breaks off")


def control_character(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("302 Found", [TEXT, ("Location", "/to/\x7fa")])
    return [b""]


def enormous_head(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("X-Large", "x" * (3 << 20))])
    return [b"x"]


class Counted:
    """How often an application is called."""

    def __init__(self, application: Application) -> None:
        self.calls = 0
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        environ["wsgi.input"].read()
        return self._application(environ, start_response)


@pytest.mark.parametrize(
    ("application", "status"),
    [
        (raises_in_the_body, 502),
        (shorter_than_it_says, 502),
        (not_a_byte, 500),
        (writes_and_raises, 502),
        (enormous_head, 502),
        (raises_at_once, 500),
        (control_character, 500),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@pytest.mark.parametrize("held", [True, False])
def test_an_application_that_fails_is_called_once(
    site: Site, application: Application, status: int, method: str, unix: bool, held: bool
) -> None:
    counted = Counted(application)
    with living(site, counted, unix=unix) as one, living(site, counted, unix=unix, slot=1) as other:
        site.publish(one, other)
        cookie = {"HTTP_COOKIE": f"__PRT__={one.ticket}; sid=abc"} if held else {}
        got = site.ask(method, b"" if method == "GET" else b"x" * 1000, **cookie)
    assert (got.status, counted.calls) == (status, 1)


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_heads_as_large_as_apache_takes_them_go_both_ways(site: Site, unix: bool) -> None:
    """A hundred fields of 8,190 bytes there (LimitRequestFields), 150 cookies of 1 kB back."""
    sent = {f"HTTP_X_{number}": f"{number}" + "x" * 8000 for number in range(100)}

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        right = all(environ[key] == value for key, value in sent.items())
        start_response("200 OK", [TEXT, *(("Set-Cookie", f"c{number}={'y' * 1000}") for number in range(150))])
        return [b"right" if right else b"wrong"]

    counted = Counted(application)
    with living(site, counted, unix=unix) as entry:
        site.publish(entry)
        got = site.ask(**sent)
        assert (got.status, got.body, counted.calls) == (200, b"right", 1)
        assert sum(len(value) for name, value in got.headers if name == "Set-Cookie") > 150_000


@pytest.mark.parametrize(
    "name", ["LB-Status", "LB_Status", "lb_status", "Lb_Status", "LB_X", "LB-Refused", "LB-Moved-To"]
)
def test_headers_with_names_like_ours_reach_no_application(site: Site, name: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, (name, "DYING")])
        return [b"x"]

    with living(site, application, unix=True) as entry:
        site.publish(entry)
        got = site.ask()
    assert got.status == 200
    assert [key for key, _ in got.headers if key.lower().startswith("lb")] == []

"""What becomes of odd answers, and of those that are not over with their last byte, under a real Apache httpd."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cluster import INSTALLATIONS, LANES, TIMEOUT, Cluster, Site, running_cluster

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "environ.md"
SITES = ("embedded-debian", "daemon-debian", "cgi-debian", "fast-debian")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(app="answers:application", appservers={"servers": 1, "threads": 4}) as made:
        yield made


@pytest.fixture(scope="module")
def sites(cluster: Cluster) -> dict[str, Site]:
    return {name: cluster.site(name) for name in SITES}


def ask(site: Site, target: str, **options: object) -> requests.Response:
    with requests.Session() as visitor:
        visitor.trust_env = False
        if options.pop("ticket", False):
            visitor.cookies.set("__PRT__", site.cluster.table().entries[0].ticket)
        return visitor.get(site.url + target, timeout=TIMEOUT, **options)  # type: ignore[arg-type]


def calls(cluster: Cluster, name: str) -> int:
    return (cluster.gates / "answers").read_text().split("\n").count(name)


@pytest.mark.parametrize("query", ["closes&chunks", "closes", "iterates"])
@pytest.mark.parametrize("lane", LANES)
def test_no_visitor_waits_for_anothers_close(sites: dict[str, Site], lane: str, query: str) -> None:
    """Its connection to the AppServer is used again at once."""
    site = sites[lane]
    gate = site.cluster.gate()
    query = "&".join(f"{word}=1" for word in query.split("&"))
    held = []
    for _ in range(3):  # of four threads
        with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
            ticket = site.cluster.table().entries[0].ticket if site.fast else ""
            lines = (f"GET /held?{query}&gate={gate.name} HTTP/1.1", "Host: x", f"Cookie: __PRT__={ticket}")
            visitor.sendall("\r\n".join((*lines, "Connection: close", "", "")).encode())
            answer = b""
            while more := visitor.recv(65536):
                answer += more
            held.append(answer)
        for _ in range(5):
            assert ask(site, "/free", ticket=site.fast).text == "/free"
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"hello" in answer for answer in held)
    gate.reached()
    gate.open()


ODD = {"600 Odd": 500, "999 Odd": 500, "99 Odd": 500, "100 Continue": 500, "103 Early Hints": 500, "OK": 500}


@pytest.mark.parametrize("lane", SITES)
@pytest.mark.parametrize("line", ODD)
def test_a_status_that_is_none_is_a_500_and_asked_once(sites: dict[str, Site], lane: str, line: str) -> None:
    site = sites[lane]
    name = f"{lane} {line}"
    answer = ask(site, "/status", params={"line": line, "name": name}, ticket=site.fast)
    assert answer.status_code == 500
    assert calls(site.cluster, name) == 1
    site.cluster.await_said(f"'{line}' is no status")


@pytest.mark.parametrize("lane", SITES)
def test_nothing_of_a_length_is_a_500_and_asked_once(sites: dict[str, Site], lane: str) -> None:
    site = sites[lane]
    answer = ask(site, "/nothing", params={"name": f"nothing {lane}"}, ticket=site.fast)
    assert answer.status_code == 500
    assert calls(site.cluster, f"nothing {lane}") == 1
    site.cluster.await_said("not one byte of 5 that Content-Length says")


@pytest.mark.parametrize("lane", SITES)
def test_what_is_between_us_and_the_adaptor_never_comes_from_the_application(
    sites: dict[str, Site], lane: str
) -> None:
    site = sites[lane]
    answer = ask(site, "/plain", ticket=site.fast)
    assert not [name for name in answer.headers if name.lower().startswith(("lb-", "lb_"))]


@pytest.mark.parametrize("lane", SITES)
def test_a_200_with_a_place_of_ones_own_is_a_redirect_in_daemon_mode_and_as_cgi(
    sites: dict[str, Site], lane: str
) -> None:
    """As with mod_wsgi itself in daemon mode: Apache sees to it (RFC 3875 §6.2.2)."""
    site = sites[lane]
    answer = ask(site, "/located", ticket=site.fast)
    assert answer.status_code == 200
    assert answer.text == ("/elsewhere" if lane in ("daemon-debian", "cgi-debian") else "here")


DIRECT = """
import os, sys
os.environ["VISITS_GATES"] = {notes!r}
sys.path.insert(0, {apps!r})
from answers import application
"""


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize("mode", ["embedded", "daemon"])
def test_what_the_page_says_about_mod_wsgi(cluster: Cluster, mode: str, installation: str) -> None:
    apps = cluster.folder / "apps"
    script = apps / "direct.wsgi"
    script.write_text(DIRECT.format(notes=str(cluster.temporary), apps=str(apps)))
    script.chmod(0o755)
    snippet = cluster.folder / f"direct-{mode}.conf"
    group = "WSGIDaemonProcess direct processes=1\nWSGIProcessGroup direct\n" if mode == "daemon" else ""
    snippet.write_text(f"WSGIScriptAlias / {script}\n{group}<Directory {apps}>\nRequire all granted\n</Directory>\n")
    site = cluster.site(f"embedded-{installation}", snippet=snippet, lint=False)
    try:
        with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
            visitor.sendall(b"GET /status?line=600+Odd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert visitor.recv(65536).startswith(b"HTTP/1.1 600 Odd\r\n")
        assert ask(site, "/status", params={"line": "99 Odd"}).status_code == 500
        assert ask(site, "/located").text == ("/elsewhere" if mode == "daemon" else "here")
        with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
            visitor.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while more := visitor.recv(65536):
                answer += more
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n"), "the head alone"
    finally:
        site.httpd.stop()  # it may be at work on the request with which it was waited for, and note that
        for path in cluster.temporary.iterdir():
            path.unlink()


def test_what_the_page_says_about_answers_is_tested_here() -> None:
    page = PAGE.read_text()
    for words in ("600, 999", "200 with `Location`", "not one byte of its Content-Length"):
        assert words in page

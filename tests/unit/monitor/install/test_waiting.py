"""Waiting for a page: whose answer it is, and when to give up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.contract.client import NoAnswer
from monitor.install import page
from monitor.install.page import Place
from monitor.install.wanted import Refused

PLACE = Place("", "/shop", 80)
SOCKET = Path("/run/lbadaptor-shop/control.sock")


def server(served: int = 0, state: str = "OK", why: str = "", generation: int = 1) -> dict[str, Any]:
    return {"slot": 0, "generation": generation, "served": served, "state": state, "why": why}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """`wait` with scripted answers of Apache and of the monitor; the last one is repeated. What it says and told."""

    def play(answers: list[tuple[int, str, str]], statuses: list[Any]) -> list[str]:
        now = [100.0]
        monkeypatch.setattr(page.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(page.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

        def ask(_: Path) -> dict[str, Any]:
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            if isinstance(status, Exception):
                raise status
            return {"appservers": status}

        monkeypatch.setattr(page.client, "ask", ask)
        monkeypatch.setattr(page, "_ask", lambda _: answers.pop(0) if len(answers) > 1 else answers[0])
        told: list[str] = []
        said = page.wait(PLACE, SOCKET, 30, told.append)
        return [said, *told]

    return play


def test_a_page_is_an_appservers_when_one_has_served_more(scene: Callable[..., list[str]]) -> None:
    said, *told = scene(
        [(0, "Apache does not answer on port 80", ""), (503, "", ""), (200, "", "")],
        [NoAnswer("no"), [server(state="STARTING")], [server()], [server()], [server(1)]],
    )
    assert said == "http://localhost/shop/ answers 200, from an AppServer"
    assert told == ["Apache does not answer on port 80", "no AppServer is ready"]


def test_an_appserver_that_came_meanwhile_counts(scene: Callable[..., list[str]]) -> None:
    assert scene([(200, "", "")], [[server(7)], [server(7)], [server(1, generation=2)]])


@pytest.mark.parametrize(("status", "said"), [(500, "an error of the application"), (404, "has no page there")])
def test_an_error_of_the_application_is_a_page_too(scene: Callable[..., list[str]], status: int, said: str) -> None:
    assert said in scene([(status, "", "")], [[server()], [server(1)]])[0]


def test_another_sites_page_is_none(scene: Callable[..., list[str]]) -> None:
    with pytest.raises(Refused, match="answers 404, but no AppServer was asked"):
        scene([(404, "", "")], [[server(3)]])
    with pytest.raises(Refused, match="answers 301, but no AppServer was asked"):
        scene([(301, "", "http://localhost/other")], [[server(3)]])
    with pytest.raises(Refused, match="answers 301, but no AppServer was asked"):
        scene([(301, "", "https://localhost/shop/")], [[server(state="STARTING")]])


def test_a_site_that_is_on_https_alone(scene: Callable[..., list[str]]) -> None:
    found = scene([(301, "", "https://localhost/shop/")], [[server(3)]])
    assert found == [
        "http://localhost/shop/ is sent on to https://localhost/shop/ by Apache; AppServers are ready: look at that "
        "page yourself"
    ]


def test_an_application_that_does_not_start_is_not_waited_for_long(scene: Callable[..., list[str]]) -> None:
    wrong = [server(state="BACKOFF", why="no module named 'shop'")]
    with pytest.raises(Refused, match="slot 0: no module named 'shop'"):
        scene([(503, "", "")], [wrong, [server(state="STARTING")], wrong])
    assert page.time.monotonic() < 112


def test_visitors_are_sent_to_an_appserver_that_is_ready(
    scene: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [server(state="BACKOFF", why="no module named 'shop'")]
    monkeypatch.setattr(page, "wait", lambda _, *words: page.wait_ready(*words) or "")
    assert scene([], [NoAnswer("no"), [server(state="STARTING")], [server()]]) == [
        "",
        "waiting for an AppServer: the monitor does not answer",
        "waiting for an AppServer: no AppServer is ready",
    ]
    with pytest.raises(Refused, match="Apache was not changed: slot 0: no module named 'shop'"):
        scene([], [wrong])
    assert page.time.monotonic() < 112


def test_it_gives_up(scene: Callable[..., list[str]]) -> None:
    with pytest.raises(Refused, match="the monitor does not answer"):
        scene([(503, "", "")], [NoAnswer("no")])
    with pytest.raises(Refused, match="Apache does not answer"):
        scene([(0, "Apache does not answer on port 80", "")], [[server()]])
    assert 130 <= page.time.monotonic() < 132


def test_what_apache_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Place("shop.example.com", "/shop", listener.getsockname()[1])
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: https://shop.example.com/\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert page._ask(place) == (302, "", "https://shop.example.com/")
        thread.join()
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /shop/ HTTP/1.1"
    assert b"Host: shop.example.com" in lines
    assert page._ask(place) == (0, f"Apache does not listen on port {place.port}", "")

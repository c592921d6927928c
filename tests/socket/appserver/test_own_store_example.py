"""The application with a store of its own in docs/howto/survive.md, as it stands there, through real gateways."""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_stage import ASSIGNMENT, WAIT, Harness, head
from msgspec.structs import replace

from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.sessions.persistence.saver import Bounds
from lbadaptor.appserver.sessions.persistence.survival import survival
from lbadaptor.contract.settings import parse

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "survive.md"


def block(beginning: str) -> str:
    """The block of code on the page that begins so."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(), flags=re.M)
    (found,) = [text for text in map(textwrap.dedent, blocks) if text.lstrip("\n").startswith(beginning)]
    return found


SETTINGS = parse(block("[application]"))
"""Wrong ones are refused here."""


class AppServer(Harness):
    """One process: the example has a module for each here, and so a store for each."""

    def __init__(self, folder: Path, slot: int, mode: str) -> None:
        module = f"shop_{slot}"
        (folder / f"{module}.py").write_text(block("import json"))
        importlib.invalidate_caches()
        self.shop = importlib.import_module(module)
        application, sessions = SETTINGS.application, SETTINGS.sessions
        self.survival = survival(
            mode,
            slot,
            17 + slot,
            self.shop.application,
            application.app,
            application.session_cookie,
            application.session_count,
            (sessions.save.replace("shop", module), sessions.load.replace("shop", module)),
            str(folder / "sessions"),
            "",
            Bounds(1 << 20, 100),
            600.0,
            lambda *gone: self.sessions.forget(*gone),
        )
        self.survival.activate()
        assert self.survival.keeper is not None
        self.keeper = self.survival.keeper
        ticket, cookie = f"{slot}.{17 + slot}.signature", application.session_cookie
        assignment = replace(ASSIGNMENT, generation=17 + slot, ticket=ticket, session_cookie=cookie)
        super().__init__(self.shop.application, 4, assignment)

    def _gateway(self, *parts: Any) -> Gateway:
        return Gateway(*parts, self.keeper)

    def get(self, page: str, cookies: str = "", session: str = "held") -> tuple[list[str], str]:
        """What is in the basket, and the cookies that were set."""
        lines = [f"Cookie: {cookies}"] if cookies else []
        lb = {"Session": session, "Path": page, "Script-Name": "", "Generation": str(self.status.generation)}
        reply = self.ask(head("GET", page, *lines, **lb))
        assert reply.status == 200, reply.body
        assert self.admission.wait_idle(WAIT)
        values = reply.headers.get_all("Set-Cookie", [])
        return json.loads(reply.body), "; ".join(value.partition(";")[0] for value in values)

    def drain(self) -> None:
        self.admission.dying = True
        while self.survival.turn(leaving=True):
            pass


Start = Callable[..., AppServer]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.syspath_prepend(str(tmp_path))
    started: list[AppServer] = []

    def one(mode: str = SETTINGS.sessions.survive) -> AppServer:
        started.append(AppServer(tmp_path, len(started), mode))
        return started[-1]

    yield one
    for server in started:
        server.end()
        server.survival.close()
        del sys.modules[server.shop.__name__]


@pytest.mark.parametrize("before", ["leaving", "anything"])
@pytest.mark.parametrize("after", ["leaving", "anything"])
def test_a_basket_moves_to_the_process_that_is_asked_next(start: Start, before: str, after: str) -> None:
    """A release may change what sessions outlive."""
    old, new = start(before), start(after)
    cookies = old.get("/", session="none")[1]
    assert old.get("/apple", cookies)[0] == ["/apple"]
    old.drain()
    assert old.shop.baskets == {}
    content, renewed = new.get("/pear", cookies, "lost")
    assert content == ["/apple", "/pear"]
    assert renewed.startswith("__PRT__=1.18.")
    assert new.get("/plum", cookies)[0] == ["/apple", "/pear", "/plum"]
    new.drain()
    assert start(before).get("/", cookies, "lost")[0] == ["/apple", "/pear", "/plum"]


def test_a_basket_of_a_killed_process_is_there_as_of_its_last_answer(start: Start) -> None:
    old, new = start(), start()
    cookies = old.get("/", session="none")[1]
    old.get("/apple", cookies)
    old.keeper.abandon()
    assert new.get("/pear", cookies, "lost")[0] == ["/apple", "/pear"]


def test_who_has_left_has_no_basket_anywhere(start: Start) -> None:
    old, new = start(), start()
    cookies = old.get("/", session="none")[1]
    old.get("/apple", cookies)
    old.get("/leave", cookies)
    old.drain()
    assert new.get("/", cookies, "lost")[0] == []


def test_a_process_notices_what_ends_without_a_request(start: Start, tmp_path: Path) -> None:
    server = start()
    server.get("/", session="none")
    own = tmp_path / "sessions" / "at.0.17"
    assert len(list(own.iterdir())) == 2, "the session and the lock"
    server.shop.baskets.clear()
    for _ in range(2):  # the first look may have begun before
        server.survival.turn(leaving=False)
    assert [file.name for file in own.iterdir()] == ["lock"]

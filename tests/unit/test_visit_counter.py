"""The application of the demo of several machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lbadaptor.examples import visit_counter


@pytest.fixture(autouse=True)
def no_sessions() -> Iterator[None]:
    visit_counter._sessions.clear()
    yield
    visit_counter._sessions.clear()


def get(path: str = "/", cookie: str = "", **environ: Any) -> tuple[str, str, str]:
    """Status, the cookie that was set, page."""
    heads: list[tuple[str, dict[str, str]]] = []
    content = visit_counter.application(
        {"PATH_INFO": path, "HTTP_COOKIE": cookie, **environ},
        lambda status, headers: heads.append((status, dict(headers))),
    )
    status, headers = heads[0]
    return status, headers.get("Set-Cookie", "").partition(";")[0], b"".join(content).decode()


def test_it_counts_the_visits_of_each_visitor() -> None:
    _, one, page = get()
    assert "<strong>1</strong>" in page
    _, other, _ = get()
    assert one != other
    _, again, page = get(cookie=f"x=y; {one}")
    assert again == ""
    assert "<strong>2</strong>" in page
    assert "<strong>2</strong>" in get(cookie=other)[2]


def test_who_leaves_begins_anew() -> None:
    _, session, _ = get()
    assert get("/leave", session)[1] == "visitor="
    _, again, page = get(cookie=session)
    assert again != session
    assert "<strong>1</strong>" in page


def test_it_tells_where_it_is_and_of_a_lost_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE", "2")
    page = get(**{"lbadaptor.slot": 1, "lbadaptor.session_lost": True})[2]
    assert "machine 2, slot 1, process" in page
    assert "your session is lost" in page


def test_sessions_that_were_not_used_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    get()
    now = visit_counter.time.monotonic()
    monkeypatch.setattr(visit_counter.time, "monotonic", lambda: now + visit_counter.IDLE + 1)
    get()
    assert len(visit_counter._sessions) == 1


def test_there_is_no_other_page() -> None:
    assert get("/favicon.ico")[:2] == ("404 Not Found", "")

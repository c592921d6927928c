"""The link to the watcher: when it sends a view of how things are."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from monitor.arbiter.processes.child import Child, Reaper
from monitor.arbiter.watcher_process import VIEW_INTERVAL, WatcherProcess
from monitor.contract import messages
from monitor.contract.messages import Begin, FromArbiter, View


class Stage:
    """A link whose watcher is the test, and a clock that stands still unless moved."""

    def __init__(self, theirs: socket.socket) -> None:
        self.now = 1000.0
        self.views = 0
        self._lines = theirs
        self._selector = selectors.DefaultSelector()
        self.watcher = WatcherProcess(
            self._selector, Reaper(), {}, lambda: Begin("control.sock", "logs", 1.0, 1.0), lambda _: None
        )

    def show(self, news: object) -> list[FromArbiter]:
        """What the watcher gets in one turn."""

        def view(now: float) -> View:
            self.views += 1
            return shown(now, self.views)

        self.watcher.send_view(view, news, self.now)
        try:
            return [messages.from_arbiter(line) for line in self._lines.recv(1 << 20).splitlines()]
        except BlockingIOError:
            return []


def shown(at: float, number: int) -> View:
    return View([], Raw(messages.encode({"at": at, "number": number})))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(os.fdopen(os.eventfd(0))) as never:
        ours.setblocking(False)
        theirs.setblocking(False)

        class Watcher(Child):
            def __init__(self) -> None:
                self.pidfd = never.fileno()
                self.channel = ours
                self._unsent = b""

        monkeypatch.setattr("monitor.arbiter.watcher_process.Child.start", lambda *_: Watcher())
        stage = Stage(theirs)
        stage.watcher.keep_running(stage.now, wanted=True)
        assert [type(message) for message in stage.show("news")] == [Begin, View]
        yield stage


def test_a_view_is_sent_now_and_then(stage: Stage) -> None:
    stage.now += VIEW_INTERVAL - 0.01
    assert stage.show("news") == []
    stage.now += 0.02
    assert stage.show("news") == [shown(stage.now, 2)]
    assert stage.show("news") == []


def test_news_are_sent_at_once_and_only_once(stage: Stage) -> None:
    assert stage.show("other news") == [shown(stage.now, 2)]
    assert stage.show("other news") == []


def test_a_new_watcher_and_the_giver_of_an_order_do_not_wait(stage: Stage) -> None:
    stage.watcher.begin()
    assert [type(message) for message in stage.show("news")] == [Begin, View]
    stage.watcher.reply(messages.Reply(1, True, "done"))
    assert [type(message) for message in stage.show("news")] == [messages.Reply, View]


def test_news_wait_for_a_watcher_that_takes_nothing_and_are_not_forgotten(stage: Stage) -> None:
    begin = Begin(str(Path("/") / ("x" * 1000)), "logs", 1.0, 1.0)
    stage.watcher._begin = lambda: begin
    while not stage.watcher._watcher.backlog:  # type: ignore[union-attr]
        stage.watcher.begin()
    made = stage.views
    stage.watcher.send_view(lambda now: pytest.fail("a view was made for nobody"), "other news", stage.now)
    assert stage.views == made
    while stage.show("other news"):
        pass
    assert stage.views == made + 1

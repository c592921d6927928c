"""The watcher, at the other end of its channel."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Raw
from scripted import PATIENCE, ScriptedServer, answer

from lbadaptor.contract.address import Address
from monitor.contract import client, messages
from monitor.contract.messages import Alive, Availability, Begin, Probed, Target, Unanswered, View, Word
from monitor.watcher import main
from monitor.watcher.main import Watcher

GENERATION = 1763805600123
GOOD = answer(json.dumps({"status": "OK", "generation": GENERATION}).encode(), kind="application/json")

Serve = Callable[..., ScriptedServer]


class Channel:
    """The arbiter's end."""

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._run, args=(theirs,))
        self._thread.start()
        self._rest = b""
        self.send(Begin(str(folder / "control.sock"), str(folder / "logs"), 0.05, 1.0))

    def _run(self, theirs: socket.socket) -> None:
        with theirs:
            Watcher(theirs).run()

    def send(self, message: Begin | View) -> None:
        self._ours.sendall(messages.encode(message) + b"\n")

    def piece(self) -> list[Probed | Unanswered]:
        """What comes at once, signs of life apart."""
        *lines, self._rest = (self._rest + self._ours.recv(1 << 20)).split(b"\n")
        told = map(messages.from_watcher, lines)
        return [message for message in told if isinstance(message, Probed | Unanswered)]

    def close(self) -> None:
        self._ours.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    made = Channel(tmp_path)
    yield made
    made.close()


def view(*servers: ScriptedServer) -> View:
    return View([Target(slot, GENERATION, *server.address, "key") for slot, server in enumerate(servers)], Raw(b"{}"))


def test_good_news_of_many_comes_in_one_piece(channel: Channel, serve: Serve) -> None:
    channel.send(view(*(serve(default=lambda talk: talk.send(GOOD)) for _ in range(5))))
    while len({message.slot for message in channel.piece()}) < 5:
        pass


def test_bad_news_comes_along_with_what_was_gathered_and_after_it(channel: Channel, serve: Serve) -> None:
    good, bad = serve(default=lambda talk: talk.send(GOOD)), serve(GOOD)
    channel.send(view(good, bad))
    told: list[Probed | Unanswered] = []
    while not any(isinstance(message, Unanswered) for message in told):
        told += channel.piece()
    about = [type(message) for message in told if message.slot == 1]
    assert about.index(Unanswered) == about.count(Probed) == 1


def test_it_gives_signs_of_life(channel: Channel) -> None:
    first = channel._ours.recv(1000).partition(b"\n")[0]
    assert isinstance(messages.from_watcher(first), Alive)


def test_a_status_is_passed_on_when_there_is_one_and_until_it_is_old(
    channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arbiter hangs: what it said last, that all is well, may be untrue."""
    path = tmp_path / "control.sock"
    while not path.exists():
        channel.piece()
    told: object = ""
    while "has just begun" not in str(told):
        with pytest.raises(client.NoAnswer) as refused:  # until there is a status, there is no answer without one
            client.ask(path)
        told = refused.value
    channel.send(View([], Raw(b'{"pid": 1}')))
    while told != {"pid": 1}:
        with contextlib.suppress(client.NoAnswer):
            told = client.ask(path)
    monkeypatch.setattr(main, "SILENT_AFTER", 0.0)
    with pytest.raises(client.NoAnswer, match="does not answer in time: its main process hangs"):
        client.ask(path)
    monkeypatch.undo()
    assert client.ask(path) == {"pid": 1}


def test_haproxy_is_told_what_the_arbiter_says_and_nothing_that_is_old(
    channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arbiter hangs: HAProxy is to go on by the last word, for its AppServers live."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = Address(*free.getsockname())

    def told() -> bytes:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(where, PATIENCE) as asking:
            return asking.recv(1000)
        return b"not there yet"

    def comes(line: bytes) -> None:
        until = time.monotonic() + PATIENCE
        while (said := told()) != line:
            assert time.monotonic() < until, said

    channel.send(Begin(str(tmp_path / "control.sock"), str(tmp_path / "logs"), 0.05, 1.0, agent=str(where)))
    comes(b"")  # nothing is known yet
    channel.send(View([], Raw(b"{}"), Availability(Word.DRAIN, 0, "leaving")))
    comes(b"drain up 0% # leaving\n")
    monkeypatch.setattr(main, "SILENT_AFTER", 0.0)
    assert told() == b""

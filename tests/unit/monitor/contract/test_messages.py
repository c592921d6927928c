"""What arbiter and watcher tell each other."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import Raw

from monitor.contract import messages
from monitor.contract.messages import (
    Alive,
    AtWork,
    Availability,
    Begin,
    Cookies,
    Kept,
    Ordered,
    ProbeAnswer,
    Probed,
    Reply,
    Target,
    Unanswered,
    View,
    Word,
)


@pytest.mark.parametrize(
    "message",
    [
        Probed(3, 17, ProbeAnswer(17, 4711, "requests", True, 5, 12.5, 1, 8, 100, 1 << 40, 0.25, False)),
        Probed(3, 17, ProbeAnswer(17, cookies=Cookies("sid", False, 3, ("session",), ("session",)))),
        Probed(3, 17, ProbeAnswer(17, kept=Kept("leaving", "Flask", "", 5, {"_io.TextIOWrapper": 2}, 7, 1, 3))),
        Probed(
            3,
            17,
            ProbeAnswer(17, waiting=2, at_work=[AtWork("GET", "/a", 1.5, 1e9)], durations={"0.001": 5, "+Inf": 1}),
        ),
        Unanswered(3, 17, "connection refused", True),
        Ordered(1, "drain", 3),
        Ordered(2, "restart"),
        Alive(),
    ],
)
def test_what_the_watcher_says_is_heard(message: messages.FromWatcher) -> None:
    line = messages.encode(message)
    assert b"\n" not in line
    assert messages.from_watcher(line) == message


STATUS = Raw(messages.encode({"pid": 1, "appservers": [{"why": "line\nbreak · ü"}]}))


@pytest.mark.parametrize(
    "message",
    [
        Begin("/run/lbadaptor/control.sock", "/run/lbadaptor/logs", 1.0, 2.0),
        Begin("/run/control.sock", "/run/logs", 1.0, 2.0, agent="10.0.0.11:9900", front=("10.0.0.1", "10.0.0.2")),
        View([Target(3, 17, "127.0.0.1", 9003, "key")], STATUS),
        View([], STATUS, Availability(Word.UP, 75, "OK 3 of 4")),
        Reply(1, False, "no"),
    ],
)
def test_what_the_arbiter_says_is_heard(message: messages.FromArbiter) -> None:
    line = messages.encode(message)
    assert b"\n" not in line
    assert messages.from_arbiter(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"type":"view","targets":[],"status":{}}',
        b'{"type":"probed","slot":"3","generation":17,"answer":{"generation":17}}',
        b'{"type":"probed","slot":3,"generation":17,"answer":{"generation":17,"sessions":null}}',
        b'{"type":"probed","slot":3,"generation":17,"answer":{"generation":17,"sessions":"5"}}',
        b'{"type":"probed","slot":3,"generation":17,"answer":{"generation":17,"memory":"much"}}',
        b'{"type":"probed","slot":3,"generation":17,"answer":[]}',
        b'{"type":"ordered","order":"drain"}',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.from_watcher(line)


def test_an_appserver_of_a_newer_release_may_say_more() -> None:
    answer = json.dumps({"generation": 17, "sessions": 2, "news": [1]}).encode()
    assert msgspec.json.decode(answer, type=ProbeAnswer) == ProbeAnswer(17, sessions=2)


def test_what_it_says_of_kept_sessions_may_be_more_or_nothing() -> None:
    answer = json.dumps({"generation": 17, "kept": {"mode": "anything", "saved": 2, "news": {"a": 1}}}).encode()
    assert msgspec.json.decode(answer, type=ProbeAnswer).kept == Kept("anything", saved=2)
    assert msgspec.json.decode(b'{"generation": 17}', type=ProbeAnswer).kept is None


def test_the_answer_of_another_release_is_understood() -> None:
    """An older one tells nothing of the requests at work, a newer one more than is known here."""
    decode = msgspec.json.Decoder(ProbeAnswer).decode
    older = decode(b'{"generation": 17, "in_flight": 3, "served": 5}')
    assert (older.waiting, older.at_work, older.durations) == (None, None, None)
    newer = decode(b'{"generation": 17, "at_work": [{"path": "/a", "seconds": 2, "later": [1]}], "later": {}}')
    assert newer.at_work == [AtWork("", "/a", 2.0)]

"""The messages between monitor and AppServer."""

from __future__ import annotations

import signal

import msgspec
import pytest

from lbadaptor.appserver.process.messages import (
    DRAIN,
    STOP,
    UNDRAIN,
    Assignment,
    Empty,
    Failed,
    PastLimit,
    Ready,
    Report,
    decode_assignment,
    decode_report,
    encode,
)


def test_a_handover_arrives_as_it_was_sent() -> None:
    sent = Assignment(
        "site:application",
        session_cookie="_SID_",
        session_idle=60.0,
        session_count="site:count",
        affinity=True,
        ticket_cookie="__PRT__",
        threads=3,
        answer_memory=1000,
        max_requests=5,
        stop_grace=7.0,
        generation=1763805600123,
        ticket="0.1763805600123.abc",
        caller_key="caller's",
        probe_key="probe's",
        survive="leaving",
        session_folder="/var/lib/lbadaptor/sessions",
        session_max_bytes=1 << 32,
        session_max_files=1,
        session_save="site:save",
        session_load="site:load",
        run_folder="/run/lbadaptor",
    )
    assert decode_assignment(encode(sent)) == sent


@pytest.mark.parametrize(
    "report", [Ready(), Failed("why"), Failed("in use", port=True), PastLimit("requests"), Empty()], ids=repr
)
def test_a_report_arrives_as_it_was_sent(report: Report) -> None:
    assert decode_report(encode(report)) == report


@pytest.mark.parametrize("message", [Assignment("umlaut: ä\nline:break"), Failed("several\nlines\r\nof ä")], ids=repr)
def test_a_message_is_one_line(message: Assignment | Failed) -> None:
    assert b"\n" not in encode(message)
    assert b"\r" not in encode(message)


def test_what_a_newer_monitor_adds_is_passed_over() -> None:
    assert decode_assignment(b'{"app": "a:b", "colour": "blue"}') == Assignment("a:b")


@pytest.mark.parametrize("line", [b"", b"{}", b'{"app": 1}', b'{"app": "a:b"', b'{"app": "a:b", "threads": "x"}'])
def test_a_malformed_handover_is_an_error(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_assignment(line)


def test_an_unknown_report_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_report(b'{"type": "resting"}')


def test_each_order_is_a_signal_of_its_own() -> None:
    assert {DRAIN, UNDRAIN, STOP} == {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}

"""lbctl top: what it counts between two looks, and what it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from test_ctl import UNKNOWN, server, status

from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.ctl import main
from monitor.ctl.commands import top
from monitor.ctl.terminal import at_work, leaving, load, table
from monitor.ctl.terminal.rates import Interval, Rates, total, within


def counted(slot: int = 0, **values: Any) -> dict[str, Any]:
    """An AppServer with counters."""
    told = {"uptime": 100.0, "served": 1000, "cpu": 10.0, "durations": {"0.001": 900, "0.1": 100}}
    return server(slot, **{**told, "waiting": 0, "at_work": [], "memory": 50_000_000, **values})


def request(path: str, seconds: float, **values: Any) -> dict[str, Any]:
    return {"method": "GET", "path": path, "seconds": seconds, "since": 1e9, **values}


# Rates.


def looked(*servers: dict[str, Any]) -> Interval:
    """After a look at each of these, one after another."""
    interval = Interval()
    for one in servers:
        interval.look(status(one))
    return interval


def test_what_was_counted_between_two_looks() -> None:
    later = counted(uptime=102.5, served=1010, cpu=11.0, durations={"0.001": 904, "0.1": 105, "+Inf": 1})
    rates = looked(counted(), later).of(later)
    assert rates == Rates(4.0, 0.4, {0.001: 4, 0.1: 5, math.inf: 1})


def test_a_single_look_tells_no_rates() -> None:
    assert looked(counted()).of(counted()) is None


def test_without_a_new_answer_to_a_probe_the_rates_are_those_of_before() -> None:
    interval = looked(counted(), counted(uptime=102.0, served=1010))
    assert not interval.look(status(counted(uptime=102.0, served=1010)))
    assert interval.of(counted()) == Rates(5.0, 0.0, {})
    assert interval.look(status(counted(uptime=104.0, served=1010)))
    assert interval.of(counted()) == Rates(0.0, 0.0, {})


def test_another_life_in_a_slot_begins_anew() -> None:
    new = counted(generation=2, uptime=1.0, served=1)
    interval = looked(counted(), counted(uptime=102.0), new)
    assert interval.of(new) is None
    assert interval.look(status(counted(generation=2, uptime=2.0, served=3)))
    rates = interval.of(new)
    assert rates is not None
    assert rates.requests == 2.0


def test_counters_that_the_end_of_the_warm_up_set_back_count_from_zero() -> None:
    rates = looked(counted(), counted(uptime=102.0, served=4, durations={"0.001": 4})).of(counted())
    assert rates == Rates(2.0, 0.0, {0.001: 4})


def test_one_that_fails_its_probes_has_no_rates() -> None:
    interval = looked(counted(), counted(uptime=102.0))
    assert interval.of(counted(state="FAILING")) is None


@pytest.mark.parametrize("told", [{"durations": None}, {"uptime": None}])
def test_an_appserver_of_an_older_release_and_one_that_starts_tell_less(told: dict[str, Any]) -> None:
    rates = looked(counted(**told), counted(**{"uptime": 102.0, "served": 1010, **told})).of(counted())
    assert rates == (Rates(5.0, 0.0, None) if "durations" in told else None)


def test_several_together() -> None:
    assert total([Rates(1.0, 0.5, {0.1: 1}), Rates(2.0, 0.25, {0.1: 2, 0.2: 1}), Rates(4.0)]) == Rates(
        7.0, 0.75, {0.1: 3, 0.2: 1}
    )


@pytest.mark.parametrize(
    ("durations", "share", "seconds"),
    [
        ({0.1: 1}, 0.5, 0.1),
        ({0.2: 50, 0.1: 50}, 0.5, 0.1),
        ({0.1: 50, 0.2: 50}, 0.51, 0.2),
        ({0.1: 98, 0.2: 1, math.inf: 1}, 0.99, 0.2),
        ({0.1: 97, 0.2: 1, math.inf: 2}, 0.99, math.inf),
        ({}, 0.5, None),
        (None, 0.5, None),
    ],
)
def test_within_which_time_a_share_of_the_requests_was_done(
    durations: dict[float, int] | None, share: float, seconds: float | None
) -> None:
    assert within(durations, share) == seconds


# The screen.


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def lines(told: dict[str, Any], interval: Interval, height: int | None = None) -> list[str]:
    return [line for line, _ in load.shown({"time": 1e9, **told}, interval, height)]


def test_the_screen() -> None:
    interval = looked(counted())
    now = status(
        counted(
            uptime=110.0,
            served=2000,
            cpu=11.0,
            durations={"0.001": 1880, "0.1": 115, "1.2": 5},
            in_flight=9,
            waiting=1,
            at_work=[request("/stuck", 200.0, since=1e9 - 200), request("/slow", 2.0, since=1e9 - 2)],
        ),
        server(1, state="STARTING", sessions=0, **UNKNOWN),
    )
    interval.look(now)
    assert [line.split() for line in lines(now, interval)] == [
        ["01:46:40", "·", "monitor", "4700", "·", "1", "of", "2", "AppServers", "OK"],
        [],
        ["slot", "state", "requests/s", "p50", "p95", "p99", "at", "work", "waiting", "sessions", "memory", "CPU"],
        ["0", "OK", "100.0", "1", "ms", "1", "ms", "100", "ms", "8/8", "1", "41", "50", "MB", "10%"],
        ["1", "STARTING", "0"],
        ["all", "100.0", "1", "ms", "1", "ms", "100", "ms", "8/8", "1", "41", "50", "MB", "10%"],
        [],
        ["slot", "at", "work", "for", "since", "request"],
        ["0", "3", "min", "01:43:20", "GET", "/stuck"],
        ["0", "2.0", "s", "01:46:38", "GET", "/slow"],
    ]
    styles = [style for _, style in load.shown({"time": 1e9, **now}, interval)]
    assert styles[3:5] == [load.WARNING] * 2
    assert styles[-2:] == [load.ALARM, load.WARNING]


def test_an_appserver_of_an_older_release_is_shown_as_far_as_it_tells() -> None:
    old = server(0)
    told = [line.split() for line in lines(status(old), looked(old))]
    assert told[3] == ["0", "OK", "2/8", "41", "52", "MB"]
    assert told[-1][:2] == ["no", "request"]


def test_problems_and_a_release_are_told_first() -> None:
    told = lines(status(release="slot 3 is STARTING", replaced=[1, 4], problems=["the disk is full"]), Interval())
    assert told[0] == "PROBLEM: the disk is full"
    assert told[1].endswith(" · release: 1 of 4 replaced, slot 3 is STARTING")


@pytest.mark.parametrize(
    ("machine", "text", "style"),
    [
        ({"leaving": True}, "machine 7 is leaving: 3 sessions left, the last of them ends in 25 min", load.WARNING),
        ({"leaving": True, "empty": True}, "machine 7 is leaving: empty: it can be switched off", load.WARNING),
        ({"leaving": False}, "machine 7: 3 sessions", ""),
    ],
)
def test_the_heading_says_of_the_machine_what_the_status_does(machine: dict[str, Any], text: str, style: str) -> None:
    usual = {"number": 7, "sessions": 3, "longest_session": 1500.0, "empty": False}
    told = status(counted(), time=1e9, machine={**usual, **machine})
    head = load.shown(told, Interval())[1:3]
    assert head == [(leaving.note(told), style), ("", "")]
    assert head[0][0].startswith(text)
    assert head[0][0] in table.table(told).splitlines()


@pytest.mark.parametrize("height", [8, 12, 24, 40])
@pytest.mark.parametrize(("servers", "requests"), [(2, 1), (2, 40), (30, 1), (30, 40)])
def test_a_screen_has_room_for_the_oldest_requests(height: int, servers: int, requests: int) -> None:
    each = [[request(f"/{number}", 100.0 - number)] for number in range(requests)] + [[]] * servers
    told = status(*(counted(slot, at_work=each[slot]) for slot in range(servers - 1)))
    told["appservers"].append(counted(servers - 1, at_work=list(chain(*each[servers - 1 :]))))
    shown = lines(told, Interval(), height)
    if height >= 13:
        assert len(shown) <= height
        assert sum(" GET /" in line for line in shown) >= min(requests, load.LEAST_REQUESTS)
    rows = [line for line in shown if line.split()[1:2] == ["OK"]]
    left_out = sum(int(line.split()[1]) for line in shown if line.startswith("…"))
    assert len(rows) + left_out == servers
    assert sum(line.startswith("all") for line in shown) == 1


def test_a_request_of_yesterday_has_its_date() -> None:
    told = status(counted(at_work=[request("/a", 90_000.0, since=1e9 - 90_000)]))
    assert "2001-09-08 00:46:40" in lines(told, Interval())[-1]


def test_what_lasts_longer_than_all_bounds_is_very_long() -> None:
    longest = {"0.001": 900, "0.1": 100, "+Inf": 1}
    interval = looked(counted(), counted(uptime=101.0, served=1001, durations=longest))
    assert lines(status(counted()), interval)[3].count("very long") == 3


# The note of `lbctl status`.


def test_requests_that_may_be_stuck_are_noted() -> None:
    told = status(
        counted(0, at_work=[request("/a", 12.0), request("/b", 1.0)]),
        counted(2, at_work=[request("/c", 200.0)]),
        server(3),
    )
    assert at_work.note(told) == (
        "note: requests at work for more than 10 s: 2 (see `lbctl top`). The oldest: GET /c in slot 2, for 3 min."
    )
    assert table.table(told).endswith(f"\n\n{at_work.note(told)}")
    assert "10 s: 1 (" in at_work.note(status(counted(at_work=[request("/a", 10.1)])))


def test_short_requests_are_not_noted() -> None:
    assert at_work.note(status(counted(at_work=[request("/a", 10.0)]), server(1), server(2, at_work=None))) == ""


# The command.


def test_without_a_terminal_it_prints_one_table_after_an_interval_with_new_counters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = status(counted(), time=1e9)
    answers = [first, first, status(counted(uptime=102.0, served=1246), time=1e9)]
    waited: list[float] = []
    monkeypatch.setattr(client, "ask", lambda _: answers.pop(0))
    monkeypatch.setattr(time, "sleep", waited.append)
    assert main.main(["top", "--interval", "0.5", "--socket", "/x"]) == 0
    assert "  123.0  " in capsys.readouterr().out
    assert (waited[0], len(waited)) == (0.5, 2)


def test_it_does_not_wait_for_an_appserver_that_is_not_probed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(client, "ask", lambda _: status(counted(), time=1e9))
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert main.main(["top", "--once", "--interval", "5", "--socket", "/x"]) == 0
    assert "slot" in capsys.readouterr().out
    assert 5 + top.MOST_PATIENCE <= now[0] < 5 + top.MOST_PATIENCE + 0.2


def test_without_a_monitor_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(path: Path) -> Any:
        raise NoAnswer(f"{path}: there is no control socket")

    monkeypatch.setattr(client, "ask", ask)
    assert main.main(["top", "--socket", "/x"]) == 1
    assert capsys.readouterr().err == "lbctl: /x: there is no control socket\n"


@pytest.mark.parametrize("interval", ["0", "-1", "x", "1e9"])
def test_an_interval_has_bounds(interval: str) -> None:
    with pytest.raises(SystemExit) as error:
        main.main(["top", "--interval", interval])
    assert error.value.code == 2

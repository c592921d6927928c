"""Who gets the first visits that Apache itself forwards, and how well that spreads beside the Python lane."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from plan_stage import Stage

from lbadaptor.adaptor import circuit_breaker
from lbadaptor.adaptor.balance import Load, less_loaded
from lbadaptor.contract.address import Address, Entry, Identity, State
from lbadaptor.contract.settings.sections.adaptor import AdaptorSettings
from monitor.contract.messages import ProbeAnswer
from monitor.policy import orders, probes
from monitor.policy.available import AFTER_DEATH, FULL, Server, by_load, cookie, counts, line, shares

# Shares.


def test_equals_have_equal_shares() -> None:
    assert len(set(by_load([Server(slot, 100, 0.5, 41) for slot in range(4)]).values())) == 1


def test_a_share_is_by_weight() -> None:
    found = by_load([Server(0, 25, 0.0, 10), Server(1, 100, 0.0, 40)])
    assert found == {0: 25, 1: 100}


@pytest.mark.parametrize(("busy", "share"), [(0.0, 100), (0.25, 75), (FULL, 5)])
def test_a_share_is_by_what_is_free(busy: float, share: float) -> None:
    assert by_load([Server(0, 100, busy, 0), Server(1, 100, 0.0, 0)])[0] == pytest.approx(share)


def test_a_full_one_gets_none_while_another_is_free() -> None:
    assert by_load([Server(0, 100, 0.96, 0), Server(1, 100, 0.0, 0)]) == {1: 100}


def test_where_all_are_full_they_are_as_if_free() -> None:
    assert by_load([Server(0, 100, 1.0, 0), Server(1, 50, 0.96, 0)]) == {0: 100, 1: 50}


@pytest.mark.parametrize(("own", "balance"), [(0, 2.0), (94, 1.5), (97, 1.25), (100, 1.0), (103, 0.75), (300, 0.5)])
def test_a_share_is_by_sessions_within_bounds(own: int, balance: float) -> None:
    others = [Server(slot, 100, 0.0, round(100 + (100 - own) / 4)) for slot in range(1, 5)]
    found = by_load([Server(0, 100, 0.0, own), *others])
    assert found[0] == pytest.approx(100 * balance, rel=0.1)


def test_sessions_count_only_as_far_as_one_is_free() -> None:
    found = by_load([Server(0, 100, 0.0, 0), Server(1, 100, 0.9, 0), Server(2, 100, 0.0, 300)])
    assert found == {0: 200, 1: pytest.approx(11), 2: 50}


def test_half_the_weight_has_half_the_sessions_at_balance() -> None:
    found = by_load([Server(0, 50, 0.0, 20), Server(1, 100, 0.0, 40), Server(2, 50, 0.0, 40)])
    assert found[0] == pytest.approx(found[1] / 2)
    assert found[2] < found[0]


def test_nobody_is_nobody() -> None:
    assert by_load([]) == {}


def up(servers: int = 3, **appservers: Any) -> Stage:
    stage = Stage(servers=servers, appservers=appservers)
    stage.up()
    return stage


def shares_of(stage: Stage) -> dict[int, float]:
    return shares(stage.pool.lives, stage.settings, stage.now)


def test_those_that_are_ok_have_shares() -> None:
    stage = up()
    assert shares_of(stage) == {0: 100, 1: 100, 2: 100}
    orders.drain(stage.pool, 1)
    stage.plan()
    assert stage.states[3] == "STARTING"
    stage.ready(3)
    assert stage.states[1] == "DYING"
    assert set(shares_of(stage)) == {0, 2, 3}
    stage.unanswered(2, times=3)
    assert stage.states[2] == "FAILING"
    assert set(shares_of(stage)) == {0, 3}


def test_weight_0_gets_none_unless_all_have_it() -> None:
    assert shares_of(up(weights=(0, 50))) == {1: 50, 2: 100}
    assert shares_of(up(weights=(0, 0, 0))) == {0: 100, 1: 100, 2: 100}


def test_standby_gets_none() -> None:
    stage = up(2, standby=1)
    assert len(shares_of(stage)) == 2


def test_a_slow_start_grows() -> None:
    stage = up(1, slow_start=10.0)
    assert shares_of(stage) == {0: 10}
    stage.now += 5
    assert shares_of(stage) == {0: 55}


def test_random_goes_by_weight_alone() -> None:
    stage = up(2, weights=(50,))
    for _ in range(9):
        stage.probed(0, in_flight=6, threads=8, sessions=500)
    assert shares_of(stage)[0] < 13
    settings = msgspec.structs.replace(stage.settings, adaptor=AdaptorSettings(policy="random"))
    assert shares(stage.pool.lives, settings, stage.now) == {0: 50, 1: 100}


def test_how_busy_one_is_comes_from_several_probes() -> None:
    stage = up(2)
    stage.probed(0, in_flight=8, threads=8)
    assert stage.life(0).supervision.busy == pytest.approx(0.3)
    for _ in range(9):
        stage.probed(0, in_flight=300, threads=8)
    assert FULL < stage.life(0).supervision.busy <= 1
    assert set(shares_of(stage)) == {1}
    for _ in range(9):
        stage.probed(0, in_flight=0, threads=8)
    assert stage.life(0).supervision.busy < 0.05


@pytest.mark.parametrize(("in_flight", "threads"), [(0, 0), (-5, 8), (3, 0), (10**30, 1)])
def test_whatever_a_probe_says_it_is_a_part(in_flight: int, threads: int) -> None:
    assert 0 <= probes.busy(0.0, ProbeAnswer(1, in_flight=in_flight, threads=threads)) <= 1


# Whether there are any.


def test_first_visits_take_the_fast_lane() -> None:
    stage = up()
    assert cookie({"__PRT__"}, stage.pool, stage.now) == "__PRT__"


def test_with_two_ticket_cookies_none_does() -> None:
    """Apache can look for the absence of one only."""
    assert cookie({"__PRT__", "OLD"}, up().pool, 0.0) == ""


def test_once_everything_is_being_ended_none_does() -> None:
    stage = up()
    stage.pool.stop(stage.now)
    assert cookie({"__PRT__"}, stage.pool, stage.now) == ""


def test_the_python_lane_has_them_as_long_as_its_circuit_breaker_is_open() -> None:
    assert AFTER_DEATH == circuit_breaker.OPEN_SECONDS


@pytest.mark.parametrize("state", ["OK", "DYING", "FAILING"])
def test_after_a_death_none_does_for_a_while(state: str) -> None:
    stage = up()
    if state == "DYING":
        orders.drain(stage.pool, 0)
        stage.plan()
        stage.ready(3)
    elif state == "FAILING":
        stage.unanswered(0, times=3)
    assert stage.states[0] == state
    stage.exits(0)
    died = stage.now
    assert cookie({"c"}, stage.pool, died + AFTER_DEATH - 0.1) == ""
    assert cookie({"c"}, stage.pool, died + AFTER_DEATH) == "c"


def test_one_that_is_found_to_be_hung_has_died() -> None:
    stage = up()
    stage.unanswered(0, times=3)
    stage.now += 60
    stage.unanswered(0)
    assert stage.states[0] == "STOPPING"
    assert stage.pool.last_death == stage.now


def test_an_end_by_order_or_before_anybody_was_served_is_no_death() -> None:
    stage = up()
    orders.drain(stage.pool, 0)
    stage.plan()
    stage.exits(3)  # its replacement does not get ready
    stage.later(60)
    stage.ready(3)
    stage.empty(0)
    stage.exits(0)
    assert stage.states == {1: "OK", 2: "OK", 3: "OK"}
    assert cookie({"c"}, stage.pool, stage.now) == "c"


# The line.


def test_each_has_names_by_its_share_and_at_least_one() -> None:
    assert counts({0: 50, 1: 100, 2: 150}) == {0: 17, 1: 33, 2: 50}
    assert counts({0: 1, 1: 10_000}) == {0: 1, 1: 100}
    assert counts({}) == {}


def test_a_line() -> None:
    assert line({2: 1, 0: 3, 10: 2}, 1000, 0.5) == "0|0|0|2|10|10"
    assert line({}, 1000, 0.5) == ""
    assert line({0: 3}, -5, 0.5) == ""


def test_where_all_have_room_each_is_named() -> None:
    """So it is with 70 AppServers in slots of two digits, four names each."""
    found = counts(dict.fromkeys(range(10, 80), 100.0))
    assert Counter(line(found, 990, 0.9).split("|")) == {str(slot): 4 for slot in range(10, 80)}


def test_where_not_all_have_room_each_has_its_turn_by_its_count() -> None:
    wanted = counts({slot: 100.0 + 200 * (slot % 2) for slot in range(1000, 2000)})
    random.seed(7)
    lines = [line(wanted, 990, random.random()) for _ in range(300)]
    assert all(900 < len(text) <= 990 for text in lines)
    assert len(set(lines)) > 10
    named = Counter(name for text in lines for name in text.split("|"))
    total = sum(named.values())
    odd = sum(count for name, count in named.items() if int(name) % 2)
    assert 0.72 < odd / total < 0.78
    assert len(named) == 1000


@pytest.mark.parametrize("room", range(12))
def test_no_line_is_longer_than_its_room(room: int) -> None:
    text = line({7: 5, 100: 5}, room, 0.999)
    assert len(text) <= room
    assert bool(text) == (room >= 3)


# The spread, beside that of the Python lane.

THREADS = 8
SECONDS = 40


class Site:
    """AppServers with `THREADS` threads each, and new visitors who come at random.

    `service`: seconds that a request takes at each, on average.
    """

    def __init__(self, service: list[float], sessions: list[int], fast: bool) -> None:
        self.service = service
        self.sessions = list(sessions)
        self.first = [0] * len(service)
        self.in_flight = [0] * len(service)
        self.busy = [0.0] * len(service)
        self.waits: list[float] = []
        self._free = [[0.0] * THREADS for _ in service]
        self._loads = [Load(threads=THREADS) for _ in service]
        self._line: list[int] = []
        self._fast = fast

    def run(self, rate: float) -> None:
        events: list[tuple[float, int]] = []  # ends of requests
        now, written = 0.0, -1.0
        while (now := now + random.expovariate(rate)) < SECONDS:
            while events and events[0][0] <= now:
                ended, slot = heapq.heappop(events)
                self.in_flight[slot] -= 1
                self._loads[slot].end()
                self._loads[slot].answered(f"{self.in_flight[slot]}/{THREADS}/{self.sessions[slot]}", ended)
            if self._fast and now - written >= 1:
                written = now
                self._write()
            slot = random.choice(self._line) if self._fast else self._less_loaded(now)
            self.first[slot] += 1
            self.sessions[slot] += 1
            self.in_flight[slot] += 1
            self._loads[slot].begin()
            begin = max(now, heapq.heappop(self._free[slot]))
            end = begin + random.expovariate(1 / self.service[slot])
            heapq.heappush(self._free[slot], end)
            heapq.heappush(events, (end, slot))
            self.waits.append(begin - now)

    def _write(self) -> None:
        servers = []
        for slot, in_flight in enumerate(self.in_flight):
            self.busy[slot] = probes.busy(self.busy[slot], ProbeAnswer(1, in_flight=in_flight, threads=THREADS))
            servers.append(Server(slot, 100, self.busy[slot], self.sessions[slot]))
        self._line = [int(name) for name in line(counts(by_load(servers)), 990, random.random()).split("|")]

    def _less_loaded(self, now: float) -> int:
        entries = [
            Entry("", Address("", 0), State.OK, Identity(slot, 0), 100, sessions)
            for slot, sessions in enumerate(self.sessions)
        ]
        return less_loaded(entries, lambda entry: self._loads[entry.identity.slot].measure(entry, now)).identity.slot

    @property
    def uneven(self) -> float:
        """By how much the AppServer with the most sessions is beyond the mean."""
        return max(self.sessions) * len(self.sessions) / sum(self.sessions) - 1

    @property
    def late(self) -> float:
        """The part of the first visits that waited for a thread for more than a second."""
        return sum(wait > 1 for wait in self.waits) / len(self.waits)


def both(rate: float, service: list[float], sessions: list[int] | None = None) -> tuple[Site, Site]:
    """The same visitors by the fast lane and by the Python lane."""
    found = []
    for fast in (True, False):
        random.seed(7)
        found.append(Site(service, sessions or [0] * len(service), fast))
        found[-1].run(rate)
    return found[0], found[1]


@pytest.mark.parametrize(("number", "rate", "more"), [(2, 10, 0.01), (4, 50, 0.02), (16, 20, 0.05), (16, 200, 0.02)])
def test_sessions_are_spread_nearly_as_well(number: int, rate: float, more: float) -> None:
    """`more` of the mean: by chance alone, the fullest of 16 with 50 sessions each would have 30 % too many."""
    fast, python = both(rate, [0.02] * number)
    print(f"{number} AppServers, {rate}/s: most sessions beyond the mean {fast.uneven:.1%}, {python.uneven:.1%}")
    assert fast.uneven < python.uneven + more


@pytest.mark.parametrize("number", [2, 4, 16])
def test_one_that_comes_without_sessions_catches_up(number: int) -> None:
    fast, python = both(20, [0.02] * number, [0, *[30] * (number - 1)])
    print(f"{number} AppServers: sessions of the new one {fast.sessions[0]}, {python.sessions[0]}")
    assert fast.sessions[0] > 0.9 * python.sessions[0]


@pytest.mark.parametrize("number", [2, 4])
def test_a_slow_one_gets_what_it_can_do(number: int) -> None:
    """A fair share would be 50 visitors a second, and it serves 20. The Python lane sends it half of these."""
    fast, python = both(50 * number, [0.4, *[0.02] * (number - 1)])
    print(f"{number} AppServers: visitors of the slow one {fast.first[0]}, {python.first[0]}; late {fast.late:.1%}")
    assert fast.first[0] < 1.1 * 20 * SECONDS
    assert fast.late < 0.15


def test_one_that_hangs_gets_hardly_any() -> None:
    fast, python = both(100, [1e6, 0.02, 0.02, 0.02])
    print(f"visitors of the one that hangs: {fast.first[0]}, {python.first[0]}, of {sum(fast.first)}")
    assert fast.first[0] < 0.04 * sum(fast.first)


def test_what_looks_idle_is_not_overrun() -> None:
    """Threads are busy for 80 % of the time, with requests far shorter than the time between two writes."""
    fast, python = both(0.8 * THREADS * 4 / 0.1, [0.1] * 4)
    print(f"beyond the mean {fast.uneven:.1%}, {python.uneven:.1%}; late {fast.late:.2%}, {python.late:.2%}")
    assert fast.uneven < python.uneven + 0.03
    assert fast.late < 0.01

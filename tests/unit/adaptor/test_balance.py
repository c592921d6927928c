from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from lbadaptor.adaptor.balance import (
    AVOIDANCE,
    FRESH,
    MAX_AVOIDANCE,
    POLICIES,
    Load,
    less_loaded,
    random_one,
    same_for,
)
from lbadaptor.contract.address import Address, Entry, Identity, State


def entry(slot: int, sessions: int = 0, weight: int = 100) -> Entry:
    identity = Identity(slot, 1000 + slot)
    return Entry(f"{identity}.s", Address("127.0.0.1", 9000 + slot), State.OK, identity, weight, sessions)


ENTRIES = [entry(slot) for slot in range(5)]


def test_an_appservers_word_is_believed_while_it_is_fresh() -> None:
    load = Load()
    load.answered("4/8/30", 100.0)
    assert load.measure(entry(0, sessions=7), 100.0 + FRESH) == (0.5, 0.3, 0)


def test_after_that_the_table_and_our_own_requests_count() -> None:
    load = Load()
    load.answered("4/8/30", 100.0)
    load.begin()
    assert load.measure(entry(0, sessions=7), 100.1 + FRESH) == (0.125, 0.07, 0)


def test_a_fresh_word_and_an_old_one_are_of_one_scale() -> None:
    """Seven of eight threads busy are more than one single request, whenever that was said."""
    busy, idle, unknown = Load(), Load(threads=8), Load(threads=8)
    busy.answered("7/8/0", 100.0)
    idle.answered("0/8/0", 100.0 - 2 * FRESH)
    for load in (idle, unknown):
        load.begin()
        assert load.measure(entry(1), 100.0) < busy.measure(entry(0), 100.0)
        assert load.measure(entry(1), 100.0)[0] == 1 / 8


@pytest.mark.parametrize(
    "value", ["", "1", "1/2", "1/2/3/4", "a/b/c", "1/0/3", "9" * 5000 + "/1/1", "9" * 400 + "/1/1"]
)
def test_a_report_that_is_none_is_passed_over(value: str) -> None:
    load = Load()
    load.begin()
    load.answered(value, 101.0)
    assert load.measure(entry(0, sessions=7), 101.0) == (1.0, 0.07, 0)


def test_what_is_never_reported_is_not_fresh() -> None:
    assert Load().measure(entry(0, sessions=5), 0.0) == (0.0, 0.05, 0)


def test_half_the_weight_makes_a_session_count_twice() -> None:
    assert Load().measure(entry(0, 10, 50), 0)[1] == 2 * Load().measure(entry(0, 10, 100), 0)[1]


def test_half_the_weight_makes_a_request_count_twice() -> None:
    load = Load()
    load.begin()
    assert load.measure(entry(0, 0, 50), 0)[0] == 2 * load.measure(entry(0, 0, 100), 0)[0]
    load.answered("1/2/3", 0)
    assert load.measure(entry(0, 0, 50), 0)[0] == 2 * load.measure(entry(0, 0, 100), 0)[0]


def test_weight_0_divides_nothing() -> None:
    load = Load()
    assert load.measure(entry(0, 10, 0), 0) == (0.0, 0.1, 0)
    load.answered("1/2/3", 0)
    assert load.measure(entry(0, 10, 0), 0) == (0.5, 0.03, 0)


def test_requests_in_flight_are_counted_right_by_many_threads() -> None:
    load = Load()

    def work() -> None:
        for _ in range(2000):
            load.begin()
            load.begin()
            load.end()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load.in_flight == 8 * 2000


def test_less_loaded_takes_the_less_loaded_of_two() -> None:
    measures = {entry.identity: (float(slot),) for slot, entry in enumerate(ENTRIES)}
    for _ in range(50):
        assert less_loaded(ENTRIES[:2], lambda entry: measures[entry.identity]) is ENTRIES[0]
        assert less_loaded(ENTRIES, lambda entry: measures[entry.identity]) is not ENTRIES[-1]


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_among_equals_everybody_gets_their_share(policy: str, number: int) -> None:
    random.seed(7)
    chosen = Counter(POLICIES[policy](ENTRIES[:number], lambda _: (0.0,)).identity for _ in range(200 * number))
    assert len(chosen) == number
    assert min(chosen.values()) > 120


@pytest.mark.parametrize("policy", POLICIES)
def test_one_with_less_weight_gets_less(policy: str) -> None:
    random.seed(7)
    entries = [entry(0, weight=10), entry(1), entry(2)]
    idle = {1: (1.0,), 2: (1.0,)}  # the newcomer has nothing to do: it looks best
    chosen = Counter(
        POLICIES[policy](entries, lambda one: idle.get(one.identity.slot, (0.0,))).identity.slot for _ in range(3000)
    )
    assert 50 < chosen[0] < 350
    assert min(chosen[1], chosen[2]) > 1000


@pytest.mark.parametrize("policy", POLICIES)
def test_where_all_have_weight_0_they_are_equals(policy: str) -> None:
    random.seed(7)
    entries = [entry(slot, weight=0) for slot in range(2)]
    chosen = Counter(POLICIES[policy](entries, lambda _: (0.0,)).identity for _ in range(400))
    assert min(chosen.values()) > 120


def test_the_lost_are_spread_by_weight() -> None:
    entries = [entry(0, weight=25), entry(1), entry(2, weight=0)][:2]
    chosen = Counter(same_for(f"visitor {number}", entries).identity.slot for number in range(2000))
    assert 300 < chosen[0] < 500


def test_one_that_cannot_be_connected_to_is_avoided_longer_and_longer() -> None:
    load = Load()
    waits, now = [], 100.0
    for _ in range(5):
        load.missed(now)
        load.missed(now)  # along with the first: one miss
        waits.append(load.avoided_until - now)
        now = load.avoided_until
    assert waits == [AVOIDANCE, 2.0, 4.0, MAX_AVOIDANCE, MAX_AVOIDANCE]


def test_one_that_answers_is_not_avoided_any_more() -> None:
    load = Load()
    load.missed(100.0)
    load.answered("0/8/0", 100.0)
    assert load.avoided_until <= 100.0
    load.missed(100.0)
    assert load.avoided_until == 100.0 + AVOIDANCE


def test_random_asks_for_no_measure() -> None:
    def measure(_: Entry) -> tuple[float, ...]:
        raise AssertionError("asked")

    assert random_one(ENTRIES, measure) in ENTRIES


def test_no_digest_divides_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Digest:
        value = b""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def digest(self) -> bytes:
            return self.value

    monkeypatch.setattr("lbadaptor.adaptor.balance.hashlib.blake2b", Digest)
    entries = [entry(0), entry(1)]
    for value in (b"\xff" * 8, b"\xff" * 7 + b"\xfe", b"\xff" * 6 + b"\xf0\x00", bytes(8)):
        Digest.value = value
        assert same_for("visitor", entries) in entries


def test_one_visitor_gets_one_and_the_same_whatever_the_order() -> None:
    for visitor in map(str, range(50)):
        assert same_for(visitor, ENTRIES) is same_for(visitor, ENTRIES[::-1])


def test_visitors_are_spread_over_all() -> None:
    chosen = Counter(same_for(f"visitor {number}", ENTRIES).identity for number in range(1000))
    assert len(chosen) == 5
    assert min(chosen.values()) > 120


def test_when_one_goes_only_its_own_visitors_get_another() -> None:
    left = ENTRIES[1:]
    for visitor in map(str, range(200)):
        before = same_for(visitor, ENTRIES)
        if before in left:
            assert same_for(visitor, left) is before

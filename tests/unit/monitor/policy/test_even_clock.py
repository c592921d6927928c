from __future__ import annotations

from monitor.policy.even_clock import JUMP, EvenClock

WALL = 1_763_805_600_000


def test_it_goes_evenly_since_the_first_look_until_it_jumps() -> None:
    clock = EvenClock()
    clock.look(100.0, WALL)
    assert clock.since == WALL
    for second in range(1, 1000):  # slewed, as NTP does it
        clock.look(100.0 + 10 * second, WALL + 10_005 * second)
    assert clock.since == WALL


def test_a_jump_begins_anew() -> None:
    for jump in (JUMP + 1, -JUMP - 1, 3_600_000, -3_600_000):
        clock = EvenClock()
        clock.look(100.0, WALL)
        clock.look(110.0, WALL + 10_000 + jump)
        assert clock.since == WALL + 10_000 + jump
        clock.look(120.0, WALL + 20_000 + jump)
        assert clock.since == WALL + 10_000 + jump

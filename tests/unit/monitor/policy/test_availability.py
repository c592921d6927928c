"""What a machine tells the HAProxy in front of it: each row of docs/reference/agent.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from plan_stage import Stage, a_life

from lbadaptor.contract.settings import Machine as MachineSettings
from monitor.contract.messages import Availability, Word
from monitor.policy import orders
from monitor.policy.availability import (
    HYSTERESIS,
    LEAST_ROOM,
    SLOW_START,
    STEP,
    MachineAvailability,
    free_capacity,
    room,
)
from monitor.policy.states import LifeState


class Place(Stage):
    """A machine whose AppServers are up, and have been for long."""

    def __init__(self, servers: int = 4, machine: dict[str, Any] | None = None, **stage: Any) -> None:
        super().__init__(servers=servers, **stage)
        self.pool.settings = msgspec.structs.replace(self.settings, machine=MachineSettings(**(machine or {})))
        self.machine = MachineAvailability()
        self.up()
        self.say()
        self.later(1000)

    def say(self, leaving: bool = False, written: bool = True) -> Availability:
        return self.machine.availability(self.pool, leaving, written, self.now)

    def busy(self, *parts: float) -> None:
        for slot, part in enumerate(parts):
            self.life(slot).supervision.busy = part


# Which word.


def test_it_is_up_while_somebody_is_ok() -> None:
    place = Place()
    assert place.say() == Availability(Word.UP, 100, "OK 4 of 4")
    place.unanswered(0, times=3)
    assert place.states[0] == "FAILING"
    assert place.say() == Availability(Word.UP, 75, "OK 3 of 4")


def leave(place: Place) -> Availability:
    place.life(1).supervision.sessions = 41
    return place.say(leaving=True)


def nobody_ok(place: Place) -> Availability:
    place.unanswered(0, times=3)
    place.unanswered(1, times=3)
    return place.say()


def not_written(place: Place) -> Availability:
    return place.say(written=False)


def stopping(place: Place) -> Availability:
    place.pool.stopping = True  # and those that are adopted now are stopped next
    return place.say()


def stopped(place: Place) -> Availability:
    place.pool.stop(place.now)
    return place.say(leaving=True, written=False)


def not_there(place: Place) -> Availability:
    place.exits(0)
    place.exits(1)
    return place.say()


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (leave, Availability(Word.DRAIN, 0, "this machine is leaving: 41 sessions in its AppServers")),
        (nobody_ok, Availability(Word.DRAIN, 0, "no AppServer takes new visitors: FAILING 2")),
        (not_written, Availability(Word.DRAIN, 0, "address.text cannot be written")),
        (stopping, Availability(Word.DRAIN, 0, "everything is being stopped")),
        (stopped, Availability(Word.DOWN, 0, "no AppServer serves: STOPPING 2")),
        (not_there, Availability(Word.DOWN, 0, "no AppServer serves: STARTING 2")),
    ],
)
def test_it_is_not_up(happens: Callable[[Place], Availability], told: Availability) -> None:
    assert happens(Place(2)) == told


@pytest.mark.parametrize("happens", [stopped, not_there])
def test_it_is_never_down_where_sessions_wait_for_the_next_appserver(
    happens: Callable[[Place], Availability],
) -> None:
    told = happens(Place(2, survive="anything"))
    assert told.word is Word.DRAIN
    assert told.reason.startswith("no AppServer serves: ST")


def test_one_that_is_dying_alone_keeps_its_holders() -> None:
    place = Place(1)
    orders.drain(place.pool, 0)
    place.plan()
    place.ready(1)
    place.exits(1)
    assert place.states[0] == "DYING"
    assert place.say().word is Word.DRAIN


# Free capacity.


def test_half_of_the_appservers_or_half_of_the_threads_is_half() -> None:
    place = Place(4)
    place.busy(0.5, 0.5, 0.5, 0.5)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)
    place.busy(1.0, 1.0, 0.0, 0.0)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)
    place = Place(4)
    place.exits(0)
    place.exits(1)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)


def test_it_counts_by_weight() -> None:
    place = Place(4, appservers={"weights": (300,)})
    assert free_capacity(place.pool, place.now) == 1
    place.exits(0)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)


def test_one_that_has_just_started_counts_by_its_slow_start() -> None:
    place = Place(2, appservers={"slow_start": 10.0})
    place.exits(0)
    place.ready(0)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.55)
    place.later(5)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.775)


def test_one_in_standby_counts_when_no_other_is_left() -> None:
    place = Place(2, appservers={"standby": 1})
    assert free_capacity(place.pool, place.now) == 1
    [reserve] = [life for life in place.pool.lives if life.standby]
    for life in place.pool.lives:
        if life is not reserve:
            life.state = LifeState.FAILING
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)


def test_more_than_are_asked_for_are_not_more_than_all() -> None:
    place = Place(2)
    place.pool.slots.occupy(a_life(5, state=LifeState.OK, ready_at=0.0))
    assert free_capacity(place.pool, place.now) == 1


def test_a_machine_whose_weights_are_all_0_is_free_all_the_same() -> None:
    place = Place(2, appservers={"weights": (0, 0)})
    assert free_capacity(place.pool, place.now) == 1
    place.busy(0.5, 0.5)
    assert free_capacity(place.pool, place.now) == pytest.approx(0.5)


# Sessions.


@pytest.mark.parametrize(("most", "part"), [(0, 1.0), (1000, 0.7), (300, LEAST_ROOM), (200, LEAST_ROOM)])
def test_sessions_count_as_far_as_a_number_is_set(most: int, part: float) -> None:
    place = Place(2, {"sessions": most})
    for life in place.pool.lives:
        life.supervision.sessions = 150
    assert room(place.pool) == pytest.approx(part)
    assert place.say().percent == round(100 * part)


# What is said of it.


def test_a_busy_machine_asks_for_at_least_one_percent() -> None:
    place = Place(2)
    place.busy(1.0, 1.0)
    assert place.say() == Availability(Word.UP, 1, "OK 2 of 2")


@pytest.mark.parametrize(("weight", "least"), [(1, 100), (10, 10), (30, 4), (100, 1), (256, 1)])
def test_haproxy_never_makes_a_weight_of_0_of_it(weight: int, least: int) -> None:
    """It takes the percentage of the weight, and rounds down."""
    place = Place(2, {"weight": weight})
    place.busy(1.0, 1.0)
    assert place.say().percent == least
    assert weight * least // 100 >= 1


def test_it_goes_in_steps_and_not_to_and_fro() -> None:
    place = Place(1)
    said = []
    for busy in (0.0, 0.03, 0.039, 0.041, 0.02, 0.005, 0.5, 0.53, 0.47, 0.55, 0.0):
        place.busy(busy)
        said.append(place.say().percent)
    assert said == [100, 100, 100, 95, 95, 100, 50, 50, 50, 45, 100]
    assert HYSTERESIS < STEP


# After a start.


def new(servers: int = 4, **stage: Any) -> Place:
    place = Place(servers, **stage)
    place.machine = MachineAvailability()
    for slot in range(servers):
        place.exits(slot)
    assert place.say().word is Word.DOWN
    return place


def test_a_new_machine_is_not_flooded() -> None:
    place = new()
    place.ready(0, 1, 2, 3)
    said = [place.say().percent]
    for _ in range(6):
        place.later(SLOW_START / 6)
        said.append(place.say().percent)
    assert said == [10, 25, 40, 55, 70, 85, 100]


def test_it_is_new_again_only_when_nobody_was_there() -> None:
    place = new(2)
    place.ready(0)
    place.later(SLOW_START)
    assert place.say().percent == 50
    place.ready(1)
    assert place.say().percent == 100
    place.unanswered(0, times=3)
    place.unanswered(1, times=3)
    assert place.say().word is Word.DRAIN
    place.probed(0)
    place.probed(1)
    assert place.say().percent == 100
    place.exits(0)
    place.exits(1)
    assert place.say().word is Word.DOWN
    place.ready(0, 1)
    assert place.say().percent == 10


def test_one_that_was_adopted_is_not_new() -> None:
    """The monitor has been restarted."""
    place = Place(2)
    place.machine = MachineAvailability()
    assert place.say().percent == 100
    place.life(0).ready_at = place.life(1).ready_at = None  # a release of before did not write it down
    place.machine = MachineAvailability()
    assert place.say().percent == 100

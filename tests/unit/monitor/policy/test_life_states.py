"""The life of an AppServer: every state with every event, and what is drawn from the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lbadaptor.contract.address import State
from monitor.policy.states import BEGIN, END, PUBLISHED, TABLE, Event, LifeState, after, diagram, page

OK, DYING = LifeState.OK, LifeState.DYING
CELLS = {
    (LifeState.STARTING, Event.READY): LifeState.OK,
    (LifeState.STARTING, Event.PORT_TAKEN): LifeState.GONE,
    (LifeState.STARTING, Event.EXIT): LifeState.BACKOFF,
    (LifeState.STARTING, Event.STOP): LifeState.STOPPING,
    (LifeState.OK, Event.DRAIN): LifeState.DYING,
    (LifeState.OK, Event.LIMIT): LifeState.STOPPING,
    (LifeState.OK, Event.PROBES_FAIL): LifeState.FAILING,
    (LifeState.OK, Event.EXIT): LifeState.BACKOFF,
    (LifeState.OK, Event.STOP): LifeState.STOPPING,
    (LifeState.DYING, Event.UNDRAIN): LifeState.OK,
    (LifeState.DYING, Event.EMPTY): LifeState.STOPPING,
    (LifeState.DYING, Event.LIMIT): LifeState.STOPPING,
    (LifeState.DYING, Event.PROBES_FAIL): LifeState.FAILING,
    (LifeState.DYING, Event.EXIT): LifeState.GONE,
    (LifeState.DYING, Event.STOP): LifeState.STOPPING,
    (LifeState.FAILING, Event.HUNG): LifeState.STOPPING,
    (LifeState.FAILING, Event.LIMIT): LifeState.STOPPING,
    (LifeState.FAILING, Event.STOP): LifeState.STOPPING,
    (LifeState.STOPPING, Event.EXIT): LifeState.GONE,
    (LifeState.BACKOFF, Event.WAIT_OVER): LifeState.STARTING,
    (LifeState.BACKOFF, Event.STOP): LifeState.GONE,
}
BY_PAST = {
    (OK, Event.GOOD_PROBE): LifeState.OK,
    (DYING, Event.GOOD_PROBE): LifeState.DYING,
    (OK, Event.EXIT): LifeState.BACKOFF,
    (DYING, Event.EXIT): LifeState.GONE,
}
"""FAILING goes on as what it was before."""


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", LifeState)
@pytest.mark.parametrize("before", [OK, DYING])
def test_every_state_with_every_event(state: LifeState, event: Event, before: LifeState) -> None:
    then = CELLS.get((state, event))
    if state is LifeState.FAILING:
        then = BY_PAST.get((before, event), then)
    assert after(state, before, event) is then


def test_the_table_has_these_cells_and_no_other() -> None:
    assert TABLE.keys() == CELLS.keys() | {(LifeState.FAILING, Event.GOOD_PROBE), (LifeState.FAILING, Event.EXIT)}


def test_every_state_can_be_reached_and_left() -> None:
    reached, front = {BEGIN}, [BEGIN]
    while front:
        state = front.pop()
        for then in {after(state, before, event) for before in (OK, DYING) for event in Event} - {None}:
            assert then is not None
            if then not in reached:
                reached.add(then)
                front.append(then)
    assert reached == set(LifeState)
    assert {state for state, _ in TABLE} == set(LifeState) - {END}


def test_every_event_means_something() -> None:
    assert {event for _, event in TABLE} == set(Event)


def test_published_are_exactly_those_that_serve() -> None:
    assert PUBLISHED == {LifeState.OK: State.OK, LifeState.DYING: State.DYING, LifeState.FAILING: State.FAILING}


@pytest.mark.parametrize(("cell", "then"), CELLS.items())
def test_every_cell_is_an_arrow_of_the_diagram(cell: tuple[LifeState, Event], then: LifeState) -> None:
    state, event = cell
    target = "[*]" if then is END else then.value
    assert f"    {state.value} --> {target}: {event.value}\n" in diagram()


def test_the_diagram_has_an_arrow_for_each_past_of_a_failing_one_and_no_arrow_more() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> STARTING"]
    assert [line for line in lines if ", if it was" in line] == [
        "    FAILING --> OK: good probe, if it was OK",
        "    FAILING --> DYING: good probe, if it was DYING",
        "    FAILING --> BACKOFF: exit, if it was OK",
        "    FAILING --> [*]: exit, if it was DYING",
    ]
    assert len(lines) == 2 + len(CELLS) + 4


def test_the_page_is_what_the_module_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "monitor.policy.states"], capture_output=True, text=True, check=True, timeout=30
    )
    assert printed.stdout == page()
    assert diagram() in page()
    for state in set(LifeState) - {END}:
        assert f"| {state.value} | {PUBLISHED[state].value if state in PUBLISHED else 'no'} | " in page()

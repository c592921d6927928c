"""The life of an AppServer: every state with every event, and what is drawn from the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lbadaptor.contract.address import State
from monitor.policy.states import BEGIN, END, PUBLISHED, TABLE, Event, Life, after, diagram, page

OK, DYING = Life.OK, Life.DYING
CELLS = {
    (Life.STARTING, Event.READY): Life.OK,
    (Life.STARTING, Event.PORT_TAKEN): Life.GONE,
    (Life.STARTING, Event.EXIT): Life.BACKOFF,
    (Life.STARTING, Event.STOP): Life.STOPPING,
    (Life.OK, Event.DRAIN): Life.DYING,
    (Life.OK, Event.LIMIT): Life.STOPPING,
    (Life.OK, Event.PROBES_FAIL): Life.FAILING,
    (Life.OK, Event.EXIT): Life.BACKOFF,
    (Life.OK, Event.STOP): Life.STOPPING,
    (Life.DYING, Event.UNDRAIN): Life.OK,
    (Life.DYING, Event.EMPTY): Life.STOPPING,
    (Life.DYING, Event.LIMIT): Life.STOPPING,
    (Life.DYING, Event.PROBES_FAIL): Life.FAILING,
    (Life.DYING, Event.EXIT): Life.GONE,
    (Life.DYING, Event.STOP): Life.STOPPING,
    (Life.FAILING, Event.HUNG): Life.STOPPING,
    (Life.FAILING, Event.LIMIT): Life.STOPPING,
    (Life.FAILING, Event.STOP): Life.STOPPING,
    (Life.STOPPING, Event.EXIT): Life.GONE,
    (Life.BACKOFF, Event.WAIT_OVER): Life.STARTING,
    (Life.BACKOFF, Event.STOP): Life.GONE,
}
BY_PAST = {
    (OK, Event.GOOD_PROBE): Life.OK,
    (DYING, Event.GOOD_PROBE): Life.DYING,
    (OK, Event.EXIT): Life.BACKOFF,
    (DYING, Event.EXIT): Life.GONE,
}
"""FAILING goes on as what it was before."""


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("before", [OK, DYING])
def test_every_state_with_every_event(life: Life, event: Event, before: Life) -> None:
    then = CELLS.get((life, event))
    if life is Life.FAILING:
        then = BY_PAST.get((before, event), then)
    assert after(life, before, event) is then


def test_the_table_has_these_cells_and_no_other() -> None:
    assert TABLE.keys() == CELLS.keys() | {(Life.FAILING, Event.GOOD_PROBE), (Life.FAILING, Event.EXIT)}


def test_every_state_can_be_reached_and_left() -> None:
    reached, front = {BEGIN}, [BEGIN]
    while front:
        life = front.pop()
        for then in {after(life, before, event) for before in (OK, DYING) for event in Event} - {None}:
            assert then is not None
            if then not in reached:
                reached.add(then)
                front.append(then)
    assert reached == set(Life)
    assert {life for life, _ in TABLE} == set(Life) - {END}


def test_every_event_means_something() -> None:
    assert {event for _, event in TABLE} == set(Event)


def test_published_are_exactly_those_that_serve() -> None:
    assert PUBLISHED == {Life.OK: State.OK, Life.DYING: State.DYING, Life.FAILING: State.FAILING}


@pytest.mark.parametrize(("cell", "then"), CELLS.items())
def test_every_cell_is_an_arrow_of_the_diagram(cell: tuple[Life, Event], then: Life) -> None:
    life, event = cell
    target = "[*]" if then is END else then.value
    assert f"    {life.value} --> {target}: {event.value}\n" in diagram()


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
    for life in set(Life) - {END}:
        assert f"| {life.value} | {PUBLISHED[life].value if life in PUBLISHED else 'no'} | " in page()

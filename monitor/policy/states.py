"""The states of an AppServer: one table, pure. Every change of a state goes by `after`.

docs/reference/states.md is made from it (`python -m monitor.policy.states`).
"""

from __future__ import annotations

from enum import Enum

from lbadaptor.contract.address import State


class LifeState(Enum):
    """The states, under the names that logs, `lbctl` and the docs use."""

    STARTING = "STARTING"
    OK = "OK"
    DYING = "DYING"
    FAILING = "FAILING"
    STOPPING = "STOPPING"
    BACKOFF = "BACKOFF"
    GONE = "GONE"


class Event(Enum):
    """What may happen to one."""

    READY = "its ready message"
    PORT_TAKEN = "its port is in use"
    EXIT = "exit"
    DRAIN = "order to drain"
    UNDRAIN = "undrain"
    PROBES_FAIL = "probes fail"
    GOOD_PROBE = "good probe"
    HUNG = "port refuses, or FAILING too long"
    EMPTY = "session cache empty and nothing in flight"
    LIMIT = "a limit"
    WAIT_OVER = "wait is over"
    STOP = "order to stop"


class Back(Enum):
    """A FAILING one goes on as what it was before."""

    AS_BEFORE = "what it was"
    EXIT_AS_BEFORE = "as what it was"


BEGIN = LifeState.STARTING
END = LifeState.GONE

TABLE: dict[tuple[LifeState, Event], LifeState | Back] = {
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
    (LifeState.FAILING, Event.GOOD_PROBE): Back.AS_BEFORE,
    (LifeState.FAILING, Event.HUNG): LifeState.STOPPING,
    (LifeState.FAILING, Event.LIMIT): LifeState.STOPPING,
    (LifeState.FAILING, Event.EXIT): Back.EXIT_AS_BEFORE,
    (LifeState.FAILING, Event.STOP): LifeState.STOPPING,
    (LifeState.STOPPING, Event.EXIT): LifeState.GONE,
    (LifeState.BACKOFF, Event.WAIT_OVER): LifeState.STARTING,
    (LifeState.BACKOFF, Event.STOP): LifeState.GONE,
}

PUBLISHED = {LifeState.OK: State.OK, LifeState.DYING: State.DYING, LifeState.FAILING: State.FAILING}
"""The states in which an AppServer stands in address.text, and what it is there."""


def after(state: LifeState, before_failing: LifeState, event: Event) -> LifeState | None:
    """The state after an event; None: it means nothing in this state. `before_failing` matters in FAILING."""
    then = TABLE.get((state, event))
    if then is Back.AS_BEFORE:
        return before_failing
    if then is Back.EXIT_AS_BEFORE:
        return after(before_failing, before_failing, event)
    return then


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {BEGIN.value}"]
    for (state, event), then in TABLE.items():
        if then is Back.AS_BEFORE:
            lines += [f"    {state.value} --> {was}: {event.value}, if it was {was}" for was in ("OK", "DYING")]
        elif then is Back.EXIT_AS_BEFORE:
            lines += [
                f"    {state.value} --> BACKOFF: {event.value}, if it was OK",
                f"    {state.value} --> [*]: {event.value}, if it was DYING",
            ]
        else:
            assert isinstance(then, LifeState)
            lines.append(f"    {state.value} --> {'[*]' if then is END else then.value}: {event.value}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The text of docs/reference/states.md."""
    rows = []
    for state in LifeState:
        if state is END:
            continue
        ways = [
            f"{event.value} → {then.value if then is not END else 'gone'}"
            for (at, event), then in TABLE.items()
            if at is state
        ]
        published = PUBLISHED[state].value if state in PUBLISHED else "no"
        rows.append(f"| {state.value} | {published} | {'; '.join(ways)} |")
    return "\n".join(
        (
            "# The life of an AppServer",
            "",
            "Written from `monitor/policy/states.py` by `make docs`; do not edit.",
            "",
            "- STARTING: its process imports the application. It gets no visitors yet.",
            "- OK: it takes any visitor.",
            "- DYING: it takes only visitors whose session it holds, and ends after the last one. With `survive` it "
            "moves its sessions to other AppServers, and ends within seconds.",
            "- FAILING: its probes fail. It gets no new visitors, and is ended if that lasts.",
            "- STOPPING: it was told to stop, and finishes the requests in flight. With `survive` it saves its "
            "sessions.",
            "- BACKOFF: no process runs in the slot. One is started when a wait is over.",
            "",
            "```mermaid",
            diagram() + "```",
            "",
            "| state | in address.text | leaves by |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


if __name__ == "__main__":
    print(page(), end="")

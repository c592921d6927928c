"""The life of an AppServer: one table, pure. No state is changed but by `after`.

docs/reference/states.md is drawn from it (`python -m monitor.policy.states`).
"""

from __future__ import annotations

from enum import Enum

from lbadaptor.contract.address import State


class Life(Enum):
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


BEGIN = Life.STARTING
END = Life.GONE

TABLE: dict[tuple[Life, Event], Life | Back] = {
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
    (Life.FAILING, Event.GOOD_PROBE): Back.AS_BEFORE,
    (Life.FAILING, Event.HUNG): Life.STOPPING,
    (Life.FAILING, Event.LIMIT): Life.STOPPING,
    (Life.FAILING, Event.EXIT): Back.EXIT_AS_BEFORE,
    (Life.FAILING, Event.STOP): Life.STOPPING,
    (Life.STOPPING, Event.EXIT): Life.GONE,
    (Life.BACKOFF, Event.WAIT_OVER): Life.STARTING,
    (Life.BACKOFF, Event.STOP): Life.GONE,
}

PUBLISHED = {Life.OK: State.OK, Life.DYING: State.DYING, Life.FAILING: State.FAILING}
"""The states in which an AppServer stands in address.text, and what it is there."""


def after(life: Life, before_failing: Life, event: Event) -> Life | None:
    """The state after an event; None: it means nothing in this state. `before_failing` matters in FAILING."""
    then = TABLE.get((life, event))
    if then is Back.AS_BEFORE:
        return before_failing
    if then is Back.EXIT_AS_BEFORE:
        return after(before_failing, before_failing, event)
    return then


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {BEGIN.value}"]
    for (life, event), then in TABLE.items():
        if then is Back.AS_BEFORE:
            lines += [f"    {life.value} --> {was}: {event.value}, if it was {was}" for was in ("OK", "DYING")]
        elif then is Back.EXIT_AS_BEFORE:
            lines += [
                f"    {life.value} --> BACKOFF: {event.value}, if it was OK",
                f"    {life.value} --> [*]: {event.value}, if it was DYING",
            ]
        else:
            assert isinstance(then, Life)
            lines.append(f"    {life.value} --> {'[*]' if then is END else then.value}: {event.value}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The text of docs/reference/states.md."""
    rows = []
    for life in Life:
        if life is END:
            continue
        ways = [
            f"{event.value} → {then.value if then is not END else 'gone'}"
            for (at, event), then in TABLE.items()
            if at is life
        ]
        published = PUBLISHED[life].value if life in PUBLISHED else "no"
        rows.append(f"| {life.value} | {published} | {'; '.join(ways)} |")
    return "\n".join(
        (
            "# The life of an AppServer",
            "",
            "Drawn from the table in `monitor/policy/states.py` by `make docs`.",
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

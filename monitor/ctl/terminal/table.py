"""The status as a table, for people."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from monitor.ctl.terminal import at_work, leaving
from monitor.ctl.terminal.times import duration

COLUMNS = ("slot", "state", "for", "sessions", "in flight", "served", "memory", "pid", "address", "note")


def table(status: dict[str, Any]) -> str:
    """The status for people."""
    weights = status.get("run_time", {}).get("weights", {})
    rows = [COLUMNS, *(_row(server, weights.get(str(server["slot"]))) for server in status["appservers"])]
    lines = aligned(rows)
    set_now, by_file = status.get("run_time", {}), status.get("configured", {})
    servers = str(status["servers"])
    if set_now.get("servers") is not None:
        servers += f" (set at run time; lbadaptor.toml: {by_file['servers']})"
    head = f"monitor {status['pid']} · AppServers asked for: {servers}, slots: {status['slots']}"
    if status["standby"]:
        head += f" · {status['standby']} in standby"
    if status["release"]:
        done, of = status["replaced"]
        head += f" · release: {done} of {of} replaced, {status['release']}"
    if status["stopping"]:
        head += " · stopping"
    if never_set := status.get("session_cookie", {}).get("never_set"):
        lines += ["", f"note: {never_set}."]
    if stuck := at_work.note(status):
        lines += ["", stuck]
    if survival := _survival(status):
        lines += ["", *survival]
    problems = [f"PROBLEM: {text}" for text in status.get("problems", ())]
    machine = [text] if (text := leaving.note(status)) else []
    return "\n".join([*problems, head, *machine, status["address_file"], "", *lines])


def aligned(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Rows of one length as lines, with columns of one width. `right`: the columns that are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _survival(status: dict[str, Any]) -> list[str]:
    """How many sessions survive their AppServer, and why others do not; none where no AppServer keeps any."""
    servers = [server for server in status["appservers"] if server.get("kept")]
    kept = [server["kept"] for server in servers if server["kept"]["mode"] not in ("", "nothing")]
    if not kept:
        return []
    unsaved: dict[str, int] = {}
    for one in kept:
        for why, count in one["unsaved"].items():
            unsaved[why] = unsaved.get(why, 0) + count
    named = ", ".join(f"{why} {count}" for why, count in sorted(unsaved.items()))
    total = sum(one["saved"] for one in kept)
    waiting = max((one["waiting"] for one in kept if one["waiting"] is not None), default=None)
    lines = [
        f'sessions survive "{status.get("survive", "")}": {total} saved, {sum(unsaved.values())} not saved'
        + (f" ({named})" if named else "")
        + (f", {waiting} waiting for their visitors" if waiting is not None else "")
        + f"; moved out {sum(one['moved_out'] for one in kept)}, taken over {sum(one['taken'] for one in kept)}"
    ]
    for why in dict.fromkeys(one["why"] for one in kept if one["why"]):
        slots = [str(server["slot"]) for server in servers if server["kept"]["why"] == why]
        lines.append(f"sessions of slot {', '.join(slots)} do NOT survive: {why}")
    return lines


def _row(server: dict[str, Any], weight: int | None) -> tuple[str, ...]:
    """`weight`: that of its slot, where it was set at run time."""
    notes = (
        [f"to be replaced: {', '.join(server['leaving'])}"] if server["leaving"] and server["state"] == "OK" else []
    )
    if weight is not None:
        notes.append(f"weight {weight}, set at run time")
    if server["standby"]:
        notes.append("standby")
    if server["state"] == "DYING" and server["sessions"]:
        notes.append(f"the last session ends in {duration(server['longest_session'] or 0)} at the latest")
    if server["why"] or server.get("next_try") is not None:
        notes.append(_why_and_when(server))
    busy = "" if server["in_flight"] is None else f"{server['in_flight']}/{server['threads']}"
    memory = "" if server["memory"] is None else f"{server['memory'] / 1e6:.0f} MB"
    return (
        str(server["slot"]),
        server["state"],
        duration(server["for"]),
        str(server["sessions"]),
        busy,
        "" if server["served"] is None else str(server["served"]),
        memory,
        str(server["pid"] or ""),
        server["address"],
        "; ".join(notes),
    )


def _why_and_when(server: dict[str, Any]) -> str:
    """Why one does not serve, and when something is done about it."""
    why, due = server["why"], server.get("next_try")
    if due is None:
        return str(why)
    when = "tried again" if server["state"] == "BACKOFF" else "ended, if it does not answer,"
    return f"{when} in {duration(due)}" + (f": {why}" if why else "")

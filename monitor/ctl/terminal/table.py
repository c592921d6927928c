"""The status as a table, for people."""

from __future__ import annotations

from typing import Any

COLUMNS = ("slot", "state", "for", "sessions", "in flight", "served", "memory", "pid", "address", "note")


def table(status: dict[str, Any]) -> str:
    """The status for people."""
    rows = [COLUMNS, *(_row(server) for server in status["appservers"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"monitor {status['pid']} · AppServers asked for: {status['servers']}, slots: {status['slots']}"
    if status["standby"]:
        head += f" · {status['standby']} in standby"
    if status["release"]:
        done, of = status["replaced"]
        head += f" · release: {done} of {of} replaced, {status['release']}"
    if status["stopping"]:
        head += " · stopping"
    if never_set := status.get("session_cookie", {}).get("never_set"):
        lines += ["", f"note: {never_set}."]
    if survival := _survival(status):
        lines += ["", *survival]
    problems = [f"PROBLEM: {text}" for text in status.get("problems", ())]
    return "\n".join([*problems, head, status["address_file"], "", *lines])


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


def _row(server: dict[str, Any]) -> tuple[str, ...]:
    notes = (
        [f"to be replaced: {', '.join(server['leaving'])}"] if server["leaving"] and server["state"] == "OK" else []
    )
    if server["standby"]:
        notes.append("standby")
    if server["state"] == "DYING" and server["sessions"]:
        notes.append(f"the last session ends in {server['longest_session'] or 0:.0f} s at the latest")
    if server["why"] or server.get("next_try") is not None:
        notes.append(_why_and_when(server))
    busy = "" if server["in_flight"] is None else f"{server['in_flight']}/{server['threads']}"
    memory = "" if server["memory"] is None else f"{server['memory'] / 1e6:.0f} MB"
    return (
        str(server["slot"]),
        server["state"],
        _duration(server["for"]),
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
    return f"{when} in {due:.0f} s" + (f": {why}" if why else "")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

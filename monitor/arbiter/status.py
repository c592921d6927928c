"""The status, as the console gives it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from lbadaptor.appserver.sessions.cookie_check import MOST_NAMES, doubt
from lbadaptor.log import texts
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.contract.messages import Kept
from monitor.policy.life import in_words
from monitor.policy.pool import Pool
from monitor.policy.slot import Slot

BEGAN = round(time.time(), 3)
"""When this program began, in unix seconds: another one after an upgrade in place, with the same pid."""
MOST_REASONS = 20
"""Reasons why sessions are not saved that are shown of one AppServer."""


def status(pool: Pool, processes: AppServerProcesses, now: float, problems: Iterable[str] = ()) -> dict[str, Any]:
    """The whole, for programs; `lbctl status` draws it for people. `now` is monotonic seconds."""
    settings = pool.settings
    return {
        "pid": os.getpid(),
        "time": round(time.time(), 1),
        "began": BEGAN,
        "run_folder": str(settings.run_folder),
        "address_file": str(settings.address_file),
        "servers": settings.appservers.servers,
        "slots": settings.slots,
        "standby": settings.appservers.standby,
        "release": pool.waiting,
        "replaced": pool.replaced,
        "ended": pool.release.ended,
        "stopping": pool.stopping,
        "problems": list(problems),
        "template": processes.template_pid,
        "survive": settings.sessions.survive,
        "session_cookie": _session_cookie(pool),
        "appservers": [_describe(slot, pool, processes, now) for slot in pool],
    }


def _session_cookie(pool: Pool) -> dict[str, Any]:
    """What all AppServers together know of it; `never_set`: what to tell people, empty where it was set by one."""
    name = pool.settings.application.session_cookie
    answers = [life.supervision.answer for life in pool.lives]
    known = [answer.cookies for answer in answers if answer and answer.cookies]
    known = [cookies for cookies in known if cookies.name == name]  # others are of the release before
    if not name or any(cookies.session for cookies in known):
        return {"name": name, "never_set": ""}
    others = list(dict.fromkeys(other for cookies in known for other in cookies.others))[:MOST_NAMES]
    framework = dict.fromkeys(other for cookies in known for other in cookies.framework if other != name)
    count = sum(cookies.answers for cookies in known)
    return {"name": name, "never_set": doubt(name, count, others, framework), "others": others}


def _kept(kept: Kept) -> dict[str, Any]:
    """What an AppServer says of its session files. Its words may be the application's, such as the name of a type."""
    unsaved = {texts.clean(why): count for why, count in list(kept.unsaved.items())[:MOST_REASONS]}
    shown = msgspec.structs.replace(kept, store=texts.clean(kept.store), why=texts.clean(kept.why), unsaved=unsaved)
    return dict(msgspec.to_builtins(shown))


def _describe(slot: Slot, pool: Pool, processes: AppServerProcesses, now: float) -> dict[str, Any]:
    process = processes.find(slot.identity)
    life = slot.life
    answer = life.supervision.answer if life else None
    return {
        "slot": slot.number,
        "generation": slot.identity.generation,
        "state": slot.state.value,
        "for": round(now - slot.occupant.since, 1),
        "pid": process.child.pid if process else None,
        "address": str(process.address if process else processes.address(slot.number)),
        "standby": slot.occupant.standby,
        "sessions": life.sessions if life else 0,
        "leaving": in_words(life.leaving) if life else [],
        "why": slot.why,
        "next_try": pool.next_try(slot, now),
        "kept": _kept(answer.kept) if answer and answer.kept else None,
        **{
            name: getattr(answer, name, None)
            for name in (
                "in_flight",
                "threads",
                "served",
                "memory",
                "cpu",
                "longest_session",
                "oldest_session",
                "past_limit",
            )
        },
    }

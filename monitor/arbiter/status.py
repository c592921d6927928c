"""The status, as the console gives it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from lbadaptor.appserver.sessions.cookie_check import MOST_NAMES, doubt
from lbadaptor.contract.settings import NO_NUMBER
from lbadaptor.log import texts
from monitor.arbiter.processes.appservers import AppServerProcesses
from monitor.contract.messages import AtWork, Cookies, Kept
from monitor.policy import machine_drain
from monitor.policy.life import in_words
from monitor.policy.pool import Pool
from monitor.policy.slot import Slot

BEGAN = round(time.time(), 3)
"""When this program began, in unix seconds: another one after an upgrade in place, with the same pid."""
MOST_REASONS = 20
"""Reasons why sessions are not saved that are shown of one AppServer."""
MOST_AT_WORK = 5
MOST_DURATIONS = 200
"""Requests at work and bounds of durations that are shown of one AppServer."""
LAST_SECOND = 253402300799.0
"""Of the year 9999, in unix time: no calendar shows what comes after it."""
_is_bound = re.compile(r"\d{1,9}(\.\d{1,9})?(e[+-]\d\d)?|\+Inf", re.ASCII).fullmatch


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
        "machine": _machine(pool),
        "session_cookie": _session_cookie(settings.application.session_cookie, _told_of_cookies(pool)),
        "appservers": [_describe(slot, pool, processes, now) for slot in pool],
    }


def _machine(pool: Pool) -> dict[str, Any]:
    """The whole machine, as one of several: how far it is when it leaves. `longest_session`: seconds."""
    number = pool.settings.machine.number
    return {
        "number": None if number == NO_NUMBER else number,
        "leaving": pool.leaving,
        "sessions": machine_drain.sessions(pool.lives, pool.settings),
        "longest_session": round(machine_drain.longest_session(pool.lives), 1),
        "empty": pool.empty,
    }


def _session_cookie(name: str, told: Iterable[Cookies]) -> dict[str, Any]:
    """What all AppServers together know of it.

    `never_set`: what to tell people, empty where it was set by one; `seen`: it was set by one; `refused`: why
    browsers do not keep it.
    """
    known = [cookies for cookies in told if cookies.name == name]  # others are of the release before
    refused = next((cookies.refused for cookies in known if cookies.refused), "")
    if not name or any(cookies.session for cookies in known):
        return {"name": name, "never_set": "", "seen": bool(name), "refused": texts.clean(refused)}
    others = list(dict.fromkeys(other for cookies in known for other in cookies.others))[:MOST_NAMES]
    framework = dict.fromkeys(other for cookies in known for other in cookies.framework if other != name)
    count = sum(cookies.answers for cookies in known)
    return {
        "name": name,
        "never_set": doubt(name, count, others, framework),
        "others": others,
        "seen": False,
        "refused": "",
    }


def _told_of_cookies(pool: Pool) -> list[Cookies]:
    answers = [life.supervision.answer for life in pool.lives]
    return [answer.cookies for answer in answers if answer and answer.cookies]


def _kept(kept: Kept) -> dict[str, Any]:
    """What an AppServer says of its session files. Its words may be the application's, such as the name of a type."""
    unsaved = {texts.clean(why): count for why, count in list(kept.unsaved.items())[:MOST_REASONS]}
    shown = msgspec.structs.replace(kept, store=texts.clean(kept.store), why=texts.clean(kept.why), unsaved=unsaved)
    return dict(msgspec.to_builtins(shown))


def _at_work(requests: list[AtWork]) -> list[dict[str, Any]]:
    """What an AppServer says of requests at work, in one line each: a visitor may put anything into a path."""
    return [
        {
            "method": texts.clean(one.method),
            "path": texts.clean(one.path),
            "seconds": min(max(0.0, one.seconds), LAST_SECOND),
            "since": min(max(0.0, one.since), LAST_SECOND),
            "id": texts.clean(one.id),
        }
        for one in requests[:MOST_AT_WORK]
    ]


def _durations(told: dict[str, int]) -> dict[str, int]:
    """How many requests were at work for how long. What is no bound in seconds is left out."""
    bounds = filter(_is_bound, islice(told, MOST_DURATIONS))
    return {bound: told[bound] for bound in bounds}


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
        "at_work": _at_work(answer.at_work) if answer and answer.at_work is not None else None,
        "durations": _durations(answer.durations) if answer and answer.durations is not None else None,
        **{
            name: getattr(answer, name, None)
            for name in (
                "in_flight",
                "threads",
                "waiting",
                "served",
                "memory",
                "cpu",
                "uptime",
                "longest_session",
                "oldest_session",
                "past_limit",
            )
        },
    }

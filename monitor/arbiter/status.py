"""What people are told who ask for the status."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from lbadaptor.appserver.sessions.cookie_check import MOST_NAMES, doubt
from monitor.arbiter.processes.appservers import AppServers
from monitor.policy.plan import Plan
from monitor.policy.record import Record


def status(plan: Plan, appservers: AppServers, now: float, problems: Iterable[str] = ()) -> dict[str, Any]:
    """The whole, for programs; `lbctl status` draws it for people. `now` is monotonic seconds."""
    settings = plan.settings
    return {
        "pid": os.getpid(),
        "run_folder": str(settings.run_folder),
        "address_file": str(settings.address_file),
        "servers": settings.appservers.servers,
        "slots": settings.slots,
        "standby": settings.appservers.standby,
        "release": plan.waiting,
        "replaced": plan.replaced,
        "ended": plan.ended,
        "stopping": plan.stopping,
        "problems": list(problems),
        "template": appservers.template_pid,
        "session_cookie": _session_cookie(plan),
        "appservers": [_describe(record, plan, appservers, now) for record in plan],
    }


def _session_cookie(plan: Plan) -> dict[str, Any]:
    """What all AppServers together know of it; `never_set`: what to tell people, empty where it was set by one."""
    name = plan.settings.application.session_cookie
    told = [record.vitals.cookies for record in plan if record.vitals and record.vitals.cookies]
    told = [cookies for cookies in told if cookies.name == name]  # others are of the release before
    if not name or any(cookies.session for cookies in told):
        return {"name": name, "never_set": ""}
    others = list(dict.fromkeys(other for cookies in told for other in cookies.others))[:MOST_NAMES]
    framework = dict.fromkeys(other for cookies in told for other in cookies.framework if other != name)
    answers = sum(cookies.answers for cookies in told)
    return {"name": name, "never_set": doubt(name, answers, others, framework), "others": others}


def _describe(record: Record, plan: Plan, appservers: AppServers, now: float) -> dict[str, Any]:
    appserver = appservers.find(record.identity)
    return {
        "slot": record.slot,
        "generation": record.generation,
        "state": record.life.value,
        "for": round(now - record.since, 1),
        "pid": appserver.child.pid if appserver else None,
        "address": str(appserver.address if appserver else appservers.address(record.slot)),
        "standby": record.standby,
        "sessions": record.sessions,
        "leaving": sorted(record.leaving),
        "why": record.why,
        "next_try": plan.next_try(record, now),
        **{
            name: getattr(record.vitals, name, None)
            for name in ("in_flight", "threads", "served", "memory", "cpu", "longest_session", "past_limit")
        },
    }

"""What people are told who ask for the status."""

from __future__ import annotations

import os
from typing import Any

from monitor.appservers import AppServers
from monitor.plan import Plan
from monitor.record import Record


def status(plan: Plan, appservers: AppServers, now: float) -> dict[str, Any]:
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
        "template": appservers.template_pid,
        "appservers": [_describe(record, appservers, now) for record in plan],
    }


def _describe(record: Record, appservers: AppServers, now: float) -> dict[str, Any]:
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
        **{
            name: getattr(record.vitals, name, None)
            for name in ("in_flight", "threads", "served", "memory", "cpu", "longest_session", "past_limit")
        },
    }

"""Adopting the AppServers that outlived the monitor before: those that state.json knows, and strays."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from lbadaptor.address import Entry, Identity, State
from lbadaptor.settings import Monitor
from lbadaptor.ticket import Keys
from monitor.appservers import AppServers
from monitor.child import Child
from monitor.life import Life
from monitor.messages import Probed, Unanswered
from monitor.record import Record
from monitor.state import Known
from monitor.strays import Strays

log = logging.getLogger("lbmonitor")


def adopt(
    known: Iterable[Known], published: Iterable[Entry], keys: Keys, settings: Monitor, appservers: AppServers
) -> Strays:
    """Adopt those of state.json that live; give those that only address.text names, who have to be asked."""
    left = {entry.identity: entry for entry in published}
    for one in known:
        if not one.pid:
            appservers.remove(one.own_folder)
            continue  # never forked, or forked and not written down: then it had no handover, and has ended
        entry = left.pop(one.identity, None)
        try:
            child = Child.adopt(one.pid, one.started)
        except OSError:
            log.info("slot %d has ended meanwhile", one.slot)
            appservers.remove(one.own_folder)
        else:
            ticket = entry.ticket if entry else keys.ticket(one.identity)
            appservers.take_over(one.record, child, one.address, ticket, one.own_folder, one.ticket_cookie)
    patience = 2 * settings.fall * (settings.probe_interval + settings.probe_timeout)
    return Strays(left.values(), keys, settings.fall, time.monotonic() + patience)


def hear(message: Probed | Unanswered, strays: Strays, appservers: AppServers) -> bool:
    """A probe of a stray tells whether to adopt it. False: it was about another AppServer."""
    identity = Identity(message.slot, message.generation)
    entry = strays.entries.get(identity)
    if entry is None:
        return False
    if isinstance(message, Unanswered):
        strays.unanswered(message)
    elif (child := strays.answered(message)) is not None:
        now = time.monotonic()
        began = now - message.vitals.uptime
        life = Life.DYING if entry.state is State.DYING else Life.OK
        standby = entry.weight == 0  # or it has none by the settings; the plan keeps no more in standby than wanted
        record = Record(*identity, since=now, born=began, life=life, standby=standby, ready_at=began)
        appservers.take_over(record, child, entry.address, entry.ticket)
    return True

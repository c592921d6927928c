"""The key file at the monitor's start."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.settings import NO_NUMBER, Settings
from lbadaptor.contract.ticket import Keys, make_keys, unreadable_for
from lbadaptor.log import logs
from monitor.arbiter.files import session_folder
from monitor.contract.processes import start_time
from monitor.policy.life import Life

log = logs.logger("lbmonitor")


def keys_of(settings: Settings, group: int | None, recorded: Iterable[Life]) -> Keys:
    """The keys of the key file, which is made on first use. Raises KeyFileError.

    AppServers that live know the keys of a file that was there. With other keys no adaptor could reach them, and
    their sessions would be lost. One of several machines makes none by itself: it would take the tickets of the
    others for forged, and they its own, and an application would not learn that a session is lost.
    """
    path = settings.key_file
    if not os.path.exists(path) and (pids := [str(life.pid) for life in recorded if _lives(life)]):
        raise KeyFileError(
            f"the key file {path} is missing, and AppServers that were started with its keys still run (pid "
            f"{', '.join(pids)}): put the file back, or end them with `lbctl stop --all`; nothing was changed"
        )
    if not os.path.exists(path) and settings.machine.number != NO_NUMBER:
        raise KeyFileError(
            f"the key file {path} is missing, and this is one of several machines ([machine] number), which have the "
            "same keys: bring it theirs, `lbctl key export | ssh MACHINE lbctl key import`; on the first machine: "
            "`lbctl key make`"
        )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not os.path.exists(path) and settings.sessions_survive and session_folder.is_of(settings):
        log.warning(
            "the key file %s is missing, and is made anew: tickets of before count no more, and the sessions in %s "
            "are lost to their visitors",
            path,
            session_folder.path_of(settings),
        )
    keys = make_keys(path, group)
    if group is not None and (why := unreadable_for(path, group)):
        log.warning("%s", why)
    return keys


def _lives(life: Life) -> bool:
    try:
        return life.pid > 0 and start_time(life.pid) == life.started
    except ProcessLookupError:
        return False
    except OSError:  # it cannot be looked at now
        return True

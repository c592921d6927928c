"""What outlives this AppServer: made once at its start, looked after by the main thread, and told in its status."""

from __future__ import annotations

import time
from typing import Any

from lbadaptor.appserver.sessions import stores
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder, UnsafeFolder
from lbadaptor.appserver.sessions.persistence.keeper import Gone, Keeper
from lbadaptor.appserver.sessions.persistence.saver import Bounds, Saver
from lbadaptor.appserver.sessions.persistence.sweep import Sweep
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

NOTHING = "nothing"
ANYTHING = "anything"
BUSY_PATIENCE = 1.0
"""Seconds for which the end waits for sessions that the store could not be asked for, as a thread held their lock."""
BUSY_PAUSE = 0.02
"""Seconds between two tries."""
TURN = 0.25
"""Seconds for which sessions are moved before orders are looked at again."""

_said = Once(8)


class Survival:
    """`mode`: of the settings. `why` says why nothing is saved all the same, `store` where the sessions are. `idle`:
    seconds after which a session that waits for its visitor has ended."""

    def __init__(
        self,
        mode: str,
        keeper: Keeper | None = None,
        folder: SessionFolder | None = None,
        store: str = "",
        why: str = "",
        idle: float = float("inf"),
    ) -> None:
        self.mode = mode
        self.keeper = keeper
        self._folder = folder
        self._sweep = None if folder is None else Sweep(folder, idle=idle)
        self._store = store
        self._why = why
        self._waiting: dict[str, float] = {}
        """of sessions that wait for their visitors; empty: another AppServer counts them, or it is not done yet"""

    def activate(self) -> None:
        """The warm-up is over: keep sessions from now on."""
        if self.keeper is not None:
            self.keeper.active = True

    def turn(self, leaving: bool) -> bool:
        """Look after the files, and move sessions while the AppServer is leaving. Whether to come again at once.

        Blocks for TURN, about. Never raises.
        """
        if self.keeper is None or self._folder is None or self._sweep is None:
            return False
        if _mend(self._folder):
            self.keeper.write_again()
        self.keeper.look()
        figures = self._sweep.run()
        self._waiting = (
            {"waiting": figures.waiting, "waiting_longest": round(self._sweep.longest, 1)}
            if figures is not None and self._sweep.counted
            else {}
        )
        return leaving and self.keeper.leave(TURN)

    def end(self, until: float) -> None:
        """The AppServer takes no requests any more, and all that could end have ended: move what is left, until then
        (monotonic seconds) at most. Never raises."""
        if self.keeper is None:
            return
        busy_until = min(until, time.monotonic() + BUSY_PATIENCE)
        while time.monotonic() < until:
            if self.keeper.leave(until - time.monotonic()):
                continue
            if not self.keeper.busy or time.monotonic() >= busy_until:
                return
            time.sleep(BUSY_PAUSE)

    def close(self) -> None:
        """The process ends: give the folder up."""
        if self.keeper is not None:
            self.keeper.close()

    def report(self) -> dict[str, Any] | None:
        """For the answer to a probe. `waiting`: sessions that wait for their visitors; only the AppServer that sweeps
        knows the number."""
        if self.mode == NOTHING:
            return None
        told: dict[str, Any] = {"mode": self.mode, "store": self._store, "why": self._why}
        if self.keeper is not None:
            figures = self.keeper.figures
            told |= {
                "saved": figures.saved,
                "unsaved": figures.unsaved,
                "moved_out": figures.moved_out,
                "taken": figures.taken,
            }
            told |= self._waiting
        return told


def survival(
    mode: str,
    slot: int,
    generation: int,
    application: Any,
    app: str,
    cookie: str,
    count: str,
    functions: tuple[str, str],
    folder: str,
    run_folder: str,
    bounds: Bounds,
    idle: float,
    gone: Gone,
) -> Survival:
    """Set up what the settings ask for. It logs what it is, or why sessions are not saved all the same.

    `count`: the setting session_count; `functions`: save and load; `gone`: see Keeper. Raises Unreadable for
    functions that are not there.
    """
    if mode == NOTHING:
        return Survival(mode)
    access, sentence = stores.session_access(count, application, cookie, *functions)
    if access is None:
        log.warning('survive = "%s" has no effect: %s', mode, sentence)
        return Survival(mode, why=sentence)
    own = SessionFolder(folder, slot, generation, run_folder)
    try:
        own.open()
    except (UnsafeFolder, OSError) as error:
        why = str(error) if isinstance(error, UnsafeFolder) else f"{folder}: {texts.what(error)}"
        log.error('survive = "%s" has no effect: %s', mode, why)
        return Survival(mode, why=why)
    log.info('survive = "%s": %s', mode, sentence)
    keeper = Keeper(Saver(access, own, app, mode == ANYTHING, bounds, idle), gone)
    return Survival(mode, keeper, own, sentence, idle=idle)


def _mend(folder: SessionFolder) -> bool:
    """Make anew what somebody has deleted. Whether the sessions that live here have no files any more."""
    try:
        if folder.mend():
            log.error(
                "the folder of sessions was deleted, and is made anew; the sessions that waited in it for their "
                "visitors are lost"
            )
            return True
    except (UnsafeFolder, OSError) as error:
        why = str(error) if isinstance(error, UnsafeFolder) else texts.of_os_error(error)
        if _said.first(why):
            log.error("the folder of sessions was deleted, and cannot be made anew: %s", why)
    return False

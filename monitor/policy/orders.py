"""What people order of a pool. Pure.

Each function says in a sentence what came of it, and raises ValueError, for people, when nothing can. `by` says in
words whose order it is. `now` is monotonic seconds.
"""

from __future__ import annotations

from lbadaptor.log import logs, texts
from monitor.contract.events import What
from monitor.policy import machine_drain
from monitor.policy.actions import Signal
from monitor.policy.life import Life, Reason
from monitor.policy.pool import Pool
from monitor.policy.release import Release, announcement
from monitor.policy.slot import Backoff
from monitor.policy.states import Event, LifeState

log = logs.logger("lbmonitor")


def drain(pool: Pool, number: int, by: str = "") -> str:
    """Replace an AppServer, then drain it."""
    _refuse_while_leaving(pool)
    slot = pool.slots.at(number)
    life = slot.life
    if slot.state is LifeState.DYING or (life is not None and life.leaving - {Reason.LIMIT}):
        return f"slot {number} is on its way out already"
    if life is None or slot.state is not LifeState.OK:
        raise ValueError(f"slot {number} is {slot.state.value}: only one that is OK can be drained")
    _let_leave(life, by)
    log.info("slot %d is to be drained, by order", number)
    return f"slot {number} will be drained when its replacement is up"


def undrain(pool: Pool, number: int, now: float, by: str = "") -> str:
    """Let an AppServer that is DYING, or is about to be drained, take new visitors again."""
    slot = pool.slots.at(number)
    life = slot.life
    if life is not None and Reason.LIMIT in life.leaving:
        raise ValueError(f"slot {number} is past its limit and is not undrained")
    if life is not None and pool.slots.move(life, Event.UNDRAIN, now, by):
        life.draining_since = None
        pool.send(life, Signal.UNDRAIN)
    elif life is None or life.state is not LifeState.OK or not life.leaving:
        raise ValueError(f"slot {number} is {slot.state.value} and not being drained")
    life.leaving.clear()
    life.because = ""
    life.undrained = True
    log.info("slot %d is undrained, by order", number)
    return f"slot {number} is OK again"


def restart(pool: Pool, number: int, end_sessions: bool, now: float, by: str = "") -> str:
    """Replace one AppServer; where none serves, start the next one without a wait.

    `end_sessions`: it is ended when its replacement is up, or at once where it is DYING or FAILING.
    """
    _refuse_while_leaving(pool)
    slot = pool.slots.at(number)
    life = slot.life
    if life is None:
        slot.backoff = Backoff(wake_at=now)
        log.info("slot %d is started anew at once, by order", number)
        return f"slot {number} is started anew at once"
    if not end_sessions:
        return drain(pool, number, by)
    if not life.published:
        raise ValueError(f"slot {number} is {life.state.value}: there are no sessions to end")
    sessions = texts.count(life.sessions, "session")
    if life.state is not LifeState.OK:
        pool.end_sessions(life, f"order of {by}", now)
        return f"slot {number} is ended, with {sessions}"
    _let_leave(life, by)
    life.leaving.add(Reason.END_SESSIONS)
    log.info("slot %d is to be replaced and ended, by order", number)
    return f"slot {number} will be ended, with {sessions}, when its replacement is up"


def kill(pool: Pool, number: int, now: float, by: str = "") -> str:
    """End an AppServer and all that it started by SIGKILL; it is replaced as after any death."""
    life = pool.slots.at(number).life
    if life is None or not life.pid:
        raise ValueError(f"in slot {number} there is no process to kill")
    life.supervision.killed = f"{by or 'somebody'} ordered it"
    pool.slots.of(life).backoff = Backoff()  # what failed before has nothing to do with it
    lost = life.lost(orderly=False)
    log.warning("slot %d is killed with %s, by order", number, texts.count(life.sessions, "session"))
    pool.kill(life, now)
    return f"slot {number} (pid {life.pid}) is killed; sessions that are lost: {lost} of {life.sessions}"


def release(pool: Pool, now: float, end_sessions: bool = False, by: str = "") -> str:
    """Replace every AppServer, a few at a time; each drains when its replacement is up.

    `end_sessions`: each is ended then, and in the end those that were DYING before, too; requests in flight
    still finish.
    """
    pool.release = Release.begin(pool.slots, pool.kept, end_sessions, now)
    for life in pool.lives:
        if Reason.RELEASE in life.leaving:
            life.because = by
    count = texts.count(pool.release.total, "AppServer")
    ending = ", and ending their sessions" if end_sessions else ""
    log.info("release: replacing %s%s", count, ending)
    pool.journal.note(What.RELEASE_BEGUN, f"replacing {count}{ending}" + (f"; ordered by {by}" if by else ""))
    return announcement(pool.release, pool.slots, pool.settings, end_sessions)


def leave(pool: Pool, now: float, by: str = "") -> str:
    """Drain the whole machine. A release that is under way stands still meanwhile."""
    left = f"it has {texts.count(machine_drain.sessions(pool.lives, pool.settings), 'session')}"
    if pool.leaving:
        return f"this machine is leaving already; {left}"
    pool.machine_drain.begin(now)
    log.info("this machine is leaving, by order; %s", left)
    pool.journal.note(What.MACHINE_LEAVING, f"{left}; ordered by {by}" if by else left)
    paused = "; the release that is under way stands still until then" * pool.release.under_way
    return f"this machine is leaving: nothing in it is replaced until `lbctl undrain --all`{paused}; {left}"


def stay(pool: Pool, by: str = "") -> str:
    """Take that back: what was put off meanwhile happens now."""
    if not pool.leaving:
        return "this machine is not leaving"
    pool.machine_drain.end()
    log.info("this machine stays, by order")
    pool.journal.note(What.MACHINE_STAYS, f"ordered by {by}" if by else "")
    goes_on = "; the release goes on" * pool.release.under_way
    return f"this machine takes new visitors again{goes_on}"


def _refuse_while_leaving(pool: Pool) -> None:
    if pool.leaving:
        raise ValueError(machine_drain.REFUSED)


def _let_leave(life: Life, by: str) -> None:
    life.leaving.add(Reason.ORDER)
    life.because = by
    life.undrained = False

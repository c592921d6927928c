"""The rules about sessions: which may be lost, and that none lives twice or comes back. Pure.

What a session outlives is the setting [sessions] survive, which the records name.
"""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import SLACK, Evidence
from .records import FOREVER, Counted, Visit

MOST_DEATHS = 3
"""So many AppServers that had a session, and died one after the other before it answered, and it is set aside."""
SET_ASIDE = "have died while it was at work"
NO_EFFECT = "has no effect"
"""In a line of an AppServer that cannot keep sessions."""
ENDED_UNHEARD = "the answer that told its end was lost"


def sessions(evidence: Evidence) -> Iterator[str]:
    """A session is lost only with what it does not outlive, and the answer says so. It counts as it has told."""
    for visit in evidence.records.visits:
        told = visit.told
        if told is None or visit.ended_session:
            continue
        gone = told.lost or (told.new and visit.brought and visit.page != "plain")
        if gone:
            why = why_gone(evidence, visit)
            if told.new and not told.lost and why != ENDED_UNHEARD:
                yield f"{what(visit)}: the session is gone, and no answer said `lost`"
            if not why:
                holder = visit.holder.appserver if visit.holder else "unknown"
                yield f"{what(visit)}: its session is lost, though nothing ended its holder {holder}"
        if told.lost and visit.page == "visit" and not told.new:
            yield f"{what(visit)}: `lost`, though its session is there"
        if visit.page in ("visit", "login"):
            least, most = (int(visit.method == "POST"),) * 2 if told.new else (visit.least, visit.most)
            if not least <= told.count <= most:
                yield f"{what(visit)}: the session counted {told.count}, not {least} to {most}"
        stays = visit.brought and visit.holder and not gone and visit.page in ("visit", "login", "logout")
        if stays and visit.holder and visit.holder.process != told.process and not _may_move(evidence, visit):
            yield f"{what(visit)}: the session moved from {visit.holder.appserver} to {told.appserver}"


def _may_move(evidence: Evidence, visit: Visit) -> bool:
    """Whether a session may be at another AppServer than the one that answered last. The first request that it serves
    tells so."""
    if evidence.records.survive == "nothing" or visit.told is None:
        return False
    return visit.told.moved or visit.together or bool(evidence.unanswered(visit))


def why_gone(evidence: Evidence, visit: Visit) -> str:
    """What ended a session in a way that the design allows; empty: nothing did."""
    if visit.holder is None:
        return ""
    if evidence.records.survive == "nothing":
        return _why_ended(evidence, visit) or _idle(evidence, visit)
    if any(one.page in ("login", "logout") and one.name in evidence.executed for one in evidence.unanswered(visit)):
        return ENDED_UNHEARD
    return (
        (_why_killed(evidence, visit) if evidence.records.survive == "leaving" else "")
        or _why_unsaved(evidence, visit)
        or _why_set_aside(evidence, visit)
        or _idle(evidence, visit)
    )


def _idle(evidence: Evidence, visit: Visit) -> str:
    return "idle for too long" if visit.began - visit.told_at >= evidence.records.limits.idle - 1 else ""


def _why_ended(evidence: Evidence, visit: Visit) -> str:
    """What ended the holder."""
    holder = visit.holder
    assert holder is not None
    if evidence.killed.get(holder.process, visit.ended) < visit.ended:
        return "killed"
    if holder.process in evidence.hung:
        return "hung"
    ended = evidence.ended_by_limit.get(holder.appserver, visit.ended + 1) <= visit.ended + SLACK
    return "ended by an announced limit" if ended else ""


def _why_killed(evidence: Evidence, visit: Visit) -> str:
    """What killed the holder, or another AppServer that may have taken the session over since it answered."""
    assert visit.holder is not None
    if any(name == visit.holder.appserver for _, _, name in evidence.died(0.0, visit.ended + SLACK)):
        return "killed"
    if evidence.killed.get(visit.holder.process, visit.ended) < visit.ended:
        return "killed"
    since = min((one.began for one in evidence.unanswered(visit)), default=visit.began)
    return "killed after a take-over" if evidence.died(since - SLACK, visit.ended) else ""


def _why_unsaved(evidence: Evidence, visit: Visit) -> str:
    """Why it was not saved when it was used last."""
    holder = visit.holder
    assert holder is not None
    used = [(visit.asked_at, visit.told_at), *((one.began, one.ended) for one in evidence.unanswered(visit))]
    if evidence.records.survive == "leaving":
        used = [(visit.asked_at, visit.ended)]  # it is saved when it moves
    for fault in evidence.records.faults:
        if fault.kind == "fill sessions" and any(
            begin <= fault.until + SLACK and fault.at - SLACK <= end for begin, end in used
        ):
            return "not saved: the folder was full"
    for said, slot, pid, _ in evidence.of_appservers:
        if (slot, pid) == (holder.appserver.slot, holder.process.pid) and NO_EFFECT in said.text:
            return "not saved: its AppServer could keep no sessions"
    return ""


def _why_set_aside(evidence: Evidence, visit: Visit) -> str:
    told = any(SET_ASIDE in said.text and said.at <= visit.ended + SLACK for said in evidence.records.said)
    deaths = evidence.died(visit.asked_at - SLACK, visit.ended)
    return f"set aside after {MOST_DEATHS} deaths" if told and len(deaths) >= MOST_DEATHS else ""


def doubled(evidence: Evidence) -> Iterator[str]:
    """No session lives twice: it counts each number once.

    A number comes again only if nobody heard of the first one, and the AppServer that had counted it has died.
    """
    visits = {visit.name: visit for visit in evidence.records.visits}
    before: dict[tuple[str, int], Counted] = {}
    for counted in evidence.records.counted:
        first = before.setdefault((counted.session, counted.count), counted)
        if first is counted:
            continue
        before[counted.session, counted.count] = counted
        visit, again = visits.get(first.name), visits.get(counted.name)
        twice = f"session {counted.session} counted {counted.count} twice, in {first.name} and {counted.name}"
        if visit is not None and visit.told is not None:
            yield f"{twice}: the first one was answered"
        elif not evidence.died(visit.began - SLACK if visit else 0.0, again.ended if again else FOREVER):
            yield f"{twice}: nobody died in between"


def returns(evidence: Evidence) -> Iterator[str]:
    """No session comes back after its end."""
    for visit in evidence.records.visits:
        if visit.ended_session and visit.told is not None and not visit.told.new:
            yield f"{what(visit)}: the session {visit.brought} is back, after it had ended"


def what(visit: Visit) -> str:
    """A request, for the report."""
    return f"{visit.method} /{visit.page} {visit.name} at {visit.ended:.2f}"

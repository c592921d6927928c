"""The plan: facts in, deeds out. Pure: no clock, no process, no file.

Facts change records, by the table in `life` alone. `think` looks at all records, and says what is to be
done. AppServers that are OK or on their way there are kept at the number asked for; DYING ones are beyond
it: each gets its replacement first, whatever made it leave (limit, order, release).
"""

from __future__ import annotations

from collections.abc import Iterator

from lbadaptor.contract.address import Identity, free_slots
from lbadaptor.contract.settings import Settings
from lbadaptor.log import logs
from monitor.contract.messages import Vitals
from monitor.policy.problems import Problems
from monitor.policy.record import Deed, Order, Record, Start, Tell
from monitor.policy.states import PUBLISHED, Event, Life, after

log = logs.logger("lbmonitor")

SHORT_LIFE = 10.0
"""Seconds; who served for less gets a wait before the next try. So does who
never got ready, however long that took."""
FEWEST_STARTS = 8
"""So many may be starting at once, at least, where the settings do not say how many."""
UNKILLABLE = 10.0
"""Seconds after SIGKILL: for a process that is there still, in the kernel, no other hung one is kept waiting."""
GIVE_UP = 120.0
"""Seconds after SIGKILL: it is said that the process is there still, and its place is another's."""
DEAF = 2
"""So many answers to probes that contradict an order: it is given again."""
PASS_OVER = 60.0
"""Seconds for which a slot whose port is in use is passed over."""
HUNG_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for one that does not answer anyway, or that eats the machine's memory."""
MARGIN = 2.0
"""Seconds beyond its own grace that an AppServer may take to exit."""
MOST_SESSIONS = 10**9
"""What an application's own count is taken for at most, and 0 at least: it has a column in address.text."""


class Plan:
    """All records, and what is to become of them. `now` is always monotonic seconds."""

    def __init__(
        self, settings: Settings, last_generation: int = 0, problems: Problems | None = None, cores: int = 1
    ) -> None:
        self.settings = settings
        self.problems = Problems() if problems is None else problems
        self._cores = cores
        self.stopping = False
        self.rolling = False
        """a release is under way"""
        self._records: dict[int, Record] = {}
        self._passed_over: dict[int, float] = {}
        self._last_generation = last_generation
        self._deeds: list[Deed] = []
        self._said_full = False
        self._to_replace = 0
        self.ended: list[str] = []
        """whose sessions the last release ended, in words"""
        self.reserved: set[int] = set()
        """slots that are in use by somebody else"""

    def __iter__(self) -> Iterator[Record]:
        return iter(sorted(self._records.values(), key=lambda record: record.slot))

    def find(self, identity: Identity) -> Record | None:
        """The record of an AppServer; None when it has gone, or another generation has its slot."""
        record = self._records.get(identity.slot)
        return record if record is not None and record.generation == identity.generation else None

    @property
    def last_generation(self) -> int:
        return self._last_generation

    @property
    def over(self) -> bool:
        """Whether all have gone, as ordered."""
        return self.stopping and not self._records

    @property
    def news(self) -> tuple[object, ...]:
        """What people want to know at once: who is in which state, and how a release gets on."""
        return self.stopping, self.rolling, len(self.ended), [(record.identity, record.life) for record in self]

    # Facts.

    def adopt(self, record: Record, now: float) -> None:
        """An AppServer of the monitor before is ours now. Its orders are said again: they may not have reached it."""
        self._records[record.slot] = record
        self._last_generation = max(self._last_generation, record.generation)
        if record.counts and "release" in record.leaving:
            self.rolling = True
            self._to_replace += 1
        if record.life is Life.STARTING:
            record.deadline = now + self.settings.monitor.start_timeout
        elif record.life is Life.STOPPING:
            record.deadline = now + self.settings.monitor.stop_grace + MARGIN
            self._deeds.append(Tell(record.identity, Order.STOP))
        else:
            self._deeds.append(Tell(record.identity, Order.DRAIN if record.draining else Order.UNDRAIN))
        log.info("slot %d is adopted: %s since %.0f s", record.slot, record.life.value, now - record.since)
        if self.stopping:
            self._stop(record, Event.STOP, now)

    def stood_still(self, seconds: float) -> None:
        """This process was stopped, and perhaps the whole machine: nobody's time was running."""
        for record in self:
            record.deadline += seconds
            if record.life is Life.FAILING:
                record.since += seconds
                record.computed_at += seconds

    def ready(self, identity: Identity, now: float, memory: int = 0) -> None:
        """Bound, and the application is imported. `memory`: its resident bytes now; 0: unknown."""
        record = self.find(identity)
        if record is None or not self._move(record, Event.READY, now):
            return
        record.needs_more = 0 < self.settings.appservers.hard_memory < memory
        record.deadline = float("inf")
        record.why = ""
        record.ready_at = now
        took = f"{(now - record.born) * 1000:.0f} ms"
        if record.vacant_since is None:
            log.info("slot %d is up after %s", record.slot, took)
        else:
            log.info("slot %d is back after %.0f ms", record.slot, (now - record.vacant_since) * 1000)
            record.vacant_since = None

    def failed(self, identity: Identity, why: str, port: bool) -> None:
        """It says that it cannot start; its exit follows."""
        record = self.find(identity)
        if record is not None:
            record.why = record.last_words = why
            record.port_taken = why if port else ""

    def exited(self, identity: Identity, how: str, now: float) -> None:
        """Its process is over. `how` says how, for people."""
        record = self.find(identity)
        if record is None:
            return
        lived = now - record.born
        if record.killed:
            how = f"{how}, for {record.killed}"
        level = logs.INFO if record.life is Life.STOPPING else logs.WARNING
        log.log(level, "slot %d (%s) %s after %.1f s", record.slot, record.life.value, how, lived)
        self._disobeys(record, False)
        if record.port_taken and self._move(record, Event.PORT_TAKEN, now):
            log.warning("slot %d is passed over for %.0f s: %s", record.slot, PASS_OVER, record.port_taken)
            self._passed_over[record.slot] = now + PASS_OVER
            return
        served = now - record.ready_at if record.ready_at is not None else None
        if self._move(record, Event.EXIT, now) and record.life is Life.BACKOFF:
            if self.rolling and served is None and "release" not in record.leaving:
                others = "the others serve on" if any(other.life in PUBLISHED for other in self) else "nobody serves"
                log.error("release: failed: slot %d: %s; %s", record.slot, _reason(record, how), others)
            self._wait_for_next(record, how, served, now)

    def _wait_for_next(self, record: Record, how: str, served: float | None, now: float) -> None:
        """Its life is over, and the place waits for the next. `served`: for how many seconds; None: not at all."""
        if served is None:
            record.short_lives += 1  # it never got ready, however long that took
        else:
            record.short_lives = record.short_lives + 1 if served < SHORT_LIFE else 0
            record.vacant_since = now
        record.why = _reason(record, how)
        if (
            served is None and "release" in record.leaving
        ):  # it was of the release before, and says nothing of this one
            record.short_lives, record.why = 0, ""
        wait = self._wait(record.short_lives)
        record.wake_at = now + wait
        if wait:
            log.warning("slot %d is tried again in %.0f s: %s", record.slot, wait, record.why)
        self._records[record.slot] = record.next(record.generation, record.life, now)

    def past_limit(self, identity: Identity, limit: str) -> None:
        """It has reached a limit and wants a replacement."""
        record = self.find(identity)
        if record is not None and record.life in PUBLISHED and "limit" not in record.leaving:
            record.leaving.add("limit")
            log.info("slot %d is past its limit (%s)", record.slot, limit)

    def empty(self, identity: Identity, now: float) -> None:
        """DYING, no session left, nothing in flight."""
        record = self.find(identity)
        if record is not None and record.life is Life.DYING:
            log.info("slot %d has no session left", record.slot)
            self._stop(record, Event.EMPTY, now)

    def probed(self, identity: Identity, vitals: Vitals, now: float) -> None:
        """It answered a probe."""
        record = self.find(identity)
        if record is None:
            return
        record.failed_probes = 0
        record.vitals = vitals
        self._check_obedience(record, vitals)
        if record.life is Life.STARTING and vitals.ready:
            self.ready(identity, now)  # one that was adopted: its ready message went to the monitor before
        record.sessions = min(max(0, vitals.sessions), MOST_SESSIONS)
        if record.life is Life.FAILING and self._move(record, Event.GOOD_PROBE, now):
            record.why = ""
            log.info("slot %d answers again: %s", record.slot, record.life.value)
        if vitals.past_limit:
            self.past_limit(identity, vitals.past_limit)
        if vitals.empty:
            self.empty(identity, now)
        hard = self.settings.appservers.hard_memory
        if (
            0 < hard < vitals.memory
            and not record.needs_more
            and self._end(record, f"it has {vitals.memory} bytes in memory", now)
        ):
            record.deadline = now + HUNG_GRACE

    def unanswered(self, identity: Identity, why: str, refused: bool, now: float, cpu: float | None = 0.0) -> None:
        """A probe failed. `refused`: nobody listens there. `cpu`: the seconds for which its process has computed;
        None: that could not be found out.

        One that computes may hold the interpreter lock for long, and is not hung as long as it does so.
        """
        record = self.find(identity)
        if record is None:
            return
        record.failed_probes += 1
        if cpu is None or cpu > record.cpu:
            record.cpu = record.cpu if cpu is None else cpu
            record.computed_at = now
        monitor = self.settings.monitor
        if record.failed_probes >= monitor.fall and record.life in (Life.OK, Life.DYING):
            record.before_failing = record.life
            self._move(record, Event.PROBES_FAIL, now)
            record.why = f"{record.failed_probes} probes failed: {why}"
            log.warning("slot %d is FAILING: %s", record.slot, record.why)
        elif record.life is Life.FAILING:
            record.why = f"{record.failed_probes} probes failed: {why}"
            if (now < self._hung_at(record) and not refused) or self._another_hung(now):
                return
            still = now - max(record.since, record.computed_at)
            log.error("slot %d is hung and is ended, after %.0f s without progress: %s", record.slot, still, why)
            record.hung_since = now
            self._stop(record, Event.HUNG, now)
            record.deadline = now + HUNG_GRACE

    def _hung_at(self, record: Record) -> float:
        """When one that is FAILING is taken for hung, as things are now."""
        monitor = self.settings.monitor
        return min(
            max(record.since, record.computed_at) + monitor.failing_limit, record.since + monitor.computing_limit
        )

    def _another_hung(self, now: float) -> bool:
        """Whether a hung one is being ended: they go one at a time, and one that SIGKILL does not end is not waited
        for."""
        return any(
            record.hung_since is not None and now - record.hung_since < HUNG_GRACE + UNKILLABLE for record in self
        )

    def _check_obedience(self, record: Record, vitals: Vitals) -> None:
        """Give an order again that an AppServer shows not to have taken: the application may have replaced a handler
        of signals. Its first contradicting answer may be older than the order."""
        wanted = PUBLISHED.get(record.before_failing if record.life is Life.FAILING else record.life)
        if wanted is None or not vitals.status or vitals.status == wanted.value:
            self._disobeys(record, False)
            return
        record.disobeyed += 1
        if record.disobeyed % DEAF == 0:
            self._deeds.append(Tell(record.identity, Order.DRAIN if record.draining else Order.UNDRAIN))
            self._disobeys(record, True)

    def _disobeys(self, record: Record, so: bool) -> None:
        """Say whether one takes its orders."""
        record.disobeyed = record.disobeyed if so else 0
        order = "drain" if record.draining else "take visitors again"
        self.problems.say(
            f"order {record.slot}",
            f"slot {record.slot} does not take the order to {order}; it is given again and again" if so else "",
            f"slot {record.slot} does as ordered",
        )

    # Orders. Each says in a sentence what came of it, and raises ValueError when nothing can.

    def drain(self, slot: int) -> str:
        """Replace an AppServer, then drain it."""
        record = self._at(slot)
        if record.life is Life.DYING or record.leaving - {"limit"}:
            return f"slot {slot} is on its way out already"
        if record.life is not Life.OK:
            raise ValueError(f"slot {slot} is {record.life.value}: only one that is OK can be drained")
        record.leaving.add("order")
        record.undrained = False
        log.info("slot %d is to be drained, by order", slot)
        return f"slot {slot} will be drained when its replacement is up"

    def undrain(self, slot: int, now: float) -> str:
        """Let a DYING AppServer, or one that is about to be drained, take new visitors again."""
        record = self._at(slot)
        if "limit" in record.leaving:
            raise ValueError(f"slot {slot} is past its limit and is not undrained")
        if record.life is Life.OK and record.leaving:
            record.leaving.clear()
        elif self._move(record, Event.UNDRAIN, now):
            record.leaving.clear()
            record.draining_since = None
            self._deeds.append(Tell(record.identity, Order.UNDRAIN))
        else:
            raise ValueError(f"slot {slot} is {record.life.value} and not being drained")
        record.undrained = True
        log.info("slot %d is undrained, by order", slot)
        return f"slot {slot} is OK again"

    def release(self, now: float, end_sessions: bool = False) -> str:
        """Replace every AppServer, a few at a time; each drains when its replacement is up.

        `end_sessions`: each is ended then, and at last whoever was DYING before; in-flight requests still finish.
        """
        old = [record for record in self if record.counts]
        for record in self:
            if end_sessions and record.life in PUBLISHED:
                record.leaving.add("now")
        for record in old:
            if record.life in (Life.BACKOFF, Life.STARTING):
                record.wake_at = now
                record.short_lives = 0
                record.why = ""  # it tells of the release before
            if record.life is not Life.BACKOFF:
                record.leaving.add("release")
        self.rolling = True
        self.ended = []
        self._to_replace = self._pending
        log.info("release: %d AppServers are replaced%s", len(old), ", their sessions end" if end_sessions else "")
        text = f"{len(old)} AppServers are replaced, {self.settings.monitor.replace_at_once} at a time"
        draining = sum(record.draining for record in self)
        free = self.settings.slots - len(self._records)
        if draining and free < len(old) and not end_sessions:
            text += (
                f"; {free} slots are free and {draining} hold AppServers that are DYING: where those are missing, the"
                " one with the fewest sessions is ended"
            )
        return text

    @property
    def replaced(self) -> tuple[int, int]:
        """How many the release has replaced, of how many."""
        return max(0, self._to_replace - self._pending), self._to_replace

    @property
    def waiting(self) -> str:
        """What the release is waiting for, in words; empty when none is under way."""
        if not self.rolling:
            return ""
        coming = [record for record in self if record.life in _COMING]
        for record in coming:
            if record.why:
                return f"failed: slot {record.slot}: {record.why}"
        old = [record for record in self._unreplaced if record.life is not Life.OK]
        stopping = [record for record in self if record.life is Life.STOPPING]
        for record in (*coming, *stopping, *old):
            return f"slot {record.slot} is {record.life.value}"
        return "no slot is free" if self._said_full else "the next one starts"

    @property
    def _unreplaced(self) -> list[Record]:
        return [record for record in self if record.counts and "release" in record.leaving]

    @property
    def _pending(self) -> int:
        """How many the release has yet to replace, or to get going: a place where nobody serves needs one, too."""
        serving = [record for record in self if record.counts and record.life not in _COMING]
        old = [record for record in serving if "release" in record.leaving]
        return len(old) + max(0, self._kept - len(serving))

    def stop(self, now: float) -> None:
        """End everything."""
        self.stopping = True
        for record in list(self):
            if record.life is Life.BACKOFF:
                self._move(record, Event.STOP, now)
            elif record.life is not Life.STOPPING:
                self._stop(record, Event.STOP, now)

    # Thinking.

    def think(self, now: float, wall_ms: int) -> list[Deed]:
        """What is to be done now, in this order; after address.text was written. `wall_ms` is unix time."""
        for record in self:
            if now >= record.deadline:
                self._kill(record, now)
        self._say_hard_memory()
        if not self.stopping:
            self._end_long_drains(now)
            self._fill(now, wall_ms)
            self._choose_standby()
            self._drain_surplus(now)
        deeds, self._deeds = self._deeds, []
        return deeds

    def next_try(self, record: Record, now: float) -> float | None:
        """Seconds until something is done about one that does not serve: BACKOFF is started anew, FAILING is ended if
        no probe succeeds. None: it serves, or nothing is due."""
        if record.life is Life.BACKOFF:
            return round(max(0.0, record.wake_at - now), 1)
        if record.life is Life.FAILING:
            return round(max(0.0, self._hung_at(record) - now), 1)
        return None

    def next_wake(self, now: float) -> float:
        """Seconds until time alone makes a difference."""
        moments = [record.deadline for record in self]
        if self._room:
            moments += [record.wake_at for record in self if record.life is Life.BACKOFF]
        if not self.stopping:
            moments += self._passed_over.values()
            if limit := self.settings.monitor.drain_limit:
                moments += [
                    record.draining_since + limit
                    for record in self
                    if record.draining and record.draining_since is not None
                ]
        return max(0.0, min(moments, default=float("inf")) - now)

    def _fill(self, now: float, wall_ms: int) -> None:
        """Start what is missing; forget a waiting one that is not wanted any more."""
        outgoing = [record for record in self if record.life is Life.OK and record.leaving]
        if self.rolling and not self._pending:
            log.info("release: every AppServer has been replaced")
            for record in self:
                if record.draining and "now" in record.leaving:
                    self._end(record, "a release that ends sessions", now)
            self.rolling = False
        replaceable = [record for record in outgoing if record.leaving != {"limit"} or self._may_die]
        wanted = self._kept + min(len(replaceable), self.settings.monitor.replace_at_once)
        active = [record for record in self if record.counts]
        for record in reversed(active):
            if len(active) > wanted and record.life is Life.BACKOFF:
                self._move(record, Event.STOP, now)
                active.remove(record)
        self._passed_over = {slot: until for slot, until in self._passed_over.items() if until > now}
        # Those that failed before come last: they must not keep the others from being tried.
        due = [record for record in active if record.life is Life.BACKOFF and now >= record.wake_at]
        due.sort(key=lambda record: record.short_lives)
        for record in due:
            if record.short_lives < 2 and self._room:
                self._begin(record, now, wall_ms)
        for _ in range(wanted - len(active)):
            if not self._room:
                break
            slots = free_slots([*self._records, *self._passed_over, *self.reserved], self.settings.slots)
            if not slots:
                self._out_of_slots(now)
                break
            self._said_full = False
            self._begin(Record(slots[0], 0, now, now), now, wall_ms)
        for record in due:
            if record.short_lives >= 2 and self._room:
                self._begin(record, now, wall_ms)

    def _drain_surplus(self, now: float) -> None:
        """While more are OK than asked for, drain one that is to leave; else the one with the fewest sessions."""
        while True:
            ok = [record for record in self if record.life is Life.OK]
            if len(ok) <= self._kept:
                return
            leaving = [record for record in ok if record.leaving and (record.leaving != {"limit"} or self._may_die)]
            chosen = min(
                leaving or ok,
                key=lambda record: (record.undrained, record.standby, record.sessions, -record.generation),
            )
            if not leaving and any(record.leaving for record in ok):
                return  # a replacement waits for the cap on DYING ones
            if "now" in chosen.leaving:
                self._end(chosen, "a release that ends sessions", now)
                continue
            self._move(chosen, Event.DRAIN, now)
            chosen.draining_since = now
            why = " and ".join(sorted(chosen.leaving)) or "one too many"
            log.info("slot %d is DYING (%s), with %d sessions", chosen.slot, why, chosen.sessions)
            self._deeds.append(Tell(chosen.identity, Order.DRAIN))

    def _end_long_drains(self, now: float) -> None:
        """End those that are DYING for longer than the limit on a drain."""
        limit = self.settings.monitor.drain_limit
        for record in [record for record in self if record.draining]:
            if record.draining_since is None:
                record.draining_since = record.since  # adopted
            if limit and now - record.draining_since >= limit:
                self._end(record, f"it has been DYING for {limit:g} s", now)

    def _choose_standby(self) -> None:
        """Those kept beyond `servers` are the standby; one stays so until it is wanted."""
        kept = [record for record in self if record.counts]
        spare = min(self.settings.appservers.standby, max(0, len(kept) - self.settings.appservers.servers))
        standby = [record for record in kept if record.standby]
        for record in standby[spare:]:
            record.standby = False
        others = [record for record in kept if not record.standby and not record.leaving]
        others.sort(key=lambda record: -record.generation)
        for record in others[: max(0, spare - len(standby))]:
            record.standby = True

    @property
    def _room(self) -> bool:
        """Whether another may start now. Bounded: all at once would take one another's time to start."""
        most = self.settings.monitor.starts_at_once or max(FEWEST_STARTS, 2 * self._cores)
        return sum(record.life is Life.STARTING for record in self) < most

    @property
    def _kept(self) -> int:
        """How many are to be OK."""
        return self.settings.appservers.servers + self.settings.appservers.standby

    @property
    def _may_die(self) -> bool:
        """Whether the cap on DYING ones allows another."""
        return sum(record.draining for record in self) < self.settings.max_dying

    def _out_of_slots(self, now: float) -> None:
        if any(record.life is Life.STOPPING for record in self):
            return  # its slot is free in a moment
        dying = [record for record in self if record.draining]
        if self.rolling and dying:
            ended = min(dying, key=lambda record: record.sessions)
            self._end(ended, "no slot is free for the release", now)
        elif not self._said_full:
            self._said_full = True
            log.warning("no slot is free: slots = %d", self.settings.slots)

    def _begin(self, record: Record, now: float, wall_ms: int) -> None:
        """A new life in a slot."""
        self._last_generation = max(self._last_generation + 1, wall_ms)
        if record.life is Life.BACKOFF:
            self._move(record, Event.WAIT_OVER, now)
        new = record.next(self._last_generation, record.life, now)
        new.deadline = now + self.settings.monitor.start_timeout
        self._records[new.slot] = new
        self._deeds.append(Start(new.identity))

    def _kill(self, record: Record, now: float) -> None:
        """It has not done what it should in time."""
        if not record.killed:
            grace = self.settings.monitor.start_timeout
            late = f"it was not ready within {grace:g} s (start_timeout)"
            record.killed = late if record.life is Life.STARTING else "it did not exit when ordered to"
            log.error("slot %d does not %s: SIGKILL", record.slot, _DUTY[record.life])
        else:
            log.error(
                "slot %d does not end even by SIGKILL: its process is in the kernel, perhaps at a disk or a network"
                " file system that does not answer",
                record.slot,
            )
            if record.life is Life.STARTING:
                self._move(record, Event.STOP, now)  # another one may start in its place
            record.deadline = float("inf")
            return
        record.deadline = now + GIVE_UP
        self._deeds.append(Tell(record.identity, Order.KILL))

    def _say_hard_memory(self) -> None:
        """A limit that an application is beyond from the start would end every AppServer as soon as it is ready."""
        slots = [str(record.slot) for record in self if record.needs_more and record.life in PUBLISHED]
        hard = self.settings.appservers.hard_memory
        self.problems.say(
            "hard_memory",
            f"hard_memory = {hard} is less than the application needs from the start, and no limit for slot "
            f"{', '.join(slots)}"
            if slots
            else "",
            "hard_memory is a limit again",
        )

    def _end(self, record: Record, why: str, now: float) -> bool:
        """End one that may have sessions, and announce it. False: it is not there for visitors anyway."""
        if record.life not in PUBLISHED:
            return False
        log.warning("slot %d is ended with %d sessions: %s", record.slot, record.sessions, why)
        if self.rolling:
            self.ended.append(f"slot {record.slot} with {record.sessions} sessions: {why}")
        self._stop(record, Event.LIMIT, now)
        return True

    def _stop(self, record: Record, event: Event, now: float) -> None:
        if self._move(record, event, now):
            record.deadline = now + self.settings.monitor.stop_grace + MARGIN
            self._deeds.append(Tell(record.identity, Order.STOP))

    def _move(self, record: Record, event: Event, now: float) -> bool:
        """The one place where a state changes. False: the event means nothing in this state."""
        then = after(record.life, record.before_failing, event)
        if then is None:
            return False
        record.life = then
        record.since = now
        if then is Life.GONE:
            del self._records[record.slot]
        return True

    def _at(self, slot: int) -> Record:
        record = self._records.get(slot)
        if record is None:
            known = ", ".join(str(other.slot) for other in self) or "none"
            raise ValueError(f"there is no AppServer in slot {slot}; the slots in use are: {known}")
        return record

    def _wait(self, short_lives: int) -> float:
        """Seconds before the next try: none the first time, then growing and bounded."""
        if short_lives < 2:
            return 0.0
        return float(min(self.settings.monitor.backoff_limit, 2.0 ** min(short_lives - 2, 30)))


def _reason(record: Record, how: str) -> str:
    """Why a life ended: in its own words where it had any. `how` its process ended."""
    if record.last_words or record.killed or record.ready_at is not None:
        return record.last_words or how
    return f"{how} while it started, and did not say why; the log has what it printed"


_COMING = Life.STARTING, Life.BACKOFF
_DUTY = {Life.STARTING: "get ready", Life.STOPPING: "exit"}

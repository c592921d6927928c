"""The plan over all slots: facts in, actions out. Pure: no clock, no process, no file.

Facts change lives, by the table in `states` alone. `plan` looks at all slots, and says what is to be done.
AppServers that are OK or on their way there are kept at the number asked for. DYING ones are beyond that number:
each gets its replacement first, whatever made it leave (limit, order, release).
"""

from __future__ import annotations

from collections.abc import Iterator

from lbadaptor.contract import generation
from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import Settings
from lbadaptor.log import logs, texts
from monitor.contract.events import What
from monitor.contract.messages import ProbeAnswer
from monitor.contract.patience import exit_limit
from monitor.policy import limits, machine_drain, probes, replacing, weights
from monitor.policy.actions import Action, Send, Signal
from monitor.policy.contradictions import signal_again
from monitor.policy.life import Life, Reason, in_words, why_leaving
from monitor.policy.machine_drain import MachineDrain
from monitor.policy.probes import HUNG_GRACE
from monitor.policy.problems import Problems
from monitor.policy.release import Release
from monitor.policy.slot import PASS_OVER, Backoff, Slot, Slots
from monitor.policy.starts import Starts
from monitor.policy.states import Event, LifeState

log = logs.logger("lbmonitor")

GIVE_UP = 120.0
"""Seconds after SIGKILL: if the process is still there, that is said, and another may start in its place."""


class Pool:
    """All slots, and what is to become of them. `now` is always monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        last_generation: int = 0,
        problems: Problems | None = None,
        cores: int = 1,
        next_generation: generation.Next = generation.without_number,
    ) -> None:
        self.settings = settings
        self.problems = Problems() if problems is None else problems
        self.journal = self.problems.journal
        self.slots = Slots(self.journal)
        self.release = Release()
        """the release that is under way, or the last one"""
        self.machine_drain = MachineDrain(self.journal)
        self.stopping = False
        self._stopped_by = ""
        """whose order that is"""
        self.starts = Starts(self.slots, last_generation, cores, next_generation)
        self.last_death = float("-inf")
        """when one that was published ended last without an order, or was found to be hung; monotonic seconds"""
        self._actions: list[Action] = []
        self._no_slot = False
        """no slot is free for an AppServer that is wanted, and that was said"""

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def find(self, identity: Identity) -> Life | None:
        """An AppServer; None when it has gone."""
        return self.slots.find(identity)

    @property
    def lives(self) -> list[Life]:
        return self.slots.lives

    @property
    def over(self) -> bool:
        """Whether all have gone, as ordered."""
        return self.stopping and not self.slots

    @property
    def leaving(self) -> bool:
        """Whether the whole machine is drained."""
        return self.machine_drain.under_way

    @property
    def empty(self) -> bool:
        """Whether it is, and no session is left: it can be switched off."""
        return self.machine_drain.empty

    @property
    def news(self) -> tuple[object, ...]:
        """What people want to know at once: the state of each slot, and how a release or a drain gets on."""
        states = [(slot.identity, slot.state) for slot in self]
        return self.stopping, self.leaving, self.empty, self.release.under_way, len(self.release.ended), states

    # Facts.

    def adopt(self, life: Life, now: float) -> None:
        """An AppServer of the monitor before is ours now. It is sent its last signal again: the signal may not have
        reached it."""
        self.slots.occupy(life)
        self.starts.adopted(life)
        self.release.adopt(life)
        if life.state is LifeState.STARTING:
            life.supervision.deadline = now + self.settings.monitor.start_timeout
        elif life.state is LifeState.STOPPING:
            life.supervision.deadline = now + self._exit_limit(life)
            self.send(life, Signal.STOP)
        else:
            self.send(life, Signal.DRAIN if life.draining else Signal.UNDRAIN)
        log.info("slot %d is adopted: %s since %.0f s", life.slot, life.state.value, now - life.since)
        self.journal.note_life(What.MONITOR_ADOPTED, life)
        if self.stopping:
            self._stop(life, Event.STOP, now, self._stopped_by)

    def stood_still(self, seconds: float) -> None:
        """The monitor was stopped, and perhaps the whole machine: that time counts against no AppServer."""
        self.machine_drain.stood_still(seconds)
        for life in self.lives:
            life.supervision.deadline += seconds
            if life.state is LifeState.FAILING:
                life.since += seconds
                life.supervision.computed_at += seconds

    def ready(self, identity: Identity, now: float, memory: int = 0) -> None:
        """It is bound, and the application is imported. `memory`: its resident bytes now; 0: unknown."""
        life = self.find(identity)
        if life is None or not self.slots.move(life, Event.READY, now):
            return
        life.needs_more = 0 < self.settings.appservers.hard_memory < memory
        life.ready_at = now
        life.supervision.deadline = float("inf")
        slot = self.slots.of(life)
        if slot.vacant_since is None:
            log.info("slot %d is up after %.0f ms", life.slot, (now - life.born) * 1000)
        else:
            log.info("slot %d is back after %.0f ms", life.slot, (now - slot.vacant_since) * 1000)
        slot.became_ready()

    def failed(self, identity: Identity, why: str, port: bool) -> None:
        """It says that it cannot start; its exit follows. `port`: because its port is in use."""
        if (life := self.find(identity)) is not None:
            life.supervision.start_error, life.supervision.port_taken = why, port

    def exited(self, identity: Identity, how: str, now: float, code: int | None = None) -> None:
        """Its process is over. `how` says how, for people. `code` is its exit status, or minus the signal that ended
        it; None: unknown."""
        life = self.find(identity)
        if life is None:
            return
        slot, watched = self.slots.of(life), life.supervision
        how = life.end_words(how, code)
        if life.published:
            self.last_death = now
        level = logs.INFO if life.state is LifeState.STOPPING else logs.WARNING
        log.log(level, "slot %d (%s) %s after %.1f s", life.slot, life.state.value, how, now - life.born)
        lost = life.lost(orderly=life.state is LifeState.STOPPING and not watched.killed and code == 0)
        self.problems.end(f"order {life.slot}", f"slot {life.slot} takes no orders any more: it has ended")
        if watched.port_taken and self.slots.move(life, Event.PORT_TAKEN, now, watched.start_error):
            log.warning("slot %d is passed over for %.0f s: %s", life.slot, PASS_OVER, watched.start_error)
            self.slots.pass_over(life.slot, now)
        elif self.slots.move(life, Event.EXIT, now, why := life.end_reason(how, code), lost) and slot.life is None:
            self._wait_for_next(slot, life, why, now)

    def _wait_for_next(self, slot: Slot, life: Life, why: str, now: float) -> None:
        """A life is over, and its slot waits for the next. `why` it is over."""
        served = life.served(now)
        if served is not None:
            slot.vacant_since = now
        elif Reason.RELEASE in life.leaving:
            # It was of the release before; how it failed says nothing of this release.
            slot.backoff = Backoff(wake_at=now)
            return
        elif self.release.under_way:
            others = "the others serve on" if any(other.published for other in self.lives) else "nobody serves"
            log.error("release: failed: slot %d: %s; %s", life.slot, why, others)
            if slot.backoff.next_is_told:
                self.journal.note(What.RELEASE_FAILED, f"slot {life.slot}: {why}; {others}")
        slot.backoff = slot.backoff.after_life(served, why, now, self.settings.monitor.backoff_limit)
        if slot.backoff.wake_at > now:
            log.warning("slot %d is tried again in %.0f s: %s", life.slot, slot.backoff.wake_at - now, why)

    def past_limit(self, identity: Identity, limit: str) -> None:
        """It has reached a limit and wants a replacement."""
        life = self.find(identity)
        if life is not None and life.published and Reason.LIMIT not in life.leaving:
            life.leaving.add(Reason.LIMIT)
            life.because = limit
            log.info("slot %d is past its limit (%s)", life.slot, limit)

    def emptied(self, identity: Identity, now: float) -> None:
        """It is DYING, has no session left, and nothing is in flight."""
        life = self.find(identity)
        if life is not None and life.state is LifeState.DYING:
            log.info("slot %d has no session left", life.slot)
            life.supervision.sessions = 0  # its last answer may be older
            self._stop(life, Event.EMPTY, now, "its last session has ended")

    def probed(self, identity: Identity, answer: ProbeAnswer, now: float) -> None:
        """It answered a probe."""
        life = self.find(identity)
        if life is None:
            return
        seen = life.supervision
        seen.failed_probes = 0
        seen.answer = answer
        if (signal := signal_again(life, answer.status, self.problems)) is not None:
            self.send(life, signal)
        if life.state is LifeState.STARTING and answer.ready:
            self.ready(identity, now)  # one that was adopted: its ready message went to the monitor before
        seen.sessions = probes.sessions(answer.sessions)
        seen.busy = probes.busy(seen.busy, answer)
        if life.state is LifeState.FAILING and self.slots.move(life, Event.GOOD_PROBE, now):
            seen.failure = ""
            log.info("slot %d answers again: %s", life.slot, life.state.value)
        if answer.past_limit:
            self.past_limit(identity, answer.past_limit)
        if answer.empty:
            self.emptied(identity, now)
        hard = self.settings.appservers.hard_memory
        if (
            0 < hard < answer.memory
            and not life.needs_more
            and self.end_sessions(life, f"it has {answer.memory} bytes in memory", now)
        ):
            seen.deadline = now + HUNG_GRACE

    def unanswered(self, identity: Identity, why: str, refused: bool, now: float, cpu: float | None = 0.0) -> None:
        """A probe failed. `refused`: nothing listens there. `cpu`: the seconds for which its process has computed;
        None: that could not be found out."""
        life = self.find(identity)
        if life is None:
            return
        probes.count_failure(life, why, cpu, now)
        seen, monitor = life.supervision, self.settings.monitor
        if life.state is LifeState.FAILING:
            if (now < probes.hung_at(life, monitor) and not refused) or probes.ending_a_hung_one(self.lives, now):
                return
            idle = now - probes.last_progress(life)
            log.error("slot %d is hung and is ended, after %.0f s without progress: %s", life.slot, idle, why)
            seen.hung_since = self.last_death = now
            self._stop(life, Event.HUNG, now, f"hung: no progress for {idle:.0f} s: {why}")
            seen.deadline = now + HUNG_GRACE
        elif seen.failed_probes >= monitor.fall and self.slots.move(life, Event.PROBES_FAIL, now, why):
            seen.failure = probes.failure(life, why)
            log.warning("slot %d is FAILING: %s", life.slot, seen.failure)

    # Orders; the others are in `monitor.policy.orders`.

    def stop(self, now: float, by: str = "") -> None:
        """End everything, by whose order, in words."""
        if not self.stopping:
            self.journal.note(What.MONITOR_STOPPING, by)
        self.stopping, self._stopped_by = True, by
        for slot in self:
            if slot.life is None:
                self.slots.stop_waiting(slot)
            elif slot.state is not LifeState.STOPPING:
                self._stop(slot.life, Event.STOP, now, by)

    # What the status tells.

    @property
    def replaced(self) -> tuple[int, int]:
        """How many the release has replaced, of how many."""
        return self.release.replaced(self.slots, self.kept)

    @property
    def waiting(self) -> str:
        """What the release is waiting for, in words; empty when none is under way."""
        if self.leaving and self.release.under_way:
            return machine_drain.PUT_OFF
        return self.release.waiting(self.slots, self._no_slot)

    def next_try(self, slot: Slot, now: float) -> float | None:
        """Seconds until something is done about an AppServer that does not serve: in BACKOFF it is started anew, in
        FAILING it is ended if no probe succeeds. None: it serves, or nothing is due."""
        if slot.life is None:
            return round(max(0.0, slot.backoff.wake_at - now), 1)
        if slot.state is LifeState.FAILING:
            return round(max(0.0, probes.hung_at(slot.life, self.settings.monitor) - now), 1)
        return None

    # The plan.

    def plan(self, now: float, wall_ms: int) -> list[Action]:
        """What is to be done now, in this order; after address.text was written. `wall_ms` is unix time."""
        for life in self.lives:
            if now >= life.supervision.deadline:
                self._kill(life, now)
        limits.say_hard_memory(self.lives, self.settings, self.problems)
        if not self.stopping:
            self.machine_drain.look(self.lives, self.settings, now)
            for life in limits.too_long_dying(self.lives, self.settings, now):
                self.end_sessions(life, f"it has been DYING for {self.settings.monitor.drain_limit:g} s", now)
            self._end_release(now)
            self._fill(now, wall_ms)
            weights.choose_standby(self.slots, self.settings.appservers)
            if not self.leaving:
                self._drain_surplus(now)
            replacing.choose_replaced(self.slots, self.settings)
        actions, self._actions = self._actions, []
        return actions

    def next_wake(self, now: float) -> float:
        """Seconds until time alone makes a difference."""
        moments = [life.supervision.deadline for life in self.lives]
        if self.starts.room(self.settings):
            moments += [slot.backoff.wake_at for slot in self if slot.life is None]
        if not self.stopping:
            moments += self.slots.passed_over_until
            if self.leaving and not self.empty:
                moments.append(self.machine_drain.empty_at(self.settings))
            if self.release.under_way:
                moments += replacing.next_end_for_a_slot(self.slots, self.settings, now)
            moments += limits.next_too_long(self.lives, self.settings)
        return max(0.0, min(moments, default=float("inf")) - now)

    def _end_release(self, now: float) -> None:
        """The release is over when every AppServer has been replaced."""
        if self.release.under_way and self.release.done(self.slots, self.kept):
            log.info("release: every AppServer has been replaced")
            self.journal.note(What.RELEASE_ENDED, "every AppServer has been replaced")
            for life in self.lives:
                if life.draining and Reason.END_SESSIONS in life.leaving:
                    self.end_sessions(life, "a release that ends sessions", now)
            self.release.under_way = False

    def _fill(self, now: float, wall_ms: int) -> None:
        """Start what is missing; forget a waiting one that is not wanted any more."""
        wanted = (
            self.machine_drain.wanted(self.slots) if self.leaving else replacing.wanted(self.slots, self.settings)
        )
        begun = self.starts.fill(wanted, self.settings, now, wall_ms)
        self._actions += begun
        if self.starts.lacks_slot:
            self._out_of_slots(now)
        elif begun:
            self._no_slot = False

    def _drain_surplus(self, now: float) -> None:
        """Drain those that more are OK without than are kept."""
        while (chosen := replacing.next_to_leave(self.slots, self.settings)) is not None:
            if Reason.END_SESSIONS in chosen.leaving:
                self.end_sessions(chosen, _why_ended(chosen), now)
                continue
            self.slots.move(chosen, Event.DRAIN, now, why_leaving(chosen) or "one too many")
            chosen.draining_since = now
            why = " and ".join(in_words(chosen.leaving)) or "one too many"
            log.info("slot %d is DYING (%s), with %s", chosen.slot, why, texts.count(chosen.sessions, "session"))
            self.send(chosen, Signal.DRAIN)

    @property
    def kept(self) -> int:
        """How many are to be OK."""
        return replacing.kept(self.settings)

    def _exit_limit(self, life: Life) -> float:
        """Seconds after the order to stop in which it has to exit."""
        return exit_limit(self.settings.monitor.stop_grace, self.settings.sessions_survive or life.saves)

    def _out_of_slots(self, now: float) -> None:
        if any(slot.state is LifeState.STOPPING for slot in self):
            return  # its slot is free in a moment
        if self.release.under_way and any(life.draining for life in self.lives):
            if (chosen := replacing.to_end_for_a_slot(self.slots, self.settings, now)) is not None:
                self.end_sessions(chosen, "no slot is free for the release", now)
        elif not self._no_slot:
            self._no_slot = True
            log.warning("no slot is free: slots = %d", self.settings.slots)

    # Changes of one life.

    def send(self, life: Life, signal: Signal) -> None:
        """Have it sent a signal, with the next plan."""
        self._actions.append(Send(life.identity, signal))

    def _stop(self, life: Life, event: Event, now: float, why: str) -> None:
        if self.slots.move(life, event, now, why):
            life.supervision.deadline = now + self._exit_limit(life)
            self.send(life, Signal.STOP)

    def end_sessions(self, life: Life, why: str, now: float) -> bool:
        """Stop an AppServer that may have sessions, and announce it. False: no visitor is sent to it anyway."""
        if not life.published:
            return False
        log.warning("slot %d is ended with %s: %s", life.slot, texts.count(life.sessions, "session"), why)
        if self.release.under_way:
            self.release.ended.append(f"slot {life.slot} with {texts.count(life.sessions, 'session')}: {why}")
        self._stop(life, Event.LIMIT, now, why)
        return True

    def _kill(self, life: Life, now: float) -> None:
        """It has not done in time what it should."""
        watched = life.supervision
        if watched.killed:
            log.error(
                "slot %d does not end even by SIGKILL: its process is in the kernel, perhaps at a disk or a network"
                " file system that does not answer",
                life.slot,
            )
            if life.state is LifeState.STARTING:
                self.slots.move(life, Event.STOP, now, watched.killed)  # another one may start in its place
            watched.deadline = float("inf")
            return
        if life.state is LifeState.STARTING:
            watched.killed = f"it was not ready within {self.settings.monitor.start_timeout:g} s (start_timeout)"
            log.error("slot %d does not get ready: SIGKILL", life.slot)
        else:
            watched.killed = "it did not exit when it was ordered to stop"
            log.error("slot %d does not exit: SIGKILL", life.slot)
        self.kill(life, now)

    def kill(self, life: Life, now: float) -> None:
        """SIGKILL; `life.supervision.killed` says why."""
        life.supervision.deadline = now + GIVE_UP
        self.slots.note(What.KILLED, life, now, life.supervision.killed)
        self.send(life, Signal.KILL)


def _why_ended(life: Life) -> str:
    """Why an AppServer is ended with its sessions when its replacement is up."""
    return "a release that ends sessions" if Reason.RELEASE in life.leaving else f"order of {life.because}"

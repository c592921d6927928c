"""A pool under a fake clock: what the tests of the plan play on."""

from __future__ import annotations

from typing import Any

from lbadaptor.contract.address import Identity
from lbadaptor.contract.settings import Application, AppServers, Monitor, Sessions, Settings
from monitor.contract.messages import ProbeAnswer
from monitor.policy.actions import Action, Start
from monitor.policy.life import Life
from monitor.policy.pool import Pool
from monitor.policy.slot import Slot
from monitor.policy.states import LifeState

WALL = 1_763_805_600_000


class Stage:
    """A pool, a clock that stands still unless moved, and what has been done so far."""

    def __init__(
        self,
        servers: int = 2,
        slots: int = 0,
        last_generation: int = 0,
        appservers: dict[str, Any] | None = None,
        survive: Any = "nothing",
        **monitor: Any,
    ) -> None:
        self.now = 1000.0
        self.wall = WALL
        self.settings = Settings(
            Application("app:app", "sid"),
            appservers=AppServers(servers=servers, slots=slots, **(appservers or {})),
            monitor=Monitor(**monitor),
            sessions=Sessions(survive=survive),
        )
        self.pool = Pool(self.settings, last_generation)
        self.last: dict[int, int] = {}

    def plan(self) -> list[Action]:
        """Turns of the arbiter's loop until there is nothing more to do."""
        done: list[Action] = []
        while actions := self.pool.plan(self.now, self.wall):
            done += actions
            assert len(done) < 1000, "it never comes to rest"
        self.last |= {action.identity.slot: action.identity.generation for action in done}
        return done

    def later(self, seconds: float) -> list[Action]:
        self.now += seconds
        self.wall += int(seconds * 1000)
        return self.plan()

    def slot(self, number: int) -> Slot:
        return next(slot for slot in self.pool if slot.number == number)

    def life(self, number: int) -> Life:
        return next(life for life in self.pool.lives if life.slot == number)

    def at(self, slot: int) -> Identity:
        return self.slot(slot).identity

    def ready(self, *slots: int) -> list[Action]:
        for slot in slots:
            self.pool.ready(self.at(slot), self.now)
        return self.plan()

    def up(self) -> None:
        """Fill the pool."""
        self.plan()
        self.ready(*(slot.number for slot in self.pool))

    def exits(self, slot: int, how: str = "was ended by SIGKILL", code: int | None = None) -> list[Action]:
        self.pool.exited(self.at(slot), how, self.now, code)
        return self.plan()

    def exits_early(self, slot: int) -> None:
        """It dies, and its next life has begun."""
        self.exits(slot, "exited with status 3")
        while self.slot(slot).state is LifeState.BACKOFF:
            wake = self.pool.next_wake(self.now)
            assert wake > 0, "it would be busy all the while"
            self.later(wake)

    def into_backoff(self, slot: int, failures: int = 5) -> None:
        """So many of its lives in a row end early, and the next one has to wait."""
        for _ in range(failures - 1):
            self.exits_early(slot)
        self.exits(slot, "exited with status 3")
        assert self.slot(slot).state is LifeState.BACKOFF

    def probed(self, slot: int, **answer: Any) -> list[Action]:
        self.pool.probed(self.at(slot), ProbeAnswer(self.at(slot).generation, **answer), self.now)
        return self.plan()

    def unanswered(self, slot: int, times: int = 1, refused: bool = False, cpu: float | None = 0.0) -> list[Action]:
        for _ in range(times):
            self.pool.unanswered(self.at(slot), "no answer within 2 s", refused, self.now, cpu)
        return self.plan()

    def empty(self, slot: int) -> list[Action]:
        self.pool.emptied(self.at(slot), self.now)
        return self.plan()

    @property
    def states(self) -> dict[int, str]:
        return {slot.number: slot.state.value for slot in self.pool}


def a_life(slot: int, generation: int = WALL, **fields: Any) -> Life:
    """A life as state.json has it, or as one begins."""
    return Life(
        **{"slot": slot, "generation": generation, "host": "h", "port": 1, "since": 0.0, "born": 0.0, **fields}
    )


def short(actions: list[Action]) -> list[str]:
    """`start 0`, `drain 1`: actions without generations."""
    return [
        f"{'start' if isinstance(action, Start) else action.signal.value} {action.identity.slot}"
        for action in actions
    ]


def roll(stage: Stage) -> tuple[list[str], int]:
    """Run a release to its end: the actions, and the fewest that were OK at any time."""
    actions, fewest = [], 99
    for _ in range(200):
        done = short(stage.plan())
        for slot in list(stage.pool):
            fewest = min(fewest, sum(slot.state is LifeState.OK for slot in stage.pool))
            if slot.state is LifeState.STARTING:
                done += short(stage.ready(slot.number))
            elif slot.state is LifeState.STOPPING:
                stage.pool.exited(slot.identity, "exited", stage.now)
        actions += done
        if not done and not stage.pool.release.under_way:
            return actions, fewest
    raise AssertionError("the release does not end")

"""`python -m tests.machines`: a transcript. Visitors at three machines; what HAProxy and each machine say, and what
visitors see, while one machine is drained, one is switched off, one is cut off, and HAProxy is reloaded.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from tests.apache.resources import eventually
from tests.torture.records import Outcome, Visit

from .load import Crowd
from .site import Site, running_site
from .verdict import FRONT

SHOWN = {"svname": "machine", "status": "status", "lastchg": "for s", "weight": "weight", "last_agt": "agent"}
"""Columns of HAProxy's stats."""

INTRODUCTION = """# Three machines behind HAProxy: a transcript

`python -m tests.machines` has written this. There are nine visitors under load, at first three with a session at each
machine. A machine has an Apache, a monitor and two AppServers, and lives
{words}.
HAProxy's configuration is what `lbctl haproxy-config` writes, with shorter intervals and time-outs: a machine that is
gone is found in 2 s instead of 8. Sessions survive `anything`."""


class Transcript:
    """Prints."""

    def __init__(self, site: Site, crowd: Crowd) -> None:
        self._site = site
        self._crowd = crowd
        self._seen = 0
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        print(f"\n## {text}\n\nAt {time.monotonic() - self._began:.1f} s.")

    def say(self, text: str, *lines: str) -> None:
        print(f"\n{text}\n")
        print("\n".join(f"    {line}".rstrip() for line in lines))

    def haproxy(self) -> None:
        rows = self._site.front.machines().values()
        table = [tuple(SHOWN.values()), *(tuple(row[name] for name in SHOWN) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        texts = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
        self.say("HAProxy's stats:", *texts)

    def machines(self, *whole: str) -> None:
        """What `lbctl status` says on each machine; on those that are not named, only its line for the machine."""
        on = {name: machine for name, machine in self._site.machines.items() if machine.is_on}
        for machine in on.values():
            machine.await_probe()
        said = {name: machine.lbctl("status").strip().splitlines() for name, machine in on.items()}
        for name in whole:
            self.say(f"{name}: lbctl status", *said[name])
        if rest := [f"{name}: {lines[1]}" for name, lines in said.items() if name not in whole]:
            self.say("lbctl status, the line for the machine:", *rest)

    def visitors(self) -> None:
        """What they saw since the last call."""
        time.sleep(0.5)
        visits, self._seen = self._site.visits[self._seen :], len(self._site.visits)
        where = Counter(one.holder.machine for one in self._crowd.visitors if one.holder)
        self.say(
            "Visitors:",
            *_summary(visits),
            "sessions now at " + ", ".join(f"{name}: {count}" for name, count in sorted(where.items())),
        )


def _summary(visits: list[Visit]) -> Iterator[str]:
    good = [one for one in visits if one.status == 200 and one.outcome is Outcome.ANSWERED]
    longest = max((one.ended - one.began for one in visits), default=0.0)
    yield f"{len(visits)} requests, {len(good)} answered 200; the longest took {longest:.1f} s"
    others = Counter(f"{one.method} {one.status or one.outcome.value}" for one in visits if one not in good)
    if others:
        yield "others: " + ", ".join(f"{count} × {text}" for text, count in sorted(others.items()))
    lost = {one.client for one in visits if one.told and one.told.lost}
    silent = [one for one in visits if one.told and one.told.new and one.brought and not one.told.lost]
    yield f"told that their session is lost: {len(lost)}; not told: {len(silent)}"


def main() -> None:
    with running_site() as site, site.load() as crowd:
        script = Transcript(site, crowd)
        print(INTRODUCTION.format(words=site.place.words))
        _begin(script, site)
        _drain(script, site, crowd)
        _switch_off(script, site, crowd)
        _cut_off(script, site, crowd)
        _reload(script, site, crowd)
        script.title("The verdict")
        print("\nAgainst the rules (`tests/machines/verdict.py`):", site.judge() or "nothing.")


def _begin(script: Transcript, site: Site) -> None:
    script.title("Visitors at three machines")
    script.haproxy()
    script.machines(*site.machines)
    script.visitors()


def _drain(script: Transcript, site: Site, crowd: Crowd) -> None:
    machine = site.machines["m3"]
    crowd.sessions_end.set()
    script.title("m3 is drained; its sessions end as visitors log out")
    script.say("m3: lbctl drain --all", *machine.lbctl("drain", "--all").strip().splitlines())
    site.front.await_state("m3", "DRAIN")
    script.haproxy()
    eventually("it is empty", lambda: machine.status()["machine"]["empty"])
    crowd.sessions_end.clear()
    script.machines("m3")
    script.visitors()
    script.say("m3: lbctl undrain --all", *machine.lbctl("undrain", "--all").strip().splitlines())
    site.front.await_state("m3", "UP")


def _switch_off(script: Transcript, site: Site, crowd: Crowd) -> None:
    script.title("m2 loses power")
    with site.fault("m2", "loses power", loses=True, fails=True):
        site.machines["m2"].lose_power()
        site.front.await_state("m2", "DOWN")
        crowd.go_on()
        script.haproxy()
        script.machines()
        script.visitors()
        site.machines["m2"].boot()
        site.machines["m2"].await_up()
        site.front.await_state("m2", "UP")
    script.title("m2 is on again")
    script.haproxy()
    script.machines("m2")
    script.visitors()


def _cut_off(script: Transcript, site: Site, crowd: Crowd) -> None:
    script.title("m1 is cut off from the front: what is sent is lost, and nobody says so")
    with site.fault("m1", "is cut off", loses=True, fails=True):
        site.place.cut(site.machines["m1"].plan)
        site.front.await_state("m1", "DOWN")
        crowd.go_on()
        script.haproxy()
        script.machines("m1")
        script.visitors()
        site.place.heal(site.machines["m1"].plan)
        site.front.await_state("m1", "UP")


def _reload(script: Transcript, site: Site, crowd: Crowd) -> None:
    script.title("HAProxy is reloaded")
    before = len(site.front.sticks())
    with site.fault(FRONT, "is reloaded", loses=True):
        site.front.reload()
    crowd.go_on()
    site.front.await_old()
    script.say("Tickets in its table:", f"before: {before}, after: {len(site.front.sticks())}")
    script.haproxy()
    script.machines()
    script.visitors()


if __name__ == "__main__":
    main()

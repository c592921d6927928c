"""Several processes at once: of takers one wins, and no search misses a session that moves."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from session_owner import Owner

from lbadaptor.appserver.sessions.persistence.folder import Elsewhere, SessionFolder
from lbadaptor.appserver.sessions.persistence.format import name_of

Opened = Callable[..., SessionFolder]
Owners = Callable[..., list[Owner]]

NAME = name_of("flask", "a")
NAMES = [name_of("flask", str(number)) for number in range(300)]

TAKES = "result = [told(folder.take(name)) for name in names]"
"""Of each name."""


def race(owners: list[Owner], text: str, **values: object) -> list[list[list[object] | None]]:
    """What a text left in `result` of each process, when all of them execute it at once."""
    for one in owners:
        one.begin(text, **values)
    return [one.result() for one in owners]


def is_taken_once(found: tuple[list[object] | None, ...], slots: list[int]) -> bool:
    """Of a name, by each process: one has it, and the others are told who."""
    winners = [slot for slot, one in zip(slots, found, strict=True) if one and one[0] == "taken"]
    others = [one for one in found if one is None or one[0] != "taken"]
    return len(winners) == 1 and others == [[winners[0], 1]] * len(others)


def test_of_several_takers_one_wins(owners: Owners, opened: Opened) -> None:
    """From free/."""
    started = owners(3)
    former = opened(100)
    for name in NAMES:
        former.write(name, name.encode())
        former.release(name)
    found = race(started, TAKES, names=NAMES)
    assert all(is_taken_once(each, [0, 1, 2]) for each in zip(*found, strict=True))
    contents = {one[1] for each in found for one in each if one and one[0] == "taken"}
    assert contents == {*NAMES}


def test_of_several_takers_from_a_dead_owner_one_wins(owners: Owners, opened: Opened) -> None:
    started = owners(3)
    former = opened(100)
    for name in NAMES:
        former.write(name, name.encode())
    former.abandon()
    found = race(started, TAKES, names=NAMES)
    assert all(is_taken_once(each, [0, 1, 2]) for each in zip(*found, strict=True))
    assert all(one[2] for each in found for one in each if one and one[0] == "taken")


def test_what_is_swept_meanwhile_is_taken_once_and_the_death_told(owners: Owners, opened: Opened) -> None:
    """One of the processes sweeps: it moves from the dead owner's folder to free/ what the others take."""
    sweeper, *takers = owners(3)
    sweeper.run("work = sweep.Sweep(folder)\nsweep.MOVED_IN_A_TURN = 7\nsweep.layout.log.warning = print")
    former = opened(100)
    for name in NAMES:
        former.write(name, name.encode())
    former.abandon()
    sweeper.begin("for _ in range(300):\n work.run()")
    found = race(takers, TAKES, names=NAMES[::-1])
    assert all(is_taken_once(each, [1, 2]) for each in zip(*found, strict=True))
    assert all(one[2] for each in found for one in each if one and one[0] == "taken")
    sweeper.result()


MOVES = """
seen = {"taken": 0, "elsewhere": 0, "missed": 0}
for _ in range(rounds):
    found = folder.take(name)
    if isinstance(found, folders.Taken):
        folder.release(name)
        seen["taken"] += 1
    else:
        seen["elsewhere" if found else "missed"] += 1
result = seen
"""


def test_a_search_never_misses_a_session_that_moves(owners: Owners, opened: Opened, root: Path) -> None:
    """Every process takes it and releases it all the time."""
    started = owners(3)
    opened(100).write(NAME, b"content")
    opened(101).close()
    former = opened(102)
    former.write(NAME, b"content")
    former.release(NAME)
    (root / "at.100.1" / NAME).unlink()
    seen: Counter[str] = Counter()
    for one in race(started, MOVES, name=NAME, rounds=1500):  # type: ignore[assignment]
        seen.update(one)
    assert seen["missed"] == 0
    assert seen["taken"] > 100
    assert seen["elsewhere"] > 10


def test_a_taker_killed_before_it_reads_leaves_the_session_to_the_next(owners: Owners, opened: Opened) -> None:
    taker, _ = owners(2)
    former = opened(100)
    former.write(NAME, b"content")
    former.release(NAME)
    taker.begin("safe_open.read = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nfolder.take(name)", name=NAME)
    assert taker.wait() == -signal.SIGKILL
    assert opened(101).take(NAME) == (b"content".ljust(4096, b"\0"), True)


def test_a_stopped_owner_lives(owners: Owners, opened: Opened) -> None:
    (owner,) = owners(1)
    owner.run("folder.write(name, b'content')", name=NAME)
    owner.process.send_signal(signal.SIGSTOP)
    folder = opened(100)
    assert folder.take(NAME) == Elsewhere(0, 1)
    owner.kill()
    assert folder.take(NAME) == (b"content".ljust(4096, b"\0"), True)


def test_of_several_that_test_a_dead_owner_none_takes_another_for_it(owners: Owners, opened: Opened) -> None:
    """Each takes other names from the same folder, and all the time somebody tests its lock."""
    started = owners(3)
    former = opened(100)
    for name in NAMES:
        former.write(name, b"content")
    former.abandon()
    for slot, one in enumerate(started):
        one.begin(TAKES, names=NAMES[slot::3])
    found = [each for one in started for each in one.result()]
    assert [each[0] for each in found] == ["taken"] * len(NAMES)


def test_of_several_processes_one_sweeps_until_it_dies(owners: Owners) -> None:
    started = owners(3)
    for one in started:
        one.run("work = sweep.Sweep(folder)")
    run = "result = work.run()"
    found = [one.run(run) for one in started]
    assert found == [[0, 0], None, None]
    started[0].kill()
    assert [one.run(run) for one in started[1:]] == [[0, 0], None]


def test_an_orderly_end_leaves_the_sessions_to_all(owners: Owners, root: Path) -> None:
    one, other = owners(2)
    one.run("for name in names: folder.write(name, b'content')", names=NAMES[:20])
    assert one.wait() == 0
    assert not (root / "at.0.1").exists()
    assert other.run(TAKES, names=NAMES[:20]) == [["taken", "content", False]] * 20

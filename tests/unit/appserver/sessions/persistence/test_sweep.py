"""What dead AppServers have left goes to free/; what ended long ago goes away, where the clock can be trusted."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lbadaptor.appserver.sessions.persistence import layout, sweep
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import Head, encode, name_of
from lbadaptor.appserver.sessions.persistence.sweep import JUMP, KEPT, LOOK_AGAIN, QUIET, SLICE, Figures, Sweep

Opened = Callable[..., SessionFolder]

NAMES = [name_of("flask", str(number)) for number in range(500)]
NOW = 2e9
"""By the wall clock."""


class Clocks:
    """Time goes on by `step` with each look."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = NOW - self.now
        self.step = 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def wall(self) -> float:
        return self.now + self.offset


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def folder(opened: Opened) -> SessionFolder:
    return opened()


@pytest.fixture
def sweeper(folder: SessionFolder, clocks: Clocks) -> Sweep:
    return Sweep(folder, clocks.monotonic, clocks.wall)


def dead(opened: Opened, names: list[str], slot: int = 7) -> None:
    """A dead AppServer that had these sessions."""
    former = opened(slot)
    for name in names:
        former.write(name, b"content")
    former.abandon()


def waiting(folder: SessionFolder, root: Path, name: str, ends: float, written: float | None = None) -> Path:
    """A session in free/, written when it ended or at `written`."""
    folder.write(name, encode(Head("flask", "shop", ends=ends), b"content"))
    folder.release(name)
    path = root / "free" / name[:2] / name
    os.utime(path, (min(ends, NOW), ends if written is None else written))
    return path


def free(root: Path) -> set[str]:
    return {path.name for path in (root / "free").rglob("*") if not path.is_dir()}


def circle(sweeper: Sweep) -> None:
    """As many turns as look through every subfolder."""
    for _ in range(17):
        assert sweeper.run() is not None


# Dead owners.


def test_a_dead_owners_sessions_go_to_free_and_its_folder_away(opened: Opened, root: Path, sweeper: Sweep) -> None:
    dead(opened, NAMES[:50])
    for _ in range(2):
        sweeper.run()
    assert free(root) == {*NAMES[:50]}
    assert not (root / "at.7.1").exists()


def test_a_living_owners_stay(opened: Opened, root: Path, sweeper: Sweep) -> None:
    living = opened(7)
    living.write(NAMES[0], b"content")
    circle(sweeper)
    assert list(living.names()) == NAMES[:1]
    assert free(root) == set()


def test_whoever_takes_what_was_swept_learns_of_the_death(
    opened: Opened, folder: SessionFolder, sweeper: Sweep
) -> None:
    """Otherwise one that kills its process would be served for ever, where the sweep is faster than the visitor."""
    dead(opened, NAMES[:1])
    sweeper.run()
    assert folder.take(NAMES[0]) == (b"content".ljust(4096, b"\0"), True)
    folder.release(NAMES[0])
    assert folder.take(NAMES[0]) == (b"content".ljust(4096, b"\0"), False)


def test_many_go_in_slices(opened: Opened, root: Path, sweeper: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MOVED_IN_A_TURN", 200)
    dead(opened, NAMES[:150], slot=7)
    dead(opened, NAMES[150:], slot=8)
    there = []
    for _ in range(5):
        sweeper.run()
        there.append(len(free(root)))
    assert there[:3] == [200, 400, 500]
    assert list(root.glob("at.[78].1")) == []


def test_what_is_in_free_already_was_served_before_and_is_kept_aside(
    opened: Opened, folder: SessionFolder, root: Path, sweeper: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    name = NAMES[0]
    folder.write(name, b"in free")
    folder.release(name)
    dead(opened, [name])
    circle(sweeper)
    assert (root / "free" / name[:2] / name).read_bytes().rstrip(b"\0") == b"content"
    assert (root / "aside" / name).read_bytes().rstrip(b"\0") == b"in free"
    assert not (root / "at.7.1").exists()
    assert "a session of a dead AppServer is in free/ already" in caplog.text


def test_half_a_write_of_a_dead_owner_is_removed(opened: Opened, root: Path, sweeper: Sweep) -> None:
    dead(opened, NAMES[:1])
    (root / "at.7.1" / f"{NAMES[0]}.12").touch(mode=0o600)
    circle(sweeper)
    assert free(root) == {NAMES[0]}
    assert not (root / "at.7.1").exists()


def test_a_folder_with_something_else_in_it_stays_and_is_said_once(
    opened: Opened, root: Path, sweeper: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    dead(opened, NAMES[:1])
    (root / "at.7.1" / "notes").write_text("by hand")
    circle(sweeper)
    assert free(root) == {NAMES[0]}
    assert [path.name for path in (root / "at.7.1").iterdir()] == ["notes"]
    assert caplog.text.count("holds files that are not sessions, and stays") == 1


def test_a_folder_whose_sweep_was_interrupted_goes_away(opened: Opened, root: Path, sweeper: Sweep) -> None:
    dead(opened, NAMES[:1])
    (root / "at.7.1" / "lock").unlink()
    circle(sweeper)
    assert free(root) == {NAMES[0]}
    assert not (root / "at.7.1").exists()


def test_a_folder_that_was_never_finished_goes_away(root: Path, sweeper: Sweep, clocks: Clocks) -> None:
    for name in ("new.7.0", "new.7.1", "new.7"):
        (root / name).mkdir(mode=0o700)
    (root / "new.7.1" / "lock").touch(mode=0o600)
    for name, age in (("new.7.0", 30.0), ("new.7.1", 90.0), ("new.7", 90.0)):
        os.utime(root / name, (NOW - age, NOW - age))
    circle(sweeper)
    assert {path.name for path in root.glob("new*")} == {"new.7", "new.7.0"}
    clocks.now += 60.0
    circle(sweeper)
    assert {path.name for path in root.glob("new*")} == {"new.7"}


def test_one_that_is_being_made_stays(root: Path, folder: SessionFolder, sweeper: Sweep, clocks: Clocks) -> None:
    """Its lock is held."""
    (root / "at.0.1").rename(root / "new.8.0")
    clocks.now += 1e6
    circle(sweeper)
    assert (root / "new.8.0" / "lock").exists()


# Ended sessions.


def test_an_ended_session_is_removed_after_a_day(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks
) -> None:
    clocks.now += QUIET
    begin = clocks.wall()
    ended = waiting(folder, root, NAMES[0], ends=begin - KEPT - 10.0)
    not_yet = waiting(folder, root, NAMES[1], ends=begin - KEPT + 1000.0)
    living = waiting(folder, root, NAMES[2], ends=begin + 1e6, written=begin - 1e6)
    circle(sweeper)
    assert (ended.exists(), not_yet.exists(), living.exists()) == (False, True, True)
    clocks.now += LOOK_AGAIN
    circle(sweeper)
    assert (not_yet.exists(), living.exists()) == (False, True)
    clocks.now += 1e6
    circle(sweeper)
    assert living.exists()
    clocks.now += KEPT
    circle(sweeper)
    assert not living.exists()


def test_one_that_was_written_in_the_last_day_stays_and_is_not_read(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever end is in it: a wrong clock may have said it."""
    clocks.now += QUIET
    path = waiting(folder, root, NAMES[0], ends=1.0, written=clocks.wall() - KEPT + 100.0)
    read: list[bytes] = []
    monkeypatch.setattr(sweep, "decode", read.append)
    circle(sweeper)
    assert (path.exists(), read) == (True, [])


def test_nothing_is_removed_soon_after_the_start(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks
) -> None:
    path = waiting(folder, root, NAMES[0], ends=NOW - 2 * KEPT)
    clocks.now += QUIET - 1.0
    circle(sweeper)
    assert path.exists()
    clocks.now += 2.0
    circle(sweeper)
    assert not path.exists()


@pytest.mark.parametrize("jump", [10 * KEPT, JUMP + 1.0, -10 * KEPT])
def test_nothing_is_removed_soon_after_a_jump_of_the_clock(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks, jump: float
) -> None:
    clocks.now += QUIET + 1.0
    circle(sweeper)
    clocks.offset += jump
    path = waiting(folder, root, NAMES[0], ends=clocks.wall() - 2 * KEPT)
    clocks.now += KEPT
    sweeper.run()
    circle(sweeper)
    clocks.now += QUIET - 1.0
    circle(sweeper)
    assert path.exists()
    clocks.now += 2.0
    circle(sweeper)
    assert not path.exists()


def test_a_clock_that_is_set_ahead_and_back_costs_no_session(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks
) -> None:
    clocks.now += QUIET + 1.0
    path = waiting(folder, root, NAMES[0], ends=clocks.wall() + 100.0, written=clocks.wall() - 2 * KEPT)
    circle(sweeper)
    for jump in (100 * KEPT, -100 * KEPT):
        clocks.offset += jump
        for _ in range(5):
            clocks.now += QUIET / 10
            circle(sweeper)
    assert path.exists()


@pytest.mark.parametrize("looks", range(40))
def test_a_jump_within_a_turn_is_noticed(folder: SessionFolder, root: Path, clocks: Clocks, looks: int) -> None:
    """After so many looks at the wall clock."""
    left = [0]

    def wall() -> float:
        left[0] -= 1
        if not left[0]:
            clocks.offset += 10 * KEPT
        return clocks.wall()

    sweeper = Sweep(folder, clocks.monotonic, wall)
    clocks.now += QUIET + 1.0
    path = waiting(folder, root, NAMES[0], ends=clocks.wall() + 100.0, written=clocks.wall() - 2 * KEPT)
    left[0] = looks + 1
    circle(sweeper)
    assert path.exists()


def test_slow_steps_are_no_jump(folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks) -> None:
    path = waiting(folder, root, NAMES[0], ends=NOW - 2 * KEPT)
    clocks.now += QUIET + 1.0
    clocks.offset += JUMP - 1.0
    circle(sweeper)
    assert not path.exists()


def test_a_damaged_session_stays_and_is_said_once(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    path = waiting(folder, root, NAMES[0], ends=1.0)
    path.write_bytes(b"\0" * 100)
    os.utime(path, (1.0, 1.0))
    for _ in range(3):
        clocks.now += QUIET + KEPT
        circle(sweeper)
    assert path.exists()
    assert caplog.text.count("stays until it is asked for: it does not begin as a session's file") == 1


def test_files_are_not_read_again_and_again(
    folder: SessionFolder, root: Path, sweeper: Sweep, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(folder, root, NAMES[0], ends=NOW + 1e9, written=1.0)
    read = []
    monkeypatch.setattr(
        sweep, "decode", lambda data: read.append(data) or (Head("flask", "shop", ends=NOW + 1e9), b"")
    )
    clocks.now += QUIET + 1.0
    for _ in range(10):
        circle(sweeper)
        clocks.now += LOOK_AGAIN / 20
    assert len(read) == 1


# Figures, time, errors.


def test_figures(opened: Opened, folder: SessionFolder, sweeper: Sweep) -> None:
    assert sweeper.run() == Figures(0, 0)
    dead(opened, NAMES[:20])
    for number in range(5):
        folder.write(NAMES[100 + number], b"content")
        folder.set_aside(NAMES[100 + number], "why")
    circle(sweeper)
    circle(sweeper)
    assert sweeper.run() == Figures(20, 5)
    for name in NAMES[:20]:
        folder.take(name)
    circle(sweeper)
    assert sweeper.run() == Figures(0, 5)


def test_the_first_turn_counts_all(opened: Opened, folder: SessionFolder, root: Path, clocks: Clocks) -> None:
    for name in NAMES[:300]:
        folder.write(name, b"content")
        folder.release(name)
    assert Sweep(folder, clocks.monotonic, clocks.wall).run() == Figures(300, 0)


def test_what_waits_is_counted_until_nobody_has_used_it_for_the_idle_time(
    folder: SessionFolder, root: Path, clocks: Clocks
) -> None:
    clocks.offset = time.time() - clocks.now
    sweeper = Sweep(folder, clocks.monotonic, clocks.wall, idle=100.0)
    assert (sweeper.run(), sweeper.longest) == (Figures(0, 0), 0.0)
    file = waiting(folder, root, NAMES[0], ends=clocks.wall() - 1e6)
    circle(sweeper)
    assert sweeper.run() == Figures(1, 0), "since it came, whenever it was written"
    assert 90.0 < sweeper.longest <= 101.0
    clocks.now += 110.0
    assert (sweeper.run(), sweeper.longest) == (Figures(0, 0), 0.0)
    assert file.exists(), "its visitor may come all the same: the clock may be wrong"


def test_whether_all_was_counted_is_known(folder: SessionFolder, clocks: Clocks) -> None:
    sweeper = Sweep(folder, clocks.monotonic, clocks.wall)
    clocks.step = SLICE / 10
    assert not sweeper.counted
    sweeper.run()
    assert not sweeper.counted, "not within one slice"
    for _ in range(60):
        sweeper.run()
    assert sweeper.counted


def test_a_call_ends_after_its_slice_and_the_next_goes_on(
    opened: Opened, folder: SessionFolder, clocks: Clocks
) -> None:
    for name in NAMES[:300]:
        folder.write(name, b"content")
        folder.release(name)
    sweeper = Sweep(folder, clocks.monotonic, clocks.wall)
    clocks.step = SLICE / 10
    figures = []
    for _ in range(60):
        begin = clocks.now
        figures.append(sweeper.run())
        assert clocks.now - begin < 2 * SLICE
    assert figures[0] != Figures(300, 0)
    assert figures[-1] == Figures(300, 0)


def test_another_sweeps(opened: Opened, folder: SessionFolder, sweeper: Sweep) -> None:
    assert sweeper.run() is not None
    other = opened(1)
    assert Sweep(other).run() is None
    folder.abandon()
    assert sweeper.run() is None
    assert Sweep(other).run() is not None


def test_an_error_of_another_kind_does_not_end_the_sweep(
    opened: Opened, root: Path, sweeper: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    dead(opened, NAMES[:1])
    with monkeypatch.context() as patched:
        patched.setattr(layout, "empty", fail)
        with pytest.raises(MemoryError):
            sweeper.run()
    circle(sweeper)
    assert free(root) == {NAMES[0]}


def test_an_error_is_said_once_and_the_sweep_goes_on(
    opened: Opened, root: Path, sweeper: Sweep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "at.7.1")

    dead(opened, NAMES[:1])
    with monkeypatch.context() as patched:
        patched.setattr(layout, "empty", fail)
        circle(sweeper)
    assert caplog.text.count("the folder of sessions cannot be swept: at.7.1: Input/output error") == 1
    circle(sweeper)
    assert free(root) == {NAMES[0]}

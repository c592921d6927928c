"""The keeper of sessions: which are kept, found, saved, moved; with a store that is a dictionary and real folders."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbadaptor.appserver.sessions.persistence import keeper
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import Head, decode, encode, name_of
from lbadaptor.appserver.sessions.persistence.keeper import MOST_REASONS, Keeper
from lbadaptor.appserver.sessions.persistence.kept import MAX_VALUES, FileState, Kept
from lbadaptor.appserver.sessions.persistence.saver import MOST_DEATHS, Bounds, Moved, Saver
from lbadaptor.appserver.sessions.persistence.survival import Survival
from lbadaptor.appserver.sessions.stores.access import Busy, Unloadable
from tests.apps.dictionary_store import NOW, Store


class Process:
    """What one AppServer has of it."""

    def __init__(self, root: Path, slot: int, everything: bool = True, **bounds: int) -> None:
        self.store = Store()
        self.now = NOW
        self.ended: list[str] = []
        self.folder = SessionFolder(str(root), slot, 1700 + slot)
        self.folder.open()
        own = Bounds(bounds.get("most_bytes", 1 << 20), bounds.get("most_files", 100))
        saver = Saver(self.store, self.folder, "shop:app", everything, own, 600.0, lambda: self.now)
        self.keeper = Keeper(saver, lambda values, lives: self.ended.extend(values))
        self.keeper.active = True
        self.place = root / f"at.{slot}.{1700 + slot}"

    def login(self, ident: str, content: bytes = b"basket") -> Kept:
        """A request begins a session and is over."""
        self.store.sessions[ident] = content
        kept = self.keeper.register(ident, ("Path=/",), 0.0)
        assert kept is not None
        self.keeper.save(kept)
        self.keeper.left(kept)
        return kept

    def visit(self, value: str, search: bool = True) -> tuple[Kept | None, bool]:
        """A request brings a session; it is not over yet."""
        if (kept := self.keeper.enter([value])) is not None:
            self.keeper.await_move(kept)
            return kept, False
        return self.keeper.arrive([value], search)

    def file(self, ident: str) -> tuple[Head, bytes | None] | None:
        path = self.place / name_of("dictionary", ident)
        return decode(path.read_bytes()) if path.exists() else None

    def die(self) -> None:
        """As by SIGKILL: what is left is left as it is."""
        self.folder.abandon()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def one(**settings: int | bool) -> Process:
        started.append(Process(root, len(started), **settings))  # type: ignore[arg-type]
        return started[-1]

    yield one
    for process in started:
        process.folder.abandon()


Start = Callable[..., Process]


# While it lives here.


def test_a_session_has_a_file_from_its_birth_on(start: Start) -> None:
    whole, bare = start(), start(everything=False)
    head = Head("dictionary", "shop:app", "5ec3e7", ("Path=/",), ends=NOW + 1000)
    whole.login("id1")
    assert whole.file("id1") == (head, b"basket")
    bare.login("id1")
    found = bare.file("id1")
    assert found is not None
    assert (found[0].attributes, found[1]) == (("Path=/",), None)


def test_what_has_changed_is_written_and_nothing_else(start: Start) -> None:
    process = start()
    kept = process.login("id1")
    path = process.place / kept.name
    path.write_bytes(b"x")  # as a sign that it is not written again
    process.store.sessions["id1"] = bytes(bytearray(b"basket"))
    process.keeper.save(kept)
    assert path.read_bytes() == b"x"
    process.store.sessions["id1"] = b"basket and ball"
    process.keeper.save(kept)
    assert process.file("id1") == (kept.head, b"basket and ball")


def test_a_later_end_alone_is_written_when_a_part_of_the_lifetime_has_gone(start: Start) -> None:
    process = start()
    kept = process.login("id1")
    for later, written in ((1040, 1000), (1060, 1060)):
        process.store.ends = NOW + later
        process.keeper.save(kept)
        found = process.file("id1")
        assert found is not None
        assert found[0].ends == NOW + written


@pytest.mark.parametrize("everything", [True, False])
def test_what_the_store_holds_no_longer_is_gone_from_disk_with_the_answer(start: Start, everything: bool) -> None:
    process = start(everything=everything)
    kept = process.login("id1")
    del process.store.sessions["id1"]
    process.keeper.save(kept)
    assert process.file("id1") is None
    assert process.ended == ["id1"]
    assert process.keeper.enter(["id1"]) is None


@pytest.mark.parametrize("everything", [True, False])
def test_files_that_were_deleted_are_made_anew(start: Start, everything: bool) -> None:
    process = start(everything=everything)
    process.login("id1")
    before = process.file("id1")
    shutil.rmtree(process.place)
    assert process.folder.mend()
    process.keeper.write_again()
    process.keeper.look()
    assert process.file("id1") == before


@pytest.mark.parametrize("everything", [True, False])
def test_what_ends_without_a_request_is_noticed(start: Start, everything: bool) -> None:
    process = start(everything=everything)
    process.login("id1")
    process.login("id2")
    del process.store.sessions["id1"]
    process.keeper.look()
    assert (process.file("id1"), process.ended) == (None, ["id1"])
    assert process.file("id2") is not None
    process.keeper.look()
    assert (process.keeper.figures.saved, process.keeper.figures.unsaved) == (1, {})


def test_one_that_is_busy_is_saved_later(start: Start) -> None:
    process = start()
    process.store.busy = True
    process.login("id1")
    assert process.file("id1") is None
    process.store.busy = False
    process.keeper.look()
    assert process.file("id1") is not None


def test_one_that_cannot_be_saved_leaves_nothing_older(start: Start) -> None:
    process = start()
    kept = process.login("id1")
    process.store.unsaveable = "_thread.lock"
    process.keeper.save(kept)
    assert process.file("id1") == (kept.head, None)
    process.keeper.look()
    assert (process.keeper.figures.saved, process.keeper.figures.unsaved) == (0, {"_thread.lock": 1})
    process.store.unsaveable = ""
    process.keeper.save(kept)
    assert process.file("id1") == (kept.head, b"basket")


def test_an_error_of_the_framework_reaches_no_answer(start: Start) -> None:
    process = start()
    process.store.reading = lambda: 1 / 0  # type: ignore[assignment]
    kept = process.login("id1")
    assert kept.dirty
    assert process.file("id1") is None


@pytest.mark.parametrize(("bounds", "why"), [({"most_bytes": 8192}, "max_bytes"), ({"most_files": 2}, "max_files")])
def test_the_bounds_hold(start: Start, bounds: dict[str, int], why: str) -> None:
    process = start(**bounds)
    for number in range(3):
        process.login(f"id{number}")
    assert [process.file(f"id{number}") is not None for number in range(3)] == [True, True, False]
    process.keeper.look()
    assert (process.keeper.figures.saved, process.keeper.figures.unsaved) == (2, {why: 1})
    del process.store.sessions["id0"]
    process.keeper.look()
    process.login("id3")
    assert process.file("id3") is not None


def test_one_that_grows_beyond_the_bound_is_cut_back(start: Start) -> None:
    process = start(most_bytes=8192)
    kept = process.login("id1")
    process.store.sessions["id1"] = b"x" * 9000
    process.keeper.save(kept)
    assert (kept.why, process.file("id1")) == ("max_bytes", (kept.head, None))


def test_before_the_warm_up_is_over_nothing_is_kept(start: Start) -> None:
    process = start()
    process.keeper.active = False
    process.store.sessions["id1"] = b"basket"
    assert process.keeper.register("id1", (), 0.0) is None


def test_a_session_is_known_by_the_latest_values_of_its_cookie(start: Start) -> None:
    process = start()
    process.login("id1")
    for number in range(2 * MAX_VALUES):
        kept = process.keeper.register(f"id1.{number}", ("Path=/",), 0.0)
        assert kept is not None
        process.keeper.left(kept)
    known = [number for number in range(2 * MAX_VALUES) if process.keeper.enter([f"id1.{number}"]) is not None]
    assert known == list(range(MAX_VALUES, 2 * MAX_VALUES))
    found, came = process.visit("id1.0")  # by the store's id all the same
    assert (found is kept, came) == (True, False)


# From one to another.


@pytest.mark.parametrize("everything", [True, False])
def test_it_leaves_and_is_taken_over(start: Start, everything: bool) -> None:
    old, new = start(everything=everything), start(everything=everything)
    old.login("id1", b"ball")
    assert old.keeper.leave(1.0)
    assert (old.store.sessions, old.ended, old.file("id1")) == ({}, ["id1"], None)
    kept, came = new.visit("id1")
    assert kept is not None
    assert (came, new.store.sessions) == (True, {"id1": b"ball"})
    assert new.file("id1") == (kept.head, b"ball" if everything else None)
    assert (old.keeper.figures.moved_out, new.keeper.figures.taken) == (1, 1)


def test_only_for_a_ticket_of_ours_it_is_looked_for(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    assert new.visit("id1", search=False) == (None, False)
    assert not new.store.sessions


def test_with_a_request_under_way_it_stays(start: Start) -> None:
    old = start()
    old.login("id1")
    old.login("id2")
    kept, _ = old.visit("id1")
    assert kept is not None
    old.keeper.leave(1.0)
    assert list(old.store.sessions) == ["id1"]
    old.keeper.left(kept)
    assert old.keeper.leave(1.0)
    assert not old.store.sessions


def test_a_request_that_comes_within_the_move_waits_and_is_sent_away(start: Start) -> None:
    old = start()
    old.login("id1")
    came: list[Kept | None] = []
    outcome: list[object] = []
    old.store.sessions["id1"] = b"changed"

    def serve() -> None:
        kept = old.keeper.enter(["id1"])
        came.append(kept)
        entered.set()
        assert kept is not None
        try:
            old.keeper.await_move(kept)
        except Moved as moved:
            outcome.append(moved.whereto)
        old.keeper.left(kept)

    entered = threading.Event()
    thread = threading.Thread(target=serve)

    def within_the_move() -> None:
        old.store.reading = lambda: None
        thread.start()
        assert entered.wait(5)
        assert not outcome

    old.store.reading = within_the_move
    assert old.keeper.leave(1.0)
    thread.join(5)
    assert (len(came), outcome) == (1, [None])


def test_it_leaves_with_the_end_that_it_has_now(start: Start) -> None:
    old, new = start(), start()
    kept = old.login("id1")
    old.store.ends = NOW + 1010  # too little later to be written for itself
    old.keeper.save(kept)
    old.keeper.leave(1.0)
    taken, _ = new.visit("id1")
    assert taken is not None
    assert taken.head.ends == NOW + 1010


@pytest.mark.parametrize("stands_against_it", ["unsaveable", "busy"])
def test_one_that_cannot_be_saved_does_not_leave(start: Start, stands_against_it: str) -> None:
    old = start(everything=False)
    old.login("id1")
    setattr(old.store, stands_against_it, "_io.TextIOWrapper")
    assert not old.keeper.leave(1.0)
    assert (list(old.store.sessions), old.ended) == (["id1"], [])
    assert old.keeper.enter(["id1"]) is not None


def test_a_living_owner_is_named(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    with pytest.raises(Moved) as moved:
        new.visit("id1")
    assert moved.value.whereto == (0, 1700)
    assert new.keeper.enter(["id1"]) is None


def test_a_session_of_a_dead_owner_is_taken_with_one_death_more_until_it_answers(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.die()
    kept, came = new.visit("id1")
    assert kept is not None
    found = new.file("id1")
    assert found is not None
    assert (came, found[0].deaths, found[1]) == (True, 1, b"basket")
    new.keeper.save(kept)  # its answer
    found = new.file("id1")
    assert found is not None
    assert found[0].deaths == 0


def test_one_that_kills_each_that_takes_it_is_set_aside(start: Start, root: Path) -> None:
    process = start()
    process.login("id1")
    for _ in range(MOST_DEATHS):
        process.die()
        process = start()
        assert process.visit("id1")[1]
    process.die()
    last = start()
    kept, came = last.visit("id1")
    assert kept is not None
    assert (kept.lost, kept.here, came, last.store.sessions) == (True, False, False, {})
    assert len(list((root / "aside").iterdir())) == 1


def test_a_bare_head_of_a_dead_owner_is_a_lost_session(start: Start) -> None:
    old, new = start(everything=False), start(everything=False)
    old.login("id1")
    old.die()
    kept, came = new.visit("id1")
    assert kept is not None
    assert (kept.lost, kept.here, came) == (True, False, False)
    assert new.visit("id1") == (None, False)


@pytest.mark.parametrize(
    "head",
    [
        Head("other", "shop:app", "5ec3e7", ends=NOW + 9),
        Head("dictionary", "other:app", "5ec3e7", ends=NOW + 9),
        Head("dictionary", "shop:app", "0ther", ends=NOW + 9),
        None,
    ],
    ids=["store", "application", "secret", "damaged"],
)
def test_what_is_not_ours_is_not_loaded(start: Start, root: Path, head: Head | None) -> None:
    process = start()
    name = name_of("dictionary", "id1")
    place = root / "free" / name[:2]
    place.mkdir(0o700, exist_ok=True)
    (place / name).touch(0o600)
    (place / name).write_bytes(b"?" if head is None else encode(head, b"poison"))
    kept, _ = process.visit("id1")
    assert kept is not None
    assert (kept.lost, process.store.sessions) == (True, {})
    assert len(list((root / "aside").iterdir())) == 1


@pytest.mark.parametrize("shortage", [Busy(), MemoryError()])
def test_one_whose_store_has_no_time_or_room_is_left_to_others(start: Start, shortage: Exception) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    new.store.unloadable = shortage
    with pytest.raises(Moved):
        new.visit("id1")
    new.store.unloadable = None
    assert new.visit("id1")[1]


@pytest.mark.parametrize("error", [Unloadable("no class Basket"), AttributeError("_cache")])
def test_what_cannot_be_loaded_is_lost_and_set_aside(start: Start, root: Path, error: Exception) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    new.store.unloadable = error
    kept, _ = new.visit("id1")
    assert kept is not None
    assert kept.lost
    assert len(list((root / "aside").iterdir())) == 1
    assert new.visit("id1") == (None, False)


def test_an_ended_session_is_not_served(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    new.now = NOW + 1001
    assert new.visit("id1") == (None, False)
    new.now = NOW  # the clock was wrong
    assert new.visit("id1")[1]


def test_parallel_requests_take_it_over_once(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    found: list[Kept | None] = []
    begin = threading.Barrier(20)

    def serve() -> None:
        begin.wait(5)
        found.append(new.visit("id1")[0])

    threads = [threading.Thread(target=serve) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    kept = found[0]
    assert kept is not None
    assert found == [kept] * 20
    assert (kept.pending, new.keeper.figures.taken, new.store.sessions) == (20, 1, {"id1": b"basket"})


def test_one_that_is_not_known_anywhere_leaves_no_trace(start: Start) -> None:
    process = start()
    assert process.visit("id1") == (None, False)
    assert process.visit("other") == (None, False)
    assert process.keeper.enter(["id1"]) is None


def test_a_disk_that_cannot_be_read_makes_the_visitor_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start()

    def fail(name: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(process.folder, "take", fail)
    with pytest.raises(Moved):
        process.visit("id1")
    assert process.keeper.enter(["id1"]) is None


# Shortages and forks.


def test_a_full_disk_lets_the_session_go_on_unsaved(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start()
    kept = process.login("id1")

    def full(name: str, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(process.folder, "write", full)
        process.store.sessions["id1"] = b"changed"
        process.keeper.save(kept)
        assert (kept.file, kept.why) == (FileState.BARE, "No space left on device")
        assert process.file("id1") == (kept.head, None)
        assert not process.keeper.leave(1.0)
    process.keeper.save(kept)
    assert (kept.why, process.file("id1")) == ("", (kept.head, b"changed"))


@pytest.mark.parametrize("later", [10, 500])
def test_a_session_that_is_saved_stays_so_though_its_new_end_cannot_be_written(
    start: Start, monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    old, new = start(), start()
    kept = old.login("id1")
    before = old.file("id1")

    def full(name: str, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(old.folder, "write", full)
    old.store.ends = NOW + 1000 + later
    old.keeper.save(kept)
    assert (kept.why, old.file("id1")) == ("", before)
    assert old.keeper.leave(1.0)
    assert new.visit("id1")[1]
    assert new.store.sessions == {"id1": b"basket"}


def test_in_a_forked_child_nothing_is_saved(start: Start) -> None:
    process = start()
    kept = process.login("id1")
    process.keeper.abandon()
    process.store.sessions["id1"] = b"the child's"
    process.keeper.save(kept)
    found = process.file("id1")
    assert found is not None
    assert found[1] == b"basket"


def test_at_the_end_what_is_left_is_left_to_the_others(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.close()
    assert not old.place.exists()
    kept, came = new.visit("id1")
    assert kept is not None
    assert (came, kept.head.deaths) == (True, 0)


def test_of_many_reasons_some_are_told_apart(start: Start) -> None:
    process = start()
    for number in range(12):
        process.store.unsaveable = f"type{number}"
        process.login(f"id{number}")
    process.keeper.look()
    assert sum(process.keeper.figures.unsaved.values()) == 12
    assert len(process.keeper.figures.unsaved) == MOST_REASONS + 1
    assert process.keeper.figures.unsaved["other reasons"] == 12 - MOST_REASONS


def test_a_look_at_many_goes_on_where_it_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(most_bytes=1 << 30, most_files=1000)
    for number in range(200):
        process.login(f"id{number}")
    monkeypatch.setattr(keeper, "LOOK_TIME", -1.0)
    del process.store.sessions["id150"]
    for _ in range(150):
        process.keeper.look()
    assert process.file("id150") is not None
    process.keeper.look()
    assert process.file("id150") is None
    for _ in range(50):  # the last one finds that there are no more
        process.keeper.look()
    assert process.keeper.figures.saved == 199


def test_an_error_of_the_framework_after_the_loading_holds_no_session(start: Start) -> None:
    old, new = start(), start()
    old.login("id1")
    old.keeper.leave(1.0)
    new.store.reading = lambda: 1 / 0  # type: ignore[assignment]
    kept, came = new.visit("id1")
    assert kept is not None
    assert came
    new.keeper.left(kept)
    new.store.reading = lambda: None
    assert new.keeper.leave(1.0)


def test_values_of_other_sessions_do_not_become_values_of_this_one(start: Start) -> None:
    """Two cookies of one name, on two paths."""
    process = start()
    first, second = process.login("id1"), process.login("id2")
    for values in (["id1.a", "id2", "nonsense"], ["id1", "id2"]):
        kept, _ = process.keeper.arrive(values, search=True)
        assert kept is first
        process.keeper.left(kept)
    assert process.keeper.enter(["id2"]) is second
    assert process.keeper.enter(["nonsense"]) is None
    assert process.keeper.enter(["id1.a"]) is first


def test_a_store_that_fails_fails_no_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start()
    monkeypatch.setattr(process.store, "has", lambda ident: 1 / 0)
    assert process.keeper.register("id1", ("Path=/",), 0.0) is None


def test_a_session_that_begins_while_another_request_looks_for_it_is_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    searches, found = threading.Event(), threading.Event()

    def take(name: str) -> None:
        searches.set()
        assert found.wait(5)

    monkeypatch.setattr(process.folder, "take", take)
    other = threading.Thread(target=process.visit, args=("id1",))
    other.start()
    assert searches.wait(5)
    threading.Timer(0.05, found.set).start()
    kept = process.login("id1")
    other.join(5)
    assert kept.here
    assert process.file("id1") is not None
    assert process.keeper.enter(["id1"]) is kept


def test_a_look_at_sessions_on_a_slow_disk_ends_in_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start()
    process.store.busy = True
    for number in range(5):
        process.login(f"id{number}")
    process.store.busy = False
    now = [100.0]
    write = process.folder.write

    def slow(name: str, data: bytes) -> int:
        now[0] += 0.1
        return write(name, data)

    monkeypatch.setattr(process.folder, "write", slow)
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    for number in range(1, 6):
        process.keeper.look()
        assert sum(process.file(f"id{one}") is not None for one in range(5)) == number


def test_the_end_waits_for_a_store_that_is_busy_for_a_moment(start: Start) -> None:
    process = start(everything=False)
    process.login("id1")
    tries: list[None] = []

    def busy_at_first() -> None:
        tries.append(None)
        process.store.busy = len(tries) < 3

    process.store.reading = busy_at_first
    Survival("leaving", process.keeper, process.folder).end(time.monotonic() + 10.0)
    assert (process.store.sessions, len(tries)) == ({}, 3)


def test_the_end_waits_for_no_session_that_cannot_be_saved(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbadaptor.appserver.sessions.persistence.survival.BUSY_PATIENCE", 60.0)
    process = start(everything=False)
    process.login("id1")
    process.store.unsaveable = "_thread.lock"
    began = time.monotonic()
    Survival("leaving", process.keeper, process.folder).end(began + 60.0)
    assert time.monotonic() - began < 30.0
    assert process.store.sessions


def test_what_waits_is_told_when_all_of_it_was_counted(start: Start) -> None:
    process = start(everything=False)
    process.login("id1")
    process.keeper.leave(10.0)
    survival = Survival("leaving", process.keeper, process.folder, idle=60.0)
    assert "waiting" not in (survival.report() or {})
    for _ in range(100):  # slices of 20 ms, of which a busy machine may need several
        survival.turn(False)
    told = survival.report()
    assert told is not None
    assert told["waiting"] == 1
    assert 0 < told["waiting_longest"] <= 60.0

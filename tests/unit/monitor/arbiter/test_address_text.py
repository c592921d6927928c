"""The sole writer of address.text: whole or not at all, and every write seen."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from lbadaptor.contract.address import Address, Entry, Given, Identity, State, parse
from lbadaptor.contract.errors import KeyFileError
from monitor.arbiter.files import atomic_file
from monitor.arbiter.files.address_text import CallerKeys, Publisher
from monitor.arbiter.files.atomic_file import MIN_MTIME_STEP

GENERATION = 1763805600000


def entry(slot: int, sessions: int = 0, generation: int = GENERATION) -> Entry:
    identity = Identity(slot, generation + slot)
    ticket = f"{identity}.{'s' * 43}"
    return Entry(ticket, Address("127.0.0.1", 9000 + slot), State.OK, identity, 100, sessions)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "address.text"


def test_what_is_written_is_what_is_read(path: Path) -> None:
    entries = (entry(0, 41), entry(1))
    publisher = Publisher(path, None)
    before = time.monotonic()
    publisher.publish(entries)
    table = parse(path.read_text())
    assert (table.serial, table.entries) == (1, entries)
    assert publisher.entries == entries
    assert before <= publisher.written_at <= time.monotonic()
    assert f"monitor {os.getpid()} on {os.uname().nodename}" in path.read_text()


def test_before_the_first_write_it_says_nothing(path: Path) -> None:
    publisher = Publisher(path, None)
    assert publisher.entries is None
    assert publisher.written_at == float("-inf")
    assert not path.exists()


def test_no_reader_ever_sees_half(path: Path) -> None:
    publisher = Publisher(path, None)
    publisher.publish(())
    over = threading.Event()
    seen: set[int] = set()
    trouble: list[Exception] = []

    def read() -> None:
        while not over.is_set():
            try:
                table = parse(path.read_text())
                assert len(table.entries) == (table.serial - 1) % 50
                seen.add(table.serial)
            except Exception as error:
                trouble.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for write in range(1, 400):
            publisher.publish(tuple(entry(slot) for slot in range(write % 50)))
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert trouble == []
    assert len(seen) > 5


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_mode_is_0640_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Publisher(path, None).publish(())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_group_is_apaches(path: Path) -> None:
    # Root may give a file to any group, everybody else to their own.
    group = 12345 if os.geteuid() == 0 else max([os.getegid(), *os.getgroups()])
    Publisher(path, group).publish(())
    assert path.stat().st_gid == group


def test_the_mtime_rises_with_every_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(path, None)
    moments = iter([5_000_000_000, 5_000_000_000, 5_000_000_001, 4_000_000_000, 6_000_000_000])
    monkeypatch.setattr(atomic_file.time, "time_ns", lambda: next(moments))
    mtimes = []
    for _ in range(5):
        publisher.publish(())
        mtimes.append(path.stat().st_mtime_ns)
    begin = 5_000_000_000
    assert mtimes == [
        begin,
        begin + MIN_MTIME_STEP,
        begin + 2 * MIN_MTIME_STEP,
        begin + 3 * MIN_MTIME_STEP,
        6_000_000_000,
    ]


def test_the_mtime_rises_from_that_of_the_file_before(path: Path) -> None:
    future = time.time_ns() + 3600 * 10**9
    path.write_text("whatever\n")
    os.utime(path, ns=(future, future))
    Publisher(path, None).publish(())
    assert path.stat().st_mtime_ns == future + MIN_MTIME_STEP


def test_serial_and_generation_go_on_from_the_file_before(path: Path) -> None:
    first = Publisher(path, None)
    for _ in range(3):
        first.publish((entry(0), entry(2)))
    second = Publisher(path, None)
    assert second.last_generation == GENERATION + 2
    second.publish(())
    assert parse(path.read_text()).serial == 4
    assert Publisher(path, None).last_generation == 0


@pytest.mark.parametrize("content", [b"half a line", b"\xff\n", b"1 2 3\n"])
def test_an_unreadable_file_is_written_over(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    publisher = Publisher(path, None)
    assert publisher.last_generation == 0
    publisher.publish((entry(0),))
    assert parse(path.read_text()).serial == 1


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk: what is written beyond `size` bytes fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_last_good_file(path: Path) -> None:
    publisher = Publisher(path, None)
    publisher.publish((entry(0),))
    text, written_at = path.read_text(), publisher.written_at
    descriptors = len(os.listdir("/proc/self/fd"))
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        publisher.publish((entry(0), entry(1)))
    assert path.read_text() == text
    assert (publisher.entries, publisher.written_at) == ((entry(0),), written_at)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    publisher.publish((entry(0), entry(1)))
    table = parse(path.read_text())
    assert (table.serial, len(table.entries)) == (2, 2)
    assert [file.name for file in path.parent.iterdir()] == ["address.text"]


def test_a_folder_that_went_away_is_an_os_error_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    publisher = Publisher(folder / "address.text", None)
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        publisher.publish(())
    assert publisher.entries is None
    folder.mkdir()
    publisher.publish(())
    assert parse((folder / "address.text").read_text()).serial == 1


# The callers' keys.


@pytest.fixture
def keys_path(tmp_path: Path) -> Path:
    return tmp_path / "callerkeys.text"


def key_of(ticket: str) -> str:
    asked.append(ticket)
    if ticket.startswith("9."):
        raise KeyFileError("none of ours")
    return f"key-of-{ticket[:3]}"


asked: list[str] = []


def content(path: Path) -> dict[str, str]:
    """As mod_rewrite reads it."""
    return dict(line.split() for line in path.read_text().splitlines() if not line.startswith("#"))


def test_the_keys_of_those_whose_holders_may_come_are_written(path: Path, keys_path: Path) -> None:
    publisher = Publisher(path, None, CallerKeys(keys_path, None, key_of))
    one, dying, failing, foreign = entry(0), entry(1), entry(2), entry(9)
    dying = msgspec.structs.replace(dying, state=State.DYING)
    failing = msgspec.structs.replace(failing, state=State.FAILING)
    publisher.keep((one, dying, failing, foreign), 100.0, 10.0)
    assert content(keys_path) == {one.ticket: key_of(one.ticket), dying.ticket: key_of(dying.ticket)}
    publisher.keep((one, msgspec.structs.replace(failing, state=State.OK)), 100.0, 10.0)
    assert set(content(keys_path)) == {one.ticket, failing.ticket}
    publisher.keep((), 100.0, 10.0)
    assert content(keys_path) == {}


def test_whom_address_text_names_has_a_key_there_already(path: Path, keys_path: Path) -> None:
    named = []

    class Watched(CallerKeys):
        def keep(self, entries: tuple[Entry, ...], now: float = 0.0, heartbeat: float = 0.0) -> None:
            super().keep(entries, now, heartbeat)
            named.append(path.exists() and parse(path.read_text()).entries)

    publisher = Publisher(path, None, Watched(keys_path, None, key_of))
    publisher.keep((entry(0),), 100.0, 10.0)
    publisher.keep((entry(0), entry(1)), 100.0, 10.0)
    assert named == [False, (entry(0),)]


def test_they_are_a_secret_of_apaches(keys_path: Path) -> None:
    group = 12345 if os.geteuid() == 0 else max([os.getegid(), *os.getgroups()])
    CallerKeys(keys_path, group, key_of).keep((entry(0),))
    status = keys_path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, group)


def test_each_key_is_made_once_and_the_file_written_only_when_it_has_to(keys_path: Path) -> None:
    asked.clear()
    keys = CallerKeys(keys_path, None, key_of)
    keys.keep((entry(0),))
    before = keys_path.stat()
    keys.keep((entry(0, sessions=5),))
    assert keys_path.stat() == before
    assert asked == [entry(0).ticket]
    keys_path.unlink()
    keys.keep((entry(0),))
    assert content(keys_path) == {entry(0).ticket: "key-of-0.1"}
    keys.keep(())
    keys.keep((entry(0),))
    assert asked == [entry(0).ticket] * 2


def test_each_write_has_an_mtime_of_its_own(keys_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_file.time, "time_ns", lambda: 5_000_000_000)
    keys = CallerKeys(keys_path, None, key_of)
    mtimes = []
    for slot in range(3):
        keys.keep((entry(slot),))
        mtimes.append(keys_path.stat().st_mtime_ns)
    assert mtimes == [5_000_000_000 + number * MIN_MTIME_STEP for number in range(3)]


def test_one_file_that_cannot_be_written_is_said_once_and_costs_the_other_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    publisher = Publisher(tmp_path / "address.text", None, CallerKeys(elsewhere / "callerkeys.text", None, key_of))
    for _ in range(3):
        publisher.keep((entry(0),), 100.0, 10.0)
    assert parse((tmp_path / "address.text").read_text()).entries == (entry(0),)
    assert caplog.text.count("callerkeys.text cannot be written: No such file") == 1
    elsewhere.mkdir()
    publisher.keep((entry(0),), 100.0, 10.0)
    assert content(elsewhere / "callerkeys.text")


def test_they_have_a_heartbeat_too(path: Path, keys_path: Path) -> None:
    publisher = Publisher(path, None, CallerKeys(keys_path, None, key_of))
    written = []
    for now in (100.0, 105.0, 109.9, 110.0, 115.0, 120.1):
        publisher.keep((entry(0),), now, 10.0)
        written.append(keys_path.stat().st_mtime_ns)
    anew = [one != other for one, other in itertools.pairwise(written)]
    assert anew == [False, False, True, False, True]


def test_what_a_machine_with_a_number_has_given_is_written_anew_each_time(path: Path) -> None:
    given = iter([Given(7, 1763805600000123, 5, 10), Given(7, 1763805600001456, 5, 20)])
    publisher = Publisher(path, None, given=lambda: next(given))
    publisher.publish((entry(0),))
    assert parse(path.read_text()).given == Given(7, 1763805600000123, 5, 10)
    publisher.publish(())
    assert parse(path.read_text()).given == Given(7, 1763805600001456, 5, 20)
    assert Publisher(path, None).last_generation == 1763805600001456, "though nobody of it is in the file"

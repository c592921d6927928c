from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from lbadaptor.adaptor.address_table import STALE, AddressTable
from lbadaptor.contract.address import MAX_BYTES, Address, Entry, Identity, State, Table, write


def table(serial: int, number: int = 1) -> Table:
    identities = [Identity(slot, 100 + serial) for slot in range(number)]
    return Table(serial, tuple(Entry(f"{i}.s", Address("127.0.0.1", 9000 + i.slot), State.OK, i) for i in identities))


class Publisher:
    """Writes address.text as the monitor does: beside, renamed, each with an mtime of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "address.text"
        self._mtime = time.time_ns()

    def publish(self, content: Table | str | bytes) -> None:
        text = write(content, "test", "now") if isinstance(content, Table) else content
        beside = self.path.with_name("beside")
        beside.write_bytes(text.encode() if isinstance(text, str) else text)
        self._mtime += 1000
        os.utime(beside, ns=(self._mtime, self._mtime))
        beside.rename(self.path)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


@pytest.fixture
def seen() -> list[Table]:
    return []


@pytest.fixture
def addresses(publisher: Publisher, seen: list[Table]) -> AddressTable:
    return AddressTable(publisher.path, seen.append)


def test_a_missing_file_is_an_empty_table_and_is_said_once(
    addresses: AddressTable, caplog: pytest.LogCaptureFixture
) -> None:
    assert addresses.table() == addresses.table() == Table()
    assert len(caplog.records) == 1
    assert "is the monitor running?" in caplog.text


def test_every_change_is_seen_at_once(addresses: AddressTable, publisher: Publisher, seen: list[Table]) -> None:
    for serial in range(1, 50):
        publisher.publish(table(serial))
        assert addresses.table() == table(serial)
        assert addresses.table() is seen[-1]
    assert len(seen) == 49


def test_a_still_file_is_not_read_again(
    addresses: AddressTable, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish(table(1))
    first = addresses.table()
    monkeypatch.delattr("builtins.open")
    assert addresses.table() is first


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("nonsense\n", "line 1: columns: 1"),
        (write(table(2, 2), "test", "now")[:-1], "half written"),
        (write(table(2, 2), "test", "now").rpartition("\n1.")[0] + "\n", "half written"),
        (b"\xff\xfe\n", "byte 0 is not UTF-8"),
        (b"#" * (MAX_BYTES + 1), "more than"),
        ("# address.text 2 · serial 3 · entries 0\n", "version 2"),
        (f"# address.text 1 · serial {'9' * 5000} · entries 7\n", "half written"),
    ],
)
def test_a_malformed_file_leaves_the_last_good_table_and_is_said_once(
    bad: str | bytes,
    said: str,
    addresses: AddressTable,
    publisher: Publisher,
    seen: list[Table],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher.publish(table(1))
    good = addresses.table()
    publisher.publish(bad)
    assert addresses.table() is addresses.table() is good
    assert len(caplog.records) == 1
    assert said in caplog.text
    publisher.publish(table(2))
    assert addresses.table() == table(2)
    assert seen == [table(1), table(2)]
    publisher.publish(bad)
    addresses.table()
    assert len(caplog.records) == 2


def test_a_file_that_vanishes_leaves_the_last_good_table(
    addresses: AddressTable, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(table(1))
    good = addresses.table()
    publisher.path.unlink()
    assert addresses.table() is addresses.table() is good
    assert len(caplog.records) == 1
    publisher.publish(table(2))
    assert addresses.table() == table(2)


def test_a_file_with_no_entry_is_believed(addresses: AddressTable, publisher: Publisher) -> None:
    publisher.publish(table(1))
    assert addresses.table().entries
    publisher.publish(Table(2))
    assert addresses.table() == Table(2)


def test_a_file_that_could_not_be_opened_is_tried_again(
    addresses: AddressTable, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(table(1))
    addresses.table()
    publisher.publish(table(2))

    def no_descriptor(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", no_descriptor)
        assert addresses.table() == table(1)
    assert "Too many open files" in caplog.text
    assert addresses.table() == table(2)


def test_an_old_file_is_gone_on_with_and_said_once(
    addresses: AddressTable, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(table(1))
    before = time.time() - STALE - 5
    os.utime(publisher.path, (before, before))
    for _ in range(3):
        assert addresses.table() == table(1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the monitor is gone" in caplog.text


def test_many_readers_see_whole_tables_that_never_go_back(addresses: AddressTable, publisher: Publisher) -> None:
    wrong: list[object] = []
    done = threading.Event()
    publisher.publish(table(1, 5))

    def read() -> None:
        last = 0
        try:
            while not done.is_set():
                now = addresses.table()
                if now.serial < last or now != table(now.serial, 5):
                    wrong.append((last, now))
                last = now.serial
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for serial in range(2, 60):
        publisher.publish(table(serial, 5))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert addresses.table().serial == 59


def test_a_recent_read_may_be_enough(
    addresses: AddressTable, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    publisher.publish(table(1))
    assert addresses.table(0.5) == table(1)
    publisher.publish(table(2))
    now[0] += 0.4
    assert addresses.table(0.5) == table(1)
    assert addresses.table() == table(2)
    publisher.publish(table(3))
    now[0] += 0.4
    assert addresses.table(0.5) == table(2)
    now[0] += 0.2
    assert addresses.table(0.5) == table(3)


def test_while_one_reads_the_new_table_no_other_goes_by_the_old_one(publisher: Publisher) -> None:
    found: list[Table] = []
    other = threading.Thread(target=lambda: found.append(addresses.table(1000.0)))

    def changed(content: Table) -> None:
        if content.serial == 2:
            other.start()
            other.join(0.2)  # it has time to do wrong

    addresses = AddressTable(publisher.path, changed)
    publisher.publish(table(1))
    addresses.table()
    addresses._checked = float("-inf")  # a while later
    publisher.publish(table(2))
    addresses.table(1000.0)
    other.join()
    assert found == [table(2)]

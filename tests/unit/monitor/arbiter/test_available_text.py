"""available.text: what mod_rewrite finds in it, and when it is written."""

from __future__ import annotations

import itertools
import logging
import os
import random
import stat
from collections import Counter
from pathlib import Path

import msgspec.structs
import pytest

from lbadaptor.contract.address import Address, Entry, Identity, State, parse
from lbadaptor.contract.errors import KeyFileError
from monitor.arbiter.files import available_text
from monitor.arbiter.files.address_text import CallerKeys, Publisher
from monitor.arbiter.files.available_text import MAX_LINE, SHARES_INTERVAL, Available

GENERATION = 1763805600000
COOKIE = "__PRT__"


def entry(slot: int, state: State = State.OK, host: str = "127.0.0.1") -> Entry:
    identity = Identity(slot, GENERATION + slot)
    return Entry(f"{identity}.{'s' * 43}", Address(host, 9000 + slot), state, identity)


def key_of(ticket: str) -> str:
    if ticket.startswith("9."):
        raise KeyFileError("none of ours")
    return f"key-of-{ticket.partition('.')[0]}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "available.text"


class Stage:
    """The file, what it is to say, and a clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shares: dict[int, float] = {}
        self.entries = (entry(0), entry(1))
        self.cookie = COOKIE
        self.now = 100.0
        self.available = Available(path, None, key_of, lambda now: self.shares)

    def keep(self) -> bool:
        """Whether the file was written."""
        before = self.path.exists() and self.path.stat().st_mtime_ns
        self.available.keep(self.cookie, self.entries, self.now, 10.0)
        return self.path.stat().st_mtime_ns != before

    @property
    def content(self) -> dict[str, str]:
        """As mod_rewrite reads it."""
        return content(self.path)

    @property
    def named(self) -> Counter[str]:
        """How often each slot is named."""
        return Counter(self.content[self.cookie].split("|"))


def content(path: Path) -> dict[str, str]:
    return dict(line.split() for line in path.read_text().splitlines() if not line.startswith("#"))


@pytest.fixture
def stage(path: Path) -> Stage:
    stage = Stage(path)
    stage.shares = {0: 300.0, 1: 100.0}
    return stage


def test_what_mod_rewrite_finds(stage: Stage) -> None:
    stage.entries = (entry(0), entry(1, host="::1"))
    stage.keep()
    assert set(stage.content) == {COOKIE, "0", "1"}
    assert stage.content["0"] == f"127.0.0.1:9000;key-of-0;0;{GENERATION}"
    assert stage.content["1"] == f"[::1]:9001;key-of-1;1;{GENERATION + 1}"
    assert stage.named == {"0": 75, "1": 25}


def test_those_that_take_no_new_visitors_are_not_in_it(stage: Stage) -> None:
    stage.shares |= {2: 100.0, 3: 100.0, 9: 100.0}
    stage.entries += (entry(2, State.DYING), entry(3, State.FAILING), entry(9))
    stage.keep()
    assert set(stage.content) == {COOKIE, "0", "1"}
    assert set(stage.named) == {"0", "1"}


def test_one_without_a_share_is_not_named(stage: Stage) -> None:
    stage.shares = {1: 100.0}
    stage.keep()
    assert set(stage.named) == {"1"}


def test_without_a_cookie_no_key_is_in_it(stage: Stage) -> None:
    stage.keep()
    stage.cookie = ""
    assert stage.keep()
    assert stage.path.read_text().count("\n") == 1
    assert stage.content == {}


def test_when_nobody_is_ok_no_key_is_in_it(stage: Stage) -> None:
    stage.keep()
    stage.entries = (entry(0, State.DYING),)
    assert stage.keep()
    assert stage.path.read_text().count("\n") == 1


def test_a_change_of_appservers_is_written_at_once(stage: Stage) -> None:
    assert stage.keep()
    assert not stage.keep()
    stage.entries = (entry(0), entry(1, State.DYING))
    assert stage.keep()
    stage.entries = (entry(0), entry(1))
    assert stage.keep()
    stage.entries = (entry(0), msgspec.structs.replace(entry(1), address=Address("127.0.0.1", 9999)))
    stage.entries = (entry(0), msgspec.structs.replace(stage.entries[1], ticket="1.5.s", identity=Identity(1, 5)))
    assert stage.keep()
    assert stage.content["1"] == "127.0.0.1:9999;key-of-1;1;5"


def test_a_change_of_shares_is_written_once_a_second(stage: Stage) -> None:
    stage.keep()
    stage.now += SHARES_INTERVAL
    assert not stage.keep(), "nothing has changed"
    stage.now += SHARES_INTERVAL
    stage.shares = {0: 100.0, 1: 100.0}
    assert stage.keep()
    stage.shares = {0: 100.0, 1: 300.0}
    stage.now += SHARES_INTERVAL - 0.1
    assert not stage.keep()
    stage.now += 0.1
    assert stage.keep()
    assert stage.named == {"0": 25, "1": 75}


def test_shares_are_looked_at_once_a_second(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arbiter's loop turns with every probe."""
    looks = []
    monkeypatch.setattr(available_text.available, "counts", lambda shares: looks.append(stage.now) or {0: 1})
    for turn in range(300):
        stage.now = 100 + turn / 100
        stage.keep()
    assert looks == [100, 101, 102]


def test_it_has_a_heartbeat(stage: Stage) -> None:
    written = []
    for now in (100.0, 105.0, 109.9, 110.0, 115.0, 120.1):
        stage.now = now
        written.append(stage.keep())
    assert written == [True, False, False, True, False, True]


def test_one_that_was_deleted_is_written_again(stage: Stage) -> None:
    stage.keep()
    stage.path.unlink()
    assert stage.keep()


def test_it_is_a_secret_of_apaches(path: Path) -> None:
    group = 12345 if os.geteuid() == 0 else max([os.getegid(), *os.getgroups()])
    Available(path, group, key_of, lambda now: {0: 1.0}).keep(COOKIE, (entry(0),), 0.0, 10.0)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, group)


def test_with_more_than_fit_each_write_names_others_and_only_a_due_one_is_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter((0.1, 0.4, 0.7, 0.9))
    monkeypatch.setattr(random, "random", lambda: next(drawn))
    stage.entries = tuple(entry(slot) for slot in range(100, 700))
    stage.shares = dict.fromkeys(range(100, 700), 100.0)
    lines = []
    for _ in range(3):
        assert stage.keep()
        lines.append(stage.content[COOKIE])
        stage.now += SHARES_INTERVAL
        assert not stage.keep()
        stage.now += 10.0
    assert all(len(text) <= MAX_LINE for text in stage.path.read_text().splitlines())
    assert all(len(set(line.split("|"))) > 200 for line in lines)
    assert len(set(lines)) == 3
    assert len(stage.content) == 601


# Along with address.text.


class Files(Publisher):
    """All three files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "available.text"
        available = Available(self.path, None, key_of, lambda now: {0: 1.0, 1: 1.0})
        keys = CallerKeys(folder / "callerkeys.text", None, key_of)
        super().__init__(folder / "address.text", None, keys, available=available)


def test_whom_it_names_is_in_address_text_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a visitor might come back with a ticket that no adaptor knows."""
    seen = []
    keep = Available.keep

    def watched(self: Available, *args: object) -> None:
        seen.append(parse((tmp_path / "address.text").read_text()).entries)
        keep(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Available, "keep", watched)
    files = Files(tmp_path)
    for entries in ((entry(0),), (entry(0), entry(1)), ()):
        files.keep(entries, 100.0, 10.0, COOKIE)
    assert seen == [(entry(0),), (entry(0), entry(1)), ()]


def test_while_address_text_cannot_be_written_it_names_nobody_new(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.keep((entry(0),), 100.0, 10.0, COOKIE)
    in_the_way = tmp_path / ".address.text.new"
    in_the_way.mkdir()
    files.keep((entry(0), entry(1)), 100.0, 10.0, COOKIE)
    assert set(content(files.path)) == {COOKIE, "0"}
    in_the_way.rmdir()
    files.keep((entry(0), entry(1)), 100.0, 10.0, COOKIE)
    assert set(content(files.path)) == {COOKIE, "0", "1"}


def test_a_failure_is_said_once_and_the_old_file_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = Files(tmp_path)
    files.keep((entry(0),), 100.0, 10.0, COOKIE)
    text = files.path.read_text()
    in_the_way = tmp_path / ".available.text.new"
    in_the_way.mkdir()
    for now in (101.0, 102.0):
        files.keep((entry(0), entry(1)), now, 10.0, COOKIE)
    assert files.path.read_text() == text
    assert len(parse((tmp_path / "address.text").read_text()).entries) == 2
    assert caplog.text.count("available.text cannot be written: Is a directory; first visits go by the last one") == 1
    in_the_way.rmdir()
    files.keep((entry(0), entry(1)), 102.0, 10.0, COOKIE)
    assert "available.text is written again" in caplog.text
    assert set(content(files.path)) == {COOKIE, "0", "1"}


def test_when_all_have_ended_no_key_is_left(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.keep((entry(0),), 100.0, 10.0, COOKIE)
    files.keep((), 100.0, 10.0, "")
    assert files.path.read_text().count("\n") == 1


def test_each_write_has_an_mtime_of_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """mod_rewrite remembers what it looked up until the mtime changes."""
    monkeypatch.setattr("monitor.arbiter.files.atomic_file.time.time_ns", lambda: 5_000_000_000)
    mtimes = []
    for number in range(1, 4):
        stage.entries = tuple(entry(slot) for slot in range(number))
        stage.keep()
        mtimes.append(stage.path.stat().st_mtime_ns)
    assert all(one < other for one, other in itertools.pairwise(mtimes))

"""A session's file holds what was written last, or what was there before, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from session_owner import Owner

from lbadaptor.appserver.sessions.persistence import format as file_format
from lbadaptor.appserver.sessions.persistence import writing
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder, Taken
from lbadaptor.appserver.sessions.persistence.format import Head, decode, encode, name_of

NAME = name_of("flask", "a")
HEAD = Head("flask", "shop", ends=2e9)
SMALL, LARGE = b"small" * 100, b"large" * 2000


@pytest.fixture
def folder(opened: Callable[..., SessionFolder]) -> SessionFolder:
    return opened()


@pytest.fixture
def path(root: Path) -> Path:
    return root / "at.0.1" / NAME


@pytest.mark.parametrize(
    ("length", "on_disk"),
    [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192), (8192, 8192), (100_000, 102_400)],
)
def test_write_tells_the_bytes_on_disk(folder: SessionFolder, path: Path, length: int, on_disk: int) -> None:
    assert folder.write(NAME, b"x" * length) == on_disk
    assert path.read_bytes()[:length] == b"x" * length
    assert path.stat().st_size == max(4096, length)


@pytest.mark.parametrize("before", [None, b"", SMALL, LARGE])
@pytest.mark.parametrize("after", [None, b"", SMALL, LARGE])
def test_whatever_was_there_what_was_written_last_is_read(
    folder: SessionFolder, path: Path, before: bytes | None, after: bytes | None
) -> None:
    for content in (before, after):
        folder.write(NAME, encode(HEAD, content))
        assert decode(path.read_bytes()) == (HEAD, content)
    assert [one.name for one in path.parent.iterdir() if one.name != "lock"] == [NAME]


def test_small_ones_are_written_in_place(folder: SessionFolder, path: Path) -> None:
    folder.write(NAME, b"one")
    file = path.stat().st_ino
    for length in (1, 4096, 10, 4000):
        folder.write(NAME, b"x" * length)
        assert path.stat().st_ino == file
    folder.write(NAME, b"x" * 4097)
    assert path.stat().st_ino != file
    file = path.stat().st_ino
    folder.write(NAME, b"x")  # in place it would keep two blocks
    assert (path.stat().st_ino != file, path.stat().st_size) == (True, 4096)


def test_in_place_is_one_write(folder: SessionFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(NAME, b"one")
    written = []
    pwrite = os.pwrite

    def count(descriptor: int, data: bytes, offset: int) -> int:
        written.append((len(data), offset))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", count)
    folder.write(NAME, b"x" * 4096)
    assert written == [(4096, 0)]


def test_a_dead_owners_session_can_be_written_again(folder: SessionFolder, path: Path) -> None:
    """Its mode told that the owner had died: it may have got it after it was taken."""
    folder.write(NAME, b"one")
    path.chmod(0o400)
    folder.write(NAME, b"two")
    assert path.read_bytes().rstrip(b"\0") == b"two"


def test_one_that_is_too_large_is_not_written(
    folder: SessionFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_SESSION", 10_000)
    folder.write(NAME, b"x" * 10_000)
    with pytest.raises(OSError, match="the session has 10001 bytes; 10000 are the most"):
        folder.write(NAME, b"y" * 10_001)
    assert path.read_bytes() == b"x" * 10_000
    assert file_format.MAX_SESSION == 64 * 1024 * 1024


def test_a_file_that_is_written_in_parts_is_whole(
    folder: SessionFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, bytes(data[:1000]), offset))
    folder.write(NAME, encode(HEAD, LARGE))
    assert decode(path.read_bytes()) == (HEAD, LARGE)


# No room.


def mounted(place: Path) -> bool:
    """A file system of 64 KiB there; only root can have one, and not in every container."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def fill(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Fills the disk: a real small one, or, for those who cannot have one, one that takes no new file."""
    root.mkdir(mode=0o700)
    real = mounted(root)

    def full(*arguments: Any, **more: Any) -> int:
        if arguments[1] & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(*arguments, **more)

    def fill_it() -> None:
        if real:
            with open(root / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
        else:
            monkeypatch.setattr(os, "open", full)

    open_file = os.open
    yield fill_it
    monkeypatch.undo()
    if real:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_on_a_full_disk_what_was_there_stays_and_small_ones_are_written(
    fill: Callable[[], None], folder: SessionFolder, path: Path
) -> None:
    folder.write(NAME, encode(HEAD, LARGE))
    fill()
    for content in (LARGE * 2, SMALL):
        with pytest.raises(OSError, match="No space left"):
            folder.write(NAME, encode(HEAD, content))
        assert decode(path.read_bytes()) == (HEAD, LARGE)
    assert sorted(one.name for one in path.parent.iterdir()) == sorted((NAME, "lock"))
    with pytest.raises(OSError, match="No space left"):
        folder.write(name_of("flask", "new"), SMALL)


def test_on_a_full_disk_a_small_one_is_written_in_place(
    fill: Callable[[], None], folder: SessionFolder, path: Path
) -> None:
    folder.write(NAME, encode(HEAD, b"before"))
    fill()
    folder.write(NAME, encode(HEAD, SMALL))
    assert decode(path.read_bytes()) == (HEAD, SMALL)


def test_on_a_full_disk_a_session_is_cut_to_its_head(
    fill: Callable[[], None], folder: SessionFolder, path: Path
) -> None:
    folder.write(NAME, encode(HEAD, LARGE))
    fill()
    with pytest.raises(FileNotFoundError):
        folder.cut(name_of("flask", "new"), encode(HEAD, None))
    folder.cut(NAME, encode(HEAD, None))
    assert decode(path.read_bytes()) == (HEAD, None)
    assert path.stat().st_size == 4096


def test_cut_replaces_the_content(folder: SessionFolder, path: Path) -> None:
    for content in (SMALL, LARGE):
        folder.write(NAME, encode(HEAD, content))
        folder.cut(NAME, encode(HEAD, None))
        assert decode(path.read_bytes()) == (HEAD, None)
        assert path.stat().st_size == 4096


def test_past_a_limit_on_files_what_was_there_stays(owners: Callable[..., list[Owner]], path: Path) -> None:
    (owner,) = owners(1)
    text = "folder.write(name, format.encode(format.Head('flask', 'shop', ends=2e9), b'x' * size))"
    owner.run(text, name=NAME, size=5000)
    resource.prlimit(owner.process.pid, resource.RLIMIT_FSIZE, (8192, 8192))
    fails = "try:\n %s\nexcept OSError as error:\n result = error.strerror"
    assert owner.run(fails % text, name=NAME, size=20_000) == "File too large"
    assert decode(path.read_bytes())[1] == b"x" * 5000
    assert sorted(one.name for one in path.parent.iterdir()) == sorted((NAME, "lock"))


# SIGKILL.

WRITES = """
contents = [bytes([65 + number]) * (number * 997 % 9000) for number in range(26)]
head = format.Head("flask", "shop", ends=2e9)
folder.write(name, format.encode(head, contents[0]))
print(json.dumps("writes"), flush=True)
while True:
    for content in contents:
        folder.write(name, format.encode(head, content))
        folder.cut(name, format.encode(head, None))
"""


def test_a_process_killed_while_it_writes_leaves_a_whole_session(
    owners: Callable[..., list[Owner]], opened: Callable[..., SessionFolder]
) -> None:
    chance = random.Random(2)
    taker = opened(100)
    for generation in range(6):
        killed = owners(2, generation)
        for slot, owner in enumerate(killed):
            owner.begin(WRITES, name=name_of("flask", str(slot)))
        for slot, owner in enumerate(killed):
            assert owner.result() == "writes"
            time.sleep(chance.uniform(0, 0.02))  # the moment of the kill is what varies
            owner.kill()
            found = taker.take(name_of("flask", str(slot)))
            assert isinstance(found, Taken)
            content = decode(found.data)[1]
            assert not content or content == content[:1] * len(content)
            assert found.died
            taker.remove(name_of("flask", str(slot)))


def test_a_process_killed_between_temporary_file_and_rename_leaves_what_was_there(
    owners: Callable[..., list[Owner]], opened: Callable[..., SessionFolder], root: Path
) -> None:
    (owner,) = owners(1)
    owner.run("folder.write(name, b'before')", name=NAME)
    owner.begin("os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\nfolder.write(name, b'x' * 5000)")
    assert owner.wait() == -signal.SIGKILL
    assert len([*(root / "at.0.1").glob(f"{NAME}.*")]) == 1
    assert opened(1).take(NAME) == (b"before".ljust(4096, b"\0"), True)

"""What is not surely a session of these AppServers is not followed, not loaded, not written over and not deleted."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbadaptor.appserver.sessions.persistence import folder as module
from lbadaptor.appserver.sessions.persistence import layout, safe_open
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
from lbadaptor.appserver.sessions.persistence.format import name_of
from lbadaptor.appserver.sessions.persistence.safe_open import Stranger
from lbadaptor.appserver.sessions.persistence.sweep import Sweep
from lbadaptor.log.once import Once

Opened = Callable[..., SessionFolder]
Plant = Callable[[Path, Path], None]

NAME, OTHER = name_of("flask", "a"), name_of("flask", "b")
SECRET = b"of somebody else"


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_strangers", Once(64))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file elsewhere, of this user's."""
    path = tmp_path / "victim"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def symbolic_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def broken_link(path: Path, victim: Path) -> None:
    path.symlink_to("/nonexistent")


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o600)


def unix_socket(path: Path, victim: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path is too long for a socket's name
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)
    path.chmod(0o600)


def directory(path: Path, victim: Path) -> None:
    path.mkdir(mode=0o700)


def readable_by_the_group(path: Path, victim: Path) -> None:
    path.write_bytes(SECRET)
    path.chmod(0o640)


def writable_by_all(path: Path, victim: Path) -> None:
    path.write_bytes(SECRET)
    path.chmod(0o602)


def of_another_user(path: Path, victim: Path) -> None:
    path.write_bytes(SECRET)
    path.chmod(0o600)
    os.chown(path, 12345, -1)


PLANTS: list[Plant] = [symbolic_link, broken_link, hard_link, fifo, unix_socket, directory]
PLANTS += [readable_by_the_group, writable_by_all]
PLANTS += [of_another_user] * (os.geteuid() == 0)
planted = pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)


def look(path: Path) -> tuple[object, ...]:
    """All that can be seen of a file without opening it, but its times."""
    found = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, content


@pytest.fixture
def unchanged(victim: Path) -> Iterator[None]:
    content = victim.read_bytes()
    yield
    assert victim.read_bytes() == content


@planted
@pytest.mark.usefixtures("unchanged")
def test_it_is_not_taken_from_free(
    root: Path, opened: Opened, victim: Path, plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened()
    path = root / "free" / NAME[:2] / NAME
    path.parent.mkdir(mode=0o700)
    plant(path, victim)
    before = look(path)
    assert folder.take(NAME) is None
    assert folder.take(NAME) is None
    assert look(path) == before
    assert caplog.text.count(f"free/{NAME[:2]}/{NAME} is not a file of these AppServers, and is left alone") == 1


@planted
@pytest.mark.usefixtures("unchanged")
def test_it_is_not_taken_from_a_dead_owner(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder = opened()
    opened(1).abandon()
    path = root / "at.1.1" / NAME
    plant(path, victim)
    before = look(path)
    assert folder.take(NAME) is None
    assert look(path) == before


@planted
@pytest.mark.usefixtures("unchanged")
def test_it_hides_no_session(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder, other = opened(), opened(1)
    for slot in (2, 3, 4):
        opened(slot).abandon()
        plant(root / f"at.{slot}.1" / NAME, victim)
    other.write(NAME, b"the session")
    other.abandon()
    found = folder.take(NAME)
    assert found == (b"the session".ljust(4096, b"\0"), True)


@planted
@pytest.mark.usefixtures("unchanged")
def test_it_is_not_swept(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder = opened()
    opened(1).abandon()
    paths = [root / "at.1.1" / NAME, root / "at.1.1" / f"{OTHER}.0", root / "free" / OTHER[:2] / OTHER]
    paths[2].parent.mkdir(mode=0o700)
    for path in paths:
        plant(path, victim)
    before = [look(path) for path in paths]
    now = [1e6]
    sweep = Sweep(folder, lambda: now[0], lambda: now[0] + 1e9)
    for _ in range(40):
        assert sweep.run() is not None
        now[0] += 700.0
    assert [look(path) for path in paths] == before


@planted
@pytest.mark.usefixtures("unchanged")
def test_it_is_not_written_over_cut_or_removed(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder = opened()
    path = root / "at.0.1" / NAME
    plant(path, victim)
    before = look(path)
    for data in (b"small", b"large" * 5000):
        with pytest.raises(OSError, match="not a session of these AppServers"):
            folder.write(NAME, data)
        with pytest.raises(OSError, match="not a session of these AppServers"):
            folder.cut(NAME, data)
    folder.remove(NAME)
    assert look(path) == before


@planted
@pytest.mark.usefixtures("unchanged")
def test_a_released_session_does_not_replace_it(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder = opened()
    path = root / "free" / NAME[:2] / NAME
    path.parent.mkdir(mode=0o700)
    plant(path, victim)
    before = look(path)
    folder.write(NAME, b"ours")
    with pytest.raises(FileExistsError):
        folder.release(NAME)
    assert look(path) == before
    assert list(folder.names()) == [NAME]


@planted
@pytest.mark.usefixtures("unchanged")
def test_a_lock_that_is_not_ours_is_not_tried(root: Path, opened: Opened, victim: Path, plant: Plant) -> None:
    folder, other = opened(), opened(1)
    other.write(NAME, b"session")
    other.abandon()
    (root / "at.1.1" / "lock").unlink()
    plant(root / "at.1.1" / "lock", victim)
    before = look(root / "at.1.1" / "lock")
    assert folder.take(NAME) is None
    assert Sweep(folder).run() is not None
    assert look(root / "at.1.1" / "lock") == before
    assert (root / "at.1.1" / NAME).exists()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, None])
def test_a_subfolder_of_others_is_not_entered(root: Path, opened: Opened, tmp_path: Path, mode: int | None) -> None:
    """None: a symbolic link."""
    folder = opened()
    folder.write(NAME, b"content")
    subfolder = root / "free" / NAME[:2]
    if mode is None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        subfolder.symlink_to(tmp_path / "elsewhere")
    else:
        subfolder.mkdir()
        subfolder.chmod(mode)
    with pytest.raises(FileExistsError):
        folder.release(NAME)
    neighbour = NAME[:2] + "0" * 38
    (subfolder / neighbour).touch(mode=0o600)
    assert folder.take(neighbour) is None
    assert Sweep(folder).run() is not None
    assert [path.name for path in subfolder.iterdir()] == [neighbour]


def test_a_dead_owners_folder_that_is_a_link_is_not_looked_into(root: Path, opened: Opened, tmp_path: Path) -> None:
    folder = opened()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "elsewhere" / NAME).touch(mode=0o600)
    (root / "at.1.1").symlink_to(tmp_path / "elsewhere")
    assert folder.take(NAME) is None
    assert Sweep(folder).run() is not None
    assert (tmp_path / "elsewhere" / NAME).exists()


def test_a_huge_file_is_not_read(root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened()
    path = root / "free" / NAME[:2] / NAME
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)  # a hole
    assert folder.take(NAME) is None
    assert path.stat().st_size == 1 << 40
    monkeypatch.setattr(module, "MAX_SESSION", 4096)
    os.truncate(path, 4097)
    assert folder.take(NAME) is None
    os.truncate(path, 4096)
    assert folder.take(NAME) == (bytes(4096), False)


@pytest.mark.parametrize("name", ["notes", NAME[:39], f"{NAME}0", NAME.upper(), f"{NAME}.x", f"x{NAME}", f"{NAME} "])
def test_what_is_not_named_like_a_session_stays(root: Path, opened: Opened, name: str) -> None:
    folder = opened()
    opened(1).abandon()
    (root / "free" / "ab").mkdir(mode=0o700)
    paths = [root / place / name for place in ("at.1.1", "free/ab", "free", "aside", ".")]
    for path in paths:
        path.write_bytes(SECRET)
        path.chmod(0o600)
    now = [1e6]
    sweep = Sweep(folder, lambda: now[0], lambda: now[0] + 1e9)
    for _ in range(40):
        assert sweep.run() is not None
        now[0] += 700.0
    folder.close()
    assert [path.read_bytes() for path in paths] == [SECRET] * len(paths)


@pytest.mark.parametrize("name", ["at.1", "at.1.2.3", "at.x.1", "at.1.1 ", "xat.1.1", "AT.1.1", "at.-1.1"])
def test_a_folder_that_is_not_named_like_an_owners_is_not_looked_into(root: Path, opened: Opened, name: str) -> None:
    folder = opened()
    (root / name).mkdir(mode=0o700)
    (root / name / NAME).touch(mode=0o600)
    assert folder.take(NAME) is None
    assert Sweep(folder).run() is not None
    assert (root / name / NAME).exists()


def test_a_file_that_is_opened_says_what_is_wrong(tmp_path: Path, victim: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for plant, why in (
            (symbolic_link, "it is a symbolic link"),
            (fifo, "it is not a regular file"),
            (directory, "it is not a regular file"),
            (readable_by_the_group, "its mode is 0640 instead of 0600"),
            (hard_link, r"it has 2 names \(hard links\)"),
        ):
            for flags in (os.O_RDONLY, os.O_WRONLY):
                plant(tmp_path / f"{why[:12]}{flags}", victim)
                with pytest.raises(Stranger, match=why):
                    safe_open.file(f"{why[:12]}{flags}", descriptor, flags)
                if plant is directory:
                    (tmp_path / f"{why[:12]}{flags}").rmdir()
                else:
                    (tmp_path / f"{why[:12]}{flags}").unlink()
        with pytest.raises(FileNotFoundError):
            safe_open.file("missing", descriptor)
    finally:
        os.close(descriptor)

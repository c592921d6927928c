"""A session is in one place at a time: in a living owner's folder, in a dead one's, or in free/."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lbadaptor.appserver.sessions.persistence import folder as module
from lbadaptor.appserver.sessions.persistence import layout, own_folder, safe_open
from lbadaptor.appserver.sessions.persistence import root as root_module
from lbadaptor.appserver.sessions.persistence.folder import Elsewhere, SessionFolder, Taken, UnsafeFolder
from lbadaptor.appserver.sessions.persistence.format import name_of

Opened = Callable[..., SessionFolder]

NAME, OTHER = name_of("flask", "a"), name_of("flask", "b")


def files(root: Path) -> list[str]:
    """Everything in the folder but locks, by its path."""
    found = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path.split("/")[-1] not in ("lock", "sweep"))


def free(name: str) -> str:
    return f"free/{name[:2]}/{name}"


def data(found: object) -> bytes:
    assert isinstance(found, Taken)
    return found.data.rstrip(b"\0")


# Opening and closing.


def test_open_makes_what_is_missing_for_this_user_alone(root: Path, opened: Opened) -> None:
    folder = opened(3, 14)
    folder.write(NAME, b"one")
    folder.write(OTHER, b"two")
    folder.release(OTHER)
    paths = [root, *root.rglob("*")]
    assert {str(path.relative_to(root)) for path in paths} >= {".", "at.3.14", "at.3.14/lock", "free", "aside"}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths if not path.is_dir()} == {0o600}


def test_a_folder_of_others_is_refused_with_the_cure(root: Path, opened: Opened) -> None:
    root.mkdir(mode=0o700)
    for mode in (0o755, 0o710, 0o702, 0o500):
        root.chmod(mode)
        with pytest.raises(
            UnsafeFolder, match=f"{root}: its mode is {mode:04o} instead of 0700; `install -d -m 0700"
        ):
            opened()
    root.chmod(0o700)
    opened()


def test_a_folder_of_another_user_is_refused(root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir(mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(UnsafeFolder, match=f"it belongs to the user {me}, and this process runs as {me + 1}"):
        opened()


def test_a_link_instead_of_the_folder_is_refused(root: Path, opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    root.symlink_to("real")
    with pytest.raises(UnsafeFolder, match="it is a symbolic link"):
        opened()
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("name", ["free", "aside"])
def test_a_link_in_the_folder_is_refused(root: Path, opened: Opened, tmp_path: Path, name: str) -> None:
    root.mkdir(mode=0o700)
    (tmp_path / "real").mkdir(mode=0o700)
    (root / name).symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeFolder, match=f"{root}/{name}: it is a symbolic link"):
        opened()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    folder = SessionFolder(str(tmp_path / "missing" / "sessions"), 0, 1)
    with pytest.raises(UnsafeFolder, match="cannot be used: No such file or directory; `install"):
        folder.open()
    assert not folder.is_open


def test_what_could_not_be_opened_leaves_no_descriptor(root: Path, opened: Opened) -> None:
    before = len(os.listdir("/proc/self/fd"))
    opened(0, 1).abandon()
    (root / "aside").rmdir()
    (root / "aside").touch()
    with pytest.raises(UnsafeFolder, match="it is not a folder"):
        opened()
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_two_living_owners_of_one_name_the_second_is_refused(root: Path, opened: Opened) -> None:
    opened(0, 1).write(NAME, b"one")
    with pytest.raises(UnsafeFolder, match=r"at\.0\.1 belongs to another AppServer, which lives"):
        opened(0, 1)
    assert files(root) == [f"at.0.1/{NAME}"]
    assert [path.name for path in root.glob("new.*")] == []


def test_what_a_dead_one_of_the_same_name_had_goes_to_free_first(root: Path, opened: Opened) -> None:
    before = opened(0, 1)
    before.write(NAME, b"one")
    before.write(OTHER, b"two")
    before.abandon()
    folder = opened(0, 1)
    assert files(root) == sorted((free(NAME), free(OTHER)))
    assert list(folder.names()) == []
    assert folder.take(NAME) == (b"one".ljust(4096, b"\0"), True)


def test_the_locked_folder_is_made_under_another_name(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sees it by its name finds it locked."""
    seen = []

    def rename(name: str, source: int, target: int, new_name: str = "") -> None:
        with open(root / name / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        seen.append((name, new_name))
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    monkeypatch.setattr(own_folder, "rename_new", rename)
    (root).mkdir(mode=0o700)
    (root / f"new.{os.getpid()}.0").mkdir()  # of a process that had this pid, and was killed
    opened(5, 6)
    assert seen == [(f"new.{os.getpid()}.1", "at.5.6")]


@pytest.mark.parametrize("deleted", ["", "free", "aside", "at.0.1"])
def test_what_is_deleted_is_made_anew_and_locked(root: Path, opened: Opened, deleted: str) -> None:
    folder, other = opened(0, 1), opened(1, 2)
    folder.write(NAME, b"one")
    descriptors = len(os.listdir("/proc/self/fd"))
    shutil.rmtree(root / deleted)
    assert folder.mend() == (deleted in ("", "at.0.1"))
    other.mend()
    assert not folder.mend()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    folder.write(NAME, b"two")
    assert other.take(NAME) == (0, 1)
    folder.release(NAME)
    assert data(other.take(NAME)) == b"two"
    other.set_aside(NAME, "a test")
    assert len(list((root / "aside").iterdir())) == 1


def test_whose_lock_is_deleted_is_not_taken_for_dead(root: Path, opened: Opened) -> None:
    folder, other = opened(0, 1), opened(1, 2)
    folder.write(NAME, b"one")
    (root / "at.0.1" / "lock").unlink()
    assert not folder.mend()
    assert other.take(NAME) == (0, 1)
    folder.abandon()
    assert data(other.take(NAME)) == b"one"


def test_who_swept_a_deleted_folder_does_not_keep_others_from_it(root: Path, opened: Opened) -> None:
    folder, other = opened(0, 1), opened(1, 2)
    assert folder.hold("sweep")
    shutil.rmtree(root)
    folder.mend()
    other.mend()
    assert other.hold("sweep")
    assert not folder.hold("sweep")


def test_a_folder_that_another_installation_has_made_meanwhile_is_not_entered(root: Path, opened: Opened) -> None:
    folder = opened(0, 1, run_folder="/run/one")
    shutil.rmtree(root)
    root.mkdir(0o700)
    (root / "installation").touch(0o600)
    (root / "installation").write_text("/run/other\n")
    for _ in range(2):
        with pytest.raises(UnsafeFolder, match="/run/other"):
            folder.mend()
    assert [path.name for path in root.iterdir()] == ["installation"]


def test_one_that_cannot_be_made_anew_is_said_and_tried_again(root: Path, opened: Opened) -> None:
    folder = opened(0, 1)
    shutil.rmtree(root)
    root.mkdir()
    root.chmod(0o755)
    for _ in range(2):
        with pytest.raises(UnsafeFolder, match="0755"):
            folder.mend()
    root.chmod(0o700)
    assert folder.mend()
    folder.write(NAME, b"one")
    assert list(folder.names()) == [NAME]


def test_close_leaves_the_sessions_in_free_and_nothing_else(root: Path, opened: Opened) -> None:
    folder = opened()
    folder.write(NAME, b"one")
    folder.write(OTHER, b"x" * 5000)
    folder.close()
    assert files(root) == sorted((free(NAME), free(OTHER)))
    assert sorted(path.name for path in root.iterdir()) == ["aside", "free"]
    folder.close()
    assert opened(1, 2).take(NAME) == (b"one".ljust(4096, b"\0"), False)


def test_close_leaves_what_is_not_ours_and_does_not_raise(
    root: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened()
    folder.write(NAME, b"one")
    (root / "at.0.1" / "notes").write_text("by hand")
    folder.close()
    assert files(root) == ["at.0.1/notes", free(NAME)]
    assert "at.0.1 stays, for another AppServer to sweep: Directory not empty" in caplog.text


# The installation.


def test_each_appserver_shares_the_lock_on_the_installation(root: Path, opened: Opened) -> None:
    root.mkdir(mode=0o700)
    (root / "installation").write_text("/run/shop\n")
    (root / "installation").chmod(0o600)
    folders = [opened(slot, run_folder="/run/shop") for slot in range(2)]
    with open(root / "installation") as file:
        for folder in folders:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_folder_of_another_installation_is_refused(root: Path, opened: Opened) -> None:
    root.mkdir(mode=0o700)
    (root / "installation").write_text("/run/other\n")
    (root / "installation").chmod(0o600)
    with pytest.raises(UnsafeFolder, match="is that of the run folder /run/other; two installations cannot share"):
        opened(run_folder="/run/shop")
    opened()


def test_an_installation_that_another_monitor_holds_is_waited_for_and_refused(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(mode=0o700)
    (root / "installation").touch(mode=0o600)
    monkeypatch.setattr(root_module, "WAIT", 0.0)
    with open(root / "installation") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UnsafeFolder, match="is locked by another monitor"):
            opened()
        monkeypatch.setattr(root_module, "WAIT", 5.0)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        opened()


# Sessions.


def test_what_was_released_is_taken_once(root: Path, opened: Opened) -> None:
    one, two, three = opened(0), opened(1), opened(2)
    one.write(NAME, b"content")
    one.release(NAME)
    assert files(root) == [free(NAME)]
    assert two.take(NAME) == (b"content".ljust(4096, b"\0"), False)
    assert files(root) == [f"at.1.1/{NAME}"]
    assert three.take(NAME) == Elsewhere(1, 1)
    assert one.take(NAME) == Elsewhere(1, 1)


def test_a_living_owner_keeps_what_it_has(root: Path, opened: Opened) -> None:
    one, two = opened(7, 1234), opened(1)
    one.write(NAME, b"content")
    assert two.take(NAME) == Elsewhere(7, 1234)
    assert files(root) == [f"at.7.1234/{NAME}"]


def test_a_dead_owners_is_taken_and_the_death_told(root: Path, opened: Opened) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"content")
    one.abandon()
    assert two.take(NAME) == (b"content".ljust(4096, b"\0"), True)
    two.release(NAME)
    assert opened(2).take(NAME) == (b"content".ljust(4096, b"\0"), False)


def test_what_nobody_has_is_not_known(opened: Opened) -> None:
    one, two = opened(0), opened(1)
    one.write(OTHER, b"content")
    assert two.take(NAME) is None
    assert one.take(OTHER) is None  # it is its own, and not looked for


def test_a_session_that_is_there_already_is_not_replaced_by_one_that_is_taken(opened: Opened) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"old")
    one.release(NAME)
    two.write(NAME, b"new")
    with pytest.raises(FileExistsError):
        two.take(NAME)
    two.remove(NAME)
    assert data(two.take(NAME)) == b"old"


def test_the_last_one_served_is_what_counts_where_two_are_released(root: Path, opened: Opened) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"old")
    one.release(NAME)
    two.write(NAME, b"new")
    two.release(NAME)
    assert files(root) == [free(NAME)]
    assert data(one.take(NAME)) == b"new"


def test_to_release_what_is_not_there_raises(opened: Opened) -> None:
    with pytest.raises(FileNotFoundError):
        opened().release(NAME)


def test_what_cannot_be_read_stays_where_it_was(root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"released")
    one.release(NAME)
    one.write(OTHER, b"of a dead one")
    one.abandon()
    before = files(root)

    def fail(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(safe_open, "read", fail)
        for name in (NAME, OTHER):
            with pytest.raises(OSError, match="Input/output"):
                two.take(name)
    assert files(root) == before
    assert (data(two.take(NAME)), data(two.take(OTHER))) == (b"released", b"of a dead one")


def test_one_that_slips_through_a_search_is_found(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes from free/ to an owner and back between the three looks."""
    one, two = opened(0), opened(1)
    one.write(NAME, b"content")
    one.release(NAME)
    os.utime(root / "free" / NAME[:2], (1.0, 1.0))
    look, looks = two._take_from_free, []

    def between(name: str) -> Taken | None:
        looks.append(name)
        if len(looks) > 1:
            return look(name)
        one.take(name)
        found = look(name)
        one.release(name)
        return found

    monkeypatch.setattr(two, "_take_from_free", between)
    assert data(two.take(NAME)) == b"content"
    assert len(looks) == 2


@pytest.mark.parametrize(("busy", "looked"), [(False, 2), (True, 2 * (module.ROUNDS_IF_BUSY + 1))])
def test_a_miss_is_believed_at_once_where_nothing_has_just_moved(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, busy: bool, looked: int
) -> None:
    folder = opened()
    neighbour = NAME[:2] + "0" * 38
    folder.write(neighbour, b"content")
    folder.release(neighbour)
    owners, looks = layout.owners, []

    def look(directory: int, but: str) -> list[str]:
        if busy:
            os.utime(root / "free" / NAME[:2])
        looks.append(but)
        return owners(directory, but)

    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(layout, "owners", look)
    os.utime(root / "free" / NAME[:2], (1.0, 1.0))
    assert folder.take(NAME) is None
    assert len(looks) == looked


def test_one_that_moves_all_the_time_is_not_told_as_unknown(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"content")
    one.release(NAME)

    def first(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(module, "rename_new", first)
    with pytest.raises(BlockingIOError, match="moves all the time"):
        two.take(NAME)


def test_remove_takes_a_missing_one_for_removed(root: Path, opened: Opened) -> None:
    folder = opened()
    folder.remove(NAME)
    folder.write(NAME, b"one")
    folder.remove(NAME)
    assert files(root) == []


def test_remove_does_not_raise(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened()
    folder.write(NAME, b"one")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", NAME)

    monkeypatch.setattr(os, "unlink", fail)
    folder.remove(NAME)
    folder.remove(NAME)
    assert caplog.text.count("cannot be removed from the disk") == 1


def test_what_is_set_aside_is_found_no_more_and_replaces_nothing(
    root: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened()
    for number in range(3):
        folder.write(NAME, b"%d" % number)
        folder.set_aside(NAME, "no module named shop.old")
    assert opened(1).take(NAME) is None
    assert files(root) == [f"aside/{NAME}", f"aside/{NAME}.1", f"aside/{NAME}.2"]
    assert [path.read_bytes()[:1] for path in sorted((root / "aside").iterdir())] == [b"0", b"1", b"2"]
    assert caplog.text.count("no module named shop.old") == 1
    folder.set_aside(NAME, "it is gone")
    assert "cannot be set aside" in caplog.text


def test_names_are_those_of_sessions(root: Path, opened: Opened) -> None:
    folder = opened()
    folder.write(NAME, b"one")
    folder.write(OTHER, b"two")
    for name in ("notes", NAME[:39], NAME.upper(), NAME + "0", f"{NAME}.7", "g" * 40):
        (root / "at.0.1" / name).touch(mode=0o600)
    assert sorted(folder.names()) == sorted((NAME, OTHER))


def test_many_locks_are_held_until_the_end(opened: Opened) -> None:
    one, two = opened(0), opened(1)
    assert one.hold("sweep")
    assert one.hold("sweep")
    assert not two.hold("sweep")
    one.close()
    assert two.hold("sweep")


# Before the begin, after the end, in a child.


def test_a_folder_that_is_not_open_does_nothing(root: Path, opened: Opened) -> None:
    waiting = opened(1)
    waiting.write(OTHER, b"waiting")
    waiting.close()
    closed, abandoned = opened(2), opened(3)
    closed.close()
    abandoned.abandon()
    before = sorted(root.rglob("*"))
    for folder in (SessionFolder(str(root), 0, 1), closed, abandoned):
        assert folder.write(NAME, b"one") == 0
        folder.cut(NAME, b"one")
        folder.remove(NAME)
        assert folder.take(OTHER) is None
        folder.release(NAME)
        folder.set_aside(NAME, "why")
        assert list(folder.names()) == []
        assert not folder.hold("sweep")
        folder.close()
        folder.abandon()
    assert sorted(root.rglob("*")) == before


FORKS = """
import os, sys
from lbadaptor.appserver.sessions.persistence.folder import SessionFolder
root, name = sys.argv[1:]
folder = SessionFolder(root, 0, 1)
folder.open()
folder.hold("sweep")
folder.write(name, b"parent")
os.register_at_fork(after_in_child=folder.abandon)
child = os.fork()
if not child:
    folder.write(name, b"child")
    folder.release(name)
    folder.close()
    left = [os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if int(one) > 2 and
            os.path.lexists(f"/proc/self/fd/{one}")]
    os._exit(any(path.startswith(root) for path in left))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(open(f"{root}/at.0.1/{name}", "rb").read(6))
other = SessionFolder(root, 1, 1)
other.open()
print(other.take(name), other.hold("sweep"))
"""


def test_a_forked_child_does_nothing_and_the_parent_goes_on(root: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORKS, str(root), NAME], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.splitlines() == ["b'parent'", "Elsewhere(slot=0, generation=1) False"]


def test_a_program_that_is_started_inherits_no_lock(root: Path, opened: Opened) -> None:
    one, two = opened(0), opened(1)
    one.write(NAME, b"one")
    with subprocess.Popen(["sleep", "60"], close_fds=False) as sleeper:
        one.abandon()
        assert data(two.take(NAME)) == b"one"
        sleeper.kill()

"""The folder of session files: made, refused, and held for one installation."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Application, Files, Sessions, Settings
from monitor.arbiter.files import mounts, session_folder
from monitor.arbiter.files.session_folder import INSTALLATION, HeldFolder, fault, is_of, prepare
from monitor.arbiter.processes.process_environment import User

NOBODY = User(65534, 65534, (65534,), {})


def settings(folder: Path, run_folder: str = "run", survive: Any = "leaving") -> Settings:
    return Settings(
        Application("a:b", "sid"),
        Files(run_folder=run_folder),
        sessions=Sessions(survive=survive, folder="var/sessions"),
        folder=str(folder),
    )


@pytest.fixture
def hold() -> Iterator[Callable[..., HeldFolder]]:
    """What a monitor does at its start; given up after the test."""
    opened: list[HeldFolder] = []

    def hold(given: Settings, account: User | None = None) -> HeldFolder:
        held = HeldFolder()
        opened.append(held)
        held.prepare(given, account)
        return held

    yield hold
    for held in opened:
        held.release()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "var" / "sessions"
    folder.mkdir(0o700, parents=True)
    return folder


def refused(given: Settings, why: str, account: User | None = None) -> None:
    """By the monitor, and by its check, in the same words."""
    with pytest.raises(SettingsError, match=re.escape(why)) as error:
        prepare(given, account)
    assert str(error.value).startswith("[sessions] folder: ")
    assert "\n" not in str(error.value)
    assert fault(given, account) == str(error.value)


def kinds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Callable[[str], str]) -> None:
    """Have /proc/self/mountinfo say something else."""
    told = tmp_path / "mountinfo"
    told.write_text("".join(f"{change(line)}\n" for line in mounts.MOUNTINFO.read_text().splitlines()))
    monkeypatch.setattr(mounts, "MOUNTINFO", told)


# What is made.


def test_it_is_made_for_the_appservers_alone(tmp_path: Path, hold: Callable[..., HeldFolder]) -> None:
    hold(settings(tmp_path))
    folder = tmp_path / "var" / "sessions"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.listdir(folder) == [INSTALLATION]
    assert (folder / INSTALLATION).stat().st_mode & 0o777 == 0o600
    assert (folder / INSTALLATION).read_text() == f"{tmp_path}/run\n"


def test_where_nothing_survives_nothing_is_made(tmp_path: Path, hold: Callable[..., HeldFolder]) -> None:
    given = settings(tmp_path, survive="nothing")
    hold(given).take(given, None)
    session_folder.check(given, None)
    assert os.listdir(tmp_path) == []


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    assert fault(settings(tmp_path), None) == ""
    assert os.listdir(tmp_path) == []


def test_a_check_changes_nothing(tmp_path: Path, made: Path) -> None:
    assert fault(settings(tmp_path), None) == ""
    assert os.listdir(made) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_an_empty_one_is_given_to_the_appservers_user(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, hold: Callable[..., HeldFolder]
) -> None:
    monkeypatch.setattr(session_folder, "_try_lock", lambda *_: None)  # that user cannot enter pytest's folder
    hold(settings(tmp_path)).release()
    hold(settings(tmp_path), NOBODY)
    for path in (made, made / INSTALLATION):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


# What is refused.


def test_a_link_is_refused_and_not_followed(tmp_path: Path, made: Path) -> None:
    made.rename(tmp_path / "elsewhere")
    made.symlink_to(tmp_path / "elsewhere")
    refused(settings(tmp_path), f"{made} is a link; name the folder that it leads to")
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o720, 0o702, 0o701])
def test_one_that_others_can_enter_or_write_to_is_refused(tmp_path: Path, made: Path, mode: int) -> None:
    made.chmod(mode)
    refused(settings(tmp_path), f"(mode {mode:04o}), and run code in the AppServers; look at what is in it, then")
    assert made.stat().st_mode & 0o777 == mode


def test_one_that_others_could_put_another_in_its_place_of_is_refused(tmp_path: Path, made: Path) -> None:
    made.parent.chmod(0o777)
    refused(settings(tmp_path), f"{made.parent}: others can write to it")


def test_one_with_files_of_another_user_is_refused(tmp_path: Path, made: Path) -> None:
    (made / "free").mkdir()
    refused(settings(tmp_path), f"AppServers run as {session_folder._user(65534)}; stop everything, then", NOBODY)
    assert made.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse", "9p", "ceph", "fuse.glusterfs"])
def test_one_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    kinds(monkeypatch, tmp_path, lambda line: re.sub(r" - \S+", f" - {kind}", line))
    refused(settings(tmp_path), f"is on a network file system ({kind}); it has to be on a disk of this machine")
    assert not (tmp_path / "var").exists()


def test_one_that_a_link_above_leads_to_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    """Its path does not tell: the mount of the open folder does."""
    monkeypatch.setattr(mounts, "of_path", lambda path: "ext4")
    kinds(monkeypatch, tmp_path, lambda line: re.sub(r" - \S+", " - nfs4", line))
    refused(settings(tmp_path), "is on a network file system (nfs4)")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuse.fuse-overlayfs", ""])
def test_a_file_system_of_this_machine_is_none(kind: str) -> None:
    assert not mounts.remote(kind)


def test_one_in_which_locks_do_not_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_folder, "_TRIAL", "print('Function not implemented')")
    with pytest.raises(SettingsError, match=r"a lock \(flock\) on .* does not work for .*: Function not impl"):
        prepare(settings(tmp_path), None)


def test_a_lock_that_keeps_nobody_out_is_found(tmp_path: Path, made: Path) -> None:
    (made / INSTALLATION).touch(0o600)
    with pytest.raises(SettingsError, match="it keeps no other process out"):
        session_folder._try_lock(made, None)  # nobody holds it


def test_the_trial_of_the_lock_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_folder, "_TRIAL", "import time; time.sleep(600)")
    monkeypatch.setattr(session_folder, "TRIAL_LIMIT", 0.2)
    with pytest.raises(SettingsError, match=r"no answer within 0\.2 s"):
        prepare(settings(tmp_path), None)


def test_one_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    with pytest.raises(SettingsError, match=re.escape("[sessions] folder: ")):
        prepare(settings(tmp_path), None)


def test_a_full_disk_is_no_fault_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(settings(tmp_path), None)


# Whose it is.


def test_one_that_another_installation_uses_is_refused(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    first = hold(settings(tmp_path, "first"))
    refused(
        settings(tmp_path, "second"), f"is in use by the monitor or AppServers of the run folder {tmp_path}/first"
    )
    assert (made / INSTALLATION).read_text() == f"{tmp_path}/first\n"
    first.release()
    assert fault(settings(tmp_path, "second"), None) == ""
    hold(settings(tmp_path, "second"))
    assert (made / INSTALLATION).read_text() == f"{tmp_path}/second\n"


def test_its_appservers_keep_another_installation_out_too(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    hold(settings(tmp_path, "first")).release()
    with open(made / INSTALLATION) as appserver:
        fcntl.flock(appserver, fcntl.LOCK_SH)
        refused(settings(tmp_path, "second"), "is in use by the monitor or AppServers of the run folder")


def test_the_next_monitor_of_an_installation_takes_it_from_appservers_that_live(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    hold(settings(tmp_path)).release()
    with open(made / INSTALLATION) as appserver:
        fcntl.flock(appserver, fcntl.LOCK_SH)
        hold(settings(tmp_path))
        (tmp_path / "link").symlink_to("run")
        (tmp_path / "run").mkdir()
        hold(settings(tmp_path, "link"))  # the same run folder by another name


def test_what_is_held_keeps_others_out_until_it_is_given_up(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    held = hold(settings(tmp_path))
    held.take(settings(tmp_path), None)
    held.take(settings(tmp_path, survive="nothing"), None)
    with open(made / INSTALLATION) as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.release()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_release_is_refused_in_one_sentence(tmp_path: Path, made: Path) -> None:
    made.chmod(0o777)
    with pytest.raises(SettingsError, match=r"^\[sessions\] folder: others than its owner can enter"):
        HeldFolder().take(settings(tmp_path), None)


@pytest.mark.parametrize("what", ["link", "hard link", "folder", "pipe"])
def test_another_thing_in_the_place_of_its_file_is_refused_and_left_alone(
    tmp_path: Path, made: Path, what: str
) -> None:
    place, other = made / INSTALLATION, tmp_path / "other"
    other.write_text("mine")
    {
        "link": lambda: place.symlink_to(other),
        "hard link": lambda: place.hardlink_to(other),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place, 0o600),
    }[what]()
    with pytest.raises(SettingsError, match=f"{re.escape(str(place))} is not the file that the monitor makes"):
        prepare(settings(tmp_path), None)
    assert other.read_text() == "mine"


def test_an_empty_one_after_a_crash_is_written_anew(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    (made / INSTALLATION).touch(0o600)
    hold(settings(tmp_path))
    assert (made / INSTALLATION).read_text() == f"{tmp_path}/run\n"


def test_what_an_installation_has_left_behind_is_found(
    tmp_path: Path, made: Path, hold: Callable[..., HeldFolder]
) -> None:
    given = settings(tmp_path, survive="nothing")
    assert not is_of(given)
    hold(settings(tmp_path))
    assert not is_of(given), "there is no session"
    (made / "free").mkdir()
    assert is_of(given)
    assert not is_of(settings(tmp_path, "other"))


# Mounts.

TOLD = """\
1 0 254:0 / / rw - ext4 /dev/vda rw
2 1 0:50 / /srv rw shared:7 - nfs4 web:/srv rw
3 1 0:51 / /srv/local\\040disk rw master:1 propagate_from:2 - xfs /dev/vdb rw
4 1 0:52 / /mnt rw - ext4 /dev/vdc rw
5 1 0:53 / /mnt rw - cifs //web/mnt rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/x", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/local disk/x", "xfs"),
        ("/mnt/x", "cifs"),
    ],
)
def test_a_path_is_of_the_mount_nearest_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    (tmp_path / "mountinfo").write_text(TOLD)
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    assert mounts.of_path(path) == kind


def test_without_mountinfo_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "none")
    assert mounts.of_path("/srv") == ""

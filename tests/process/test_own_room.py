"""What each AppServer has for itself: variables, folders, limits, another user. With and without a template."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import pytest
from monitor_fixture import PATIENCE, SLOTS, Site, processes, wait_for

import lbadaptor
import monitor
from tests.ports import held_ports

ORDINARY = "nobody"
NEEDED = ("click", "itsdangerous", "msgspec")
"""What monitor and AppServer are installed with."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that another user can look into, too, as none under pytest's is."""
    folder = Path(tempfile.mkdtemp(prefix="lbadaptor-room-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def everybodys_python() -> Iterator[str]:
    """A Python that another user can run, too: ours may be under root's home."""
    folder = Path(tempfile.mkdtemp(prefix="lbadaptor-python-"))
    folder.chmod(0o755)
    venv.create(folder, symlinks=True)
    place = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    for package in (lbadaptor, monitor):
        assert package.__file__
        shutil.copytree(Path(package.__file__).parent, place / package.__name__)
    for name in NEEDED:
        for file in files(name) or []:
            if ".." not in file.parts:
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), place / file)
    yield str(folder / "bin" / "python")
    shutil.rmtree(folder)


@pytest.fixture(params=[False, True], ids=["alone", "preload"])
def site(folder: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with held_ports(SLOTS) as base_port:
        site = Site(folder, base_port)
        site.settings("appservers", preload=request.param)
        try:
            yield site
        finally:
            site.clear()


def own_folder(site: Site, slot: int) -> Path:
    entry = site.entry(slot)
    assert entry is not None
    return site.folder / "own" / f"{slot}.{entry.identity.generation}"


def own_folders(site: Site) -> set[Path]:
    return set((site.folder / "own").iterdir())


@pytest.mark.parametrize("how", ["power cut", "stop --all"])
def test_folders_of_the_dead_are_removed(site: Site, how: str) -> None:
    site.settings("appservers", own_folder="own", environment={})
    site.up()
    (own_folder(site, 0) / "session").touch()
    other = site.folder / "own" / "something else"
    other.mkdir()
    before = own_folders(site)
    assert len(before) == 3
    assert site.monitor is not None
    site.monitor.kill()
    site.monitor.wait()
    if how == "power cut":
        for pid in processes(site.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not processes(site.mark), "all have ended")
    else:
        assert site.lbctl("stop", "--all")[0] == 0
        assert own_folders(site) == {other}
    shutil.rmtree(site.run_folder)
    site.start()
    site.wait_ok()
    site.wait(lambda: own_folders(site) & before == {other}, "those of the dead are gone")
    assert own_folders(site) == {own_folder(site, 0), own_folder(site, 1), other}
    site.end()


def test_each_has_its_own_variables_and_folders(site: Site) -> None:
    for slot in range(2):
        (site.folder / f"work-{slot}").mkdir()
    shutil.copy(site.app_folder / "shop.py", site.folder / "work-0")
    shutil.copy(site.app_folder / "shop.py", site.folder / "work-1")
    environment = {"EVERY": "same", "NAME": "slot {slot}", "STORE": "{folder}/store"}
    site.settings("appservers", environment=environment, working_folder="work-{slot}", own_folder="own")
    site.up()
    for slot in range(2):
        own = str(own_folder(site, slot))
        seen = site.get(slot, "/where").content
        assert seen["folder"] == str(site.folder / f"work-{slot}")
        named = {name: seen["environment"][name] for name in ("EVERY", "NAME", "STORE", "LBADAPTOR_FOLDER")}
        assert named == {"EVERY": "same", "NAME": f"slot {slot}", "STORE": f"{own}/store", "LBADAPTOR_FOLDER": own}
        assert seen["environment"]["PATH"] == os.environ["PATH"]
    site.end()


def test_variables_and_a_folder_that_all_have_are_there_when_the_application_is_imported(site: Site) -> None:
    (site.folder / "srv").mkdir()
    site.write_application("EARLY = os.environ.get('EVERY'), os.getcwd()")
    (site.app_folder / "shop.py").rename(site.folder / "srv" / "shop.py")
    site.settings("appservers", environment={"EVERY": "same"}, working_folder="srv")
    site.up()
    assert site.eval(0, "EARLY") == ["same", str(site.folder / "srv")]
    site.end()


def test_a_folder_of_its_own_lives_as_long_as_its_appserver(site: Site) -> None:
    site.settings("appservers", own_folder="own")
    site.up()
    assert own_folders(site) == {own_folder(site, 0), own_folder(site, 1)}
    old, entry = own_folder(site, 0), site.entry(0)
    assert entry is not None
    assert old.stat().st_mode & 0o777 == 0o700
    site.eval(0, f"[os.makedirs('{old}/a/b'), os.symlink('/etc', '{old}/c')]")
    os.kill(int(site.eval(0, "os.getpid()")), signal.SIGKILL)
    site.wait_reborn(entry)
    site.wait(lambda: not old.exists(), "the old folder is removed")
    assert own_folders(site) == {own_folder(site, 0), own_folder(site, 1)}
    assert Path("/etc/passwd").exists()
    site.end()
    assert own_folders(site) == set()
    assert not processes(site.mark)


def test_the_next_monitor_removes_what_has_no_owner(site: Site) -> None:
    site.settings("appservers", own_folder="own")
    site.up()
    left, kept, old = own_folder(site, 0), own_folder(site, 1), site.entry(0)
    assert old is not None
    victim = int(site.eval(0, "os.getpid()"))
    assert site.monitor is not None
    os.kill(site.pid, signal.SIGKILL)
    site.monitor.wait()
    os.kill(victim, signal.SIGKILL)
    site.start()
    site.wait(lambda: not left.exists(), "it is removed")
    site.wait_reborn(old)
    assert own_folders(site) == {own_folder(site, 0), kept}
    site.end()
    assert own_folders(site) == set()


def test_a_folder_that_cannot_be_made_is_named(site: Site) -> None:
    (site.folder / "own").write_text("in the way")
    site.settings("appservers", own_folder="own")
    site.settings("monitor", backoff_limit=0.2)
    site.start()
    site.wait_said(f"it gets no folder of its own: {site.folder}/own: ")
    (site.folder / "own").unlink()
    site.wait_ok()
    site.end()


def test_a_working_folder_that_is_missing_is_named(site: Site) -> None:
    site.settings("appservers", working_folder="nowhere-{slot}")
    site.start()
    for slot in range(2):
        site.wait_said(f"{site.folder}/nowhere-{slot}")
    assert "No such file or directory" in site.said
    site.end()


def test_limits_umask_and_nice(site: Site) -> None:
    site.settings("appservers", umask=0o027, nice=4, limits={"nofile": 128, "core": 0})
    site.up()
    for slot in range(2):
        assert site.eval(slot, "__import__('resource').getrlimit(7)") == [128, 128]
        assert site.eval(slot, "__import__('resource').getrlimit(4)") == [0, 0]
        assert site.eval(slot, "os.umask(0o027)") == 0o027
        tasks = "[os.getpriority(0, int(task)) for task in os.listdir('/proc/self/task')]"
        assert set(site.eval(slot, tasks)) == {os.getpriority(os.PRIO_PROCESS, 0) + 4}, "all of its threads"
    site.end()


def test_an_appserver_beyond_its_limit_is_replaced(site: Site) -> None:
    site.settings("appservers", servers=1, limits={"cpu": 2})
    site.up()
    entry = site.entry(0)
    assert entry is not None
    site.eval(0, "__import__('threading').Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()")
    site.wait_said("slot 0 (OK) was ended by SIG")
    site.wait_reborn(entry)
    site.end()


def test_another_user_for_the_application(site: Site, everybodys_python: str) -> None:
    """As root: it is run so, and cannot read the keys. As anybody else: refused in a sentence."""
    if os.geteuid() != 0:
        site.settings("appservers", user="root")
        assert "[appservers] user: only a monitor that runs as root" in site.refused()
        return
    site.python = everybodys_python
    who = pwd.getpwnam(ORDINARY)
    site.settings("appservers", user=ORDINARY, own_folder="own", limits={"nofile": 128}, nice=-1)
    site.settings("sessions", survive="leaving", folder="kept")
    site.up()
    for path in (site.folder / "kept", site.folder / "kept" / "installation"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (who.pw_uid, 0)
    for slot in range(2):
        ids = [who.pw_uid] * 3 + [who.pw_gid] * 3
        assert site.eval(slot, "[*os.getresuid(), *os.getresgid()]") == ids
        assert set(site.eval(slot, "os.getgroups()")) == set(os.getgrouplist(ORDINARY, who.pw_gid))
        assert site.eval(slot, "[os.environ[name] for name in ('HOME', 'USER', 'LOGNAME')]") == [
            who.pw_dir,
            ORDINARY,
            ORDINARY,
        ]
        assert site.eval(slot, "os.getpriority(0, 0)") == os.getpriority(os.PRIO_PROCESS, 0) - 1
        readable = [
            str(site.folder / "keys"),
            str(site.run_folder / "state.json"),
            str(site.run_folder / "address.text"),
        ]
        assert site.eval(slot, f"[os.access(path, os.R_OK) for path in {readable}]") == [False] * 3
        assert site.eval(slot, f"os.access({str(site.control)!r}, os.W_OK)") is False
        assert site.eval(slot, "os.mkdir(os.environ['LBADAPTOR_FOLDER'] + '/mine')") is None
        assert own_folder(site, slot).stat().st_uid == who.pw_uid
        assert site.knocks(slot)
        assert site.eval(slot, "os.access(os.environ['LBADAPTOR_FOLDER'] + '/..', os.W_OK)") is False
    entry = site.entry(0)
    assert entry is not None
    sleeper = site.get(0, "/child").content["pid"]
    os.kill(int(site.eval(0, "os.getpid()")), signal.SIGKILL)
    site.wait_reborn(entry)
    wait_for(lambda: sleeper not in processes(site.mark), "its group is ended")
    (site.folder / "keys").chmod(0o644)
    code, said = site.lbctl("restart", "--no-wait")
    assert (code, f"'{ORDINARY}' can read the key file" in said) == (1, True), said
    site.end()
    assert own_folders(site) == set()


def test_without_root_another_user_is_refused(folder: Path, everybodys_python: str) -> None:
    root = os.geteuid() == 0
    with held_ports(SLOTS) as base_port:
        site = Site(folder, base_port)
        site.python = everybodys_python
        site.settings("appservers", user="root")
        if root:
            os.chown(folder, pwd.getpwnam(ORDINARY).pw_uid, -1)
        run = subprocess.run(
            site.command(), user=ORDINARY if root else None, capture_output=True, text=True, timeout=PATIENCE
        )
    assert run.returncode == 2
    why = "[appservers] user: only a monitor that runs as root can run AppServers as another one"
    assert run.stderr == f"lbmonitor: {why}\n"

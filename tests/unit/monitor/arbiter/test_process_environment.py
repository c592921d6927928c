from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lbadaptor.appserver.http import listening
from lbadaptor.contract.address import Identity
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Application, AppServers, Files, Settings
from monitor.arbiter.processes import process_environment
from monitor.arbiter.processes.process_environment import (
    User,
    common,
    lock_own_folders,
    make_own_folder,
    make_room_for_socket,
    of_slot,
    old_own_folders,
    remove_sockets,
)

ORDINARY = User(1001, 1002, (1002, 1003), {"HOME": "/home/shop", "USER": "shop", "LOGNAME": "shop"})


def settings(folder: Path = Path("/etc/shop"), **appservers: Any) -> Settings:
    return Settings(Application("a:b", "sid"), Files(key_file="keys"), AppServers(**appservers), folder=str(folder))


# What each one has for itself.


def test_a_variable_names_the_slot() -> None:
    given = settings(environment={"A": "x/{slot}/{other}", "B": "same"})
    assert of_slot(given, 3, "") == ({"A": "x/3/{other}"}, "")
    assert of_slot(given, 4, "")[0] == {"A": "x/4/{other}"}
    assert common(given, None, {"B": "old", "C": "old"}).environment == {"B": "same", "C": "old"}


def test_a_variable_names_the_own_folder() -> None:
    given = settings(environment={"A": "{folder}/a"}, own_folder="own")
    assert of_slot(given, 0, "/own/0.1") == ({"A": "/own/0.1/a", "LBADAPTOR_FOLDER": "/own/0.1"}, "")


def test_the_working_folder_may_be_one_for_all_or_one_for_each() -> None:
    every = settings(working_folder="srv")
    assert (common(every, None, {}).folder, of_slot(every, 1, "")[1]) == ("/etc/shop/srv", "")
    each = settings(working_folder="/srv/{slot}")
    assert (common(each, None, {}).folder, of_slot(each, 1, "")[1]) == ("", "/srv/1")
    own = settings(working_folder="{folder}/w", own_folder="/own")
    assert (common(own, None, {}).folder, of_slot(own, 1, "/own/1.9")[1]) == ("", "/own/1.9/w")


def test_another_user_has_his_own_home() -> None:
    found = common(settings(environment={"USER": "x"}), ORDINARY, {"HOME": "/root", "PATH": "/bin"})
    assert found.environment == {"HOME": "/home/shop", "PATH": "/bin", "USER": "x", "LOGNAME": "shop"}
    assert found.user is ORDINARY


def test_by_default_everything_is_as_the_monitor_has_it() -> None:
    found = common(settings(), None, {"A": "1"})
    assert found.popen_arguments() == {"env": {"A": "1"}, "cwd": None, "umask": -1, "preexec_fn": None}
    assert of_slot(settings(), 0, "") == ({}, "")
    assert make_own_folder(settings(), Identity(0, 1), None) == ""


def test_an_own_folder_is_new_empty_and_its_owners_alone(tmp_path: Path) -> None:
    given = settings(tmp_path, own_folder="a/b")
    folder = Path(make_own_folder(given, Identity(2, 17), None))
    assert folder == tmp_path / "a" / "b" / "2.17"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.iterdir())
    with pytest.raises(FileExistsError):
        make_own_folder(given, Identity(2, 17), None)


# Whom they run as.


class Machine:
    """Users and groups, and the monitor's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        users = {
            "root": pwd.struct_passwd(("root", "x", 0, 0, "", "/root", "/bin/sh")),
            "shop": pwd.struct_passwd(("shop", "x", 1001, 1002, "", "/home/shop", "/bin/sh")),
        }
        groups = {"staff": grp.struct_group(("staff", "x", 50, []))}
        monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
        monkeypatch.setattr(
            pwd, "getpwuid", lambda number: next(user for user in users.values() if user[2] == number)
        )
        monkeypatch.setattr(grp, "getgrnam", groups.__getitem__)
        monkeypatch.setattr(os, "getgrouplist", lambda name, group: [group, 1003])

    def monitor_is(self, user: int, group: int) -> None:
        self.patch.setattr(os, "geteuid", lambda: user)
        self.patch.setattr(os, "getegid", lambda: group)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(monkeypatch)
    machine.monitor_is(0, 0)
    return machine


def test_root_may_become_anybody(machine: Machine, tmp_path: Path) -> None:
    found = process_environment.user(settings(tmp_path, user="shop"))
    assert found == User(1001, 1002, (1002, 1003), ORDINARY.variables)
    found = process_environment.user(settings(tmp_path, user="shop", group="staff"))
    assert found is not None
    assert (found.group, found.groups) == (50, (50, 1003))


def test_the_monitors_own_user_is_nothing_to_become(machine: Machine, tmp_path: Path) -> None:
    assert process_environment.user(settings(tmp_path)) is None
    assert process_environment.user(settings(tmp_path, user="root")) is None
    machine.monitor_is(1001, 1002)
    assert process_environment.user(settings(tmp_path, user="shop")) is None


@pytest.mark.parametrize(
    ("who", "appservers", "why"),
    [
        (1001, {"user": "root"}, "[appservers] user: only a monitor that runs as root"),
        (1001, {"group": "staff"}, "[appservers] group: only a monitor that runs as root"),
        (0, {"user": "nobody-here"}, "there is no user 'nobody-here'"),
        (0, {"group": "nobody-here"}, "there is no group 'nobody-here'"),
        (1001, {"nice": -1}, "[appservers] nice = -1: only a monitor that runs as root"),
        (1001, {"limits": {"nofile": 65}}, "nofile = 65 is beyond the monitor's own limit, 64"),
        (1001, {"limits": {"nofile": -1}}, "nofile = -1 is beyond the monitor's own limit, 64"),
    ],
)
def test_what_cannot_be_is_refused(
    machine: Machine, tmp_path: Path, who: int, appservers: dict[str, Any], why: str
) -> None:
    machine.monitor_is(who, who and 1002)
    machine.patch.setattr(resource, "getrlimit", lambda _: (32, 64))
    with pytest.raises(SettingsError, match=re.escape(why)):
        process_environment.user(settings(tmp_path, **appservers))


def test_an_ordinary_user_may_lower_limits(machine: Machine, tmp_path: Path) -> None:
    machine.monitor_is(1001, 1002)
    machine.patch.setattr(resource, "getrlimit", lambda _: (32, 64))
    assert process_environment.user(settings(tmp_path, limits={"nofile": 64}, nice=1)) is None


@pytest.mark.parametrize(
    ("owner", "group", "mode", "readable"),
    [
        (0, 0, 0o640, False),
        (0, 0, 0o644, True),
        (0, 1002, 0o640, True),
        (0, 1003, 0o640, True),
        (0, 1003, 0o600, False),
        (1001, 0, 0o400, True),
    ],
)
def test_the_application_must_not_read_the_keys(
    machine: Machine, tmp_path: Path, owner: int, group: int, mode: int, readable: bool
) -> None:
    found = os.stat_result((0o100000 | mode, 1, 1, 1, owner, group, 0, 0, 0, 0))
    machine.patch.setattr(Path, "stat", lambda _: found)
    if readable:
        with pytest.raises(SettingsError, match="'shop' can read the key file"):
            process_environment.user(settings(tmp_path, user="shop"))
    else:
        assert process_environment.user(settings(tmp_path, user="shop")) is not None


def test_settings_name_what_can_be_limited() -> None:
    from lbadaptor.contract.settings import Limit

    assert {process_environment._resource(name) for name in Limit.__args__} <= {
        value for name, value in vars(resource).items() if name.startswith("RLIMIT_")
    }
    assert msgspec.convert({"limits": {"nofile": 1}}, AppServers).limits == {"nofile": 1}


# Unix sockets.


def with_run_folder(folder: Path) -> Settings:
    return Settings(Application("a:b", "sid"), Files(run_folder="."), folder=str(folder))


def test_there_is_room_for_a_socket_that_apaches_group_can_use(tmp_path: Path) -> None:
    given, group = with_run_folder(tmp_path), some_group()
    for socket_of_before in ([], ["3"]):  # the second time the folder is there, and a former life's socket in it
        make_room_for_socket(given, 3, None, group)
        folder = given.socket_folder
        status = folder.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o2750, group)
        assert [file.name for file in folder.iterdir()] == socket_of_before
        listening.close([listening.bind_unix(given.unix_socket(3))])
        assert Path(given.unix_socket(3)).stat().st_gid == group
    remove_sockets(given)
    assert not list(tmp_path.iterdir())
    remove_sockets(given)


def some_group() -> int:
    return 12345 if os.geteuid() == 0 else max([os.getegid(), *os.getgroups()])


def test_it_belongs_to_the_user_of_the_appservers(tmp_path: Path) -> None:
    given, group = with_run_folder(tmp_path), some_group()
    who = ORDINARY if os.geteuid() == 0 else User(os.geteuid(), os.getegid(), (), {})  # who may give to no other
    make_room_for_socket(given, 0, who, group)
    status = given.socket_folder.stat()
    assert (status.st_uid, status.st_gid) == (who.user, group)


def test_without_a_socket_there_is_no_folder_for_it(tmp_path: Path) -> None:
    given = msgspec.structs.replace(with_run_folder(tmp_path), files=Files(run_folder="x" * 100))
    make_room_for_socket(given, 0, None, None)
    assert not list(tmp_path.iterdir())


# Whose the folder of own folders is.


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write to it"):
        make_own_folder(settings(tmp_path, own_folder="own"), Identity(0, 1), None)
    own.chmod(0o1777)  # sticky: what is made in it is not renamed, but others may be first
    with pytest.raises(PermissionError, match="others can write to it"):
        make_own_folder(settings(tmp_path, own_folder="own"), Identity(0, 1), None)
    assert make_own_folder(settings(tmp_path, own_folder="own/mine"), Identity(0, 1), None)
    own.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write to it"):
        make_own_folder(settings(tmp_path, own_folder="own/mine"), Identity(0, 2), None)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        make_own_folder(settings(tmp_path, own_folder="own"), Identity(0, 1), None)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    os.chown(tmp_path / "own", 65534, 65534)
    with pytest.raises(PermissionError, match="it belongs to user 65534"):
        make_own_folder(settings(tmp_path, own_folder="own"), Identity(0, 1), None)


def test_old_folders_are_those_of_the_dead(tmp_path: Path) -> None:
    given = settings(tmp_path, own_folder="own")
    assert old_own_folders(given, ()) == []
    dead, living = (make_own_folder(given, Identity(slot, 17), None) for slot in range(2))
    for other in ("0", "0.17.1", "x.1", ".1.2"):
        (tmp_path / "own" / other).mkdir()
    (tmp_path / "own" / "2.18").symlink_to("/etc")
    (tmp_path / "own" / "3.19").touch()
    assert old_own_folders(given, [Identity(1, 17)]) == [dead]
    assert sorted(old_own_folders(given, ())) == [dead, living]


def test_two_monitors_with_one_folder_leave_it_alone(tmp_path: Path) -> None:
    given = settings(tmp_path, own_folder="own")
    (first, alone), (second, too) = lock_own_folders(given), lock_own_folders(given)
    assert (alone, too) == (True, False)
    os.close(first)
    os.close(second)

"""What a process is started with: environment variables, folders, user, limits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbadaptor.contract.address import Identity
from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import AppServers, Limit, Settings
from lbadaptor.log import logs, texts
from monitor.arbiter.files import trust

log = logs.logger("lbmonitor")

FOLDER = "LBADAPTOR_FOLDER"
"""The environment variable that names an AppServer's own folder."""

_OWN_FOLDER = re.compile(r"\d{1,6}\.\d{1,16}", re.ASCII)
"""slot.generation"""


@dataclass(frozen=True)
class User:
    """The user that a process runs as, by number."""

    user: int
    group: int
    groups: tuple[int, ...]
    variables: Mapping[str, str]


@dataclass(frozen=True)
class ProcessEnvironment:
    """What one process is started with. By default, the same as the monitor."""

    environment: Mapping[str, str] | None = None
    folder: str = ""
    user: User | None = None
    umask: int = -1
    nice: int = 0
    limits: Mapping[Limit, int] = field(default_factory=dict)

    def popen_arguments(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen`."""
        apply = self._apply if self.user or self.nice or self.limits else None
        return {"env": self.environment, "cwd": self.folder or None, "umask": self.umask, "preexec_fn": apply}

    def _apply(self) -> None:
        """In the child, before its program: the limits first, since another user could not raise them.

        This is safe because the parent has only one thread (Python's docs on `preexec_fn`). The parent does not get
        the text of an error, so it is logged here.
        """
        try:
            for name, limit in self.limits.items():
                resource.setrlimit(_resource(name), (limit, limit))  # -1 is RLIM_INFINITY
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self.nice)
            if self.user:
                os.setgroups(self.user.groups)
                os.setresgid(*[self.user.group] * 3)
                os.setresuid(*[self.user.user] * 3)
        except (OSError, ValueError) as error:
            log.error("[appservers] limits, nice or user cannot be set: %s", error)
            raise


INHERITED = ProcessEnvironment()
"""The same as the monitor."""


def user(settings: Settings) -> User | None:
    """The user that AppServers run as; None: the monitor's. May ask a directory service.

    Raises SettingsError if there is no such user, if the monitor may not become it, if it could read the key file, or
    if limits are beyond what the monitor may set.
    """
    import grp
    import pwd

    servers = settings.appservers
    _refuse_what_needs_root(servers)
    if not servers.user and not servers.group:
        return None
    try:
        entry = pwd.getpwnam(servers.user) if servers.user else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise SettingsError(f"[appservers] user: there is no user {servers.user!r} on this machine") from None
    try:
        group = grp.getgrnam(servers.group).gr_gid if servers.group else entry.pw_gid
    except KeyError:
        raise SettingsError(f"[appservers] group: there is no group {servers.group!r} on this machine") from None
    if (entry.pw_uid, group) == (os.geteuid(), os.getegid()):
        return None
    if os.geteuid() != 0:
        key = "user" if entry.pw_uid != os.geteuid() else "group"
        raise SettingsError(f"[appservers] {key}: only a monitor that runs as root can run AppServers as another one")
    groups = tuple(os.getgrouplist(entry.pw_name, group))
    if entry.pw_uid != os.geteuid():
        _refuse_readable(settings.key_file, entry.pw_name, entry.pw_uid, groups)
    variables = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return User(entry.pw_uid, group, groups, variables)


def common(settings: Settings, as_user: User | None, environment: Mapping[str, str]) -> ProcessEnvironment:
    """What does not depend on the slot: that of a template."""
    servers = settings.appservers
    mine = {name: value for name, value in servers.environment.items() if not _of_a_slot(value)}
    folder = "" if _of_a_slot(servers.working_folder) else _path(settings, servers.working_folder)
    return ProcessEnvironment(
        {**environment, **(as_user.variables if as_user else {}), **mine},
        folder,
        as_user,
        servers.umask,
        servers.nice,
        servers.limits,
    )


def of_slot(settings: Settings, slot: int, own_folder: str) -> tuple[dict[str, str], str]:
    """What an AppServer has besides: variables, and its working folder (empty: that of a template)."""
    servers = settings.appservers

    def filled(text: str) -> str:
        return text.replace("{slot}", str(slot)).replace("{folder}", own_folder)

    mine = {name: filled(value) for name, value in servers.environment.items() if _of_a_slot(value)}
    if own_folder:
        mine[FOLDER] = own_folder
    folder = servers.working_folder
    return mine, _path(settings, filled(folder)) if _of_a_slot(folder) else ""


def make_own_folder(settings: Settings, identity: Identity, as_user: User | None) -> str:
    """Make an AppServer's own folder. Its path; empty if settings ask for none. Raises OSError."""
    if not settings.appservers.own_folder:
        return ""
    parent = Path(settings.folder, settings.appservers.own_folder)
    name = f"{identity.slot}.{identity.generation}"
    descriptor = _own_folders(parent)
    try:
        os.mkdir(name, mode=0o700, dir_fd=descriptor)
        if as_user is not None:
            os.chown(name, as_user.user, as_user.group, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)
    return str(parent / name)


def lock_own_folders(settings: Settings) -> tuple[int, bool]:
    """Lock the folder of own folders, as long as the descriptor that is returned is open (-1: there is no folder).

    The second value: whether no other monitor uses that folder. Raises OSError.
    """
    if not settings.appservers.own_folder:
        return -1, False
    descriptor = _own_folders(Path(settings.folder, settings.appservers.own_folder))
    alone = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, alone


def old_own_folders(settings: Settings, living: Collection[Identity]) -> list[str]:
    """The paths of own folders of AppServers that are not among the living: after a power cut, for example.

    Folders with other names are left alone. Raises OSError.
    """
    if not settings.appservers.own_folder:
        return []
    parent = Path(settings.folder, settings.appservers.own_folder)
    kept = {str(identity) for identity in living}
    if not parent.exists():
        return []
    descriptor = _own_folders(parent)
    try:
        with os.scandir(descriptor) as found:
            names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(descriptor)
    return [str(parent / name) for name in names if _OWN_FOLDER.fullmatch(name) and name not in kept]


def _own_folders(parent: Path) -> int:
    """Open the folder of own folders; it is made if it is missing.

    Raises PermissionError if another user could replace it or write into it. (In a folder that others may write to,
    such as /var/tmp, another user could have made it first.) Raises OSError for the rest.
    """
    parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        trust.refuse_untrusted(parent, os.fstat(descriptor), stat.S_IWGRP | stat.S_IWOTH, sticky=False)
        trust.refuse_untrusted_parents(parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def untrusted(parent: Path) -> str:
    """Why own folders would not be made in a folder, which need not exist yet; empty: they would."""
    try:
        if parent.exists():
            trust.refuse_untrusted(parent, os.lstat(parent), stat.S_IWGRP | stat.S_IWOTH, sticky=False)
        trust.refuse_untrusted_parents(parent)
    except OSError as error:
        return texts.of_os_error(error)
    return ""


def make_room_for_socket(settings: Settings, slot: int, as_user: User | None, apache_group: int | None) -> None:
    """Make the folder in which an AppServer makes its Unix socket; Apache's group may use it. Raises OSError.

    The socket of an earlier AppServer stays until then. By it a caller finds that no process listens; without it, the
    caller would try the port.
    """
    path = settings.unix_socket(slot)
    if not path:
        return
    folder = settings.socket_folder
    folder.mkdir(mode=0o750, exist_ok=True)
    os.chown(folder, as_user.user if as_user else -1, -1 if apache_group is None else apache_group)
    folder.chmod(0o2750)  # what is made in it gets its group


def remove_sockets(settings: Settings) -> None:
    """Remove all Unix sockets: no AppServer is left."""
    shutil.rmtree(settings.socket_folder, ignore_errors=True)


def removal(folder: str) -> list[str]:
    """The command that removes a folder, which may take long. It follows no symbolic link."""
    return [shutil.which("rm") or "/bin/rm", "-rf", "--", folder]


def _of_a_slot(text: str) -> bool:
    return "{slot}" in text or "{folder}" in text


def _path(settings: Settings, text: str) -> str:
    return str(Path(settings.folder, text)) if text else ""


def _resource(name: str) -> int:
    return int(getattr(resource, f"RLIMIT_{name.upper()}"))


def _refuse_what_needs_root(servers: AppServers) -> None:
    if os.geteuid() == 0:
        return
    if servers.nice < 0:
        raise SettingsError(f"[appservers] nice = {servers.nice}: only a monitor that runs as root can lower it")
    for name, limit in servers.limits.items():
        hard = resource.getrlimit(_resource(name))[1]
        if hard != resource.RLIM_INFINITY and not 0 <= limit <= hard:
            raise SettingsError(
                f"[appservers] limits: {name} = {limit} is beyond the monitor's own limit, {hard}, and it does not "
                "run as root"
            )


def _refuse_readable(path: Path, name: str, number: int, groups: tuple[int, ...]) -> None:
    """Raise SettingsError if a user could read the key file: the application could forge tickets."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        mode = found.st_mode
        if (
            mode & stat.S_IROTH
            or (found.st_uid == number and mode & stat.S_IRUSR)
            or (found.st_gid in groups and mode & stat.S_IRGRP)
        ):
            raise SettingsError(
                f"[appservers] user: {name!r} can read the key file {path}, and the application could forge tickets; "
                "it needs a user who is not in the group of that file"
            )

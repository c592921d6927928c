"""Files and folders of the settings, for the user that runs these checks, who should be the monitor's own.

Nothing is made or changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.contract.errors import KeyFileError, SettingsError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import read_keys, unreadable_for
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder as run_folders
from monitor.arbiter.files import session_folder as session_folders
from monitor.arbiter.processes import process_environment
from monitor.check.facts import Facts
from monitor.check.finding import Finding, of_text
from monitor.check.users import who_runs_this

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""
_MADE_BY_SYSTEMD = (Path("/run"), Path("/var/lib"))
"""RuntimeDirectory= and StateDirectory= of the units."""


def names(facts: Facts) -> Iterator[Finding]:
    """Users and groups that the settings name."""
    settings = facts.settings
    for look in (
        lambda: run_folders.group(settings.files.apache_group),
        lambda: run_folders.group(settings.files.status_group, "status_group"),
        lambda: process_environment.user(settings),
    ):
        try:
            look()
        except SettingsError as error:
            yield of_text(str(error), "correct the setting, or make that user or group")


def key_file(facts: Facts) -> Iterator[Finding]:
    path, group = facts.settings.key_file, _apache_group(facts.settings)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if (why := _cannot_be_made(path.parent)) and not _is_systemds(path.parent):
            yield Finding(
                f"[files] key_file: there is no {path}, and it cannot be made: {why}",
                "give the folder to the monitor's user, or name another key_file",
            )
        return
    except OSError as error:
        yield Finding(f"[files] key_file: {path}: {texts.what(error)}", "let the monitor's user read it")
        return
    try:
        read_keys(path)
    except KeyFileError as error:
        yield of_text(
            f"[files] key_file: {error}",
            "restore it; without a copy remove it: the monitor makes another, and all tickets become invalid",
        )
    if mode & stat.S_IROTH:
        yield Finding(
            f"[files] key_file: everybody can read {path}, and forge tickets",
            f"`chmod 0640 {path}`, and `{facts.lbctl} rotate-key` if others were on this machine",
        )
    if group is not None and (why := unreadable_for(path, group)):
        yield of_text(f"[files] {why}", "let Apache's group read it")


def run_folder(facts: Facts) -> Iterator[Finding]:
    folder, group = facts.settings.run_folder, _apache_group(facts.settings)
    if why := _cannot_be_made(folder):
        if not _is_systemds(folder) or folder.exists():
            yield Finding(
                f"[files] run_folder: {why}", "give the folder to the monitor's user, or name another run_folder"
            )
        return
    for above in reversed([folder, *folder.absolute().parents]):
        with contextlib.suppress(OSError):
            found = above.stat()
            by_group = found.st_gid == group and found.st_mode & stat.S_IXGRP
            if group is not None and not found.st_mode & stat.S_IXOTH and not by_group:
                yield Finding(f"[files] run_folder: Apache may not enter {above}", f"`chmod o+x {above}`")
                return


def control_socket(facts: Facts) -> Iterator[Finding]:
    path = facts.settings.control_socket
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        yield Finding(
            f"[files] run_folder: {path} is longer than the {MAX_SOCKET_PATH} bytes that a socket may have, so that "
            "no orders could be given",
            "choose a shorter one",
        )


def folders(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    spool = settings.adaptor.spool_folder
    if spool and not Path(spool).is_dir():
        yield Finding(f"[adaptor] spool_folder: {spool} is no folder", "make it, and let Apache's user write in it")
    own = settings.appservers.own_folder
    if own:
        parent = Path(settings.folder, own)
        if why := _cannot_be_made(parent) or process_environment.untrusted(parent):
            yield Finding(
                f"[appservers] own_folder: {why}", "name a folder that the monitor's user alone may write in"
            )


def logs(facts: Facts) -> Iterator[Finding]:
    """The files that lines of AppServers go to. An AppServer that runs as another user opens its own."""
    settings = facts.settings
    files = [("[log] file", settings.log_file)]
    if not settings.appservers.user and settings.access_log:
        files.append(("[appservers] access_log", Path(settings.access_log)))
    for name, path in files:
        if path is not None and (why := _cannot_be_written(path)):
            yield Finding(f"{name}: {why}", "make its folder for the monitor's user, or name another file")


def session_folder(facts: Facts) -> Iterator[Finding]:
    settings = facts.settings
    if not settings.sessions_survive:
        return
    try:
        as_user = process_environment.user(settings)
    except SettingsError:
        as_user = None  # `names` says so
    folder = settings.session_folder
    if why := session_folders.fault(settings, as_user):
        yield of_text(why, "name another folder")
    elif not folder.exists() and (why := _cannot_be_made(folder.parent)) and not _is_systemds(folder.parent):
        yield Finding(
            f"[sessions] folder: there is no {folder}, and it cannot be made: {why}",
            "make it for the AppServers' user alone, mode 0700",
        )


def sorry_page(facts: Facts) -> Iterator[Finding]:
    path = facts.settings.sorry_page
    if path is None:
        return
    try:
        path.read_text("utf-8")
    except OSError as error:
        yield Finding(
            f"[adaptor] sorry_page: {path}: {texts.what(error)}", "visitors get the built-in page meanwhile"
        )
    except UnicodeDecodeError as error:
        yield Finding(f"[adaptor] sorry_page: {path} is not UTF-8 text (byte {error.start})", "save it as UTF-8")


def notes(settings: Settings) -> list[str]:
    """What an administrator should know, though it is not wrong."""
    found = []
    places = [("[files] run_folder", settings.run_folder), ("[files] key_file", settings.key_file.parent)]
    if settings.sessions_survive:
        places.append(("[sessions] folder", settings.session_folder.parent))
    for name, folder in places:
        if _cannot_be_made(folder) and _is_systemds(folder):
            found.append(f"{name}: there is no {folder} yet, and {me()} cannot make it; systemd's unit does")
    return found


def me() -> str:
    """The user that runs this, in words."""
    return f"the user {who_runs_this().name}"


def _apache_group(settings: Settings) -> int | None:
    try:
        return run_folders.group(settings.files.apache_group)
    except SettingsError:
        return None  # `names` says so


def _cannot_be_made(folder: Path) -> str:
    """Why this user cannot write in a folder, which would be made if it is missing; empty: it can."""
    place = folder.absolute()
    while True:
        try:
            is_folder = stat.S_ISDIR(place.stat().st_mode)
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except OSError as error:
            return f"{place}: {texts.what(error)}"
    if not is_folder:
        return f"{place} is no folder"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{me()} may not write in {place}"
    return ""


def _cannot_be_written(path: Path) -> str:
    """Why this user cannot add to a file, which would be made in its folder if it is missing; empty: it can."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.is_dir():
        return f"{path} is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else f"{me()} may not write to {path}"
    return _cannot_be_made(path.parent)


def _is_systemds(folder: Path) -> bool:
    return folder.absolute().parent in _MADE_BY_SYSTEMD and not folder.exists()

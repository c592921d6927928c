"""What `lbmonitor --check` finds on this machine: what would keep a monitor from working.

It makes and changes nothing. It checks for the user that runs it, who should be the monitor's own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lbadaptor.contract.address import Address, parse
from lbadaptor.contract.errors import AddressFileError, KeyFileError, SettingsError
from lbadaptor.contract.settings import Settings
from lbadaptor.contract.ticket import read_keys, unreadable_for
from lbadaptor.log import texts
from monitor.arbiter.files import run_folder, session_folder
from monitor.arbiter.processes import process_environment
from monitor.arbiter.processes.process_environment import ProcessEnvironment, User

TIMEOUT = 20.0
"""Seconds within which the application's module has to be found. The packages above it are imported for that."""
MAX_OUTPUT = 65536
"""Bytes that are read of what these packages and the search print."""
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""
MAX_PORTS_NAMED = 5
"""Ports in use that are named."""
_MADE_BY_SYSTEMD = (Path("/run"), Path("/var/lib"))
"""RuntimeDirectory= and StateDirectory= of the units."""
_FIND_MODULE = """
import importlib.util, json, sys
found, error = False, ""
try:
    found = importlib.util.find_spec(sys.argv[1]) is not None
except ModuleNotFoundError as why:
    error = "" if why.name and sys.argv[1].startswith(why.name) else f"{type(why).__name__}: {why}"
except BaseException as why:
    error = f"{type(why).__name__}: {why}"
print("\\n" + json.dumps([found, error[:1000], sys.path]))
"""
"""Run in a process like an AppServer's. It imports the packages that the module is in, but not the module itself."""


def faults(settings: Settings) -> list[str]:
    """What is wrong, each with its cure; empty: nothing. Blocks for twice TIMEOUT at most."""
    group = None
    found = []
    try:
        group = run_folder.group(settings.files.apache_group)
    except SettingsError as error:
        found.append(str(error))
    try:
        run_folder.group(settings.files.status_group, "status_group")
    except SettingsError as error:
        found.append(str(error))
    as_user = None
    try:
        as_user = process_environment.user(settings)
    except SettingsError as error:
        found.append(str(error))
    return [
        *found,
        *_key_file(settings.key_file, group),
        *_run_folder(settings.run_folder, group),
        *_control_socket(settings.control_socket),
        *_folders(settings),
        *_session_folder(settings, as_user),
        *_sorry_page(settings.sorry_page),
        *_modules(settings, as_user),
        *_ports(settings),
    ]


def notes(settings: Settings) -> list[str]:
    """What an administrator should know, though it is not wrong."""
    found = []
    folders = [("[files] run_folder", settings.run_folder), ("[files] key_file", settings.key_file.parent)]
    if settings.sessions_survive:
        folders.append(("[sessions] folder", settings.session_folder.parent))
    for name, folder in folders:
        if _cannot_be_made(folder) and _is_systemds(folder):
            found.append(f"{name}: there is no {folder} yet, and {_me()} cannot make it; systemd's unit does")
    return found


def _key_file(path: Path, group: int | None) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if (why := _cannot_be_made(path.parent)) and not _is_systemds(path.parent):
            yield f"[files] key_file: there is no {path}, and it cannot be made: {why}"
        return
    except OSError as error:
        yield f"[files] key_file: {path}: {texts.what(error)}"
        return
    try:
        read_keys(path)
    except KeyFileError as error:
        yield f"[files] key_file: {error}"
    if mode & stat.S_IROTH:
        yield f"[files] key_file: everybody can read {path}, and forge tickets; `chmod 0640 {path}`"
    if group is not None and (why := unreadable_for(path, group)):
        yield f"[files] {why}"


def _run_folder(folder: Path, group: int | None) -> Iterator[str]:
    if why := _cannot_be_made(folder):
        if not _is_systemds(folder) or folder.exists():
            yield f"[files] run_folder: {why}"
        return
    for above in reversed([folder, *folder.absolute().parents]):
        with contextlib.suppress(OSError):
            found = above.stat()
            by_group = found.st_gid == group and found.st_mode & stat.S_IXGRP
            if group is not None and not found.st_mode & stat.S_IXOTH and not by_group:
                yield f"[files] run_folder: Apache may not enter {above}; `chmod o+x {above}`"
                return


def _control_socket(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        yield (
            f"[files] run_folder: {path} is longer than the {MAX_SOCKET_PATH} bytes that a socket may "
            "have, so that no orders could be given; choose a shorter one"
        )


def _folders(settings: Settings) -> Iterator[str]:
    spool = settings.adaptor.spool_folder
    if spool and not Path(spool).is_dir():
        yield f"[adaptor] spool_folder: {spool} is no folder; make it, and let Apache's user write in it"
    own = settings.appservers.own_folder
    if own:
        parent = Path(settings.folder, own)
        if why := _cannot_be_made(parent) or process_environment.untrusted(parent):
            yield f"[appservers] own_folder: {why}"


def _session_folder(settings: Settings, as_user: User | None) -> Iterator[str]:
    if not settings.sessions_survive:
        return
    folder = settings.session_folder
    if why := session_folder.fault(settings, as_user):
        yield why
    elif not folder.exists() and (why := _cannot_be_made(folder.parent)) and not _is_systemds(folder.parent):
        yield f"[sessions] folder: there is no {folder}, and it cannot be made: {why}"


def _sorry_page(path: Path | None) -> Iterator[str]:
    if path is None:
        return
    try:
        path.read_text("utf-8")
    except OSError as error:
        yield f"[adaptor] sorry_page: {path}: {texts.what(error)}"
    except UnicodeDecodeError as error:
        yield f"[adaptor] sorry_page: {path} is not UTF-8 text (byte {error.start})"


# The application.


def _modules(settings: Settings, as_user: User | None) -> Iterator[str]:
    application, sessions = settings.application, settings.sessions
    for name, value in (
        ("[application] app", application.app),
        ("[application] session_count", application.session_count),
        ("[sessions] save", sessions.save),
        ("[sessions] load", sessions.load),
    ):
        module, colon, _ = value.partition(":")
        if colon and (why := _not_found(settings, as_user, module)):
            yield f'{name} = "{value}": {why}'


def _not_found(settings: Settings, as_user: User | None, module: str) -> str:
    """Why an AppServer would not find a module; empty: it would. Starts a process, and waits for it."""
    mine, folder = process_environment.of_slot(settings, 0, "")
    common = process_environment.common(settings, as_user, os.environ)
    environment = ProcessEnvironment(
        {**(common.environment or {}), **mine}, folder or common.folder, as_user, common.umask, limits=common.limits
    )
    where = environment.folder or os.getcwd()
    with tempfile.TemporaryFile() as output:  # not a pipe: processes that the package starts would keep it open
        try:
            looking = subprocess.Popen(
                [sys.executable, "-B", "-c", _FIND_MODULE, module],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                **environment.popen_arguments(),
            )
        except OSError as error:
            what = f"this Python, {sys.executable}," if error.filename == sys.executable else f"the folder {where}"
            user = f"the user {pwd.getpwuid(as_user.user).pw_name}" if as_user else _me()
            return f"{what} cannot be used by {user}: {texts.what(error)}"
        except subprocess.SubprocessError as error:
            return f"its process cannot be started: {error}"
        try:
            looking.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"not found within {TIMEOUT:.0f} s: does a package above the module hang as it is imported?"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(looking.pid, signal.SIGKILL)  # whatever the package has started, too
            looking.wait()
        output.seek(-min(output.tell(), MAX_OUTPUT), os.SEEK_END)
        last = output.read().decode("utf-8", "replace").rpartition("\n[")[2]
    try:
        found, error_text, path = json.loads(f"[{last}")
    except ValueError:
        return "the process that looked for the module ended without an answer"
    if error_text:
        return f"a package above the module cannot be imported: {error_text}"
    if found:
        return ""
    places = ", ".join(place or where for place in path)
    return (
        f"there is no module {module!r} for {sys.executable}, in {places}; [appservers] working_folder names the "
        "folder that it is in"
    )


# Ports.


def _ports(settings: Settings) -> Iterator[str]:
    servers = settings.appservers
    family = socket.AF_INET6 if ":" in servers.host else socket.AF_INET
    ours = _ours(settings)
    taken = []
    for port in range(servers.base_port, servers.base_port + settings.slots):
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((servers.host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    if Address(servers.host, port) not in ours:
                        taken.append(str(port))
                    continue
                why = texts.what(error)
                yield f"[appservers] nobody can listen on {Address(servers.host, port)} (host, base_port): {why}"
                return
    if taken:
        named = ", ".join(taken[:MAX_PORTS_NAMED]) + (" …" if len(taken) > MAX_PORTS_NAMED else "")
        yield f"[appservers] base_port: ports {named} on {servers.host} are somebody else's; choose another base_port"


def _ours(settings: Settings) -> set[Address]:
    """Where AppServers of this application listen now."""
    try:
        return {entry.address for entry in parse(settings.address_file.read_text("utf-8")).entries}
    except (OSError, UnicodeDecodeError, AddressFileError):
        return set()


# Folders.


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
        return f"{_me()} may not write in {place}"
    return ""


def _is_systemds(folder: Path) -> bool:
    return folder.absolute().parent in _MADE_BY_SYSTEMD and not folder.exists()


def _me() -> str:
    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"the user {os.geteuid()}"

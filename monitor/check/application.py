"""Whether AppServers would find the application: looked for in a process like theirs."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import Settings
from lbadaptor.log import texts
from monitor.arbiter.processes import process_environment
from monitor.arbiter.processes.process_environment import ProcessEnvironment, User
from monitor.check.facts import Facts
from monitor.check.files import me
from monitor.check.finding import Finding

TIMEOUT = 20.0
"""Seconds within which the application's module has to be found. The packages above it are imported for that."""
MAX_OUTPUT = 65536
"""Bytes that are read of what these packages and the search print."""
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
_BY_HAND = "import it by hand, as the AppServers' user, to see why"


def application(facts: Facts) -> Iterator[Finding]:
    """Blocks for TIMEOUT a module at most."""
    settings = facts.settings
    app, sessions = settings.application, settings.sessions
    try:
        as_user = process_environment.user(settings)
    except SettingsError:
        as_user = None  # files.names says so
    for name, value in (
        ("[application] app", app.app),
        ("[application] session_count", app.session_count),
        ("[sessions] save", sessions.save),
        ("[sessions] load", sessions.load),
    ):
        module, colon, _ = value.partition(":")
        if colon and (found := _not_found(settings, as_user, module)):
            why, cure = found
            yield Finding(f'{name} = "{value}": {why}', cure)


def _not_found(settings: Settings, as_user: User | None, module: str) -> tuple[str, str] | None:
    """Why an AppServer would not find a module, and the cure; None: it would. Starts a process, and waits for it."""
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
            user = f"the user {pwd.getpwuid(as_user.user).pw_name}" if as_user else me()
            return f"{what} cannot be used by {user}: {texts.what(error)}", "let that user read and enter it"
        except subprocess.SubprocessError as error:
            return f"its process cannot be started: {error}", "look at [appservers] user, nice and limits"
        try:
            looking.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return (
                f"not found within {TIMEOUT:.0f} s: does a package above the module hang as it is imported?",
                _BY_HAND,
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(looking.pid, signal.SIGKILL)  # whatever the package has started, too
            looking.wait()
        output.seek(-min(output.tell(), MAX_OUTPUT), os.SEEK_END)
        last = output.read().decode("utf-8", "replace").rpartition("\n[")[2]
    try:
        found, error_text, path = json.loads(f"[{last}")
    except ValueError:
        return "the process that looked for the module ended without an answer", _BY_HAND
    if error_text:
        return f"a package above the module cannot be imported: {error_text}", _BY_HAND
    if found:
        return None
    places = ", ".join(place or where for place in path)
    return (
        f"there is no module {module!r} for {sys.executable}, in {places}",
        "[appservers] working_folder names the folder that it is in; or install it for that Python",
    )

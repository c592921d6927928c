"""Asks an installed httpd for its configuration, and reads .htaccess files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lbadaptor.contract.errors import LbadaptorError

PROGRAMS = ("apache2ctl", "apachectl", "httpd", "apache2")
"""Programs that print Apache's configuration; the first one that exists is used."""
_INFO = ("/usr/lib/apache2/modules/mod_info.so", "/usr/lib64/httpd/modules/mod_info.so", "modules/mod_info.so")
TIMEOUT = 30.0


class CannotRead(LbadaptorError):
    """Apache's configuration cannot be read."""


class NoAnswer(CannotRead):
    """Not within TIMEOUT."""


def dump(program: str) -> str:
    """Apache's configuration and modules as httpd prints them. Raises CannotRead. Blocks for TIMEOUT at most."""
    command = _command(program)
    why = ""
    for info in (*_INFO, ""):
        if info.startswith("/") and not Path(info).exists():
            continue
        load_info = ["-C", f"LoadModule info_module {info}"] if info else []
        done = _run(command, *load_info, "-t", "-D", "DUMP_CONFIG", "-D", "DUMP_MODULES")
        if done.returncode == 0 and "# In file:" in done.stdout:
            return done.stdout
        why = why or done.stderr.strip() or "it does not tell its configuration; mod_info is needed"
    raise CannotRead(f"Apache's configuration cannot be read: {command}: {why}")


def includes(program: str) -> list[str]:
    """The files of Apache's configuration, in the order in which it reads them. Raises and blocks as `dump` does."""
    command = _command(program)
    done = _run(command, "-t", "-D", "DUMP_INCLUDES")
    found = re.findall(r"^ *\([*\d]+\) (.+)$", done.stdout, re.MULTILINE)
    if not found:  # it tells them even where one of them has an error
        raise CannotRead(f"Apache's files cannot be read: {command}: {done.stderr.strip()}")
    return list(dict.fromkeys(found))


def _command(program: str) -> str:
    command = program or next((name for name in PROGRAMS if _which(name)), "")
    if not command:
        raise CannotRead(
            "no program tells Apache's configuration; name one with --apache, or look yourself whether authorisation "
            "stands in <Directory> or <Files>, and say --unchecked"
        )
    return command


def _run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        program, *options = shlex.split(command)
    except ValueError:
        raise CannotRead(f"{command}: this is no command") from None
    try:
        return subprocess.run(
            [_which(program) or program, *options, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # Apache's paths are bytes
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command}: no answer within {TIMEOUT:.0f} s") from None
    except OSError as error:
        raise CannotRead(f"{command}: {error}") from None


def htaccess(folder: Path, counts: Callable[[str, Sequence[str]], bool]) -> list[str]:
    """Lines in the .htaccess of a folder whose directive counts, by its name in lower case and its words."""
    file = folder / ".htaccess"
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, *words = line.split() or [""]
        if name and not name.startswith(("#", "<")) and counts(name.lower(), words):
            found.append(f"{file}, line {number}: {line.strip()}")
    return found


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")

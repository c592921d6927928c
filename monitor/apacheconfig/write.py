"""`lbctl apache-config`: write the fast lane's configuration, if it does not bypass Apache's authorisation."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import load
from monitor.apacheconfig import apache_check, fastlane
from monitor.contract.installed import SHARE

PROGRAMS = ("apache2ctl", "apachectl", "httpd", "apache2")
"""Programs that print Apache's configuration; the first one that exists is used."""
_INFO = ("/usr/lib/apache2/modules/mod_info.so", "/usr/lib64/httpd/modules/mod_info.so", "modules/mod_info.so")
_MOUNT = re.compile(r"(?:/[0-9A-Za-z._~!&'()*+,;=:@-]+)+").fullmatch
"""RFC 3986 §3.3, without signs that mean something else in Apache's configuration."""
_SCRIPTS = ("lbadaptor.wsgi", "lbadaptor.cgi")
TIMEOUT = 30.0
MAX_LINES = 12
"""Lines that differ that are shown."""
MAX_LINE = 300
"""Characters of each."""


class Refused(LbadaptorError):
    """The fast lane would let visitors in that Apache keeps out now, or that cannot be found out."""


def run(options: argparse.Namespace) -> int:
    """Print it, or check a file that was written before. The exit status. Blocks for half a minute at most.

    Raises LbadaptorError.
    """
    if options.check is None:
        print(_text(options), end="")
        return 0
    return _compare(options)


def _text(options: argparse.Namespace) -> str:
    settings = load(options.config)
    mount = options.mount.rstrip("/")
    if mount and not _MOUNT(mount):
        raise Refused(
            f"--mount {options.mount}: a path is needed, such as /shop, of letters, digits and -._~!&'()*+,;=:@"
        )
    slots = settings.slots if options.slots is None else options.slots
    if not 1 <= slots <= settings.slots:
        raise Refused(f"--slots {slots}: there are {settings.slots}")
    share = options.share or SHARE
    taken = [re.escape(path.rstrip("/")) + "(?:/|$)" for path in options.keep_out]
    if not options.unchecked:
        dump = _dump(options.apache)
        _refuse_authorisation(dump, share)
        taken += apache_check.other_paths(dump, mount)
    path = str(options.config.absolute())  # two files in two folders may have one name
    name = f"{re.sub(r'[^0-9A-Za-z]+', '-', options.config.stem)}-{zlib.crc32(path.encode()):08x}"
    return fastlane.snippet(settings, slots, mount, str(share), name, taken, _command_line(options))


def _command_line(options: argparse.Namespace) -> str:
    """The options that change the text, as on a command line."""
    words = [
        *(["--slots", str(options.slots)] if options.slots is not None else []),
        *(["--mount", options.mount] if options.mount else []),
        *(["--share", str(options.share)] if options.share else []),
        *(word for path in options.keep_out for word in ("--keep-out", path)),
        *(["--unchecked"] if options.unchecked else []),
    ]
    return shlex.join(words)


# Whether a file still fits.


def _compare(options: argparse.Namespace) -> int:
    """Say what differs between a file and what would be written now with its options. The exit status."""
    try:
        there = options.check.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{options.check}: {getattr(error, 'strerror', None) or error}") from None
    for line in there.splitlines():
        if line.startswith(fastlane.WRITTEN_BY):
            _read_options(options, line.removeprefix(fastlane.WRITTEN_BY))
            break
    else:
        raise Refused(f"{options.check} does not say by which options it was written; write it anew")
    now = _text(options)
    before, after = _directives(there), _directives(now)
    if before == after:
        print(f"{options.check}: good")
        return 0
    print(f"{options.check} is not what is to be written now (- there, + now):", file=sys.stderr)
    lines = [
        line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")
    ]
    for line in lines[:MAX_LINES]:
        print(f"  {line[:MAX_LINE]}{' …' if len(line) > MAX_LINE else ''}", file=sys.stderr)
    if len(lines) > MAX_LINES:
        print(f"  … lines not shown: {len(lines) - MAX_LINES}", file=sys.stderr)
    command = f"lbctl --config {shlex.quote(str(options.config))} apache-config {_command_line(options)}".rstrip()
    print(f"write it anew, `{command} > {shlex.quote(str(options.check))}`, and reload Apache", file=sys.stderr)
    return 1


def _read_options(options: argparse.Namespace, words: str) -> None:
    """Take options from the line that `_command_line` made. Raises Refused."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--mount", default="")
    parser.add_argument("--share", type=Path)
    parser.add_argument("--keep-out", action="append", default=[])
    parser.add_argument("--unchecked", action="store_true", default=options.unchecked)
    try:
        _, unknown = parser.parse_known_args(shlex.split(words), options)
    except (argparse.ArgumentError, ValueError) as error:
        raise Refused(f"{options.check}: its options are not to be read: {error}") from None
    if unknown:
        raise Refused(f"{options.check}: unknown options {shlex.join(unknown)}; write it anew")


def _directives(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


# Authorisation that the fast lane would bypass.


def _refuse_authorisation(dump: str, share: Path) -> None:
    """Refuse a configuration with authorisation that mod_proxy does not apply. Raises Refused."""
    found = {place: None for script in _SCRIPTS for place in apache_check.by_folder(dump, str(share), script)}
    lines = [f"  {place}" for place in found]
    for folder in apache_check.with_htaccess(dump, str(share), _SCRIPTS[0]):
        lines += _of_htaccess(Path(folder) / ".htaccess")
    if lines:
        raise Refused(
            "no fast lane: authorisation stands where Apache's own proxy does not look for it, in <Directory> or "
            "<Files>:\n" + "\n".join(lines) + "\nPut it into a <Location>, which holds in both lanes, and ask again."
        )
    if merging := apache_check.unmerged_slashes(dump):
        raise Refused(f"no fast lane: from it no path comes back to the adaptor as it was, with\n  {merging[0]}")
    for place in apache_check.error_documents(dump):
        print(
            f"lbctl: {place}\n  where this holds, visitors get that page when their AppServer is gone, instead of "
            "another AppServer",
            file=sys.stderr,
        )


def _of_htaccess(file: Path) -> list[str]:
    """Lines on the authorisation in a .htaccess."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, *words = line.split() or [""]
        if apache_check.authorises(name.lower(), words):
            found.append(f"  {file}, line {number}: {line.strip()}")
    return found


def _dump(program: str) -> str:
    """Apache's configuration as httpd prints it. Raises Refused."""
    command = program or next((name for name in PROGRAMS if _which(name)), "")
    if not command:
        raise Refused(
            "no program tells Apache's configuration; name one with --apache, or look yourself whether authorisation "
            "stands in <Directory> or <Files>, and say --unchecked"
        )
    words = command.split()
    words[0] = _which(words[0]) or words[0]
    why = ""
    for info in (*_INFO, ""):
        if info.startswith("/") and not Path(info).exists():
            continue
        load_info = ["-C", f"LoadModule info_module {info}"] if info else []
        try:
            done = subprocess.run(
                [*words, *load_info, "-t", "-D", "DUMP_CONFIG"], capture_output=True, text=True, timeout=TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused(f"{command}: {error}") from None
        if done.returncode == 0 and "# In file:" in done.stdout:
            return done.stdout
        why = why or done.stderr.strip() or "it does not tell its configuration; mod_info is needed"
    raise Refused(f"Apache's configuration cannot be read: {command}: {why}")


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")

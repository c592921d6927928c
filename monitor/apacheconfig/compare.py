"""`lbctl apache-config --check FILE`: whether a file still is what would be written."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from pathlib import Path

from monitor.apacheconfig import apache_check, lanes
from monitor.apacheconfig.compose import Composed, Refused, command_line, compose

MAX_LINES = 12
"""Lines that differ that are shown."""
MAX_LINE = 300
"""Characters of each."""


def compare(options: argparse.Namespace) -> tuple[bool, Composed]:
    """Say what differs between a file and what would be written now with its options. Whether nothing does.

    Raises LbadaptorError.
    """
    file: Path = options.check
    try:
        there = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    _refuse_anothers(options, there)
    command = next((line for line in there.splitlines() if line.startswith(lanes.WRITTEN_BY)), "")
    if not command:
        raise Refused(f"{file} does not say by which options it was written; write it anew")
    _read_options(options, command.removeprefix(lanes.WRITTEN_BY))
    now = compose(options, must_read=True)
    if now.dump and not _is_included(file, there, now.dump, options.mount.rstrip("/")):
        now.warnings.append(f"Apache's configuration has no Include of {file}: nothing in it holds")
    before, after = _directives(there), _directives(now.text)
    if before == after:
        print(f"{file}: good")
        return True, now
    anew = f"write it anew, `{command_line(options)} --write {shlex.quote(str(file.absolute()))}`"
    if not any(line.startswith(lanes.CONFIG) for line in before):
        _say(f"{file} was written by an earlier release, and has the fast lane alone. It works as before.")
        _say("Now one file has both lanes, and first visits take the fast lane, too.")
        _say(f"To have that, {anew}; remove the other Include, of lbadaptor.conf, and reload Apache.")
        _say("If that Include is of lbadaptor-daemon.conf or lbadaptor-cgi.conf, add --mode daemon or --mode cgi.")
        return False, now
    _say(f"{file} is not what is to be written now (- there, + now):")
    lines = [
        line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")
    ]
    for line in lines[:MAX_LINES]:
        _say(f"  {line[:MAX_LINE]}{' …' if len(line) > MAX_LINE else ''}")
    if len(lines) > MAX_LINES:
        _say(f"  … lines not shown: {len(lines) - MAX_LINES}")
    _say(f"{anew}, and reload Apache")
    return False, now


def _refuse_anothers(options: argparse.Namespace, there: str) -> None:
    """Raises Refused for the file of another application. Those of earlier releases do not tell whose they are."""
    for line in there.splitlines():
        if line.startswith(lanes.CONFIG):
            config = line.removeprefix(lanes.CONFIG).strip('"')
            if os.path.realpath(config) != os.path.realpath(options.config):
                raise Refused(
                    f"{options.check}: this file is of {config}; say lbctl --config {shlex.quote(config)} "
                    f"apache-config --check {shlex.quote(str(options.check))}"
                )


def _is_included(file: Path, text: str, dump: str, mount: str) -> bool:
    """Whether Apache has read a file. One without a fast lane has only directives of a snippet, none of its own."""
    if "RewriteRule" not in text and apache_check.has_adaptor(dump, mount):
        return True
    return os.path.realpath(file) in map(os.path.realpath, apache_check.files(dump))


def _read_options(options: argparse.Namespace, words: str) -> None:
    """Take options from the line that `command_line` made. Raises Refused."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("command", choices=("apache-config",))
    parser.add_argument("--config", dest="written_for")  # that of LBADAPTOR_CONFIG
    parser.add_argument("--mode", choices=lanes.SNIPPETS, default="embedded")
    parser.add_argument("--lanes", choices=("auto", "both", "python"), default="auto")
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


def _say(text: str) -> None:
    print(text, file=sys.stderr)

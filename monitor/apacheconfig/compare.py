"""`lbctl apache-config --check FILE`: whether a file still is what would be written."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from monitor.apacheconfig import apache_check, lanes
from monitor.apacheconfig.compose import Composed, Options, Refused, command_line, compose

MAX_LINES = 12
"""Lines that differ that are shown."""
MAX_LINE = 300
"""Characters of each."""


@dataclass(frozen=True)
class Examined:
    """A file, and what would be written now with its options."""

    before: list[str]
    """the directives of the file"""
    after: list[str]
    """those that would be written"""
    composed: Composed
    anew: str
    """the command that writes it"""

    @property
    def good(self) -> bool:
        return self.before == self.after

    def differences(self) -> list[str]:
        """Lines that differ: `-` is there, `+` would be written."""
        lines = difflib.unified_diff(self.before, self.after, n=0, lineterm="")
        return [line for line in lines if line[:2] not in ("--", "++", "@@")]


def examine(file: Path, options: Options) -> Examined:
    """Compare a file with what would be written now with its options, which `options` get.

    Blocks as `compose` does. Raises LbadaptorError.
    """
    try:
        there = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    _refuse_anothers(file, options.config, there)
    command = next((line for line in there.splitlines() if line.startswith(lanes.WRITTEN_BY)), "")
    if not command:
        raise Refused(f"{file} does not say by which options it was written; write it anew")
    _read_options(file, options, command.removeprefix(lanes.WRITTEN_BY))
    now = compose(options, must_read=True)
    before, after = _directives(there), _directives(now.text)
    if before != after and _directives(compose(options, must_read=True, hosts=()).text) == before:
        after = before  # written before Apache had its Include: it keeps out of the paths of all virtual hosts
    if now.dump and not _is_included(file, there, now.dump, options.mount.rstrip("/")):
        now.warnings.append(f"Apache's configuration has no Include of {file}: nothing in it holds")
    anew = f"{command_line(options)} --write {shlex.quote(str(file.absolute()))}"
    return Examined(before, after, now, anew)


def compare(file: Path, options: Options) -> tuple[bool, Composed]:
    """Say what differs between a file and what would be written now with its options. Whether nothing does.

    Raises LbadaptorError.
    """
    found = examine(file, options)
    if found.good:
        print(f"{file}: good")
        return True, found.composed
    anew = f"write it anew, `{found.anew}`"
    if not any(line.startswith(lanes.CONFIG) for line in found.before):
        _say(f"{file} was written by an earlier release, and has the fast lane alone. It works as before.")
        _say("Now one file has both lanes, and first visits take the fast lane, too.")
        _say(f"To have that, {anew}; remove the other Include, of lbadaptor.conf, and reload Apache.")
        _say("If that Include is of lbadaptor-daemon.conf or lbadaptor-cgi.conf, add --mode daemon or --mode cgi.")
        return False, found.composed
    _say(f"{file} is not what is to be written now (- there, + now):")
    lines = found.differences()
    for line in lines[:MAX_LINES]:
        _say(f"  {line[:MAX_LINE]}{' …' if len(line) > MAX_LINE else ''}")
    if len(lines) > MAX_LINES:
        _say(f"  … lines not shown: {len(lines) - MAX_LINES}")
    _say(f"{anew}, and reload Apache")
    return False, found.composed


def _refuse_anothers(file: Path, ours: Path, there: str) -> None:
    """Raises Refused for the file of another application. Those of earlier releases do not tell whose they are."""
    for line in there.splitlines():
        if line.startswith(lanes.CONFIG):
            config = line.removeprefix(lanes.CONFIG).strip('"')
            if os.path.realpath(config) != os.path.realpath(ours):
                raise Refused(
                    f"{file}: this file is of {config}; say lbctl --config {shlex.quote(config)} "
                    f"apache-config --check {shlex.quote(str(file))}"
                )


def _is_included(file: Path, text: str, dump: str, mount: str) -> bool:
    """Whether Apache has read a file. One without a fast lane has only directives of a snippet, none of its own."""
    if "RewriteRule" not in text and apache_check.has_adaptor(dump, mount):
        return True
    return os.path.realpath(file) in map(os.path.realpath, apache_check.files(dump))


def _read_options(file: Path, options: Options, words: str) -> None:
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
        raise Refused(f"{file}: its options are not to be read: {error}") from None
    if unknown:
        raise Refused(f"{file}: unknown options {shlex.join(unknown)}; write it anew")


def _directives(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def _say(text: str) -> None:
    print(text, file=sys.stderr)

"""Composes the file of `lbctl apache-config`: both lanes, or the Python lane alone, with the reason."""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lbadaptor.contract.errors import LbadaptorError, SettingsError
from lbadaptor.contract.settings import Settings, load
from monitor.apacheconfig import apache_check, ask_apache, fastlane, front, lanes
from monitor.contract.installed import SHARE

_MOUNT = re.compile(r"(?:/[0-9A-Za-z._~!&'()*+,;=:@-]+)+").fullmatch
"""RFC 3986 §3.3, without signs that mean something else in Apache's configuration."""
_SCRIPTS = ("lbadaptor.wsgi", "lbadaptor.cgi")
ON_PURPOSE = "--lanes python"
BOTH, PYTHON_ALONE = "both lanes", "the Python lane alone"


class Refused(LbadaptorError):
    """What was asked for cannot be written, or not be checked."""


class NoFastLane(LbadaptorError):
    """Something speaks against the fast lane."""


@dataclass
class Options:
    """Those of `lbctl apache-config` that say what is to be composed."""

    config: Path
    """lbadaptor.toml"""
    mode: str = "embedded"
    """one of `lanes.SNIPPETS`"""
    lanes: str = "auto"
    """`python`: without the fast lane; `both`: refuse where it cannot be"""
    slots: int | None = None
    """in the fast lane; None: all that there may be"""
    mount: str = ""
    """empty: the whole site"""
    apache: str = ""
    """the command that shows Apache's configuration; empty: the usual ones"""
    share: Path | None = None
    """the folder of the snippets, as Apache sees it; None: where they are installed"""
    keep_out: list[str] = field(default_factory=list)
    """paths that are not to take the fast lane"""
    unchecked: bool = False
    """Apache's configuration is not looked at"""


@dataclass
class Composed:
    text: str
    lanes: str
    """which ones it has"""
    why_not: str = ""
    """why there is no fast lane; empty if there is one, or none was asked for"""
    warnings: list[str] = field(default_factory=list)
    dump: str = ""
    """Apache's configuration, if it was read"""


def compose(
    options: Options,
    must_read: bool = False,
    settings: Settings | None = None,
    hosts: Collection[int] | None = None,
) -> Composed:
    """The file for these options. `must_read`: Apache's configuration has to be readable. `settings`: those of a
    lbadaptor.toml that is not written yet. `hosts`: the virtual hosts whose paths are kept out; empty: all; None:
    those that the application is in, and all before it is in any.

    Blocks for half a minute at most. Raises LbadaptorError: for options and settings that no lane can use; with
    `--lanes both`, for what speaks against the fast lane, too.
    """
    settings = settings or load(options.config)
    mount = options.mount.rstrip("/")
    if mount and not _MOUNT(mount):
        raise Refused(
            f"--mount {options.mount}: a path is needed, such as /shop, of letters, digits and -._~!&'()*+,;=:@"
        )
    slots = settings.slots if options.slots is None else options.slots
    if not 1 <= slots <= settings.slots:
        raise Refused(f"--slots {slots}: there are {settings.slots}")
    share = options.share or SHARE
    config = options.config.absolute()
    for path in (share, config):
        if re.search(r'["\\]', str(path)):  # the snippets have it within quotes
            raise Refused(f"{path} cannot stand in Apache's configuration: it has a quote or a backslash")
    python = lanes.PythonLane.of(settings, lanes.SNIPPETS[options.mode], share, config, mount)
    command = command_line(options)
    dump, cannot_read = _dump(options)
    if dump and (missing := front.missing_modules(settings, dump)):
        raise Refused(f"[machine] front needs modules that Apache has not loaded: a2enmod {' '.join(missing)}")
    twice = _included_twice(dump, mount)
    if options.lanes == "python":
        return Composed(lanes.python_alone(python, ON_PURPOSE, command), PYTHON_ALONE, warnings=twice, dump=dump)
    taken = [re.escape(path) + "(?:/|$)" for path in _kept_out(options.keep_out, mount)]
    try:
        if cannot_read:
            raise cannot_read
        if dump:
            _refuse(dump, share)
            there = apache_check.hosts_of(dump, str(config)) if hosts is None else hosts
            taken += apache_check.other_paths(dump, mount, there)
        fast_lane = fastlane.snippet(settings, slots, mount, str(share), lane_name(config), taken)
    except (NoFastLane, ask_apache.CannotRead, SettingsError) as error:
        if options.lanes == "both" or (must_read and isinstance(error, ask_apache.CannotRead)):
            raise Refused(f"no fast lane: {error}") from None
        return Composed(lanes.python_alone(python, str(error), command), PYTHON_ALONE, str(error), twice, dump)
    lost = _by_folder(dump, mount, share, _SCRIPTS[options.mode == "cgi"])
    return Composed(
        lanes.both(python, fast_lane, command), BOTH, warnings=[*_warnings(dump, mount), *lost, *twice], dump=dump
    )


def lane_name(config: Path) -> str:
    """What tells the maps of several applications apart: two files in two folders may have one name."""
    return f"{re.sub(r'[^0-9A-Za-z]+', '-', config.stem)}-{zlib.crc32(str(config.absolute()).encode()):08x}"


def _kept_out(paths: Sequence[str], mount: str) -> list[str]:
    """Paths without a slash at their end. Raises Refused for one that would keep nothing out."""
    for path in paths:
        if not (path.isprintable() and path.rstrip("/").startswith(f"{mount}/")):
            raise Refused(f"--keep-out {path}: a path below {mount or '/'} is needed, such as {mount}/static")
    return [path.rstrip("/") for path in paths]


def command_line(options: Options) -> str:
    """The command with the options that change the text."""
    words = [
        *("lbctl", "--config", str(options.config.absolute()), "apache-config"),
        *(["--mode", options.mode] if options.mode != "embedded" else []),
        *(["--lanes", options.lanes] if options.lanes != "auto" else []),
        *(["--slots", str(options.slots)] if options.slots is not None else []),
        *(["--mount", options.mount] if options.mount else []),
        *(["--share", str(options.share)] if options.share else []),
        *(word for path in options.keep_out for word in ("--keep-out", path)),
        *(["--unchecked"] if options.unchecked else []),
    ]
    return shlex.join(words)


def _dump(options: Options) -> tuple[str, ask_apache.CannotRead | None]:
    """Apache's configuration, or why it cannot be read. Empty if nobody is to look at it."""
    try:
        return "" if options.unchecked else ask_apache.dump(options.apache), None
    except ask_apache.CannotRead as error:
        return "", error


def _refuse(dump: str, share: Path) -> None:
    """Refuse a configuration that the fast lane does not work with. Raises NoFastLane."""
    if missing := apache_check.missing_modules(dump):
        names = ", ".join(f"mod_{name}" for name in missing)
        raise NoFastLane(f"Apache has not loaded {names}: a2enmod {' '.join(missing)}")
    found = {str(place): None for script in _SCRIPTS for place in apache_check.by_folder(dump, str(share), script)}
    lines = list(found)
    for folder in apache_check.with_htaccess(dump, str(share), _SCRIPTS[0]):
        lines += ask_apache.htaccess(Path(folder), apache_check.authorises)
    if lines:
        raise NoFastLane(
            "authorisation stands where Apache's own proxy does not look for it, in <Directory> or <Files>:\n  "
            + "\n  ".join(lines)
            + "\nPut it into a <Location>, which holds in both lanes, and write this file anew."
        )
    if merging := apache_check.unmerged_slashes(dump):
        raise NoFastLane(f"from it no path comes back to the adaptor as it was, with\n  {merging[0]}")


def _warnings(dump: str, mount: str) -> list[str]:
    """What works otherwise in the fast lane than its author may think."""
    return [
        *(
            f"{place}\n  where this holds, visitors get that page when their AppServer is gone, instead of another "
            "AppServer"
            for place in apache_check.error_documents(dump)
        ),
        *(
            f"{place}\n  requests in the fast lane do not meet it: put it before the Include of lbadaptor's file"
            for place in apache_check.later_rules(dump, mount)
        ),
        *(
            f"{place}\n  this takes only requests of the Python lane from the application; a rewrite rule before the "
            "Include of lbadaptor's file takes all"
            for place in apache_check.whole_mount_taken(dump, mount)
        ),
    ]


def _included_twice(dump: str, mount: str) -> list[str]:
    """This concerns both lanes."""
    return [
        f"{place}\n  a virtual host includes lbadaptor twice: remove the Include of the earlier file or snippet"
        for place in apache_check.included_twice(dump, mount)
    ]


def _by_folder(dump: str, mount: str, share: Path, script: str) -> list[str]:
    """Directives in a <Directory>, <Files> or .htaccess that the fast lane does not meet."""
    found = list(map(str, apache_check.only_by_folder(dump, mount, str(share), script)))
    for folder in apache_check.with_htaccess(dump, str(share), script):
        found += ask_apache.htaccess(Path(folder), apache_check.changes)
    return [
        f"{place}\n  this holds in the Python lane only: put it into a <Location>, which holds in both"
        for place in found
    ]

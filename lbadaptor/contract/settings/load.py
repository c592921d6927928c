"""Reads and checks lbadaptor.toml. Errors name the line, section and key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings.schema import SECTIONS, Settings
from lbadaptor.contract.settings.sections import row
from lbadaptor.contract.settings.sections.application import COUNTED
from lbadaptor.contract.settings.sections.machine import Machine
from lbadaptor.contract.settings.sections.sessions import LEAST_SHARE
from lbadaptor.log import texts

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

_LONGEST = 366 * 86400.0
"""Seconds. A longer time was meant to be endless, and no timer takes it."""


def load(path: Path) -> Settings:
    """Read lbadaptor.toml. Raises SettingsError, which names file, line and key."""
    try:
        (str(path.absolute()) + os.path.realpath(path)).encode()
    except UnicodeEncodeError:  # settings.json and the control socket hold it, as UTF-8 text
        raise SettingsError(f"{texts.clean(str(path))}: its whole path has to be UTF-8 text") from None
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: {texts.what(error)}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    try:
        return parse(text, str(path.absolute().parent))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def parse(text: str, folder: str = "") -> Settings:
    """Check the text of a lbadaptor.toml. Raises SettingsError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from None
    _refuse_unknown(tree, text)
    _refuse_nul(tree, text)
    try:
        settings = msgspec.convert({**tree, "folder": folder}, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), text)) from None
    _refuse_contradictions(settings)
    _refuse_both_or_neither(settings, text)
    _refuse_session_contradictions(settings, text)
    _refuse_machine_contradictions(settings, text)
    return settings


def given_in(path: Path) -> set[tuple[str, str]]:
    """The sections and keys of the settings that a good lbadaptor.toml names. Raises SettingsError."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # it was changed meanwhile
        raise SettingsError(f"{path}: {error}") from None
    return {(section, key) for section, rows in tree.items() for key in rows}


def _refuse_unknown(tree: dict[str, Any], text: str) -> None:
    for section, rows in tree.items():
        if section not in SECTIONS:
            known: list[str] = list(SECTIONS)
            what = f"unknown section [{section}]" if isinstance(rows, dict) else f"unknown setting {section!r}"
            if not isinstance(rows, dict):
                known = [f"[{name}] {key}" for name in SECTIONS for key in _names(name) if key == section] or known
            raise SettingsError(f"{_line(text, section)}{what}{_nearest(section, known)}")
        if isinstance(rows, dict):
            for key in rows:
                if key not in _names(section):
                    others = [f"[{name}] {key}" for name in SECTIONS if key in _names(name)]
                    hint = f"; it belongs to {others[0]}" if others else _nearest(key, _names(section))
                    raise SettingsError(f"{_line(text, key, section)}unknown setting [{section}] {key}{hint}")


def _refuse_nul(tree: dict[str, Any], text: str) -> None:
    """No path, user, host or variable may have a NUL character: the system takes none (path_resolution(7))."""
    for section, rows in tree.items():
        for key, value in rows.items() if isinstance(rows, dict) else ():
            if any("\0" in one for one in _texts(value)):
                raise SettingsError(
                    f"{_line(text, key, section)}[{section}] {key}: expected text without a NUL character"
                )


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, those in an array or a table included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _refuse_contradictions(settings: Settings) -> None:
    servers, adaptor = settings.appservers, settings.adaptor
    count = settings.application.session_count
    if count and ":" not in count and count not in COUNTED:
        raise SettingsError(
            f'[application] session_count = "{count}" is no framework{_nearest(count, list(COUNTED))}'
        )
    with_standby = f" and standby = {servers.standby}" if servers.standby else ""
    if settings.slots <= servers.servers + servers.standby:
        raise SettingsError(
            f"[appservers] slots = {servers.slots} leaves no slot for a replacement: more than servers = "
            f"{servers.servers}{with_standby} are needed"
        )
    if servers.base_port + settings.slots - 1 > 65535:
        raise SettingsError(
            f"[appservers] base_port = {servers.base_port} and slots = {settings.slots} go beyond port 65535"
        )
    if len(servers.weights) > settings.slots:
        raise SettingsError(f"[appservers] weights: {len(servers.weights)}; slots: {settings.slots}")
    if 0 < servers.hard_memory <= servers.max_memory:
        raise SettingsError(
            f"[appservers] hard_memory = {servers.hard_memory} is not more than max_memory = {servers.max_memory}: "
            "nothing would be replaced before it is ended"
        )
    if not servers.own_folder and any("{folder}" in text for text in servers.by_slot):
        raise SettingsError("[appservers] {folder} is used, but own_folder is not set")
    if adaptor.body_spool and adaptor.body_spool < adaptor.body_memory:
        raise SettingsError(
            f"[adaptor] body_spool = {adaptor.body_spool} is less than body_memory = {adaptor.body_memory}"
        )
    if adaptor.answer_timeout <= settings.time_to_end_hung:
        raise SettingsError(
            f"[adaptor] answer_timeout = {adaptor.answer_timeout:g} s is not longer than it takes to find and end "
            f"a hung AppServer: {settings.time_to_end_hung:g} s, from [monitor] fall × (probe_interval + "
            "probe_timeout) + failing_limit"
        )
    for section in SECTIONS:
        for key in _names(section):
            value = getattr(getattr(settings, section), key)
            if isinstance(value, float) and value > _LONGEST:
                raise SettingsError(f"[{section}] {key} = {value:g} s is longer than a year")
    if settings.application.ticket_cookie == settings.application.session_cookie:
        raise SettingsError("[application] ticket_cookie and session_cookie have the same name")


def _refuse_both_or_neither(settings: Settings, text: str) -> None:
    """Stickiness by session, or by affinity."""
    application = settings.application
    if not application.affinity:
        if not application.session_cookie:
            raise SettingsError(
                f"{_line(text, 'application')}the setting [application] session_cookie is missing; an application "
                "without sessions has affinity = true instead"
            )
        return
    place = _line(text, "affinity", "application")
    for key in ("session_cookie", "session_count"):
        if getattr(application, key):
            raise SettingsError(
                f"{place}[application] affinity = true is for an application without sessions of its own, and goes "
                f"without {key}"
            )
    if not settings.monitor.drain_limit:
        raise SettingsError(
            f"{place}[application] affinity = true needs a [monitor] drain_limit: a visitor who comes again and "
            "again would keep a DYING AppServer for ever, and nothing tells when they need it no more"
        )


def _refuse_session_contradictions(settings: Settings, text: str) -> None:
    sessions = settings.sessions

    def wrong(key: str, why: str) -> SettingsError:
        return SettingsError(f"{_line(text, key, 'sessions')}[sessions] {why}")

    if settings.sessions_survive and settings.application.affinity:
        raise wrong(
            "survive",
            f'survive = "{sessions.survive}" is for sessions, and with [application] affinity = true the application '
            "has none",
        )
    for key, other in (("save", "load"), ("load", "save")):
        if not getattr(sessions, key):
            continue
        if not getattr(sessions, other):
            raise wrong(key, f"{key} goes with {other}, which is missing")
        if not settings.sessions_survive:
            raise wrong(key, f'{key} has no use with survive = "nothing"; set survive, or leave {key} out')
    share = sessions.max_bytes // settings.slots
    if settings.sessions_survive and share < LEAST_SHARE:
        raise wrong(
            "max_bytes",
            f"max_bytes = {sessions.max_bytes} is {share} for each of the {settings.slots} slots; at least "
            f"{LEAST_SHARE} are needed for each",
        )
    if not sessions.folder:
        raise wrong("folder", "folder is empty")
    for name, path in (
        ("[files] run_folder", settings.run_folder),
        ("[appservers] own_folder", Path(settings.folder, settings.appservers.own_folder)),
    ):
        if settings.sessions_survive and os.path.normpath(path) == os.path.normpath(settings.session_folder):
            raise wrong("folder", f"folder and {name} are the same folder; each needs its own")


def _refuse_machine_contradictions(settings: Settings, text: str) -> None:
    if settings.machine == Machine():
        return
    from lbadaptor.contract.settings.machines import contradictions  # it costs memory in every Apache process

    for key, why in contradictions(settings):
        raise SettingsError(f"{_line(text, key, 'machine')}[machine] {why}")


def _names(section: str) -> list[str]:
    return list(SECTIONS[section].__struct_fields__)


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # needed only for a typing error, and it costs memory in every Apache process

    near = known if len(known) == 1 else difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _line(text: str, key: str, section: str = "") -> str:
    """`line N: ` of a key or section, as far as a look at the text can tell."""
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]\s]+)\s*\]", line):
            inside = header[1]
            if inside in (key, f"{section}.{key}") and bool(section) == ("." in inside):
                return f"line {number}: "
        elif inside == section and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return f"line {number}: "
    return ""


def _explain(message: str, text: str) -> str:
    """msgspec's message with our words for the place."""
    what, at, place = message.replace("`key` in ", "").partition(" - at `$.")
    if not at:
        what = re.sub(r"missing required field `(\w+)`", r"the section [\1] is missing", what)
        return what.removeprefix("Object ")
    section, _, key = place.rstrip("`").partition(".")
    key = re.sub(r"\[.*", "", key)
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"{_line(text, section)}the setting [{section}] {missing[1]} is missing"
    return f"{_line(text, key, section)}[{section}] {key}: {_in_words(what, section, key)}"


EXPECTED = {
    row.IMPORT: 'expected `module:callable`, such as "shop:application"; for /srv/shop.py it is the module shop, '
    "and [appservers] working_folder names the folder",
    row.IMPORT_OR_FRAMEWORK: 'expected `module:function`, such as "shop:count", or the name of a framework: '
    + ", ".join(COUNTED),
    row.IMPORT_OR_NONE: 'expected `module:function`, such as "shop.sessions:save"',
    row.COOKIE: "expected the name of a cookie: letters, digits and !#$%&'*+.^_`|~-, without blanks",
    row.HOST: 'expected an address or a name, such as "127.0.0.1" or "::1", without blanks and brackets',
    row.VARIABLE: 'expected the name of a variable, in capitals, such as "SSL_CLIENT_VERIFY" or "SSL_*"',
    row.ENVIRONMENT: "expected the name of a variable: letters, digits and _, no digit first",
    row.PATH: 'expected a path that begins with /, such as "/products?page=1", of ASCII without blanks',
}
"""What to say instead of a pattern."""
EXPECTED[row.COOKIE_OR_NONE] = EXPECTED[row.COOKIE]


def _in_words(what: str, section: str, key: str) -> str:
    """A complaint of msgspec's about a value, without its regular expressions."""
    if "matching regex" in what:
        return next((words for pattern, words in EXPECTED.items() if what.endswith(f"regex {pattern!r}")), what)
    if unknown := re.match(r"Invalid enum value (.*)", what):
        hint = get_type_hints(SECTIONS[section], include_extras=True)[key]
        kind = get_args(hint)[0]
        known = get_args(kind) if get_origin(kind) is Literal else get_args(get_args(kind)[0])
        return f"invalid enum value {unknown[1]}; known are {', '.join(map(str, known))}"
    return f"{what[0].lower()}{what[1:]}"

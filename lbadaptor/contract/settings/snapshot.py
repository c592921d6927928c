"""settings.json: the settings that the monitor has accepted, for the adaptors.

People edit lbadaptor.toml at any moment, and make typing errors. If each program read it when it happens to start, a
change would take effect at different moments in different programs. So the monitor alone decides: it writes what it
goes by into the run folder, before address.text, when it starts and at each release. Only what adaptors use is in it:
of [appservers] the threads alone, for its environment may hold passwords; and no key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings.load import load
from lbadaptor.contract.settings.schema import SECTIONS, Settings
from lbadaptor.contract.settings.sections.files import Files
from lbadaptor.contract.settings.sections.row import COOKIE

NAME = "settings.json"
"""In the run folder."""
VERSION = 1
MAX_BYTES = 1 << 20
"""A larger file is not ours (1 to 2 KB)."""
MOST_COOKIES = 16
"""Names of ticket cookies."""
_SHARED = ("application", "files", "adaptor", "machine")
"""The sections that adaptors use whole."""
_THREADS = "threads"
"""What they use of [appservers]: until an AppServer has reported its load, it is measured by this."""
_TEXT_BYTES = 1 << 20
"""How much of a broken lbadaptor.toml is searched for its run folder."""
_RUN_FOLDER = re.compile(r"""^[^#\n]*?\brun_folder["']?\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)')""", re.MULTILINE)
_MOST_FOLDERS = 8


class Snapshot(Struct, frozen=True):
    """What adaptors go by."""

    settings: Settings
    """as the monitor accepted them; the sections that adaptors do not use have their defaults"""
    ticket_cookies: tuple[str, ...]
    """the names under which living AppServers hand out tickets: first the one that new AppServers use"""
    config: tuple[str, ...] = ()
    """the path of lbadaptor.toml as the monitor was told, absolute, and with symbolic links followed"""
    leaving: bool = False
    """this machine, one of several, is to get no new visitors any more"""

    def is_of(self, config: Path) -> bool:
        """Whether it was made from this lbadaptor.toml."""
        return not {*paths(config)}.isdisjoint(self.config)


class _Written(Struct, frozen=True):
    version: int
    config: tuple[str, ...]
    ticket_cookies: Annotated[
        tuple[Annotated[str, Meta(pattern=COOKIE)], ...], Meta(min_length=1, max_length=MOST_COOKIES)
    ]
    settings: dict[str, Any]
    leaving: bool = False


def paths(config: Path) -> tuple[str, str]:
    """How a lbadaptor.toml may be named: absolute, and with symbolic links followed."""
    return os.path.abspath(config), os.path.realpath(config)


def encode(settings: Settings, ticket_cookies: Sequence[str], config: Path, leaving: bool = False) -> bytes:
    """The text of settings.json."""
    shown: dict[str, Any] = {name: msgspec.to_builtins(getattr(settings, name)) for name in _SHARED}
    shown["appservers"] = {_THREADS: settings.appservers.threads}
    shown["folder"] = settings.folder
    written = _Written(VERSION, paths(config), tuple(ticket_cookies)[:MOST_COOKIES], shown, leaving)
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def decode(data: bytes) -> Snapshot:
    """Read settings.json. Raises SettingsError.

    A monitor of another release may know settings that this program does not: those are passed over.
    """
    try:
        written = msgspec.json.decode(data, type=_Written)
        if written.version != VERSION:
            raise SettingsError(f"version {written.version}; this program reads version {VERSION}")
        known: dict[str, Any] = {"folder": written.settings.get("folder", "")}
        for section in (*_SHARED, "appservers"):
            names = (_THREADS,) if section == "appservers" else SECTIONS[section].__struct_fields__
            rows = written.settings.get(section, {})
            known[section] = {name: rows[name] for name in names if name in rows}
        settings = msgspec.convert(known, Settings)
    except (msgspec.DecodeError, RecursionError, AttributeError, TypeError) as error:
        raise SettingsError(f"not to be read: {error}") from None
    return Snapshot(settings, written.ticket_cookies, written.config, written.leaving)


def read(path: Path) -> Snapshot:
    """Read a settings.json. Raises SettingsError, OSError."""
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SettingsError(f"more than {MAX_BYTES} bytes")
    return decode(data)


def folders(config: Path) -> tuple[Settings | None, SettingsError | None, list[Path]]:
    """What lbadaptor.toml says, or what is wrong with it; and where its run folder may be, the most likely first."""
    try:
        settings = load(config)
    except SettingsError as error:
        usual = Path(Files().run_folder)
        of_instance = usual.with_name(f"{usual.name}-{config.stem}")  # as systemd's unit for several makes it
        return None, error, [*_named(config), usual, of_instance, usual / config.stem]
    return settings, None, [settings.run_folder]


def _named(config: Path) -> list[Path]:
    """The run folders that the text of a broken lbadaptor.toml seems to name. A look, no parsing: whatever is found
    there counts only if it says itself that it was made from this very file."""
    try:
        with open(config, "rb") as file:
            text = file.read(_TEXT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return []
    found = [
        Path(os.path.abspath(config)).parent / (double or single) for double, single in _RUN_FOLDER.findall(text)
    ]
    return list(dict.fromkeys(path for path in found if "\0" not in str(path)))[:_MOST_FOLDERS]

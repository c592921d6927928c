"""lbadaptor.toml: its settings (`schema`), how it is read (`load`), its page in the docs (`reference`), and what the
monitor has accepted of it (`snapshot`)."""

from __future__ import annotations

from lbadaptor.contract.settings.load import load, parse
from lbadaptor.contract.settings.schema import (
    COOKIE,
    COUNTED,
    DEFAULT_FILE,
    SECTIONS,
    AdaptorSettings,
    Application,
    AppServers,
    Files,
    Limit,
    Monitor,
    Settings,
)

__all__ = [
    "COOKIE",
    "COUNTED",
    "DEFAULT_FILE",
    "SECTIONS",
    "AdaptorSettings",
    "AppServers",
    "Application",
    "Files",
    "Limit",
    "Monitor",
    "Settings",
    "load",
    "parse",
]

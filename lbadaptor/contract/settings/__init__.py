"""lbadaptor.toml: its settings (`sections`, `schema`), how it is read (`load`), its page in the docs (`reference`),
and what the monitor has accepted of it (`snapshot`)."""

from __future__ import annotations

from lbadaptor.contract.settings.load import load, parse
from lbadaptor.contract.settings.schema import DEFAULT_FILE, SECTIONS, Settings
from lbadaptor.contract.settings.sections.adaptor import AdaptorSettings
from lbadaptor.contract.settings.sections.application import COUNTED, Application
from lbadaptor.contract.settings.sections.appservers import AppServers, Limit
from lbadaptor.contract.settings.sections.files import Files
from lbadaptor.contract.settings.sections.machine import NO_NUMBER, Machine
from lbadaptor.contract.settings.sections.monitor import Monitor
from lbadaptor.contract.settings.sections.row import COOKIE
from lbadaptor.contract.settings.sections.sessions import NOTHING, Sessions, Survive

__all__ = [
    "COOKIE",
    "COUNTED",
    "DEFAULT_FILE",
    "NOTHING",
    "NO_NUMBER",
    "SECTIONS",
    "AdaptorSettings",
    "AppServers",
    "Application",
    "Files",
    "Limit",
    "Machine",
    "Monitor",
    "Sessions",
    "Settings",
    "Survive",
    "load",
    "parse",
]

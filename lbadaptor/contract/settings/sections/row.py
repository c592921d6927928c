"""What a row is: a setting's name, type, bounds, unit, default, explanation, and what makes a change take effect.

The page docs/reference/settings.md is written from the rows (`reference`).
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Meta

SECONDS = "seconds"
BYTES = "bytes"

IMPORT = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z"
IMPORT_OR_NONE = rf"{IMPORT}|^\Z"
IMPORT_OR_FRAMEWORK = rf"{IMPORT}|^[A-Za-z]*\Z"
COOKIE = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"
"""A cookie's name (RFC 6265 §4.1.1): a token."""
COOKIE_OR_NONE = rf"{COOKIE}|^\Z"
HOST = r"^[^\s\[\]]+\Z"  # it stands in a column of address.text, which puts brackets round an IPv6 address
VARIABLE = r"^[A-Z0-9_]*\*?\Z"  # small letters are lost in the name of a header
ENVIRONMENT = r"^[A-Za-z_][A-Za-z0-9_]*\Z"
PATH = r"^/[!-~]*\Z"  # as it stands in a request line: printable ASCII without blanks


class Step(Enum):
    """What an administrator does after a change of lbadaptor.toml, so that it takes effect."""

    RELEASE = "release"
    """`lbctl restart`: the monitor and the adaptors go by it at once, and every AppServer is replaced"""
    NEW_APPSERVERS = "release, with each new AppServer"
    """the same; an AppServer that was started before keeps what it was started with"""
    RESTART = "restart of the monitor"
    RELOAD = "reload of Apache"
    APACHE = "new file for Apache"
    """`lbctl apache-config`, and a reload of Apache"""
    FAST_LANE = "new fast lane file"
    """`lbctl apache-config`, and a reload of Apache; only where the fast lane is used"""


APACHE = (Step.APACHE,)
RELEASE = (Step.RELEASE,)
RELEASE_AND_APACHE = (Step.RELEASE, Step.APACHE)
RELEASE_AND_FAST_LANE = (Step.RELEASE, Step.FAST_LANE)
NEW_APPSERVERS = (Step.NEW_APPSERVERS,)
NEW_APPSERVERS_AND_FAST_LANE = (Step.NEW_APPSERVERS, Step.FAST_LANE)
RESTART = (Step.RESTART,)
RESTART_AND_APACHE = (Step.RESTART, Step.RELOAD, Step.FAST_LANE)


def row(takes_effect: tuple[Step, ...], explanation: str, unit: str = "", **bounds: Any) -> Meta:
    """What makes a change of a setting take effect, what the setting means, its unit, and its bounds."""
    return Meta(description=explanation, extra={"unit": unit, "takes effect": takes_effect}, **bounds)

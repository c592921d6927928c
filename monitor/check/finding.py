"""What a check finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lbadaptor.contract.errors import LbadaptorError


class CannotCheck(LbadaptorError):
    """A check cannot be made, and why: permissions, a program that is not there or does not answer."""


class NotAllowed(CannotCheck):
    """This user may not look."""

    def __init__(self, user: str, what: str) -> None:
        super().__init__(f"{user} may not {what}; ask as root")


class Hangs(CannotCheck):
    """It is there, and does not answer in time."""


class Severity(Enum):
    ERROR = "error"
    """it keeps something from working, or lets others in"""
    WARNING = "warning"
    """it may be on purpose, or may be wrong at times"""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and its cure: half a sentence each, so that both make one line."""

    what: str
    cure: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}" if self.cure else self.what


def of_text(text: str, cure: str, severity: Severity = Severity.ERROR) -> Finding:
    """A text that may end with a cure of its own, after a semicolon; `cure`: where it does not."""
    what, _, own = text.partition("; ")
    return Finding(what, own or cure, severity)


def warning(what: str, cure: str = "") -> Finding:
    return Finding(what, cure, Severity.WARNING)

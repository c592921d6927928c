"""The errors, one class for each party that is at fault."""

from __future__ import annotations


class LbadaptorError(Exception):
    """The base class of every error that this package raises on purpose."""


class SettingsError(LbadaptorError):
    """lbadaptor.toml cannot be read, or holds something unknown or contradictory."""


class AddressFileError(LbadaptorError):
    """address.text is malformed. `line` is the number of the first bad line, counted from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


class KeyFileError(LbadaptorError):
    """The key file cannot be read or created, or holds no usable key."""


class OurOwnFault(LbadaptorError):
    """This machine or process is short of descriptors, ports, memory or disk. No AppServer is to blame."""

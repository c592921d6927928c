"""What can be wrong, one class for each party whose fault it is."""

from __future__ import annotations


class LbadaptorError(Exception):
    """The root of every error that this package raises on purpose."""


class SettingsError(LbadaptorError):
    """lbadaptor.toml cannot be read, or says something unknown or contradictory."""


class AddressFileError(LbadaptorError):
    """address.text is malformed. `line` is the number of the first bad line, counted from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


class KeyFileError(LbadaptorError):
    """The key file cannot be read or made, or holds no usable key."""


class OurOwnFault(LbadaptorError):
    """This machine or process ran short of something (descriptors, ports, disk): no AppServer is to blame."""

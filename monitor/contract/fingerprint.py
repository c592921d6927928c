"""Whether two programs go by the same settings. Pure."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct


def fingerprint(settings: Struct) -> str:
    """Hex digits that tell one lbadaptor.toml from another by what it says, not by how it is written."""
    return sha256(msgspec.json.encode(settings)).hexdigest()[:16]

"""The fingerprint of the key that signs a session cookie: it tells whether two processes have the same key."""

from __future__ import annotations

from hashlib import sha256

DIGITS = 16


def fingerprint(key: str | bytes) -> str:
    """Hex digits that tell one key from another. Nobody gets the key from them, unless it is easily guessed."""
    return sha256(key.encode() if isinstance(key, str) else key).hexdigest()[:DIGITS]

"""Functions of the C library that Python does not offer."""

from __future__ import annotations

from collections.abc import Callable


def function(name: str) -> Callable[..., int] | None:
    """A function of the C library; None if there is no such function, or if this Python cannot call it. Never raises.

    Python may be built without ctypes, and a security policy (SELinux) may not let it be loaded.
    """
    try:
        import ctypes  # hardly ever needed, and it costs memory in every Apache process

        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except Exception:
        return None
    return found

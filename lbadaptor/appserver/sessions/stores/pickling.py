"""Pickles live objects of an application's sessions, and names the type that cannot be pickled."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any

from lbadaptor.appserver.sessions.stores.access import Busy, Unloadable, Unsaveable
from lbadaptor.appserver.sessions.stores.objects import name_of


def dumps(value: Any) -> bytes:
    """Raises Unsaveable with the name of the type that stands against it; Busy when another thread changed it."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # any method of the application's classes may run
        raise refusal(value, error) from error


def loads(data: bytes) -> Any:
    """Raises Unloadable."""
    try:
        return pickle.loads(data)
    except Exception as error:  # a class is missing or refuses, or these bytes are no pickle
        raise unloadable(error) from error


def mark_of(data: bytes) -> bytes:
    """A digest, so that whoever remembers it need not keep the pickle."""
    return hashlib.blake2b(data, digest_size=16).digest()


def refusal(value: Any, error: Exception) -> Unsaveable | Busy:
    """What to raise when `error` came as `value` was pickled. Pickles once more."""
    if changed_meanwhile(error):
        return Busy(str(error))
    if isinstance(error, RecursionError):  # no one type stands against it
        return Unsaveable("objects nested too deeply")
    tracer = _Tracer(io.BytesIO(), pickle.HIGHEST_PROTOCOL)
    try:
        tracer.dump(value)
    except Exception:
        last = value if tracer.last is None else tracer.last
        return Unsaveable(name_of(last if issubclass(type(last), type) else type(last)))
    return Busy("it was changed meanwhile, and can be pickled now")


def changed_meanwhile(error: Exception) -> bool:
    """Whether a dict, set or deque was changed by another thread while it was gone through."""
    return isinstance(error, RuntimeError) and "during iteration" in str(error)


def unloadable(error: Exception) -> Unloadable:
    """What to raise when `error` came as a session was loaded."""
    return Unloadable(f"{type(error).__name__}: {error}")


class _Tracer(pickle.Pickler):
    """Remembers the object that it takes apart. The last one before an exception is the one that raised it."""

    last: Any = None

    def reducer_override(self, value: Any) -> Any:
        self.last = value
        return NotImplemented

"""Finds a framework's own objects in an application, in whatever middleware. Runs no code of the application."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable
from types import CellType, FunctionType, ModuleType
from typing import Any

MAX_OBJECTS = 20_000
"""How many objects of an application are looked at."""


def name_of(kind: type) -> str:
    """A class's module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def within(application: Any, kind: type) -> list[Any]:
    """The objects of a class that an application is or wraps, in whatever middleware; the nearest first."""
    found = []
    seen: set[int] = set()
    waiting = deque([application])
    while waiting and len(seen) < MAX_OBJECTS:
        thing = waiting.popleft()
        if id(thing) not in seen:
            seen.add(id(thing))
            if issubclass(type(thing), kind):  # isinstance() would ask a proxy for its class, and run its code
                found.append(thing)
            waiting.extend(_parts(thing))
    return found


def _parts(thing: Any) -> Iterable[Any]:
    """What an object refers to: a function, to what it encloses and the globals that it names."""
    kind = type(thing)
    if issubclass(kind, (type, ModuleType)):
        return ()
    if kind is not FunctionType:
        return gc.get_referents(thing)
    filled = [cell for cell in thing.__closure__ or () if cell != CellType()]
    scope = thing.__globals__
    return [
        *(cell.cell_contents for cell in filled),
        *(scope[name] for name in thing.__code__.co_names if name in scope),
    ]

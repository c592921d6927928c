"""An application's own store, by two functions of the application's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lbadaptor.appserver.sessions.stores.access import Busy, Content, Unsaveable
from lbadaptor.appserver.sessions.stores.objects import name_of
from lbadaptor.appserver.sessions.stores.pickling import changed_meanwhile, unloadable

Save = Callable[[str], "bytes | None"]
Load = Callable[[str, "bytes | None"], object]


class Functions:
    """`save` returns the session of an id, None when there is none. `load` puts one into the store; data that is None
    says that the session has moved away: forget it. Both may be called by any thread, `save` often: for each request
    of a session, and twice a second for each session. So it should be cheap, and count as no access.

    The id is the value of the session cookie. A cookie whose value changes while the session stays the same (as a
    signed one does) has no id that these functions could use.
    """

    kind = "own"
    secret = ""

    def __init__(self, save: Save, load: Load) -> None:
        self._save = save
        self._load = load

    def ident(self, values: Sequence[str]) -> str:
        """The first value: which one the application takes is not to be known."""
        return values[0] if values else ""

    def read(self, ident: str) -> Content | None:
        """What `save` returns. Raises Unsaveable with what `save` raises, or the type of what it returns; Busy when
        another thread has changed the session meanwhile."""
        try:
            data = self._save(ident)
        except Exception as error:
            if changed_meanwhile(error):
                raise Busy(str(error)) from error
            raise Unsaveable(f"{type(error).__name__}: {error}") from error
        if data is None:
            return None
        if not isinstance(data, bytes):
            raise Unsaveable(f"{name_of(type(data))}, returned in place of bytes")
        return Content(data, 0.0, data)

    def has(self, ident: str) -> bool:
        """Whether `save` returns a session: as cheap as `save` is. Where it raises, there is one."""
        try:
            return self._save(ident) is not None
        except Exception:
            return True

    def put(self, ident: str, data: bytes, ends: float) -> None:
        """Does nothing when `save` returns a session. Raises Unloadable with what `load` or `save` raises: a session
        that cannot be saved may be there, and is not to be replaced."""
        try:
            if self._save(ident) is None:
                self._load(ident, data)
        except Exception as error:
            raise unloadable(error) from error

    def drop(self, ident: str) -> None:
        """What `load` raises is ignored."""
        try:
            self._load(ident, None)
        except Exception:
            return

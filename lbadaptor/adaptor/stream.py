"""An answer that is passed on as it comes."""

from __future__ import annotations

from collections.abc import Iterator

from lbadaptor.adaptor import forward
from lbadaptor.adaptor.backends import BufferedResponse
from lbadaptor.adaptor.cutting import cut_visitor
from lbadaptor.adaptor.exchange import ExchangeFailed
from lbadaptor.adaptor.forward import Environ
from lbadaptor.adaptor.spool import Body, VisitorGone
from lbadaptor.adaptor.walk import Walk
from lbadaptor.log import logs

log = logs.logger("lbadaptor")


class Stream:
    """The iterable of PEP 3333. If the answer breaks off, the visitor's connection is cut."""

    def __init__(self, response: BufferedResponse, environ: Environ, body: Body, walk: Walk) -> None:
        self._response = response
        self._walk = walk
        self._environ = environ
        self._body = body
        self._url = forward.url(environ)  # Apache may have emptied environ when it is needed

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response
            self._walk.answered()
        except GeneratorExit:
            self._walk.visitor_left()
            raise
        except (ExchangeFailed, VisitorGone, MemoryError, OSError) as failed:
            if isinstance(failed, ExchangeFailed):
                self._walk.broke_off(failed)
            cut = cut_visitor(self._environ)
            state = "cut" if cut else "out of reach"
            why = str(failed) or "out of memory"
            what = f"an answer broke off, the visitor's connection is {state}"
            log.warning("lbadaptor: %s: %s: %s", what, self._url, why)
            if not cut:
                raise

    def close(self) -> None:
        """The visitor has the answer, or has left. If the answer is complete, the rest of the request is sent."""
        try:
            self._response.close()
        finally:
            self._body.close()

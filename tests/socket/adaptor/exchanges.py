"""One exchange with a scripted AppServer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scripted import ScriptedServer, Step

from lbadaptor.adaptor.exchange import Response, exchange
from lbadaptor.adaptor.pool import connect
from lbadaptor.adaptor.spool import EMPTY, Body

Serve = Callable[..., ScriptedServer]
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
BOUND = 1 << 20


@contextmanager
def asked(
    serve: Serve, step: Step, method: str = "GET", body: Body = EMPTY, timeout: float = 5.0, head: bytes = HEAD
) -> Iterator[Response]:
    """The answer to one request."""
    server = serve(step)
    with connect(server.address, "", 2, timeout) as connection:
        yield exchange(connection, method, head, body)


def post(length: int | None) -> bytes:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing

"""A caller that does not read its answer: in the fast lane, Apache reads as slowly as the visitor does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.appserver.sessions.table import SessionTable
from lbadaptor.contract.settings import AdaptorSettings

WAIT = 10.0
SIZE = AdaptorSettings().answer_memory
HEAD = {
    "Key": "caller's",
    "Generation": "17",
    "Session": "none",
    "Remote-Addr": "192.0.2.7",
    "Remote-Port": "51234",
    "Scheme": "https",
    "Script-Name": "",
    "Path": "/",
    "Server-Name": "www.example.org",
    "Server-Port": "443",
    "Server-Protocol": "HTTP/1.1",
}


def in_pieces(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """An answer of SIZE bytes in pieces of as many as the query says."""
    start_response("200 OK", [("Content-Length", str(SIZE)), ("X-Long", 16000 * "x")])
    piece = int(environ["QUERY_STRING"])
    return (b"x" * piece for _ in range(SIZE // piece))


@pytest.mark.parametrize("piece", [SIZE, 4096])
def test_who_does_not_read_holds_no_thread(tmp_path: Path, piece: int) -> None:
    """At a Unix socket: its buffer does not grow by itself, as that of a TCP connection does."""
    assignment = Assignment("", generation=17, ticket="0.17.signature", caller_key="caller's")
    assert assignment.answer_memory == SIZE
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(str(tmp_path / "0"))
    gateway = Gateway(listeners, in_pieces, assignment, Status(0, 17, Admission(1, 4)), SessionTable(1800.0))
    gateway.start()
    fields = "".join(f"LB-{name}: {value}\r\n" for name, value in HEAD.items())
    request = f"GET /?{piece} HTTP/1.1\r\n{fields}LB-Request-Uri: /?{piece}\r\n\r\n".encode()
    try:
        with socket.socket(socket.AF_UNIX) as slow, socket.socket(socket.AF_UNIX) as other:
            for caller in (slow, other):
                caller.settimeout(WAIT)
                caller.connect(str(tmp_path / "0"))
            slow.sendall(request)
            answer = slow.recv(1)
            other.sendall(request)  # there is one thread
            assert other.recv(100).startswith(b"HTTP/1.1 200 ")
            while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < SIZE:
                answer += slow.recv(65536)
            assert answer.endswith(b"\r\n\r\n" + SIZE * b"x")
    finally:
        gateway.stop(WAIT)

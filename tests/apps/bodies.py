"""Pages with bodies of every kind that PEP 3333 allows. What has to be known when an answer is over is noted.

A page named with `gates=A,B` waits at each of these gates in turn, as in `visits`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any
from urllib.parse import parse_qs

from visits import _wait

Environ = dict[str, Any]
Start = Callable[..., Any]

BLOCK = bytes(range(256)) * 256
NOTES = "closed"
"""The file beside the gates with a line for each answer that was closed."""
_TEXT = ("Content-Type", "text/plain")


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    return PAGES[environ["PATH_INFO"].strip("/")](environ, start_response, query)


class Closing:
    """An answer that notes its being closed."""

    def __init__(self, blocks: Iterator[bytes], name: str) -> None:
        self._blocks = blocks
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        with open(os.path.join(os.environ["VISITS_GATES"], NOTES), "a") as file:
            file.write(f"{self._name}\n")


def _pid(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    start_response("200 OK", [_TEXT])
    return [str(os.getpid()).encode()]


def _taken(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """How much of a body came, and its hash."""
    size, sha = 0, hashlib.sha256()
    while block := environ["wsgi.input"].read(65536):
        size += len(block)
        sha.update(block)
    start_response("200 OK", [_TEXT, ("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [f"{size} {sha.hexdigest()}".encode()]


def _echo(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Answer while reading."""
    start_response("200 OK", [_TEXT])
    read = environ["wsgi.input"].read
    return iter(lambda: read(8192), b"")


def _heads(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """The hash of large headers; and so many large cookies."""
    values = [environ[f"HTTP_X_LARGE_{number}"] for number in range(17)]
    cookies = [("Set-Cookie", f"c{number}={'y' * 1000}") for number in range(int(query["cookies"]))]
    start_response("200 OK", [_TEXT, *cookies])
    return [hashlib.sha256("".join(values).encode()).hexdigest().encode()]


def _large(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """So many blocks, with or without a length."""
    blocks = int(query["blocks"])
    length = [("Content-Length", str(blocks * len(BLOCK)))] if "length" in query else []
    start_response("200 OK", [_TEXT, *length])
    return Closing((BLOCK for _ in range(blocks)), query.get("note", "large"))


def _endless(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    start_response("200 OK", [_TEXT])

    def blocks() -> Iterator[bytes]:
        while True:
            yield BLOCK

    return Closing(blocks(), query["note"])


def _events(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Server-sent events, one before each gate and one at the end."""
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])

    def events() -> Iterator[bytes]:
        for number, gate in enumerate(query["gates"].split(",")):
            yield f"data: {number}\n\n".encode()
            _wait({"gate": gate})
        yield b"data: last\n\n"

    return Closing(events(), query.get("note", "events"))


def _ticks(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Events without end, each sooner after the last than any pause that could tell them from a page."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])

    def ticks() -> Iterator[bytes]:
        for number in count():
            yield f"data: {number}\n\n".encode()
            time.sleep(0.01)

    return Closing(ticks(), query["note"])


def _written(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Both ways in one: what is written comes first (PEP 3333)."""
    write = start_response("200 OK", [_TEXT])
    write(b"one ")
    _wait(query)
    write(b"two ")
    return [b"", b"three ", b"", b"four"]


def _file(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """So many blocks in a file, by wsgi.file_wrapper; from the second on with `part`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the wrapper closes it
    for number in range(int(query["blocks"])):
        file.write(bytes([number]) * 65536)
    file.seek(65536 if "part" in query else 0)
    start_response("200 OK", [_TEXT])
    return environ["wsgi.file_wrapper"](file)


def _bare(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """An answer that has no body for a reason."""
    headers = {
        "204 No Content": [("X-Page", "bare")],
        "304 Not Modified": [("X-Page", "bare"), ("ETag", '"x"')],
        "200 OK": [("X-Page", "bare"), _TEXT],
    }
    start_response(query["status"], headers[query["status"]])
    return []


PAGES: dict[str, Callable[[Environ, Start, dict[str, str]], Iterable[bytes]]] = {
    "": _pid,
    "pid": _pid,
    "taken": _taken,
    "echo": _echo,
    "heads": _heads,
    "large": _large,
    "endless": _endless,
    "events": _events,
    "ticks": _ticks,
    "written": _written,
    "file": _file,
    "bare": _bare,
}

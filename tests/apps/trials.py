"""The visit counter, and pages that bring an adaptor into difficulties."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import visits

Environ = dict[str, Any]
Start = Callable[..., Any]

NOTES = "notes"
"""The file beside the gates with what was posted to /note, in the order of its being done."""


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    page = PAGES.get(environ["PATH_INFO"].lstrip("/"))
    if page is None:
        return visits.application(environ, start_response)
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    return page(environ, start_response, query)


def _status(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """The status `code`, as the application's own, and who has asked for it."""
    status = HTTPStatus(int(query["code"]))
    visitor = f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']}"
    start_response(
        f"{status.value} {status.phrase}",
        [("Content-Type", "text/plain"), ("X-Own", environ["REQUEST_METHOD"]), ("X-Visitor", visitor)],
    )
    return [b"the application's own"]


def _broken(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """The beginning of an answer; it breaks off when the gate is passed. With `length`, it has one."""
    headers = [("Content-Type", "text/plain")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    start_response("200 OK", headers)

    def lines() -> Iterator[bytes]:
        yield b"first\n"
        visits._wait(query)
        raise RuntimeError("this answer breaks off")

    return lines()


def _large(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    size = int(query["size"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return [b"x" * size]


def _early(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """An answer that does not wait for the request's body."""
    start_response("413 Content Too Large", [("Content-Type", "text/plain")])
    return [b"too large"]


def _note(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Note what is posted, in a file outside all processes, and give it back."""
    note = environ["wsgi.input"].read()
    with open(os.path.join(os.environ["VISITS_GATES"], NOTES), "ab", buffering=0) as file:
        file.write(note + b"\n")
    visits._wait(query)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(note)))])
    return [note]


def _called(query: dict[str, str]) -> None:
    """Note a call by its `name`."""
    with open(os.path.join(os.environ["VISITS_GATES"], NOTES), "ab", buffering=0) as file:
        file.write(f"{query['name']}\n".encode())


def _head(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """An answer with `count` headers, each a line of `size` bytes, and with a reason of `reason` bytes."""
    _called(query)
    name, size = query.get("header", "X-Large"), int(query["size"])
    headers = [(name, (f"c{number}=" + "x" * size)[: size - len(name) - 2]) for number in range(int(query["count"]))]
    reason = "x" * int(query.get("reason", "2"))
    start_response(f"200 {reason}", [("Content-Type", "text/plain"), ("Content-Length", "2"), *headers])
    return [b"ok"]


def _answer(environ: Environ, start_response: Start, query: dict[str, str]) -> Iterable[bytes]:
    """Any answer: `told` is JSON of status line, headers and body."""
    if "name" in query:
        _called(query)
    status, headers, body = json.loads(query["told"])
    start_response(status, [(name, value) for name, value in headers])
    return [body.encode()]


PAGES: dict[str, Callable[[Environ, Start, dict[str, str]], Iterable[bytes]]] = {
    "status": _status,
    "broken": _broken,
    "large": _large,
    "early": _early,
    "note": _note,
    "head": _head,
    "answer": _answer,
}

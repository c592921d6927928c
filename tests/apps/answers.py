"""Answers that are odd, wrong, or not over with their last byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

import visits

NOTES = "answers"
"""The file beside the gates that has a line for each call."""


class Held:
    """An answer of five bytes, which waits at a gate when they are out: before its end, or in its close()."""

    def __init__(self, query: dict[str, str]) -> None:
        self.query = query

    def __iter__(self) -> Iterator[bytes]:
        yield b"hello"
        if "iterates" in self.query:
            visits._wait(self.query)

    def close(self) -> None:
        if "closes" in self.query:
            visits._wait(self.query)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    with open(os.path.join(os.environ["VISITS_GATES"], NOTES), "ab", buffering=0) as file:
        file.write(f"{query.get('name', '')}\n".encode())
    headers = [("Content-Type", "text/plain")]
    page = environ["PATH_INFO"]
    if page == "/held":
        start_response("200 OK", headers if "chunks" in query else [*headers, ("Content-Length", "5")])
        return Held(query)
    if page == "/status":
        try:
            start_response(query["line"], headers)
        except ValueError as error:
            raise RuntimeError(f"this answer breaks off: {error}") from None
        return [b"the application's own"]
    if page == "/located":
        start_response("200 OK", [*headers, ("Location", "/elsewhere")])
        return [b"here"]
    if page == "/nothing":
        start_response("200 OK", [*headers, ("Content-Length", "5")])
        return []
    if page == "/fails":
        start_response("200 OK", [*headers, ("Content-Length", "1000000")])
        return _fails()
    start_response("200 OK", [*headers, ("LB_Status", "DYING"), ("lb_anything", "x")])
    return [page.encode()]


def _fails() -> Iterator[bytes]:
    yield b"x" * 300_000
    raise RuntimeError("this answer breaks off")

"""A cache for requests: reads the usual one in a few steps. Pure. `Request` reads every request, line by line.

The usual request is one without a body, from either lane, whose lines have the order in which the lanes send them.
They send last what is the same in nearly all requests, the lines from LB-Scheme on: here this is the *block*. It is
read once, and kept. Everything else about a request is read each time.

Nothing is accepted here that `Request` does not accept, and nothing is understood in another way. `Request` reads
what is not usual.
"""

from __future__ import annotations

import re

from lbadaptor.appserver.wsgi.environ import REQUEST_ID, Request, fields_of_lines
from lbadaptor.contract import headers
from lbadaptor.contract.headers import decode
from lbadaptor.http1.lines import BoundedCache
from lbadaptor.http1.request import CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING

_MAX_BLOCK = 2048
"""Characters of a block that is kept."""

_FIRST = f"\r\n{headers.PATH}: "
_request_line = re.compile(r"([A-Z]+) ([!-~]+) HTTP/1\.1\r\n").match
_before_block = re.compile(
    rf"{_FIRST}([!-~]*)\r\nLB-Request-Uri: ([!-~]*)\r\nLB-Remote-Addr: ([0-9a-f.:]+)\r\nLB-Remote-Port: ([0-9]+)"
    rf"(?:\r\n{headers.REQUEST_ID}: ({headers.REQUEST_ID_PATTERN}))?\r\nLB-Scheme: "
).match
_GIVEN = [headers.PATH, "LB-Remote-Addr", "LB-Remote-Port", "LB-Request-Uri"]
"""What is mandatory and not in the block, in alphabetical order."""
_UNUSUAL = frozenset(
    (
        *(None, headers.KEY, headers.GENERATION, headers.SESSION, headers.PROBE, headers.LENGTH, headers.PATH),
        *(headers.VARIABLES, REQUEST_ID, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING),
    )
)
"""Keys of lines before LB-Path that make a request unusual. None: of a line that is dropped."""
_blocks: BoundedCache[Request] = BoundedCache(65536, _MAX_BLOCK)
"""By the text of a block: a request that has no other lines. All of them are lines that the memo of lines keeps: none
holds a secret but this process's own."""


def read(text: str) -> Request:
    """The head of a request, without the empty line at its end. Raises ProtocolError."""
    first = text.find(_FIRST)
    line, ours = _request_line(text, 0, first), _before_block(text, first)
    if line is None or ours is None:
        return Request(text)
    end = text[ours.end() :]
    block = _blocks.get(end)
    if block is None:
        request = Request(text)
        _keep(end)
        return request
    path, uri, address, port, given = ours.groups()
    lines = text[line.end() : first].split("\r\n")
    fields: dict[str, str] = dict(map(fields_of_lines.__getitem__, lines))  # type: ignore[arg-type] # None is unusual
    if not _UNUSUAL.isdisjoint(fields) or fields.get("HTTP_HOST") == "":
        return Request(text)
    fields |= block.fields
    fields["REQUEST_URI"] = decode(uri) if "%" in uri else uri
    fields["REMOTE_ADDR"] = address
    fields["REMOTE_PORT"] = port
    if len(fields) != len(lines) + len(block.fields) + 3:  # some are repeated
        return Request(text)
    if given is not None:
        fields[REQUEST_ID] = given
    request = Request.__new__(Request)
    request.method, request.target = line.groups()
    request.version = "1.1"
    request.fields = fields
    request.keep_alive = block.keep_alive
    request.framing = 0
    request.key = block.key
    request.generation = block.generation
    request.path = decode(path) if "%" in path else path
    request.fast = block.fast
    request.timed = block.timed
    request.held = block.held
    request.lost = block.lost
    request.probe = None
    request.nothing_missing = block.nothing_missing
    return request


def _keep(text: str) -> None:
    """Keep a block, if it holds nothing that may not be kept."""
    lines = f"LB-Scheme: {text}".split("\r\n")
    if all(line in fields_of_lines and line.startswith(("LB-", "Connection: ")) for line in lines):
        block = Request("\r\n".join(("GET / HTTP/1.1", *lines)))
        block.nothing_missing = block.missing() == _GIVEN
        _blocks.keep(text, block)

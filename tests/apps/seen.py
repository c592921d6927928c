"""A WSGI application that answers with what it was given: its environ as JSON, each value as its repr.

To HEAD it answers the same in headers. Around its answer are the lints.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from linted import linted

Environ = dict[str, Any]

HEADER = "X-Seen"
_PIECE = 4000
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    seen = {key: _ADDRESS.sub("", repr(value)) for key, value in environ.items()}

    def tell(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(-1)
        seen["body"] = f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        told = json.dumps(seen).encode()
        headers = [("Content-Type", "application/json")]
        if environ["REQUEST_METHOD"] == "HEAD":
            text = base64.b64encode(told).decode()
            headers += [(HEADER, text[start : start + _PIECE]) for start in range(0, len(text), _PIECE)]
            told = b""
        else:
            headers.append(("Content-Length", str(len(told))))
        start_response("200 OK", headers)
        return [told] if told else []

    return linted(tell)(environ, start_response)

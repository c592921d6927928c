"""What a visitor reads when no AppServer's answer can be given."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor")

MAX_BYTES = 1 << 20
"""Of an administrator's page, which each Apache process keeps in memory."""
RETRY_AFTER = 5
"""Seconds."""

MEANING = {
    400: "The request could not be understood.",
    502: "The application's answer was lost. What you asked for may have been done: look before you repeat it.",
    503: "The application is not available at the moment. Please try again in a few seconds.",
    504: "The application did not answer in time. What you asked for may still be done.",
}


def answer(
    start_response: Callable[..., object], status: int, text: str = "", page: bytes | None = None
) -> list[bytes]:
    """Answer with a short page, or with `page`. A 503 says when to come again."""
    phrase = f"{status} {HTTPStatus(status).phrase}"
    if page is None:
        escaped = (text or MEANING[status]).replace("&", "&amp;").replace("<", "&lt;")
        page = (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{phrase}</title></head>\n'
            f"<body><h1>{phrase}</h1><p>{escaped}</p></body></html>\n"
        ).encode()
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))]
    headers.append(("Cache-Control", "no-store"))
    if status == 503:
        headers.append(("Retry-After", str(RETRY_AFTER)))
    start_response(phrase, headers)
    return [page]


class SorryPage:
    """The administrator's page for a 503: an HTML file. Any thread may read it."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._stamp: tuple[int, int, int] | None = None
        self._page: bytes | None = None
        self._said = ""

    def read(self) -> bytes | None:
        """The page as it is now, at the cost of one stat where nothing changed; None, and a word in the log, where
        it cannot be read. Never raises.
        """
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                with open(self._path, "rb") as file:
                    page = file.read(MAX_BYTES + 1)
                if len(page) > MAX_BYTES:
                    raise OSError(errno.EFBIG, f"more than {MAX_BYTES} bytes")
                self._page = page
                self._stamp, self._said = stamp, ""
        except OSError as error:
            self._stamp, said = None, texts.what(error)
            if said != self._said:
                self._said = said
                log.warning("lbadaptor: sorry_page %s: %s; visitors get the built-in page", self._path, said)
            return None
        return self._page

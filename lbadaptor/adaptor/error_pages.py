"""Error pages: what a visitor reads when there is no answer of an AppServer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path

from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")

MAX_BYTES = 1 << 20
"""The largest page of an administrator; each Apache process keeps it in memory."""
RETRY_AFTER = 5
"""Seconds, in a 503."""

MEANING = {
    400: "The request could not be understood.",
    502: "The application's answer was lost. What you asked for may have been done: look before you repeat it.",
    503: "The application is not available at the moment. Please try again in a few seconds.",
    504: "The application did not answer in time. What you asked for may still be done.",
}


def answer(
    start_response: Callable[..., object],
    status: int,
    text: str = "",
    page: bytes | None = None,
    more: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """Answer with a short page, or with `page`. A 503 carries Retry-After. `more`: further headers."""
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
    start_response(phrase, [*headers, *more])
    return [page]


class ErrorPage:
    """The administrator's page for a 503: the HTML file of the setting `sorry_page`. Any thread may read it."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._stamp: tuple[int, int, int] | None = None
        """of the file that was read last: time, inode and size"""
        self._page: bytes | None = None
        self._problems = Once()

    def read(self) -> bytes | None:
        """The page as it is now, for one stat if nothing has changed. Never raises.

        None if the file cannot be read. The log says so, once.
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
                self._stamp = stamp
                self._problems.over()
        except OSError as error:
            self._stamp = None
            why = texts.what(error)
            if self._problems.first(why):
                log.warning("lbadaptor: sorry_page %s: %s; visitors get the built-in page", self._path, why)
            return None
        return self._page

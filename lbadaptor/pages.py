"""What a visitor reads when no AppServer's answer can be given."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

RETRY_AFTER = 5
"""Seconds."""

MEANING = {
    400: "The request could not be understood.",
    502: "The application's answer was lost. What you asked for may have been done: look before you repeat it.",
    503: "The application is not available at the moment. Please try again in a few seconds.",
    504: "The application did not answer in time. What you asked for may still be done.",
}


def answer(start_response: Callable[..., object], status: int, text: str = "") -> list[bytes]:
    """Answer with a short page. A 503 says when to come again."""
    phrase = f"{status} {HTTPStatus(status).phrase}"
    about = text or MEANING[status]
    escaped = about.replace("&", "&amp;").replace("<", "&lt;")
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

"""The gateway's own answers, as bytes. Pure."""

from __future__ import annotations

from lbadaptor.contract import headers
from lbadaptor.contract.headers import Refusal

REASONS = {
    Refusal.DYING: "no visitors but those whose session is here",
    Refusal.BUSY: "too many requests wait",
    Refusal.MOVED: "the session is not here",
}
"""The body of a refusal."""
_PHRASES = {400: "Bad Request", 403: "Forbidden", 421: "Misdirected Request", 431: "Request Header Fields Too Large"}


def status(code: int) -> str:
    return f"{code} {_PHRASES[code]}"


def refused_lines(refused: str, generation: str) -> str:
    """The header lines of a refusal; `refused` is the word of LB-Refused, empty for what is not HTTP."""
    lines = f"{headers.REFUSED}: {refused}\r\n" if refused else ""
    if refused == Refusal.INCOMPLETE.value:  # the caller may be a monitor that has lost its files
        lines += f"{headers.GENERATION}: {generation}\r\n"
    return f"{lines}Content-Type: text/plain\r\n"


def reply(status: str, lines: str, body: bytes, own: bytes, keep_alive: bool, is_head: bool) -> bytes:
    """A whole answer. `own`: the header lines of `Status.headers`. `is_head`: the body is not sent."""
    close = "" if keep_alive else "Connection: close\r\n"
    head = f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n{close}"
    return b"%b%b\r\n%b" % (head.encode(), own, b"" if is_head else body)


def goodbye(refusal: Refusal, own: bytes) -> bytes:
    """A refusal that is the last thing on its connection."""
    return reply(status(headers.REFUSED_STATUS), f"{headers.REFUSED}: {refusal.value}\r\n", b"", own, False, False)

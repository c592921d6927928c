"""Warm-up: an AppServer asks itself for some pages before it takes visitors."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lbadaptor.appserver.process.messages import Assignment
from lbadaptor.contract import headers


class WarmUpFailed(Exception):
    """A page failed. The text says which one, and how."""


def warm_up(address: tuple[str, int], assignment: Assignment, stopped: Callable[[], bool]) -> bool:
    """Request every page of `warm_up`, as an adaptor would. Raises WarmUpFailed for the first page that fails.

    Blocks until all pages have answered; the monitor limits the time. Meanwhile it calls `stopped` again and again,
    which should block for some milliseconds. Returns False as soon as `stopped` returns True, else True.
    """
    failures: list[str] = []
    asking = threading.Thread(target=_ask_all, args=(address, assignment, failures), name="warm-up", daemon=True)
    if assignment.warm_up:
        asking.start()
    while asking.is_alive():
        if stopped():
            return False
    if failures:
        raise WarmUpFailed(failures[0])
    return True


def _ask_all(address: tuple[str, int], assignment: Assignment, failures: list[str]) -> None:
    import http.client  # an AppServer without warm-up need not wait for it: it is a seventh of all imports

    for target in assignment.warm_up:
        try:
            status, reason = _ask(address, assignment, target)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"warm-up: {target}: {error or type(error).__name__}")
            return
        if status >= 400:
            failures.append(f"warm-up: {target} answered {status} {reason}".rstrip())
            return


def _ask(address: tuple[str, int], assignment: Assignment, target: str) -> tuple[int, str]:
    """Request a page and read the whole answer. Returns status and reason. Raises OSError, HTTPException."""
    import http.client

    host, port = address
    lines = {
        headers.KEY: assignment.caller_key,
        headers.GENERATION: str(assignment.generation),
        headers.SESSION: "none",
        headers.PATH: target.partition("?")[0],
        "LB-Remote-Addr": host,
        "LB-Remote-Port": "0",
        "LB-Scheme": "http",
        headers.SCRIPT_NAME: "",
        "LB-Request-Uri": headers.encode(target),
        "LB-Server-Name": "localhost",
        "LB-Server-Port": str(port),
        "LB-Server-Protocol": "HTTP/1.1",
    }
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.request("GET", target, headers={"Host": "localhost", "User-Agent": "lbadaptor-warm-up", **lines})
        answer = connection.getresponse()
        while answer.read(65536):
            pass
        return answer.status, answer.reason
    finally:
        connection.close()

"""Waits for an AppServer, and until a page comes from one through Apache."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lbadaptor.log import texts
from monitor.contract import client
from monitor.contract.client import NoAnswer
from monitor.install.wanted import Refused

POLL_INTERVAL = 0.3
TIMEOUT = 10.0
"""Seconds for one answer."""
NOT_OURS_AFTER = 6.0
"""Seconds from an answer until it is no AppServer's. The monitor knows of a request only from its next probe on."""
FAILED_AFTER = 10.0
"""Seconds: an application that has not started for so long does not start. Each slot was tried again meanwhile."""
_REDIRECTS = (301, 302, 303, 307, 308)


class Place(NamedTuple):
    """Where a page is asked for, on this machine."""

    host: str
    """empty: whatever host is the default"""
    path: str
    """without a slash at its end"""
    port: int

    def __str__(self) -> str:
        return f"http://{self.host or 'localhost'}{f':{self.port}' * (self.port != 80)}{self.path}/"


class _Patience:
    """How long AppServers are waited for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._failing_since = 0.0

    def ended(self, servers: list[dict[str, Any]] | None) -> bool:
        """After these seconds, or where none is OK and some have failed for FAILED_AFTER seconds."""
        now = time.monotonic()
        if any(map(_is_ok, servers or ())):
            self._failing_since = 0.0
        elif any(one["why"] for one in servers or ()):
            self._failing_since = self._failing_since or now
        return now > self._end or bool(self._failing_since and now > self._failing_since + FAILED_AFTER)


def wait_ready(control_socket: Path, patience: float, tell: Callable[[str], object]) -> None:
    """Wait until an AppServer is OK, which visitors can be sent to. Blocks for `patience` seconds, about.

    `tell` gets what is waited for, whenever that changes. Raises Refused where none is.
    """
    limit, last = _Patience(patience), ""
    while not any(map(_is_ok, (servers := _servers(control_socket)) or ())):
        why = _why_none(servers)
        if limit.ended(servers):
            raise Refused(f"no AppServer is ready, so Apache was not changed: {why}")
        if why != last:
            tell(f"waiting for an AppServer: {why}")
            last = why
        time.sleep(POLL_INTERVAL)


def wait(place: Place, control_socket: Path, patience: float, tell: Callable[[str], object]) -> str:
    """Ask for a page until an AppServer has answered. What to say of it. Blocks for `patience` seconds, about.

    `tell` gets what is waited for, whenever that changes. An AppServer has answered if one has served more requests
    than before: it may have been another visitor's. Raises Refused where no page comes.
    """
    limit, last, before = _Patience(patience), "", None
    while True:
        servers = _servers(control_socket)
        before = before or servers  # a page that came before the monitor tells of its AppServers tells nothing
        status, why, goes_to = _ask(place)
        answered = time.monotonic()
        while status not in (0, 503) and before is not None and time.monotonic() < answered + NOT_OURS_AFTER:
            if _more_served(before, _servers(control_socket)):
                return f"{place} answers {status}, from an AppServer" + _of_status(status)
            time.sleep(POLL_INTERVAL)
        if status not in (0, 503) and before is not None:
            if status in _REDIRECTS and goes_to.startswith("https:") and any(map(_is_ok, before)):
                return f"{place} is sent on to {goes_to} by Apache; AppServers are ready: look at that page yourself"
            raise Refused(
                f"{place} answers {status}, but no AppServer was asked: another virtual host, or another directive "
                "of Apache's, takes this page"
            )
        if status == 503:
            why = _why_none(servers)
        if limit.ended(servers):
            raise Refused(f"no page has come from {place}: {why}")
        if why != last:
            tell(why)
            last = why
        time.sleep(POLL_INTERVAL)


def _ask(place: Place) -> tuple[int, str, str]:
    """The status of Apache's answer; 0: why there is none. And where it sends the visitor."""
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{place.path}/", headers={"Host": place.host or "localhost"})
        answer = connection.getresponse()
        return answer.status, "", answer.getheader("Location", "")
    except ConnectionRefusedError:
        return 0, f"Apache does not listen on port {place.port}", ""
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer on port {place.port}: {texts.of(error)}", ""
    finally:
        connection.close()


def _servers(control_socket: Path) -> list[dict[str, Any]] | None:
    """The AppServers; None: the monitor does not tell."""
    with contextlib.suppress(NoAnswer):
        servers: list[dict[str, Any]] = client.ask(control_socket)["appservers"]
        return servers
    return None


def _more_served(before: list[dict[str, Any]], now: list[dict[str, Any]] | None) -> bool:
    served = {one["generation"]: one["served"] or 0 for one in before}
    return any((one["served"] or 0) > served.get(one["generation"], 0) for one in now or ())


def _is_ok(server: dict[str, Any]) -> bool:
    return bool(server["state"] == "OK")


def _why_none(servers: list[dict[str, Any]] | None) -> str:
    """Why no AppServer has answered."""
    if servers is None:
        return "the monitor does not answer"
    why = next((f"slot {one['slot']}: {one['why']}" for one in servers if one["why"]), "")
    return why or "no AppServer is ready"


def _of_status(status: int) -> str:
    if status >= 500:
        return ". That is an error of the application: look into its log"
    return "" if status < 400 else ". So the application runs, but has no page there for anybody"

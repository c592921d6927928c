"""Probes: is the AppServer OK or DYING? Each AppServer by a thread of its own, so that none waits for another."""

from __future__ import annotations

import errno
import functools
import threading
import time
from collections.abc import Callable

import msgspec
import requests

from lbadaptor.address import Address
from lbadaptor.headers import PROBE, PROBE_PATH
from monitor.messages import Probed, Target, Unanswered, Vitals

_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
"""What this process or machine ran short of; no AppServer is to blame."""


LATE = 0.5
"""Seconds by which a probe may take longer than it should; beyond, this process was stopped or starved."""


class Prober:
    """Probes one AppServer until `stop`. `tell` gets what it found, in the prober's thread."""

    def __init__(
        self, target: Target, interval: float, timeout: float, tell: Callable[[Probed | Unanswered], None]
    ) -> None:
        self.target = target
        self._interval = interval
        self._timeout = timeout
        self._tell = tell
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{target.slot}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more probes; one that is under way ends by itself."""
        self._stopped.set()

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, no netrc
            while True:
                began = time.monotonic()
                if self._stopped.wait(self._interval):
                    return
                found = probe(session, self.target, self._timeout)
                if isinstance(found, Unanswered) and time.monotonic() - began > self._interval + self._timeout + LATE:
                    found = msgspec.structs.replace(found, late=True)
                if found is not None and not self._stopped.is_set():
                    self._tell(found)


def probe(session: requests.Session, target: Target, timeout: float) -> Probed | Unanswered | None:
    """One probe; None when it could not even be sent. Blocks for `timeout` seconds, about."""
    request = _request(target)
    try:
        # By the adapter itself: what a session does beside (cookies, redirects, proxies) takes three times as long.
        answer = session.get_adapter(str(request.url)).send(request, timeout=timeout)
        vitals = msgspec.json.decode(answer.content, type=Vitals) if answer.status_code == 200 else None
    except requests.Timeout:
        return Unanswered(target.slot, target.generation, f"no answer within {timeout:g} s")
    except requests.ConnectionError as error:
        cause = _cause(error)
        if cause is not None and cause.errno in _OUR_OWN:
            return None
        if cause is None and "BadStatusLine" in repr(error):
            return Unanswered(target.slot, target.generation, "a stranger answers, not in HTTP", stranger=True)
        refused = isinstance(cause, ConnectionRefusedError)
        return Unanswered(target.slot, target.generation, "connection refused" if refused else "hung up", refused)
    except requests.RequestException as error:
        return Unanswered(target.slot, target.generation, f"{type(error).__name__}: {error}")
    except (ValueError, RecursionError):
        vitals = None
    if vitals is None or vitals.generation != target.generation:
        why = f"a stranger answers: status {answer.status_code}"
        return Unanswered(target.slot, target.generation, why, stranger=True)
    return Probed(target.slot, target.generation, vitals)


@functools.lru_cache(maxsize=1024)
def _request(target: Target) -> requests.PreparedRequest:
    url = f"http://{Address(target.host, target.port)}{PROBE_PATH}"
    return requests.Request("GET", url, headers={PROBE: target.key}).prepare()


def _cause(error: BaseException | None) -> OSError | None:
    """The system's own error beneath those of requests and urllib3, which say it only in words."""
    while error is not None and (isinstance(error, requests.RequestException) or not isinstance(error, OSError)):
        error = error.__cause__ or error.__context__
    return error

"""Probes: is the AppServer OK or DYING? Each AppServer by a thread of its own, so that none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable

import requests

from lbadaptor.address import Address
from lbadaptor.headers import PROBE, PROBE_PATH
from monitor.messages import Probed, Target, Unanswered


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
            while not self._stopped.wait(self._interval):
                found = probe(session, self.target, self._timeout)
                if not self._stopped.is_set():
                    self._tell(found)


def probe(session: requests.Session, target: Target, timeout: float) -> Probed | Unanswered:
    """One probe. Blocks for `timeout` seconds, about."""
    url = f"http://{Address(target.host, target.port)}{PROBE_PATH}"
    try:
        answer = session.get(url, headers={PROBE: target.key}, timeout=timeout, allow_redirects=False)
        vitals = answer.json() if answer.status_code == 200 else None
    except requests.Timeout:
        return Unanswered(target.slot, target.generation, f"no answer within {timeout:g} s")
    except requests.ConnectionError as error:
        refused = "refused" in str(error)
        return Unanswered(target.slot, target.generation, "connection refused" if refused else "hung up", refused)
    except (requests.RequestException, ValueError) as error:
        return Unanswered(target.slot, target.generation, f"{type(error).__name__}: {error}")
    if not isinstance(vitals, dict) or vitals.get("generation") != target.generation:
        return Unanswered(target.slot, target.generation, f"a stranger answers: status {answer.status_code}")
    return Probed(target.slot, target.generation, vitals)

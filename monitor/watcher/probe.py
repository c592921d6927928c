"""Probes: how is an AppServer? A thread for each AppServer, so that none waits for another.

A probe is a request like an adaptor's, by the same module (`lbadaptor.adaptor.exchange`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import msgspec

from lbadaptor.adaptor.exchange import ExchangeFailed, exchange
from lbadaptor.adaptor.pool import Connection, ConnectTimeout, Pool, connect
from lbadaptor.adaptor.retry import Failure
from lbadaptor.adaptor.spool import EMPTY
from lbadaptor.contract.address import Address
from lbadaptor.contract.errors import OurOwnFault
from lbadaptor.contract.headers import PROBE, PROBE_PATH
from monitor.contract.messages import ProbeAnswer, Probed, Target, Unanswered
from monitor.contract.processes import verified
from monitor.contract.threads import start

LATE = 0.5
"""Seconds by which a probe may exceed its timeout. If it takes longer, this process was stopped or starved."""
_MAX_BYTES = 65536
"""Bytes of an answer to a probe."""


class _Claim(msgspec.Struct):
    """The part of an answer that is believed only when the kernel confirms it."""

    pid: int = 0


_answer = msgspec.json.Decoder(ProbeAnswer).decode


class Prober:
    """Probes one AppServer until `stop`. `report` gets each result, in the prober's thread.

    Raises MemoryError where there can be no thread.
    """

    def __init__(
        self, target: Target, interval: float, timeout: float, report: Callable[[Probed | Unanswered], None]
    ) -> None:
        self.target = target
        self._interval = interval
        self._timeout = timeout
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{target.slot}", daemon=True)
        start(self._thread)

    def stop(self) -> None:
        """No more probes; one that is under way ends by itself."""
        self._stopped.set()

    def _run(self) -> None:
        with contextlib.closing(Line(self.target, self._timeout)) as line:
            while True:
                began = time.monotonic()
                if self._stopped.wait(self._interval):
                    return
                with contextlib.suppress(MemoryError):  # the AppServer is not to blame
                    self._probe(line, began)

    def _probe(self, line: Line, began: float) -> None:
        found = line.probe()
        if isinstance(found, Unanswered) and time.monotonic() - began > self._interval + self._timeout + LATE:
            found = msgspec.structs.replace(found, late=True)
        if found is not None and not self._stopped.is_set():
            self._report(found)


class Line:
    """A connection to an AppServer, kept open from one probe to the next. One thread at a time may use it."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._address = Address(target.host, target.port)
        self._head = (f"GET {PROBE_PATH} HTTP/1.1\r\nHost: {self._address}\r\n{PROBE}: {target.key}\r\n\r\n").encode()
        self._idle = Pool(1)
        self._pid = 0
        """the process that answers, if the kernel confirms it; otherwise 0"""

    def close(self) -> None:
        self._idle.close()

    def probe(self) -> Probed | Unanswered | None:
        """One probe; None when this process was too short of something to send it. Blocks for `timeout` seconds."""
        try:
            status, body = self._ask()
        except ConnectTimeout:
            return self._unanswered(f"no answer within {self._timeout:g} s")
        except OurOwnFault:
            return None
        except ExchangeFailed as failed:
            if failed.failure is Failure.OURS:
                return None
            if failed.failure is Failure.NOT_HTTP:
                return self._unanswered("a stranger answers, not in HTTP", stranger=True)
            silent = failed.failure is Failure.SILENT
            return self._unanswered(f"no answer within {self._timeout:g} s" if silent else "hung up")
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            return self._unanswered("connection refused" if refused else "hung up", refused)
        answer = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = _answer(body) if status == 200 else None
        if answer is None or answer.generation != self._target.generation:
            return self._unanswered(f"a stranger answers: status {status}", stranger=True)
        pid = answer.pid if answer.pid == self._pid else 0
        return Probed(self._target.slot, self._target.generation, msgspec.structs.replace(answer, pid=pid))

    def _ask(self) -> tuple[int, bytes]:
        """Status and body of the answer, _MAX_BYTES at most. Raises what `exchange` raises."""
        connection = self._idle.take()
        fresh = connection is None
        connection = connection or connect(self._address, self._target.unix_socket, self._timeout, self._timeout)
        answer = None
        try:
            answer = exchange(connection, "GET", self._head, EMPTY)
            body = b"".join(answer.take(_MAX_BYTES))
            if fresh:
                self._pid = self._verified(connection, body)
            return answer.status, body
        finally:
            if answer is not None and answer.complete and answer.reusable:
                self._idle.give(connection)
            else:
                connection.close()

    def _verified(self, connection: Connection, body: bytes) -> int:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return verified(msgspec.json.decode(body, type=_Claim).pid, connection)
        return 0

    def _unanswered(self, why: str, refused: bool = False, stranger: bool = False) -> Unanswered:
        return Unanswered(self._target.slot, self._target.generation, why, refused, stranger=stranger)

"""An AppServer: one process that serves the application from one address.

The proposal's "main function that takes a machine/port as an optional parameter". The monitor calls it in a
fresh interpreter for each slot; `python -m lbadaptor.appserver module:callable` calls it by hand.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from lbadaptor.address import Address
from lbadaptor.appserver import affinity, listening, stores
from lbadaptor.appserver.admission import Admission
from lbadaptor.appserver.cookiecheck import CookieCheck, doubt
from lbadaptor.appserver.counting import by_cookies, by_store, by_word
from lbadaptor.appserver.gateway import Gateway
from lbadaptor.appserver.handover import (
    DRAIN,
    STOP,
    UNDRAIN,
    Empty,
    Failed,
    Handover,
    PastLimit,
    Ready,
    Report,
    TemplateReport,
    encode,
)
from lbadaptor.appserver.ledger import Ledger
from lbadaptor.appserver.vitals import Vitals
from lbadaptor.appserver.warmup import WarmUpFailed, warm_up

log = logging.getLogger("lbadaptor.appserver")

BASE_PORT = 9000
TICK = 0.5
"""Seconds between two looks at the session cache."""
LINGER = 0.3
"""Seconds for which requests are still refused, once it was ordered to stop: until then an adaptor may not
know yet that it has left address.text, and a refusal can be repeated elsewhere where a hang-up cannot."""

CANNOT_START = 3
"""Exit status."""


def main(
    slot: int = 0,
    address: Address | str | None = None,
    *,
    handover: Handover,
    report: Callable[[Report], None] = lambda _: None,
) -> int:
    """Serve until ordered to stop; the exit status. Blocks. Call it in the main thread: it takes signals.

    `address` defaults to 127.0.0.1, base port + slot. `report` hears when it is ready, past a limit, empty.
    """
    if isinstance(address, str):
        address = Address.parse(address)
    address = address or Address("127.0.0.1", BASE_PORT + slot)
    try:
        listeners = listening.bind(address, handover.unix_socket)
    except OSError as error:
        return _cannot_start(report, f"{address}: {error.strerror}", error.errno == errno.EADDRINUSE)
    ledger = Ledger(handover.session_idle, affinity.MOST if handover.affinity else None)
    try:
        application = imported(handover.app)
        count = _counter(handover, application, ledger)
        cookies = _cookie_check(handover, application)
    except stores.Unreadable as error:
        listening.close(listeners)
        return _cannot_start(report, str(error))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        listening.close(listeners)
        return _cannot_start(report, f"{handover.app}: {type(error).__name__}: {error}")

    orders: queue.SimpleQueue[int] = queue.SimpleQueue()
    stops = (STOP,) if handover.caller_key else (STOP, signal.SIGINT)
    for number in (DRAIN, UNDRAIN, *stops):
        signal.signal(number, lambda number, _: orders.put(number))

    admission: Admission[Any] = Admission(handover.threads, handover.queue)
    limits = handover.max_requests, handover.max_age, handover.max_memory
    vitals = Vitals(slot, handover.generation, admission, *limits, cookies)
    gateway = Gateway(listeners, application, handover, vitals, ledger)
    try:
        gateway.start()
    except OSError as error:
        gateway.stop(timeout=0.0)
        return _cannot_start(report, f"{address}: {error.strerror}", error.errno == errno.EADDRINUSE)
    try:
        warm = warm_up(gateway.address, handover, lambda: STOP in _given(orders))
    except WarmUpFailed as error:
        gateway.stop(timeout=0.0)
        return _cannot_start(report, str(error))
    if not warm:
        gateway.stop(timeout=1.0)
        return 0
    ledger.clear()
    vitals.warm()
    report(Ready())
    _keep_house(orders, vitals, ledger, count, report)
    admission.stopping = True
    time.sleep(LINGER)
    if not admission.wait_idle(handover.stop_grace):
        log.warning("%d requests are abandoned", admission.in_flight)
    gateway.stop(timeout=1.0)
    return 0


def _given(orders: queue.SimpleQueue[int]) -> list[int]:
    """The orders that came. Waits a moment for one."""
    try:
        return [orders.get(timeout=0.02)]
    except queue.Empty:
        return []


def _keep_house(
    orders: queue.SimpleQueue[int],
    vitals: Vitals,
    ledger: Ledger,
    count: Callable[[], int],
    report: Callable[[Report], None],
) -> None:
    """Follow orders and watch the session cache, until the order to stop."""
    said: set[type[Report]] = set()
    while True:
        vitals.look(count)
        vitals.longest_session = ledger.longest(time.monotonic())
        if vitals.past_limit and PastLimit not in said:
            said.add(PastLimit)
            report(PastLimit(vitals.past_limit))
        if vitals.empty and Empty not in said:
            said.add(Empty)
            report(Empty())
        try:
            order = orders.get(timeout=TICK)
        except queue.Empty:
            continue
        if order == DRAIN:
            vitals.admission.dying = True
        elif order == UNDRAIN:
            vitals.admission.dying = False
            said.discard(Empty)
        else:
            return


def _counter(handover: Handover, application: Any, ledger: Ledger) -> Callable[[], int]:
    """A function that counts live sessions. Raises stores.Unreadable, and what an import raises."""
    named = handover.session_count
    if ":" in named:
        return by_word(imported(named), ledger, time.monotonic)
    if named:
        count, warning = stores.reader(named, application, handover.session_cookie)
        counter = by_store(count, ledger, time.monotonic)
    else:
        warning = stores.notice(application, handover.session_cookie)
        counter = by_cookies(ledger, time.monotonic)
    if warning:
        log.warning("%s", warning)
    return counter


def _cookie_check(handover: Handover, application: Any) -> CookieCheck:
    """What watches whether the application sets the session cookie; the log says at once where its framework names
    another one."""
    names = stores.other_cookies(application, handover.session_cookie) if handover.session_cookie else []
    if names:
        log.warning("%s", doubt(handover.session_cookie, 0, [], names))
    return CookieCheck(handover.session_cookie, names)


def imported(name: str) -> Any:
    """What `module:callable` names; the current folder is looked into first. Raises whatever the import raises."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is not callable")
    return found


def _cannot_start(report: Callable[[Report], None], why: str, port: bool = False) -> int:
    print(f"AppServer cannot start: {why}", file=sys.stderr)
    report(Failed(why, port))
    return CANNOT_START


def line(channel: socket.socket) -> bytes:
    """The monitor's one line. Blocks until it is here."""
    data = b""
    while not data.endswith(b"\n"):
        more = channel.recv(65536)
        if not more:
            raise SystemExit("the monitor went away before its handover")
        data += more
    return data


def reporter(channel: socket.socket) -> Callable[[Report | TemplateReport], None]:
    """A function that reports to the monitor, and minds no monitor that is gone."""

    def report(message: Report | TemplateReport) -> None:
        with contextlib.suppress(OSError):
            channel.send(encode(message) + b"\n", socket.MSG_DONTWAIT)

    return report

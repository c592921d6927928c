"""An AppServer: one process that serves the application from one address.

This is the proposal's "main function that takes a machine/port as an optional parameter". The monitor starts a Python
process for each slot, which calls it. `python -m lbadaptor.appserver module:callable` calls it by hand.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread, get_native_id
from time import monotonic, sleep
from typing import Any, ClassVar

from lbadaptor.appserver.http import listening
from lbadaptor.appserver.http.admission import Admission
from lbadaptor.appserver.http.gateway import Gateway
from lbadaptor.appserver.http.status import Status
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.process.messages import (
    DRAIN,
    STOP,
    UNDRAIN,
    Assignment,
    Empty,
    Failed,
    PastLimit,
    Ready,
    Report,
    TemplateReport,
    encode,
)
from lbadaptor.appserver.process.signals import Orders
from lbadaptor.appserver.process.startup import Watch, failed
from lbadaptor.appserver.sessions import affinity, stores
from lbadaptor.appserver.sessions.cookie_check import CookieCheck, doubt
from lbadaptor.appserver.sessions.count import at_most, by_application, by_cookies, by_store
from lbadaptor.appserver.sessions.persistence.saver import Bounds
from lbadaptor.appserver.sessions.persistence.survival import Survival, survival
from lbadaptor.appserver.sessions.table import MAX_VALUES, SessionTable
from lbadaptor.appserver.warmup import WarmUpFailed, warm_up
from lbadaptor.contract.address import Address
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

BASE_PORT = 9000
TICK = 0.5
"""Seconds between two looks at the session cache."""
REFUSE_TIME = 0.3
"""Seconds for which requests are refused after the order to stop. An adaptor may not know yet that this AppServer has
left address.text; it can repeat a refused request elsewhere, but not one whose connection was closed."""

LEAST_MOVING = 1.0
"""Seconds for which sessions are moved after the order to stop, though requests have taken all of stop_grace."""

END_TIME = 1.0
"""Seconds after the last request. If the process has not ended then, it logs what it waits for."""

CANNOT_START = 3
"""Exit status."""
DESCRIPTORS_CLOSED = 4
"""Exit status: the application has closed our descriptors."""
SWITCH_INTERVAL = 0.1
"""The longest allowed switch interval in seconds (sys.setswitchinterval). A thread that computes makes the others
wait for that long, also the one that answers the probe."""

_INTACT_CHECKS = 3
_CLOSED = "the application has closed descriptors that are not its own (os.closerange?)"


def main(
    slot: int = 0,
    address: Address | str | None = None,
    *,
    assignment: Assignment,
    report: Callable[[Report], object] = lambda _: None,
) -> int:
    """Serve until the order to stop. Returns the exit status. Blocks. Call it in the main thread: it handles signals.

    `address` defaults to 127.0.0.1, base port + slot. It calls `report` when it is ready, past a limit, or empty.
    """
    if isinstance(address, str):
        address = Address.parse(address)
    address = address or Address("127.0.0.1", BASE_PORT + slot)
    try:
        listeners = listening.bind(address, assignment.unix_socket)
    except OSError as error:
        return cannot_start(report, f"{address}: {texts.what(error)}", error.errno == errno.EADDRINUSE)
    for listener in listeners:
        forks.guard(listener.close)
    sockets = listening.identities(listeners)
    orders = Orders((DRAIN, UNDRAIN, STOP) if assignment.caller_key else (DRAIN, UNDRAIN, STOP, signal.SIGINT))
    sessions = SessionTable(assignment.session_idle, affinity.MAX_VISITORS if assignment.affinity else MAX_VALUES)
    watch = Watch(assignment.app, assignment.start_timeout, assignment.ready_by, report)
    try:
        application = imported(assignment.app)
        count = _counter(assignment, application, sessions)
        cookies = _cookie_check(assignment, application)
        survives = _survival(slot, assignment, application, sessions)
        if survives.keeper is not None and ":" not in assignment.session_count:
            count = at_most(count, survives.keeper.count)
    except stores.Unreadable as error:
        listening.close(listeners)
        return cannot_start(report, str(error))
    except BaseException as error:  # also KeyboardInterrupt: the application may have raised it
        if forks.is_child():
            forks.end(error)
        listening.close(listeners)
        return cannot_start(report, failed(assignment.app, error))
    if forks.is_child():
        forks.end(None)
    if why := _unfit(listeners, sockets):
        return cannot_start(report, f"{assignment.app}: {why}")

    if survives.keeper is not None:
        forks.guard(survives.keeper.abandon)
    orders.take()
    admission: Admission[Any] = Admission(assignment.threads, assignment.queue)
    limits = assignment.max_requests, assignment.max_age, assignment.max_memory
    status = Status(slot, assignment.generation, admission, *limits, cookies, kept=survives.report)
    gateway = None
    try:
        gateway = Gateway(listeners, application, assignment, status, sessions, survives.keeper)
        gateway.start()
    except (OSError, RuntimeError, MemoryError) as error:
        if gateway is not None:
            gateway.stop(timeout=0.0)
        reason = texts.what(error)
        return cannot_start(report, f"{address}: {reason}", getattr(error, "errno", 0) == errno.EADDRINUSE)
    for listener in listeners:
        forks.release(listener.close)  # the gateway closes them in a child from now on
    try:
        warm = warm_up(gateway.address, assignment, lambda: orders.get(timeout=0.02) in (STOP, signal.SIGINT))
    except WarmUpFailed as error:
        gateway.stop(timeout=0.0)
        return cannot_start(report, str(error))
    if not warm:
        gateway.stop(timeout=1.0)
        return 0
    with _ErrorsLogged():
        sessions.clear()
        survives.activate()
        status.warm()
        watch.end()
    with _ErrorsLogged():
        report(Ready())
    _run(partial(_turn, orders, gateway, status, sessions, survives, count, report, set()))
    admission.stopping = True
    refused_until = monotonic() + REFUSE_TIME
    with _ErrorsLogged():
        survives.turn(leaving=True)
        sleep(max(0.0, refused_until - monotonic()))
    until = monotonic() + assignment.stop_grace
    with _ErrorsLogged():
        if not _requests_end(admission, survives, until):
            log.warning(
                "%s abandoned after stop_grace, %g s",
                texts.count(admission.in_flight, "request"),
                assignment.stop_grace,
            )
    with _ErrorsLogged():
        survives.end(max(until, monotonic() + LEAST_MOVING))
    with _ErrorsLogged():
        gateway.stop(timeout=1.0)
    with _ErrorsLogged():
        survives.close()
    orders.end()
    with contextlib.suppress(Exception):  # only a log line depends on it
        Thread(target=_log_what_keeps_it, name="end-watch", daemon=True).start()
    return 0


def _requests_end(admission: Admission[Any], survives: Survival, until: float) -> bool:
    """Wait until nothing is in flight, and meanwhile move the sessions of requests that are over. False when that
    took longer (`until`: monotonic seconds)."""
    while not admission.wait_idle(min(TICK, until - monotonic())):
        if monotonic() >= until:
            return False
        survives.turn(leaving=True)
    return True


def _log_what_keeps_it() -> None:
    """Runs in a thread of its own. The interpreter waits for threads that are no daemons, and for `atexit` functions.
    If that takes long, this logs what it waits for, before the monitor ends the process.
    """
    with contextlib.suppress(Exception):
        sleep(END_TIME)
        threads = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
        what = "what the application has registered with atexit"
        if threads:
            names = ", ".join(sorted(one.name for one in threads))
            what = f"threads of the application that are no daemons: {texts.clean(names)}"
        log.warning("all requests are done; the process waits for %s", what)


def _unfit(listeners: Sequence[socket.socket], sockets: Sequence[int]) -> str:
    """Why this process cannot serve the application that it has just imported. Empty if it can."""
    if listening.identities(listeners) != sockets:
        return _CLOSED
    native: list[int] = []
    try:
        thread = Thread(target=lambda: native.append(get_native_id()))
        thread.start()
        thread.join()
    except Exception as error:
        if type(error) is RuntimeError:  # no more threads can be started
            return str(error)
        native.append(get_native_id())  # gevent: "this operation would block forever"
    if not native:
        return "threads end before they begin (does the application call threading.settrace or setprofile?)"
    if get_native_id() in native:
        patched = next((name for name in ("gevent", "eventlet") if name in sys.modules), "something")
        return (
            f"{patched} has replaced threads by its own when it was imported (monkey patching); "
            "an AppServer serves with the system's threads: leave that out, or leave out threads (thread=False)"
        )
    return ""


class _ErrorsLogged(contextlib.AbstractContextManager[None]):
    """Logs an exception of its block, and the AppServer goes on. The exception may be a MemoryError, or come from a
    signal handler of the application, which runs in the main thread. In a child that the application forked, the end
    of the block ends the child.
    """

    _logged: ClassVar[Once] = Once(100)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if forks.is_child():
            forks.end(error)
        if error is not None:
            with contextlib.suppress(BaseException):
                if self._logged.first(repr(kind)):
                    log.error(
                        "an error in the main thread, which is logged once; the AppServer goes on", exc_info=error
                    )
        return True


def _run(turn: Callable[[], bool]) -> None:
    """Call `turn` again and again, until it returns False.

    An error may come between any two lines: the application's signal handlers run in this thread. So one guard stands
    around the other, for what comes while an error is logged, or between two turns.
    """

    def turns() -> None:
        while turn():
            pass

    _until_it_returns(partial(_until_it_returns, partial(_until_it_returns, turns)))


def _until_it_returns(work: Callable[[], None]) -> None:
    """Call `work` anew after each error."""
    while True:
        with _ErrorsLogged():
            work()
            return


def _turn(
    orders: Orders,
    gateway: Gateway,
    status: Status,
    sessions: SessionTable,
    survives: Survival,
    count: Callable[[], int],
    report: Callable[[Report], object],
    said: set[type[Report]],
) -> bool:
    """One turn of the main thread's loop: check everything, and obey one order. False: it was the order to stop.

    Blocks until an order comes, or for `TICK`.
    """
    logs.flush()
    busy = False
    with _ErrorsLogged():
        orders.hold()
    with _ErrorsLogged():
        busy = survives.turn(status.admission.dying)
    with _ErrorsLogged():
        _check_the_application(gateway)
    with _ErrorsLogged():
        status.look(count)
    with _ErrorsLogged():
        status.longest_session = sessions.longest(monotonic())
        status.oldest_session = sessions.oldest(monotonic())
        if status.past_limit and PastLimit not in said:
            said.add(PastLimit)
            report(PastLimit(status.past_limit))
        if status.empty and Empty not in said:
            said.add(Empty)
            report(Empty())
    order = orders.get(timeout=0.0 if busy else TICK)
    if order == DRAIN:
        status.admission.dying = True
    elif order == UNDRAIN:
        status.admission.dying = False
        said.discard(Empty)
    else:
        return order is None
    return True


def _check_the_application(gateway: Gateway) -> None:
    """Check what the application may have done to the process. Ends the process if it cannot serve any more."""
    # Again, before it is believed: a signal handler of the application may raise TimeoutError within, an OSError.
    if not any(gateway.intact() for _ in range(_INTACT_CHECKS)):
        log.critical("%s: it can serve no more requests; the AppServer ends, and the monitor starts another", _CLOSED)
        os._exit(DESCRIPTORS_CLOSED)
    if sys.getswitchinterval() > SWITCH_INTERVAL:
        log.warning(
            "the application has called sys.setswitchinterval(%g); it is set back to 0.005", sys.getswitchinterval()
        )
        sys.setswitchinterval(0.005)


def _counter(assignment: Assignment, application: Any, sessions: SessionTable) -> Callable[[], int]:
    """A function that counts the living sessions. Raises stores.Unreadable, and whatever an import raises."""
    named = assignment.session_count
    if ":" in named:
        return by_application(imported(named), sessions, monotonic)
    if named:
        count, warning = stores.reader(named, application, assignment.session_cookie)
        counter = by_store(count, sessions, monotonic)
    else:
        warning = stores.notice(application, assignment.session_cookie)
        counter = by_cookies(sessions, monotonic)
    if warning:
        log.warning("%s", warning)
    return counter


def _survival(slot: int, assignment: Assignment, application: Any, sessions: SessionTable) -> Survival:
    """What outlives this AppServer. Raises stores.Unreadable, and whatever an import raises."""
    return survival(
        assignment.survive,
        slot,
        assignment.generation,
        application,
        assignment.app,
        assignment.session_cookie,
        assignment.session_count,
        (assignment.session_save, assignment.session_load),
        assignment.session_folder,
        assignment.run_folder,
        Bounds(assignment.session_max_bytes, assignment.session_max_files),
        assignment.session_idle,
        sessions.forget,
    )


def _cookie_check(assignment: Assignment, application: Any) -> CookieCheck:
    """The check that the application sets the session cookie. Logs a warning if its framework uses another name."""
    names = stores.other_cookies(application, assignment.session_cookie) if assignment.session_cookie else []
    if names:
        log.warning("%s", doubt(assignment.session_cookie, 0, [], names))
    return CookieCheck(assignment.session_cookie, names)


def imported(name: str) -> Any:
    """Import `module:callable`, from the current folder first. Raises whatever the import raises."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is not callable")
    return found


def cannot_start(report: Callable[[Failed], object], why: str | Failed, port: bool = False) -> int:
    """Log and report why the start failed. Returns the exit status. `port`: the port is in use."""
    message = why if isinstance(why, Failed) else Failed(texts.clean(why, texts.REASON), port)
    log.error("cannot start: %s", message.why)
    if not report(message):  # no monitor logs it
        for row in message.trace:
            log.error("%s", row)
    return CANNOT_START


def line(channel: socket.socket) -> bytes:
    """Read one line from the monitor. Blocks. Raises SystemExit if the monitor ends first."""
    data = b""
    while not data.endswith(b"\n"):
        more = channel.recv(65536)
        if not more:
            raise SystemExit("the monitor ended before it sent the assignment")
        data += more
    return data


def reporter(channel: socket.socket) -> Callable[[Report | TemplateReport], bool]:
    """A function that reports to the monitor. It returns False when there is no monitor; it never raises OSError."""

    def report(message: Report | TemplateReport) -> bool:
        try:
            channel.send(encode(message) + b"\n", socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    return report

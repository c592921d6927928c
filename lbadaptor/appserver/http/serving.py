"""One request through the application. Runs in the thread that serves it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from time import monotonic

from lbadaptor.appserver.http.access_log import AccessLog, CountedAnswer
from lbadaptor.appserver.http.connection import Connection
from lbadaptor.appserver.http.dispatch import Dispatcher, Task
from lbadaptor.appserver.http.status import Status, path
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.sessions.persistence.saver import Moved
from lbadaptor.appserver.sessions.persistence.visits import KeptVisit
from lbadaptor.appserver.wsgi import environ as environs
from lbadaptor.appserver.wsgi.answer import Answer, FileWrapper, LongLine, ShortAnswer
from lbadaptor.appserver.wsgi.environ import REQUEST_ID, Environ, Incomplete, Request
from lbadaptor.contract.headers import LONGEST_LINE, TIME
from lbadaptor.log import logs, texts
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor.appserver")

Application = Callable[..., Iterable[bytes]]

_MAX_NAME = 100
"""Characters of a header's name in the log."""
_TIME = TIME.encode()


class Serving:
    """Calls the application. `caller_key` is empty in an AppServer that runs alone, `address` is where it listens.

    `access_log` is the path of a log of its own; empty: there is none.
    """

    def __init__(
        self,
        application: Application,
        dispatcher: Dispatcher,
        status: Status,
        caller_key: str,
        address: tuple[str, int],
        access_log: str = "",
    ) -> None:
        self._application = application
        self._dispatcher = dispatcher
        self._status = status
        self._alone = not caller_key
        self._address = address
        self._access = AccessLog(access_log, status.slot) if access_log else None
        self._answer = CountedAnswer if access_log else Answer
        self._base = environs.base_environ(status.slot, status.generation, status.admission.threads, FileWrapper)
        self._long_lines = Once(100)
        """the headers of which the log says that they are too long"""
        if caller_key:
            environs.know_key(caller_key)

    def serve(self, task: Task) -> None:
        """Serve one request. Never raises.

        From the moment that the answer's last byte is sent (`_release`) the connection belongs to the polling thread
        again, and soon perhaps to another one that serves its next request. This thread is at work until the
        application's `close()` has returned.
        """
        connection, visit, request = task
        answer: Answer | None = None
        try:
            kept = visit if isinstance(visit, KeptVisit) else None
            if kept is not None:
                kept.find()
            environ = self._environ(connection, request)
            visit.tell(environ, request.lost)
            method, uri = environ["REQUEST_METHOD"], environ["REQUEST_URI"]  # the application may change its environ
            own = self._status.headers if not request.timed else _with_time(self._status.headers, request.since)
            answer = self._answer(connection, method, request.version == "1.1", visit.answered, own, self._release)
            if request.fast:
                answer.longest_line = LONGEST_LINE
            if kept is not None:
                answer.before_end = kept.save
            try:
                answer.run(self._application, environ)
            except BaseException as error:  # sys.exit() too: it ends a request, never an AppServer
                if answer.undelivered and isinstance(error, ConnectionError):
                    visit.undelivered()
                given = request.fields.get(REQUEST_ID)
                what = f"{method} {path(uri)} ({given})" if given else f"{method} {path(uri)}"
                self._failed(answer, connection, what, error)
            if forks.is_child():
                forks.end(None)
            if not answer.released:
                self._dispatcher.answered(connection, broken_off=True)
            if kept is not None and answer.ran_on:
                kept.save()
        except Moved as moved:
            self._dispatcher.refuse_moved(connection, moved.whereto)
        except Incomplete as error:
            self._dispatcher.refuse_as(connection, error.refusal, str(error))
        except BaseException:
            if answer is not None and answer.released:
                self._dispatcher.failed_after()
            else:
                self._dispatcher.give_up(connection)
        finally:
            visit.over()
            if self._access is not None and isinstance(answer, CountedAnswer):
                self._access.record(request, answer)

    def give_up(self, task: Task) -> None:
        """The request cannot be served for an error of ours, which is being handled. Never raises."""
        connection, visit, _ = task
        self._dispatcher.give_up(connection)
        visit.over()

    def _environ(self, connection: Connection, request: Request) -> Environ:
        if self._alone:
            environ = environs.build_alone(request, self._base, connection.peer, self._address)
        else:
            environ = environs.build(request, self._base)
        environ["wsgi.input"] = connection.body()
        return environ

    def _release(self, connection: Connection) -> None:
        """The answer's last byte was sent; the application goes on. Never raises: the application would get it.

        In a child that the application has forked, nothing is done: the connection is the parent's.
        """
        if forks.is_child():
            return
        try:
            self._dispatcher.answered(connection)
        except BaseException:
            self._dispatcher.give_up(connection)

    def _failed(self, answer: Answer, connection: Connection, what: str, error: BaseException) -> None:
        """The application has raised `error`, which is being handled, at work on the request `what`."""
        status = "500 Internal Server Error"
        if forks.is_child():
            forks.end(error)
        if not answer.released and connection.broken:
            log.info("%s: the caller went away: %s", what, error)
            return
        if isinstance(error, LongLine):
            status = "502 Bad Gateway"  # as of mod_proxy, which would close the connection besides
            self._warn_of(error, what)
        elif isinstance(error, ShortAnswer):
            log.error("%s: %s", what, error)
        else:
            log.error("%s: the application failed", what, exc_info=error)
        if not answer.begun:
            with contextlib.suppress(OSError):
                answer.fail(status)

    def _warn_of(self, error: LongLine, what: str) -> None:
        line = texts.clean(error.line, _MAX_NAME)
        if self._long_lines.first(line):
            log.warning(
                "%s: the answer's %s is too long for the fast lane (%d bytes of at most %d): the visitor gets 502; "
                "shorten it, or keep this path out of the fast lane (docs/reference/fast-lane.md, Header lines)",
                *(what, line, error.length, error.most),
            )


def _with_time(own: Callable[[], bytes], since: float) -> Callable[[], bytes]:
    """The AppServer's header lines, and how long the answer took, in microseconds."""
    return lambda: b"%b%b: %d\r\n" % (own(), _TIME, (monotonic() - since) * 1e6)

"""The adaptor as a WSGI application (PEP 3333).

The way of a request: its body is kept (`spool`), an AppServer is found and asked (`walk`), and the answer is passed
on, in one block or as it comes (`stream`). The adaptor writes no file except the spool, sets no cookie, and
installs no signal handler.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lbadaptor.adaptor import error_pages, forward, libc, log_variables
from lbadaptor.adaptor.accepted_settings import AcceptedSettings
from lbadaptor.adaptor.backends import Backends, BufferedResponse
from lbadaptor.adaptor.circuit_breaker import CircuitBreaker
from lbadaptor.adaptor.configuration import Configuration
from lbadaptor.adaptor.forward import BadRequest, Environ
from lbadaptor.adaptor.spool import EMPTY, Body, VisitorGone, keep
from lbadaptor.adaptor.stream import Stream
from lbadaptor.adaptor.walk import GiveUp, Walk
from lbadaptor.contract.address import canonical
from lbadaptor.contract.errors import OurOwnFault
from lbadaptor.contract.headers import HEALTH_PATH, HOLDERS_PATH
from lbadaptor.contract.settings import DEFAULT_FILE, Settings
from lbadaptor.contract.settings.snapshot import Snapshot
from lbadaptor.log import logs

log = logs.logger("lbadaptor")

HEALTH_PATHS = (HEALTH_PATH, HOLDERS_PATH)
LARGE_HEAD = 65536
"""Bytes of a request's head. After a larger one the C library is told to return freed memory to the system
(malloc_trim(3)). Otherwise it keeps some 10 MB for each of its arenas once Apache's threads have written such heads,
and it has eight arenas for each processor."""


class Adaptor:
    """A WSGI application that forwards requests to AppServers. Many threads may call it at once.

    `settings` is the path of a lbadaptor.toml, or its content. Given a path, the adaptor goes by what the monitor has
    accepted of that file, as soon as a monitor has accepted it. Raises SettingsError. A missing key file or
    address.text is no error here: requests get 503 until both exist.
    """

    def __init__(self, settings: Settings | str | os.PathLike[str] = DEFAULT_FILE) -> None:
        self._accepted: AcceptedSettings | None = None
        if isinstance(settings, Settings):
            snapshot = Snapshot(settings, (settings.application.ticket_cookie,))
        else:
            self._accepted = AcceptedSettings(Path(settings))
            snapshot = self._accepted.first()
        self.configuration = Configuration(snapshot)
        self.circuit_breaker = CircuitBreaker()
        self.backends = Backends(snapshot.settings, self._renew_settings)

    def _renew_settings(self) -> None:
        """Called when address.text has changed, by one thread at a time: the settings may have changed too."""
        snapshot = self._accepted.changed() if self._accepted is not None else None
        if snapshot is not None:
            self.backends.renew(snapshot.settings)
            self.configuration = Configuration(snapshot, self.configuration)

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer one request. Blocks on the visitor's body and on the AppServer."""
        if self.configuration.front and environ.get("PATH_INFO") in HEALTH_PATHS and self._is_of_front(environ):
            return self._tell_health(environ, start_response)
        body, streamed, large = EMPTY, False, False
        walk: Walk | None = None
        try:
            body = self._keep_body(environ)
            walk = Walk(self.backends, self.circuit_breaker, self._current_configuration, environ, body)
            large = len(walk.common) > LARGE_HEAD
            buffered = walk.run()
            if not body.kept:
                self._read_rest(environ, body, buffered)
            response = buffered.response
            if log_variables.ASKED in environ:
                response.headers += log_variables.of(environ, walk)
            if response.over:
                # In one block: mod_wsgi flushes after each block, and needs no chunked coding for a single one.
                blocks = buffered.blocks if len(buffered.blocks) < 2 else [b"".join(buffered.blocks)]
                start_response(response.status_line, response.headers)
                return blocks
            streamed = True
        except BadRequest as error:
            own = log_variables.of(environ, walk)
            return error_pages.answer(start_response, error.status, f"{error}.", more=own)
        except VisitorGone as error:
            own = log_variables.of(environ, walk)
            return error_pages.answer(start_response, 400, f"{error}.", more=own)
        except GiveUp as give_up:
            return self._give_up(environ, start_response, give_up.status, str(give_up), walk)
        except MemoryError:
            return self._give_up(environ, start_response, 503, "out of memory", walk)
        finally:
            if body is not EMPTY and not streamed:
                body.close()
            if large and walk is not None:
                walk.common = b""
                _return_memory()
        stream = Stream(buffered, environ, body, walk)
        if environ.get("mod_wsgi.process_group"):
            # Daemon mode: if the answer breaks off, whatever follows on the connection would be taken for its rest.
            response.headers.append(("Connection", "close"))
        try:
            start_response(response.status_line, response.headers)
        except BaseException:
            stream.close()
            raise
        return stream

    def _is_of_front(self, environ: Environ) -> bool:
        """Whether the front asks for a health page; otherwise that path is the application's."""
        address = canonical(environ.get("REMOTE_ADDR", ""))
        return environ["REQUEST_METHOD"] in ("GET", "HEAD") and address in self.configuration.front

    def _tell_health(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        from lbadaptor.adaptor import health  # most machines are alone

        table = self.backends.table_of_living()  # first: with it come new settings
        more = log_variables.of(environ, None)
        return health.answer(start_response, environ["PATH_INFO"], table, self.configuration.leaving, more)

    def _current_configuration(self) -> Configuration:
        return self.configuration

    def _keep_body(self, environ: Environ) -> Body:
        length = forward.body_length(environ)
        if length == 0:
            return EMPTY
        self.backends.table_for(())  # new settings hold for this body already
        try:
            body = keep(environ["wsgi.input"], length, *self.configuration.keep, short=forward.may_be_short(environ))
        except OurOwnFault as error:
            raise GiveUp(503, str(error)) from None
        if length is None and body.length == 0:
            forward.refuse_lost(environ)
        return body

    def _read_rest(self, environ: Environ, body: Body, buffered: BufferedResponse) -> None:
        """Read the rest of the body where Apache takes no answer before it has passed on the whole body.

        mod_wsgi's daemon mode and mod_cgi work like that. If the application answers while it still reads, the
        adaptor would wait for Apache and Apache for the adaptor. Raises GiveUp, VisitorGone.
        """
        if not (environ.get("mod_wsgi.process_group") or environ.get("wsgi.run_once")):
            return
        try:
            if buffered.response.over:
                body.pass_over()
            else:
                body.keep_rest(self.configuration.settings.adaptor.spool_folder)
        except BaseException as error:
            buffered.close()
            if isinstance(error, OurOwnFault):
                raise GiveUp(503, str(error)) from None
            raise

    def _give_up(
        self, environ: Environ, start_response: Callable[..., object], status: int, why: str, walk: Walk | None
    ) -> Iterable[bytes]:
        log.warning("lbadaptor: %s %s: %s", status, forward.url(environ), why)
        own = self.configuration.error_page
        page = own.read() if own and status == 503 else None
        return error_pages.answer(start_response, status, page=page, more=log_variables.of(environ, walk))


def _return_memory() -> None:
    """Tell the C library to return freed memory to the system. Only the GNU library can do that."""
    trim = libc.function("malloc_trim")
    if trim is not None:
        trim(0)  # other threads run meanwhile

"""An adaptor with its files, and a visitor who asks it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from scripted import ScriptedServer

from lbadaptor.adaptor.middleware import Adaptor
from lbadaptor.contract.address import Address, Entry, Identity, State, Table, write
from lbadaptor.contract.settings import AdaptorSettings, Application, Files, Settings
from lbadaptor.contract.ticket import Keys

MASTER = "m" * 48
GENERATION = 1763805600000


def cookies(*tickets: str) -> dict[str, str]:
    """For environ: these tickets, and a session's cookie."""
    return {"HTTP_COOKIE": "; ".join([*(f"__PRT__={ticket}" for ticket in tickets), "sid=abc"])}


def at_the_first_pause(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when a request begins to wait."""
    sleep, acts = time.sleep, [act]

    def pause(seconds: float) -> None:
        if acts:
            acts.pop()()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", pause)


class Site:
    """An adaptor with its files, and who asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = Keys([MASTER])
        self.key_file.write_text(f"{MASTER}\n")
        self._adaptor: Adaptor | None = None
        self._application = Application("shop:application", "sid")
        # None of these times is over by chance on a busy machine: a test that is about one sets it.
        self._settings: dict[str, Any] = {"wait": 10.0, "answer_timeout": 30.0, "connect_timeout": 2.0}
        self._serial = 0
        self._mtime = time.time_ns()

    @property
    def key_file(self) -> Path:
        return self.folder / "keys"

    def configure(self, **adaptor: Any) -> None:
        """Change settings of [adaptor], before the first request."""
        assert self._adaptor is None
        self._settings |= adaptor

    def configure_affinity(self) -> None:
        """The application has no sessions, before the first request."""
        assert self._adaptor is None
        self._application = Application("shop:application", affinity=True)

    @property
    def settings(self) -> Settings:
        return Settings(
            self._application,
            Files(str(self.folder), str(self.key_file)),
            adaptor=AdaptorSettings(**self._settings),
        )

    @property
    def adaptor(self) -> Adaptor:
        if self._adaptor is None:
            self._adaptor = Adaptor(self.settings)
        return self._adaptor

    def entry(
        self,
        where: ScriptedServer | Address,
        slot: int = 0,
        state: State = State.OK,
        generation: int = GENERATION,
        weight: int = 100,
    ) -> Entry:
        """A line of address.text."""
        identity = Identity(slot, generation + slot)
        address = where.address if isinstance(where, ScriptedServer) else where
        return Entry(self.keys.ticket(identity), address, state, identity, weight)

    def publish(self, *entries: Entry) -> None:
        """Write address.text as the monitor does."""
        self._serial += 1
        self.publish_text(write(Table(self._serial, entries), "test", "now"))

    def publish_text(self, text: str) -> None:
        beside = self.folder / "beside"
        beside.write_text(text)
        self._mtime += 1000
        os.utime(beside, ns=(self._mtime, self._mtime))
        beside.rename(self.folder / "address.text")

    def publish_servers(self, *servers: ScriptedServer | Address) -> list[Entry]:
        """Name these, all OK, in slots 0, 1, 2 …"""
        entries = [self.entry(server, slot) for slot, server in enumerate(servers)]
        self.publish(*entries)
        return entries

    def ask(self, method: str = "GET", body: bytes = b"", *, valid: bool = True, **changes: Any) -> Response:
        """One request through wsgiref.validate; the whole answer."""
        with self.begin(method, body, valid=valid, **changes) as response:
            response.read()
        return response

    def begin(self, method: str = "GET", body: Any = b"", *, valid: bool = True, **changes: Any) -> Response:
        """One request; the answer's body is still to be read."""
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": "/cart",
            "QUERY_STRING": "",
            "SERVER_NAME": "www.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.7",
            "REMOTE_PORT": "50123",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if body and isinstance(body, bytes) and "HTTP_TRANSFER_ENCODING" not in changes:
            environ["CONTENT_LENGTH"] = str(len(body))
        response = Response()
        application = validator(self.adaptor) if valid else self.adaptor
        response.blocks = application(environ | changes, response.start)
        return response

    def close(self) -> None:
        """An empty table makes the adaptor close its idle connections."""
        if self._adaptor is not None:
            self.publish()
            self._adaptor.backends.table()


@dataclass
class Response:
    """What the visitor got."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    blocks: Any = ()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], None]:
        self.status, self.reason, self.headers = int(status[:3]), status[4:], headers
        return lambda data: None

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def read(self) -> bytes:
        self.body += b"".join(self.blocks)
        return self.body

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self.blocks, "close"):
            self.blocks.close()

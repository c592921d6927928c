"""An AppServer as the monitor starts it, with a site of its own."""

from __future__ import annotations

import http.client
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lbadaptor.appserver.process.messages import (
    Assignment,
    Ready,
    Report,
    decode_report,
    encode,
)

WAIT = 20.0
"""Seconds after which a test gives up waiting for an event."""
PROJECT = str(Path(__file__).resolve().parents[2])
LB = {
    "LB-Key": "caller's",
    "LB-Generation": "17",
    "LB-Remote-Addr": "192.0.2.7",
    "LB-Remote-Port": "51234",
    "LB-Scheme": "http",
    "LB-Script-Name": "",
    "LB-Path": "/",
    "LB-Request-Uri": "/",
    "LB-Server-Name": "localhost",
    "LB-Server-Port": "80",
    "LB-Server-Protocol": "HTTP/1.1",
}
SITE = """
    import os, sys, threading

    def hello(environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    def login(environ, start_response):
        start_response("200 OK", [("Set-Cookie", "_SID_=mine; Path=/")])
        return [b"welcome"]

    def session(environ, start_response):
        logout = environ.get("HTTP_X_LOGOUT")
        start_response("200 OK", [("Set-Cookie", "_SID_=mine; Path=/" + ("; Max-Age=0" if logout else ""))])
        return [b"welcome"]

    def slow(environ, start_response):
        start_response("200 OK", [])(b"begun ")
        return [environ["wsgi.input"].read()]

    def where(environ, start_response):
        import monitor
        start_response("200 OK", [])
        return [f"{os.getcwd()}|{os.environ['FLAVOUR']}|{monitor.WHOSE}".encode()]

    def logs(environ, start_response):
        import logging
        logging.basicConfig(level=logging.DEBUG, format="MINE %(message)s", stream=sys.stderr)
        logging.getLogger("site").debug("logged")
        start_response("200 OK", [])
        return []

    asked, eaten = [], []

    def warm(environ, start_response):
        path = environ["PATH_INFO"]
        status, headers = {"/bad": "500 Bad", "/moved": "302 Found", "/gone": "404 Not Found"}.get(path, "200 OK"), []
        if path == "/asked":
            start_response(status, headers)
            return [repr(asked).encode()]
        names = ("PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REQUEST_METHOD", "SCRIPT_NAME", "lbadaptor.slot")
        asked.append(tuple(environ[name] for name in names))
        if path == "/raises":
            raise RuntimeError("cold")
        if path == "/hangs":
            threading.Event().wait()
        if path == "/login":
            headers.append(("Set-Cookie", "_SID_=mine; Path=/"))
        start_response(status, headers)
        return [b"x" * 200_000]

    def eats(environ, start_response):
        eaten.append(b"x" * 200_000_000)
        return hello(environ, start_response)

    def count():
        return 1

    def broken_count():
        raise KeyError("no store")
"""


class AppServer:
    """One process, and the monitor's end of its channel."""

    def __init__(self, folder: Path, assignment: Assignment | None, arguments: list[str], **environment: str) -> None:
        self.slot = 3
        self._said = b""
        """what was read of its standard error before its end"""
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # bound by both, listened on by one
        self._reserved.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._reserved.getsockname()
        self.channel, theirs = socket.socketpair()
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(WAIT), 0))
        self._lines = self.channel.makefile("rb")
        command = [
            sys.executable,
            "-m",
            "lbadaptor.appserver",
            "--address",
            "{}:{}".format(*self.address),
            *arguments,
        ]
        if assignment is not None:
            command += ["--slot", str(self.slot), "--channel", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": PROJECT, **environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        if assignment is not None:
            self.channel.sendall(encode(assignment) + b"\n")

    def report(self) -> Report | None:
        """The next report; None: the AppServer has ended."""
        line = self._lines.readline()
        return decode_report(line) if line else None

    def order(self, number: int) -> None:
        self.process.send_signal(number)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=WAIT)

    def ask(self, *, path: str = "/", **more: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers; `X_A="b"` is sent as `X-A: b`."""
        connection = self.connect()
        fields = {name.replace("_", "-"): value for name, value in more.items()}
        connection.request("GET", path, headers={**LB, **fields})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body, dict(response.getheaders())

    def wait_for_status(self, status: str) -> None:
        """Wait until an order, which comes as a signal, was obeyed."""
        while self.ask()[2]["LB-Status"] != status:
            pass

    def wait_said(self, what: str) -> None:
        """Wait until it has said something on its standard error."""
        assert self.process.stderr is not None
        until = time.monotonic() + WAIT
        while what not in self._said.decode():
            readable, _, _ = select.select([self.process.stderr], [], [], max(0.0, until - time.monotonic()))
            assert readable, f"it does not say {what!r}: {self._said.decode()}"
            data = os.read(self.process.stderr.fileno(), 65536)
            assert data, f"it has ended without saying {what!r}: {self._said.decode()}"
            self._said += data

    def ended(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr. Blocks until it has ended."""
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out.decode(), (self._said + err).decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._lines.close()
        self.channel.close()
        self._reserved.close()


Start = Callable[..., AppServer]


def ready(appserver: AppServer) -> AppServer:
    assert appserver.report() == Ready()
    return appserver

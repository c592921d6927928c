"""Large bodies up and down through a site, and the memory that each process takes meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
from pathlib import Path

from cluster import TIMEOUT, Site

BLOCK = bytes(range(256)) * 256
"""As the application's; bodies are so many of these."""


def ask(site: Site, target: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", target)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


def upload(site: Site, blocks: int, chunked: bool = False) -> None:
    """Post so many blocks; the application has to have them all."""
    sha = hashlib.sha256()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {blocks * len(BLOCK)}"
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        visitor.sendall(f"POST /taken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n".encode())
        for _ in range(blocks):
            sha.update(BLOCK)
            visitor.sendall(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK)
        if chunked:
            visitor.sendall(b"0\r\n\r\n")
        answer = http.client.HTTPResponse(visitor)
        answer.begin()
        assert answer.status == 200
        assert answer.read().decode() == f"{blocks * len(BLOCK)} {sha.hexdigest()}"


def download(site: Site, blocks: int, length: bool = True) -> None:
    """Get so many blocks, with a length or without."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", f"/large?blocks={blocks}{'&length=1' if length else ''}")
        answer = connection.getresponse()
        assert answer.status == 200
        size, whole = 0, True
        while piece := answer.read(len(BLOCK)):
            whole = whole and piece == BLOCK
            size += len(piece)
        assert (size, whole) == (blocks * len(BLOCK), True)


class Peaks:
    """The largest resident memory, in bytes, that any of httpd's processes and the AppServer had until now.

    httpd's processes are its own, mod_wsgi's daemons, and CGI scripts, however short they live. Use it as a context.
    """

    def __init__(self, site: Site) -> None:
        self.httpd = 0
        self.appserver = 0
        self._session = site.httpd.pid
        self._appserver = int(ask(site, "/pid"))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._look()

    def _look(self) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, StopIteration):  # it has ended
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self._session:
                        self.httpd = max(self.httpd, _peak(entry))
        self.appserver = max(self.appserver, _peak(Path(f"/proc/{self._appserver}")))


def _peak(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

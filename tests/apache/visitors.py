"""Who comes to a cluster, and where: an httpd, a browser, many of them, and a gate that pages wait at."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from monitor.demo import httpd
from tests.apache.resources import TIMEOUT, eventually

if TYPE_CHECKING:
    from tests.apache.cluster import Cluster


class Gate:
    """A page of the application waits at it, until it is opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / name
        self._descriptor: int | None = None
        os.mkfifo(self._path)
        self._path.chmod(0o666)

    def reached(self) -> None:
        """Wait until the application is there."""

        def look() -> bool:
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # ENXIO: nobody reads
                return False
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = descriptor
            return True

        eventually("the application is at the gate", look)

    def open(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._path.unlink(missing_ok=True)


class Site:
    """One private httpd before a cluster."""

    def __init__(self, cluster: Cluster, server: httpd.Httpd, mode: str, mount: str, fast: bool) -> None:
        self.cluster = cluster
        self.httpd = server
        self.mode = mode
        """how it runs the adaptor"""
        self.fast = fast
        """it has a fast lane"""
        self.port = server.port
        self.mount = mount
        self.url = f"http://127.0.0.1:{server.port}{mount}"

    def visitor(self) -> Visitor:
        return Visitor(self.url, self.fast)

    def visitors(self, count: int) -> list[Visitor]:
        """So many visitors with a session, each at an AppServer of their own."""
        visitors: dict[int, Visitor] = {}
        for _ in range(200):
            visitor = self.visitor()
            pid = visitor.count()["pid"]
            if visitors.setdefault(pid, visitor) is not visitor:
                visitor.tell("logout")
                visitor.close()
            if len(visitors) == count:
                return list(visitors.values())
        raise AssertionError(f"200 visitors came to only {len(visitors)} AppServers")

    def children(self) -> set[int]:
        """The processes of its httpd that serve."""
        tasks = Path(f"/proc/{self.httpd.pid}/task")
        return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}

    def reload(self) -> None:
        """A graceful restart; wait until the processes of before have ended. None of their connections may last."""
        before = self.children()
        self.httpd.reload()
        eventually("its processes are new ones", lambda: before.isdisjoint(self.children()))

    def log(self) -> str:
        return self.httpd.error_log.read_text(errors="replace")


class Visitor:
    """A browser: it keeps cookies, and here and there it has a session.

    `repeats`: it sends a GET again where Apache has closed a connection that is not its first request's, as browsers
    do: by this the fast lane says that it has lost the AppServer (docs/reference/fast-lane.md).
    """

    def __init__(self, url: str, repeats: bool = False) -> None:
        self.url = url
        self._repeats = repeats
        self._answered = False
        self.visits = 0
        self.http = requests.Session()
        self.http.trust_env = False

    def get(self, page: str, method: str = "GET", **options: Any) -> requests.Response:
        options.setdefault("timeout", TIMEOUT)
        url = f"{self.url}/{page}"
        try:
            answer = self.http.request(method, url, **options)
        except requests.ConnectionError:
            if not (self._repeats and self._answered and method in ("GET", "HEAD")):
                raise
            answer = self.http.request(method, url, **options)
        self._answered = True
        return answer

    def tell(self, page: str, **options: Any) -> dict[str, Any]:
        """The content of a page that has to be there."""
        answer = self.get(page, **options)
        assert answer.status_code == 200, f"{answer.status_code} {answer.reason}: {answer.text[:200]}"
        content: dict[str, Any] = answer.json()
        return content

    def count(self, **options: Any) -> dict[str, Any]:
        """Another visit, which has to be counted on in the session."""
        told = self.tell("count", **options)
        self.visits += 1
        assert told["visits"] == self.visits
        return told

    def forget(self) -> None:
        """The session is over."""
        self.visits = 0

    @property
    def ticket(self) -> str | None:
        return self.http.cookies.get("__PRT__")

    def close(self) -> None:
        self.http.close()


PAUSE = 0.01
"""Seconds between two visits of one visitor of a `Load`. Without, they would take all processor time from what is
started meanwhile."""


class Load:
    """Visitors who come all the time: GET and POST in turn, in sessions that last `length` visits.

    Each visit must be answered, and counted on. Use it as a context: it ends with it, and raises what went wrong.
    """

    def __init__(self, site: Site, visitors: int, length: int, keep_alive: bool = True) -> None:
        self.sessions = 0
        """sessions that ended in order"""
        self.visits = 0
        self._site = site
        self._length = length
        self._keep_alive = keep_alive
        self._over = threading.Event()
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._come) for _ in range(visitors)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self._failures == [], "\n".join([*self._failures, self._site.log()[-2000:], self._site.cluster.said()])

    def go_on(self, visits: int) -> None:
        """Wait until so many more visits were counted."""
        goal = self.visits + visits
        eventually("visitors go on", lambda: self.visits >= goal or self._failures)

    def _come(self) -> None:
        visitor = self._site.visitor()
        if not self._keep_alive:
            visitor.http.headers["Connection"] = "close"
        body = b"b" * 3000
        try:
            while not self._over.is_set():
                for number in range(self._length):
                    odd = number % 2
                    told = visitor.count(method="POST" if odd else "GET", data=body if odd else None)
                    assert told["body"] == (len(body) if odd else 0)
                    assert not told["lost"]
                    self.visits += 1
                    self._over.wait(PAUSE)
                assert visitor.tell("logout")["known"]
                visitor.forget()
                self.sessions += 1
        except Exception as error:
            self._failures.append(f"visit {visitor.visits + 1}: {type(error).__name__}: {error}")
        finally:
            visitor.close()


def raw(
    site: Site, target: str, method: str = "GET", headers: dict[str, Any] | None = None, body: Any = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request exactly as it is given here."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

"""Sites with a fast lane, and what their tests have in common."""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import requests
from cluster import TIMEOUT, Cluster, Site, Visitor, eventually
from corpus import PRIVATE

from lbadaptor.contract.address import Entry
from monitor.demo import httpd
from tests.apache.resources import kill, listens

APP = "trials:application"
LANES = (
    PRIVATE
    + """
CustomLog {log} "%{{X-Tag}}i %{{LBADAPTOR_SESSION}}e %{{REDIRECT_STATUS}}e %{{Vary}}o"
<LocationMatch "/closed/">
    Require all denied
    ErrorDocument 403 {mount}/environ/sorry
</LocationMatch>
ScriptAlias /told {folder}/told.cgi
<Directory {folder}>
    <Files told.cgi>
        Require all granted
    </Files>
</Directory>
<LocationMatch "/told-closed/">
    Require all denied
    ErrorDocument 403 /told
</LocationMatch>
<LocationMatch "/told-gone/">
    ErrorDocument 503 /told
</LocationMatch>
AllowEncodedSlashes On
"""
)
MODES = ["embedded-debian", "embedded-pypi", "daemon-debian", "cgi-debian"]
PASSWORD = {"Authorization": "Basic " + base64.b64encode(b"somebody:secret").decode()}


class FastSite:
    """A site with a fast lane, and a log of which requests took it."""

    def __init__(self, cluster: Cluster, name: str, mount: str = "", slots: int | None = None) -> None:
        self.cluster = cluster
        script = cluster.folder / "told.cgi"
        script.write_text("#!/bin/sh\necho Content-Type: text/plain\necho\nenv\n")
        script.chmod(0o755)
        self._log = cluster.folder / f"lanes-{secrets.token_hex(4)}.log"
        words = {"folder": cluster.folder, "modules": httpd.installed()[0].modules, "log": self._log, "mount": mount}
        slots = cluster.settings.slots if slots is None else slots
        self.site: Site = cluster.site(name, mount, LANES.format(**words), lint=False, fast_lane=slots)

    def visitor(self) -> Visitor:
        """Somebody with a session."""
        visitor = self.site.visitor()
        visitor.count()
        return visitor

    def ask(self, visitor: Visitor, page: str, method: str = "GET", **options: Any) -> tuple[requests.Response, str]:
        """An answer, and how it came about: fast, first (fast, too: a first visit), back (to the adaptor), slow."""
        tag = secrets.token_hex(8)
        headers = {"X-Tag": tag, **options.pop("headers", {})}
        return visitor.get(page, method, headers=headers, **options), self.lane(tag)

    def lane(self, tag: str) -> str:
        """How the request with a tag was brought to an answer; Apache tells that a little later."""

        def look() -> str | None:
            found = re.search(rf"^{tag} (.*) (\S+)$", self._log.read_text(), re.MULTILINE)
            return found and found[0]

        _, session, redirected, vary = eventually("the request is logged", look).split()
        assert vary == "-"
        if redirected != "-":
            return f"back after {redirected}"
        return {"-": "slow", "held": "fast", "none": "first"}[session]


def raw(site: Site, *lines: str, body: bytes = b"") -> bytes:
    """A request of our own making; the whole answer, till Apache hangs up."""
    with socket.create_connection(("127.0.0.1", site.port), TIMEOUT) as visitor:
        visitor.sendall("\r\n".join((*lines, "", "")).encode("latin-1") + body)
        answer = b""
        while more := visitor.recv(65536):
            answer += more
    return answer


def holder(cluster: Cluster, visitor: Visitor) -> Entry:
    entry = cluster.entry(visitor.ticket)
    assert entry is not None
    return entry


def replaced(cluster: Cluster, entry: Entry) -> None:
    """Wait until another has taken its place."""
    eventually("it has left address.text", lambda: cluster.entry(entry.ticket) is None)
    cluster.await_ok()


def undrain(cluster: Cluster, entry: Entry) -> None:
    """Take the order to leave back, and wait until another one leaves in its place."""
    cluster.lbctl("undrain", str(entry.identity.slot))

    def look() -> bool:
        ok = cluster.table().ok
        return entry.ticket in {one.ticket for one in ok} and len(ok) == cluster.settings.appservers.servers

    eventually("as many as asked for are OK, and it is one of them", look)


def callers_keys(cluster: Cluster) -> list[str]:
    """The secrets of callerkeys.text."""
    return [line.split()[1] for line in cluster.settings.caller_keys_file.read_text().splitlines()[1:]]


@contextlib.contextmanager
def gone(cluster: Cluster, visitor: Visitor) -> Iterator[int]:
    """The visitor's AppServer is killed, and nothing is done about it as long as this is a context."""
    with cluster.stopped_monitor():
        entry = holder(cluster, visitor)
        pid = int(visitor.tell("plain")["pid"])
        kill(pid)
        eventually("its port is free", lambda: not listens(entry.address))
        yield pid
    replaced(cluster, entry)


def available_text(cluster: Cluster, shares: dict[int, int] | None = None) -> str:
    """available.text that leads so many of the first visits to each slot; default: to all alike."""
    shares = shares or {entry.identity.slot: 1 for entry in cluster.table().ok}
    keys = dict(line.split() for line in cluster.settings.caller_keys_file.read_text().splitlines()[1:])
    lines = [f"__PRT__  {'|'.join(str(slot) for slot, share in shares.items() for _ in range(share))}"]
    lines += [
        f"{slot}  {entry.address};{keys.get(entry.ticket)};{slot};{entry.identity.generation}"
        for entry in cluster.table().entries
        if (slot := entry.identity.slot) in shares
    ]
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def available(cluster: Cluster, text: str | None) -> Iterator[None]:
    """available.text is as the test says, None for none, and the monitor, which would write another, is held.

    The monitor leaves out all for half a minute after an AppServer has died.
    """
    file = cluster.settings.available_file
    with cluster.stopped_monitor():
        if text is None:
            file.unlink()
        else:
            beside = file.with_name("by-hand")
            beside.write_text(text)
            beside.chmod(0o644)
            beside.rename(file)
        yield

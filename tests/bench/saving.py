"""What it costs a request that its session outlives the process: microseconds of CPU, and what a take-over takes.

    python -m tests.bench.survival saving

Two AppServers run side by side, and get the same requests in turn, some hundred at a time. The figure is the median
of the differences between the processor time that they used for a request. It holds all that the process does, but
hardly the work of other moments: the look at the sessions, twice a second, falls into few of the short runs.

What survive = "nothing" costs is the difference to an AppServer of the code before sessions could survive.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from lbadaptor.contract.ticket import Keys, Verdict, make_keys
from tests.ports import free_ports

from . import cost
from .build_ours import head_for
from .load import LoadFailed, Page
from .servers import CHECKOUT, AppServer, folder_of_application
from .session_site import COOKIES

VISITORS = 16
ENTER, CHANGE, READ = (Page(f"/{name}", "") for name in ("enter", "change", "read"))
LOGIN, SMALL = Page("/login", ""), Page("/small", "")
NEIGHBOURS = 2
"""Other AppServers that live, and are looked at by who takes a session over."""
ADDED_FOLDER = "lbadaptor/appserver/sessions/persistence/__init__.py"
"""It came with the sessions that survive."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    requests: int
    """of a run"""
    taken: int
    """sessions that are taken over"""
    idle: int
    """sessions that nobody uses"""
    seconds: float
    """for which these are watched"""


class Talk:
    """A connection to an AppServer, kept alive."""

    def __init__(self, server: AppServer) -> None:
        self.server = server
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, page: Page, cookies: str, verdict: Verdict = Verdict.HELD) -> tuple[str, bytes]:
        """The cookies that were set, and the body. Raises LoadFailed."""
        return self.exchange(head_for(self.server, page, cookies, verdict))

    def exchange(self, head: bytes) -> tuple[str, bytes]:
        """As `ask`."""
        self._socket.sendall(head)
        answer = http.client.HTTPResponse(self._socket)
        try:
            answer.begin()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise LoadFailed(f"the AppServer does not answer: {error!r}\n{self.server.said()[-2000:]}") from None
        if answer.status != HTTPStatus.OK:
            raise LoadFailed(f"{answer.status} {body[:200]!r}\n{self.server.said()[-2000:]}")
        set_cookies = answer.headers.get_all("Set-Cookie", [])
        return "; ".join(cookie.partition(";")[0].strip() for cookie in set_cookies), body

    def close(self) -> None:
        self._socket.close()


def added(folder: Path, framework: str, effort: Effort) -> dict[str, float]:
    """What "anything" adds to a request that changes its session, and to one that does not; µs. Raises LoadFailed."""
    home = _place(folder)
    keys = make_keys(home / "keys")
    pair = [_site(home, keys, slot, framework, mode) for slot, mode in enumerate(("nothing", "anything"))]
    with _running(pair) as talks:
        visitors = [[_enter(talk, COOKIES[framework]) for _ in range(VISITORS)] for talk in talks]
        found = {
            f"{page.path[1:]}_us {framework}": _difference(talks, visitors, page, effort) for page in (CHANGE, READ)
        }
        files = len([path for path in (home / "sessions").glob("at.1.*/*") if path.name != "lock"])
        if files != VISITORS:
            raise LoadFailed(f"{framework}: {files} sessions are saved, not {VISITORS}\n{pair[1].said()}")
    return found


def nothing(folder: Path, effort: Effort) -> dict[str, float]:
    """What "nothing" adds to the benchmark's smallest page; µs. Empty where the code before is not to be had.

    Raises LoadFailed.
    """
    home = _place(folder)
    if not (before := _code_before(home)):
        return {}
    keys = make_keys(home / "keys")
    path = f"{before}:{home.parent / 'application'}"
    pair = [
        AppServer(home, free_ports(), keys, 0, environment={"PYTHONPATH": path}),
        AppServer(home, free_ports(), keys, 1),
    ]
    with _running(pair) as talks:
        visitors = [[talk.ask(LOGIN, "", Verdict.NONE)[0] for _ in range(VISITORS)] for talk in talks]
        return {"nothing_us": _difference(talks, visitors, SMALL, effort)}


def take_over(folder: Path, effort: Effort) -> dict[str, float]:
    """What a request takes longer that brings a session of an AppServer that has left, or was killed; ms.

    The median, and the longest but 1 %: of each session's first request less its second one. Raises LoadFailed.
    """
    home = _place(folder)
    keys = make_keys(home / "keys")
    found = {}
    first = _site(home, keys, 0, "flask", "anything")
    others = [_site(home, keys, slot, "flask", "anything") for slot in range(1, 2 + NEIGHBOURS)]
    with _running(others) as talks:
        for number, (how, end) in enumerate((("left", signal.SIGTERM), ("killed", signal.SIGKILL))):
            if number:
                first = _site(home, keys, 0, "flask", "anything")
            with _running([first]) as (talk,):
                visitors = [_enter(talk, COOKIES["flask"]) for _ in range(effort.taken)]
                os.kill(first.pid, end)
                first.wait()
            took = [_taken(talks[0], cookies) for cookies in visitors]
            found[f"take_over_ms {how}"] = median(took)
            found[f"take_over_p99_ms {how}"] = quantiles(took, n=100)[-1]
    return found


def idle(folder: Path, effort: Effort) -> dict[str, float]:
    """What sessions cost that nobody uses: % of a core, more than where they do not survive. Raises LoadFailed."""
    home = _place(folder)
    keys = make_keys(home / "keys")
    pair = [_site(home, keys, slot, "flask", mode) for slot, mode in enumerate(("nothing", "anything"))]
    with _running(pair) as talks:
        for talk in talks:
            for _ in range(effort.idle):
                _enter(talk, COOKIES["flask"])
        before = [cost.clock(server.pid) for server in pair]
        time.sleep(effort.seconds)
        nothing, anything = (cost.clock(server.pid) - used for server, used in zip(pair, before, strict=True))
        return {"idle_percent": (anything - nothing) / effort.seconds / 1e4, "idle_sessions": float(effort.idle)}


def _taken(talk: Talk, cookies: str) -> float:
    """ms that the request took longer which took a session over. Raises LoadFailed where it was not."""
    times = []
    for verdict, count in ((Verdict.LOST, 2), (Verdict.HELD, 3)):
        head = head_for(talk.server, CHANGE, cookies, verdict)
        began = time.perf_counter()
        _, body = talk.exchange(head)
        times.append((time.perf_counter() - began) * 1000)
        if json.loads(body)["count"] != count:
            raise LoadFailed(f"a session was not taken over: {body!r}\n{talk.server.said()[-2000:]}")
    return times[0] - times[1]


def _difference(talks: Sequence[Talk], visitors: Sequence[Sequence[str]], page: Page, effort: Effort) -> float:
    """How many µs of CPU a request takes longer at the second of two AppServers."""
    heads = [
        [head_for(talk.server, page, cookies, Verdict.HELD) for cookies in own]
        for talk, own in zip(talks, visitors, strict=True)
    ]
    differences = []
    for number in range(effort.rounds + 1):
        used = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):  # who comes second finds the machine as the first has left it
            used[which] = _run(talks[which], heads[which], effort.requests)
        if number:  # the first round is to warm up
            differences.append(used[1] - used[0])
    return median(differences)


def _run(talk: Talk, heads: Sequence[bytes], requests: int) -> float:
    """µs of CPU for each request."""
    before = cost.clock(talk.server.pid)
    for number in range(requests):
        talk.exchange(heads[number % len(heads)])
    return (cost.clock(talk.server.pid) - before) / requests


def _enter(talk: Talk, cookie: str) -> str:
    """A new session's cookies."""
    cookies, body = talk.ask(ENTER, "", Verdict.NONE)
    if json.loads(body)["count"] != 1 or f"{cookie}=" not in cookies:
        raise LoadFailed(f"no session begins: {cookies!r}, {body!r}\n{talk.server.said()[-2000:]}")
    return cookies


def _place(folder: Path) -> Path:
    """A folder for AppServers, with the applications beside it."""
    application = folder_of_application(folder)
    shutil.copy(Path(__file__).with_name("session_site.py"), application)
    (folder / "run").mkdir()
    return folder / "run"


def _site(home: Path, keys: Keys, slot: int, framework: str, mode: str) -> AppServer:
    survives: dict[str, Any] = {
        "survive": mode,
        "session_folder": str(home / "sessions"),
        "session_max_bytes": 2**30,
        "session_max_files": 2**18,
        "run_folder": str(home),
    }
    return AppServer(
        home,
        free_ports(),
        keys,
        slot,
        environment={"SESSION_FRAMEWORK": framework},
        app="session_site:application",
        session_cookie=COOKIES[framework],
        **survives,
    )


@contextlib.contextmanager
def _running(servers: Sequence[AppServer]) -> Iterator[list[Talk]]:
    """Started, with a connection to each; ended."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.await_up()
            cost.pin(server.pid)
        yield [stack.enter_context(contextlib.closing(Talk(server))) for server in servers]


def _code_before(home: Path) -> Path | None:
    """A folder with the AppServer's code as it was before sessions could survive."""
    git = ["git", "-C", str(CHECKOUT)]
    added = [*git, "log", "--diff-filter=A", "--format=%H", "--reverse", "--", ADDED_FOLDER]
    place = home / "before"
    try:
        commit = subprocess.run(added, check=True, capture_output=True, text=True).stdout.split()[0]
        archive = subprocess.run([*git, "archive", f"{commit}^", "lbadaptor"], check=True, capture_output=True).stdout
        place.mkdir()
        subprocess.run(["tar", "-x", "-C", str(place)], input=archive, check=True)
    except (OSError, IndexError, subprocess.CalledProcessError):
        return None
    return place

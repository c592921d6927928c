"""A real monitor with real AppServers, in a folder and on ports of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lbadaptor.contract.address import Entry, State, Table, parse
from lbadaptor.contract.headers import MANDATORY
from lbadaptor.contract.ticket import read_keys
from monitor.contract.client import NoAnswer, ask

PATIENCE = 20.0
"""Seconds after which a test that waits for something gives up."""
MARK = "LBADAPTOR_TEST_SITE"
"""A variable in the environment of every process of a site; it finds those that were left behind."""
SLOTS = 8
HASTY = {"probe_timeout": 0.4, "failing_limit": 0.5}
"""[monitor] for a test that makes an AppServer hang: it is FAILING after 1 s, and ended after 1.5 s."""

APPLICATION = '''
"""What the AppServers of the tests serve."""
import json, os, secrets, subprocess, sys

# PRELUDE

def app(environ, start_response):
    page = environ["PATH_INFO"]
    headers, answer = [("Content-Type", "application/json")], {"pid": os.getpid()}
    if page == "/login":
        headers.append(("Set-Cookie", "sid=" + secrets.token_hex(8) + "; Path=/"))
    elif page == "/logout":
        headers.append(("Set-Cookie", "sid=; Path=/; Max-Age=0"))
    elif page == "/where":
        answer = {"environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path, "argv": sys.argv}
    elif page.startswith("/eval/"):
        answer = eval(page[6:])
    elif page == "/child":
        answer = {"pid": subprocess.Popen(["sleep", "600"]).pid}
    elif page == "/nonsense":
        channel = int(sys.orig_argv[sys.orig_argv.index("--channel") + 1])
        os.write(channel, b"nonsense\\n")
        os.write(channel, b'{"type": "ready", "surplus": [1]}\\n{"type": "unknown"}\\n\\xff\\n')
    start_response("200 OK", headers)
    return [json.dumps(answer).encode()]

def count():
    return -1
'''

Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: str, timeout: float = PATIENCE) -> Found:
    """What `look` finds, as soon as it is true."""
    until = time.monotonic() + timeout
    pause = 0.01
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: not within {timeout:g} s"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.03)  # to look takes processor time from what is waited for


def processes(mark: str) -> dict[int, str]:
    """The processes that bear a mark, and what each runs; zombies have none."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if command:
                        found[int(folder.name)] = command
    return found


def toml(value: Any) -> str:
    """A value as lbadaptor.toml has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


@dataclass
class Reply:
    status: int
    content: Any
    cookies: dict[str, str]


class Site:
    """An application, its lbadaptor.toml, and a monitor when it was started."""

    def __init__(self, folder: Path, base_port: int) -> None:
        self.python = sys.executable
        self.folder = folder
        self.base_port = base_port
        self.app_folder = folder / "app"
        self.app_folder.mkdir()
        self.config = folder / "lbadaptor.toml"
        self.mark = secrets.token_hex(8)
        self.log = folder / "stderr"
        self.sections: dict[str, dict[str, Any]] = {
            "application": {"app": "shop:app", "session_cookie": "sid"},
            "files": {"run_folder": "run", "key_file": "keys"},
            "appservers": {"servers": 2, "slots": SLOTS, "base_port": base_port, "threads": 2},
            "monitor": {
                # What is probed often is seen soon. One that stands still for seconds, as any process may on a busy
                # machine, is not taken for hung.
                "probe_interval": 0.1,
                "probe_timeout": 5.0,
                "fall": 2,
                "failing_limit": 20.0,
                "stop_grace": 5.0,
                "start_timeout": 15.0,
            },
        }
        self.seen: Path | None = None
        """Where the test finds the run folder, when that is in a mount namespace of the monitor's."""
        self.monitor: subprocess.Popen[bytes] | None = None
        self._pipe: subprocess.Popen[bytes] | None = None
        self.write_application()

    # What it is made of.

    def write_application(self, prelude: str = "", name: str = "shop") -> None:
        """(Re)write the application's module. `prelude` runs when it is imported."""
        beside = self.app_folder / f"{name}.new"
        beside.write_text(APPLICATION.replace("# PRELUDE", prelude))
        beside.rename(self.app_folder / f"{name}.py")

    def settings(self, section: str, **values: Any) -> None:
        """Change settings, and write lbadaptor.toml."""
        self.sections.setdefault(section, {}).update(values)
        lines = []
        for name, rows in self.sections.items():
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in rows.items())]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def run_folder(self) -> Path:
        return self.seen or self.folder / str(self.sections["files"]["run_folder"])

    @property
    def control(self) -> Path:
        return self.run_folder / "control.sock"

    # The monitor.

    def command(self, *arguments: str, module: str = "monitor") -> list[str]:
        return [self.python, "-B", "-I", "-m", module, "--config", str(self.config), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, MARK: self.mark, **more}

    def start(
        self,
        wrapper: tuple[str, ...] = (),
        command: list[str] | None = None,
        piped: bool = False,
        log_to: int | None = None,
        **environment: str,
    ) -> None:
        """Start the monitor; it has not begun anything yet when this returns.

        `piped`: what it says goes through a pipe, so that it can be said when no file can be written. `log_to`: a
        descriptor of the test's, for what it says.
        """
        self.settings("monitor")
        with contextlib.ExitStack() as opened:
            log: Any = log_to
            if log is None:
                log = opened.enter_context(open(self.log, "ab"))
            if piped:
                self._pipe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
                assert self._pipe.stdin is not None
                log = opened.enter_context(self._pipe.stdin)
            self.monitor = subprocess.Popen(
                [*wrapper, *(command or self.command())],
                cwd=self.app_folder,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def up(self, **environment: str) -> None:
        """Start the monitor, and wait until as many are OK as asked for, and orders can be given."""
        self.start(**environment)
        self.wait_ok()
        self.wait_control()

    def wait_ok(self) -> list[Entry]:
        count = int(self.sections["appservers"]["servers"])
        return self.wait(lambda: ok if len(ok := self.ok) == count else [], f"{count} AppServers are OK")

    def refused(self, status: int = 2) -> str:
        """Run a monitor that cannot begin: its only line. `status`: 2, the settings are wrong; 1, anything else."""
        self.settings("monitor")
        run = subprocess.run(
            self.command(),
            cwd=self.app_folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (run.returncode, run.stdout) == (status, ""), run.stderr
        assert run.stderr.count("\n") == 1, run.stderr
        return run.stderr.strip()

    def lbctl(self, *words: str) -> tuple[int, str]:
        """Exit status, and what it says."""
        run = subprocess.run(
            self.command(*words, module="monitor.ctl"),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )
        return run.returncode, (run.stdout or run.stderr).strip()

    @property
    def pid(self) -> int:
        assert self.monitor is not None
        return self.monitor.pid

    @property
    def said(self) -> str:
        """All that monitor, watcher and AppServers said so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def wait(self, look: Callable[[], Found], what: str, timeout: float = PATIENCE) -> Found:
        """Wait for something while the monitor runs."""

        def look_again() -> Found:
            assert self.monitor is not None
            assert self.monitor.poll() is None, f"the monitor has ended:\n{self.said}"
            return look()

        try:
            return wait_for(look_again, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}\n{self.said}") from None

    def wait_said(self, what: str) -> None:
        self.wait(lambda: what in self.said, f"it says {what!r}")

    def wait_control(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(NoAnswer):
                return bool(ask(self.control))
            return False

        self.wait(answers, "the console answers")

    def wait_order(self, order: str, slot: int | None = None) -> str:
        """Give an order at the console, as soon as there is one."""
        self.wait_control()
        return str(ask(self.control, order, slot)["text"])

    def watchers(self) -> list[int]:
        return [pid for pid, command in processes(self.mark).items() if "monitor.watcher" in command]

    def template(self) -> int:
        """The template's pid."""
        return int(ask(self.control)["template"])

    def end(self, number: int = signal.SIGTERM) -> None:
        """An orderly end."""
        assert self.monitor is not None
        self.monitor.send_signal(number)
        assert self.monitor.wait(PATIENCE) == 0, self.said

    def clear(self) -> None:
        """Leave nothing behind, however the test ended."""
        if self.monitor is not None and self.monitor.poll() is None:
            self.monitor.kill()
            self.monitor.wait()
        for pid in processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not processes(self.mark), "all processes of the test have ended")
        if self._pipe is not None:
            self._pipe.wait(PATIENCE)

    # address.text.

    @property
    def text(self) -> str:
        try:
            return (self.run_folder / "address.text").read_text()
        except FileNotFoundError:
            return ""

    @property
    def table(self) -> Table:
        """address.text as of now."""
        return parse(self.text) if self.text else Table()

    @property
    def ok(self) -> list[Entry]:
        return list(self.table.ok)

    @property
    def states(self) -> dict[int, str]:
        return {entry.identity.slot: entry.state.value for entry in self.table.entries}

    def entry(self, slot: int) -> Entry | None:
        return next((entry for entry in self.table.entries if entry.identity.slot == slot), None)

    def wait_states(self, **states: str) -> None:
        """Wait until address.text says `s0="OK", s2="DYING"`, and names no other AppServer."""
        wanted = {int(slot[1:]): state for slot, state in states.items()}
        self.wait(lambda: self.states == wanted, f"address.text says {wanted}")

    def wait_reborn(self, old: Entry) -> Entry:
        """Wait for a new life in a slot."""

        def look() -> Entry | None:
            new = self.entry(old.identity.slot)
            reborn = new and new.identity.generation > old.identity.generation and new.state is State.OK
            return new if reborn else None

        found = self.wait(look, f"slot {old.identity.slot} is OK again")
        assert found is not None
        return found

    # AppServers.

    def eval(self, slot: int, expression: str) -> Any:
        """What an expression is within an AppServer."""
        return self.get(slot, "/eval/" + urllib.parse.quote(expression)).content

    def pids(self) -> dict[int, int]:
        """The AppServers' processes, by slot."""
        found = {}
        for pid, command in processes(self.mark).items():
            words = command.split()
            if "lbadaptor.appserver" in words:
                found[int(words[words.index("--slot") + 1])] = pid
        return found

    def knocks(self, slot: int) -> bool:
        """Whether an AppServer listens on its Unix socket: it refuses a request that says nothing of a visitor."""
        with socket.socket(socket.AF_UNIX) as caller:
            try:
                caller.connect(str(self.run_folder / "sockets" / str(slot)))
            except OSError:
                return False
            caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return caller.recv(1000).startswith(b"HTTP/1.1 421 ")

    def get(self, slot: int, page: str = "/", sid: str = "") -> Reply:
        """A request to an AppServer, as an adaptor sends it."""
        entry = self.entry(slot)
        assert entry is not None
        key = read_keys(self.folder / "keys").caller_key(entry.ticket)
        headers = {**dict.fromkeys(MANDATORY, "x"), "LB-Path": page, "LB-Request-Uri": page, "LB-Key": key}
        headers |= {"LB-Script-Name": "", "LB-Generation": str(entry.identity.generation)}
        headers |= {"LB-Remote-Port": "1", "LB-Server-Port": "80", "LB-Scheme": "http"}
        headers |= {"LB-Server-Protocol": "HTTP/1.1"}
        if sid:
            headers["Cookie"] = f"sid={sid}"
        connection = http.client.HTTPConnection(*entry.address, timeout=PATIENCE)
        try:
            connection.request("GET", page, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        pairs = (line.split(";")[0].partition("=") for line in answer.headers.get_all("Set-Cookie", []))
        content = json.loads(body) if answer.status == 200 else body.decode()
        return Reply(answer.status, content, {name: value for name, _, value in pairs})

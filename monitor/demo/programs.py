"""What every demo runs: monitors with their AppServers, in a temporary folder, on free ports, until a signal."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import Settings, load
from lbadaptor.log import texts
from monitor.contract.client import NoAnswer, ask
from monitor.ctl.commands import stop_all
from monitor.demo import httpd

START_TIMEOUT = 90.0
STOP_TIMEOUT = 45.0
LOOPBACK = "127.0.0.1"
MAX_PORT = 65535


class DemoFailed(LbadaptorError):
    """The demo cannot run."""


class EndedEarly(Exception):
    """The demo was ended before it was ready."""


class End:
    """Whether a signal has asked for the end. One handler may interrupt another, so `ask` takes no lock."""

    def __init__(self) -> None:
        self._asked = False

    @classmethod
    def at_signals(cls) -> End:
        """At SIGINT, SIGTERM and SIGHUP."""
        end = cls()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end.ask)
        return end

    def ask(self, *_: object) -> None:
        self._asked = True

    def is_set(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Blocks for so many seconds, unless the end was asked for before. Whether it was."""
        if not self._asked:
            time.sleep(seconds)
        return self._asked


def status_of(run: Callable[[], None]) -> int:
    """The exit status of a demo: 0, it ended as it was told; 1, it could not run, and standard error tells why."""
    try:
        run()
    except EndedEarly:
        say("ended before it was up")
    except LbadaptorError as error:
        print(f"lbctl: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lbctl: {where}{texts.what(error)}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder that Apache's user can enter, short enough for the names of sockets."""
    places = [Path(tempfile.gettempdir()), Path("/tmp")]
    place = next((place for place in places if _everybody_may_enter(place) and len(str(place)) < 60), places[0])
    folder = Path(tempfile.mkdtemp(prefix="lbadaptor-demo-", dir=place))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _everybody_may_enter(folder: Path) -> bool:
    return all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


Rows = Mapping[str, str | int | float | list[str]]


def write_settings(config: Path, sections: Mapping[str, Rows]) -> Settings:
    """Write an lbadaptor.toml, and read it. Raises SettingsError, OSError."""
    with config.open("w") as file:
        for section, rows in sections.items():
            # Of strings, numbers and lists of strings, JSON is TOML.
            lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in rows.items())
            file.write(f"[{section}]\n{''.join(lines)}")
    config.chmod(0o644)
    return load(config)


@contextlib.contextmanager
def monitor(config: Path, output: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A monitor in a session of its own, so that Ctrl-C reaches the demo alone. `output`: None, as ours."""
    command = [*httpd.dies_with_us(), sys.executable, "-I", "-B", "-m", "monitor", "--config", str(config)]
    started = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        stop_all.end(load(config))  # a monitor that died has left its AppServers


def await_appservers(
    settings: Settings,
    monitor: subprocess.Popen[bytes],
    end: End,
    all_ok: Callable[[int], object] = lambda count: None,
) -> list[dict[str, Any]]:
    """Wait until all are OK; what the monitor says of each. `all_ok` is called once, with how many they are.

    Raises DemoFailed when the application does not start, EndedEarly.
    """
    began = time.monotonic()
    wanted = settings.appservers.servers
    told = False
    while True:
        if end.wait(0.1):
            raise EndedEarly
        if (status := monitor.poll()) is not None:
            if status == 0:
                raise EndedEarly
            raise DemoFailed("the monitor could not start")
        if time.monotonic() - began > START_TIMEOUT:
            raise DemoFailed(f"the AppServers are not OK after {START_TIMEOUT:.0f} s")
        if not settings.control_socket.exists():
            continue
        with contextlib.suppress(NoAnswer):
            servers = ask(settings.control_socket).get("appservers", [])
            ok = [server for server in servers if server["state"] == "OK"]
            broken = [server["why"] for server in servers if server["state"] == "BACKOFF" and server["why"]]
            if broken and not ok:
                raise DemoFailed(f"the application does not start: {broken[0]}")
            if len(ok) >= wanted:
                if not told:
                    all_ok(len(ok))
                told = True
                # The answer to a probe says whether an AppServer can save its sessions.
                if not settings.sessions_survive or all(server["kept"] for server in ok):
                    return ok


def free_ports(count: int, lowest: int) -> int:
    """The first of `count` ports in a row, from `lowest` upwards, on which no process listens. Raises DemoFailed."""
    free = 0
    for port in range(lowest, MAX_PORT + 1):
        free = 0 if bind_error(LOOPBACK, port) else free + 1
        if free == count:
            return port - count + 1
    raise DemoFailed(f"no {count} ports in a row are free on {LOOPBACK} from {lowest} upwards")


def bind_error(address: str, port: int) -> str:
    """Why no process can listen on a port; empty if one can."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OverflowError:
            return "there is no such port"
        except OSError as error:
            return texts.what(error)
    return ""

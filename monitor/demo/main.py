"""`lbctl demo`: a private Apache httpd with the adaptor inside, a monitor, and AppServers, until Ctrl-C.

Everything is in one temporary folder, which is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from lbadaptor.contract.errors import LbadaptorError
from lbadaptor.contract.settings import NOTHING, Settings, Survive, load
from lbadaptor.log import texts
from monitor.contract.client import NoAnswer, ask
from monitor.ctl.commands import stop_all
from monitor.demo import httpd

WEBWARE = ("lbadaptor.examples.webware_site:application", "_SID_", "webware")
WEBWARE_IDLE = 3600
"""Seconds after which Webware itself ends a session."""
START_TIMEOUT = 90.0
STOP_TIMEOUT = 45.0
DEMO_APP = (
    "a WSGI application; its module is looked for in the current folder, in PYTHONPATH, and among this Python's "
    "packages (default: the example site of Webware)"
)
_WHAT_SURVIVES = {
    "nothing": "end with their AppServer, and a drain waits for their end; with SURVIVE=anything they go on",
    "leaving": "move to another AppServer at drain and restart; kill -9 ends them",
    "anything": "go on in another AppServer after drain, restart and kill -9",
}
PORTS = range(20000, 32000)
"""Ports that AppServers may get: below those that the system uses for outgoing connections."""


class DemoFailed(LbadaptorError):
    """The demo cannot run."""


class _EndedEarly(Exception):
    """The demo was ended before it was ready."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done."""
    options = _parser().parse_args(arguments)
    try:
        return run(options)
    except LbadaptorError as error:
        print(f"lbctl: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lbctl: {where}{texts.what(error)}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbctl demo", description="Run a private Apache, a monitor and AppServers, until Ctrl-C."
    )
    parser.add_argument("--port", type=int, default=8000, help="the site's port on 127.0.0.1 (default 8000)")
    parser.add_argument("--app", default="", metavar="MODULE:CALLABLE", help=DEMO_APP)
    parser.add_argument("--session-cookie", default="", metavar="NAME", help="the application's session cookie")
    parser.add_argument(
        "--session-idle",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="a session ends when it was unused for so long (default 1800)",
    )
    parser.add_argument(
        "--session-count",
        default="",
        metavar="NAME",
        help="what counts the living sessions: a framework, or MODULE:FUNCTION",
    )
    parser.add_argument(
        "--no-fast-lane",
        action="store_true",
        help="all requests take the Python lane; Apache itself forwards none",
    )
    parser.add_argument("--servers", type=int, default=4, metavar="N", help="how many AppServers (default 4)")
    parser.add_argument(
        "--max-requests",
        type=int,
        default=0,
        metavar="N",
        help="replace an AppServer after so many requests (default: never)",
    )
    parser.add_argument(
        "--survive",
        default=NOTHING,
        choices=get_args(Survive),
        help="what sessions outlive: leaving, an AppServer that is drained or replaced; anything, a kill, too",
    )
    parser.add_argument("--save", default="", metavar="MODULE:FUNCTION", help="save and load a session of a store")
    parser.add_argument("--load", default="", metavar="MODULE:FUNCTION", help="of the application's own")
    return parser


class End:
    """Whether a signal has asked for the end. One handler may interrupt another, so `ask` takes no lock."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        self._asked = True

    def is_set(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Blocks for so many seconds, unless the end was asked for before. Whether it was."""
        if not self._asked:
            time.sleep(seconds)
        return self._asked


def run(options: argparse.Namespace) -> int:
    """The exit status. Blocks until SIGINT, SIGTERM or SIGHUP. Raises LbadaptorError."""
    end = End()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end.ask)
    apache = httpd.find()
    _require_port(options.port)
    try:
        with _folder() as folder:
            config = _write_config(folder, options)
            settings = load(config)
            with _monitor(config) as monitor:
                appservers = _await_appservers(settings, monitor, end)
                with _site(apache, folder, options.port, config, options.no_fast_lane, end) as site:
                    _print_site(settings, site, appservers)
                    while not end.wait(0.5):
                        if (status := monitor.poll()) is not None:
                            if status == 0:  # `lbctl stop`
                                _print("\nthe monitor was told to stop")
                                break
                            raise DemoFailed("the monitor has ended")
                        if not site.alive():
                            raise DemoFailed("Apache httpd has ended")
                    _print("\nending the demo …")
    except _EndedEarly:
        _print("ended before it was up")
    return 0


def _write_config(folder: Path, options: argparse.Namespace) -> Path:
    app, cookie, count = WEBWARE
    idle = WEBWARE_IDLE
    if options.app:
        app, cookie, count, idle = options.app, options.session_cookie, options.session_count, options.session_idle
        if not cookie:
            raise DemoFailed("name the session cookie of the application: SESSION_COOKIE=name, or --session-cookie")
    else:
        _require_webware()
    group = httpd.apache_group()
    lines: dict[str, dict[str, object]] = {
        "application": {"app": app, "session_cookie": cookie, "session_count": count, "session_idle": idle},
        "files": {"run_folder": ".", "key_file": "keys", "apache_group": group},
        "appservers": {
            "servers": options.servers,
            "max_requests": options.max_requests,
            "base_port": _free_ports(4 * options.servers),
        },
        "sessions": {
            "survive": options.survive,
            "folder": "sessions",
            "save": options.save,
            "load": options.load,
        },
    }
    if not options.app:
        # Webware's site makes a folder while it starts, and one that is ended then leaves it behind.
        (temporary := folder / "temporary").mkdir()
        lines["appservers.environment"] = {"TMPDIR": str(temporary)}
    config = folder / "lbadaptor.toml"
    with config.open("w") as file:
        for section, rows in lines.items():
            file.write(f"[{section}]\n")
            for name, value in rows.items():
                file.write(f'{name} = "{value}"\n' if isinstance(value, str) else f"{name} = {value}\n")
    config.chmod(0o644)
    return config


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
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


@contextlib.contextmanager
def _monitor(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A monitor in a session of its own, so that Ctrl-C reaches the demo alone."""
    command = [*httpd.dies_with_us(), sys.executable, "-I", "-B", "-m", "monitor", "--config", str(config)]
    monitor = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield monitor
    finally:
        monitor.terminate()
        try:
            monitor.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            monitor.kill()
            monitor.wait()
        stop_all.end(load(config))  # a monitor that died has left its AppServers


@contextlib.contextmanager
def _site(
    apache: httpd.Apache, folder: Path, port: int, config: Path, no_fast_lane: bool, end: End
) -> Iterator[httpd.Httpd]:
    why_not = "as asked for" if no_fast_lane else apache.no_fast_lane()
    site = httpd.Httpd(apache, folder, port, "lbadaptor.conf", config, fast_lane=0 if why_not else load(config).slots)
    began = time.monotonic()
    site.start()
    try:
        if end.is_set():
            raise _EndedEarly
        lanes = f"the Python lane alone: {why_not}" if why_not else "the fast lane and the Python lane"
        _print(f"Apache httpd answers after {time.monotonic() - began:.1f} s ({apache}), by {lanes}")
        yield site
    finally:
        site.stop()


def _await_appservers(settings: Settings, monitor: subprocess.Popen[bytes], end: End) -> list[dict[str, Any]]:
    """Wait until all are OK; what the monitor says of each. Raises DemoFailed when the application does not start."""
    began = time.monotonic()
    wanted = settings.appservers.servers
    told = False
    while True:
        if end.wait(0.1):
            raise _EndedEarly
        if (status := monitor.poll()) is not None:
            if status == 0:
                raise _EndedEarly
            raise DemoFailed("the monitor could not start")
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
                    _print(f"{texts.count(len(ok), 'AppServer')} OK after {time.monotonic() - began:.1f} s")
                told = True
                # The answer to a probe says whether an AppServer can save its sessions.
                if not settings.sessions_survive or all(server["kept"] for server in ok):
                    return ok
        if time.monotonic() - began > START_TIMEOUT:
            raise DemoFailed(f"the AppServers are not OK after {START_TIMEOUT:.0f} s")


def _print_site(settings: Settings, site: httpd.Httpd, appservers: Sequence[dict[str, Any]]) -> None:
    lbctl = Path(sys.executable).with_name("lbctl")
    page = "CountVisits" if settings.application.app == WEBWARE[0] else ""
    pids = ", ".join(f"slot {appserver['slot']}: pid {appserver['pid']}" for appserver in appservers)
    named = " that the page names" if page else ""
    lost = next((kept["why"] for appserver in appservers if (kept := appserver["kept"]) and kept["why"]), "")
    _print(
        f"\n  the site         http://127.0.0.1:{site.port}/{page}\n"
        f"  address.text     {settings.address_file}\n"
        f"  control socket   {settings.control_socket}\n"
        f"  Apache's errors  {site.error_log}\n"
        f"  AppServers       {pids}\n"
        f"  watch it         {lbctl} --socket {settings.control_socket} status\n"
        f"  try              top, events, log 0, drain 0, undrain 0, restart instead of status\n"
        f"                   kill -9 the pid{named}\n"
        f"  sessions         {lost or _WHAT_SURVIVES[settings.sessions.survive]}\n\n"
        "Ctrl-C ends it.\n"
    )


def _require_port(port: int) -> None:
    why = _bind_error(port)
    if why:
        raise DemoFailed(
            f"port {port} on 127.0.0.1 cannot be used ({why}); take another: PORT=8080 make demo, or "
            "lbctl demo --port 8080"
        )


def _require_webware() -> None:
    if importlib.util.find_spec("webware") is None:
        raise DemoFailed("Webware is missing: pip install 'lbadaptor[demo]', or name an application with --app")


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row on which no process listens now."""
    for _ in range(100):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        if not any(_bind_error(port) for port in range(first, first + count)):
            return first
    raise DemoFailed(f"no {count} ports in a row are free on 127.0.0.1")


def _bind_error(port: int) -> str:
    """Why no process can listen on a port; empty if one can."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OverflowError:
            return "there is no such port"
        except OSError as error:
            return texts.what(error)
    return ""


def _print(text: str) -> None:
    print(text, flush=True)

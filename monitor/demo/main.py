"""`lbctl demo`: a private Apache httpd with the adaptor inside, a monitor, and AppServers, until Ctrl-C.

Everything is in one temporary folder, which is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from lbadaptor.contract.settings import NOTHING, Settings, Survive, load
from lbadaptor.log import texts
from monitor.demo import httpd
from monitor.demo.programs import (
    LOOPBACK,
    DemoFailed,
    End,
    EndedEarly,
    Rows,
    await_appservers,
    bind_error,
    free_ports,
    monitor,
    say,
    status_of,
    temporary_folder,
    write_settings,
)

WEBWARE = ("lbadaptor.examples.webware_site:application", "_SID_", "webware")
WEBWARE_IDLE = 3600
"""Seconds after which Webware itself ends a session."""
DEMO_APP = (
    "a WSGI application; its module is looked for in the current folder, in PYTHONPATH, and among this Python's "
    "packages (default: the example site of Webware)"
)
_WHAT_SURVIVES = {
    "nothing": "end with their AppServer, and a drain waits for their end; with SURVIVE=anything they go on",
    "leaving": "move to another AppServer at drain and restart; kill -9 ends them",
    "anything": "go on in another AppServer after drain, restart and kill -9",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 not done."""
    options = _parser().parse_args(arguments)
    return status_of(lambda: run(options))


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


def run(options: argparse.Namespace) -> None:
    """Blocks until SIGINT, SIGTERM or SIGHUP. Raises LbadaptorError, OSError, EndedEarly."""
    end = End.at_signals()
    apache = httpd.find()
    _require_port(options.port)
    with temporary_folder() as folder:
        config = folder / "lbadaptor.toml"
        settings = write_settings(config, _sections(folder, options))
        with monitor(config) as running:
            began = time.monotonic()
            appservers = await_appservers(
                settings,
                running,
                end,
                lambda ok: say(f"{texts.count(ok, 'AppServer')} OK after {time.monotonic() - began:.1f} s"),
            )
            with _site(apache, folder, options.port, config, options.no_fast_lane, end) as site:
                _print_site(settings, site, appservers)
                while not end.wait(0.5):
                    if (status := running.poll()) is not None:
                        if status == 0:  # `lbctl stop`
                            say("\nthe monitor was told to stop")
                            break
                        raise DemoFailed("the monitor has ended")
                    if not site.alive():
                        raise DemoFailed("Apache httpd has ended")
                say("\nending the demo …")


def _sections(folder: Path, options: argparse.Namespace) -> dict[str, Rows]:
    """What its lbadaptor.toml says. Raises DemoFailed."""
    app, cookie, count = WEBWARE
    idle = WEBWARE_IDLE
    if options.app:
        app, cookie, count, idle = options.app, options.session_cookie, options.session_count, options.session_idle
        if not cookie:
            raise DemoFailed("name the session cookie of the application: SESSION_COOKIE=name, or --session-cookie")
    else:
        _require_webware()
    group = httpd.apache_group()
    sections: dict[str, Rows] = {
        "application": {"app": app, "session_cookie": cookie, "session_count": count, "session_idle": idle},
        "files": {"run_folder": ".", "key_file": "keys", "apache_group": group},
        "appservers": {
            "servers": options.servers,
            "max_requests": options.max_requests,
            "base_port": free_ports(4 * options.servers, options.port + 1),
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
        sections["appservers.environment"] = {"TMPDIR": str(temporary)}
    return sections


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
            raise EndedEarly
        lanes = f"the Python lane alone: {why_not}" if why_not else "the fast lane and the Python lane"
        say(f"Apache httpd answers after {time.monotonic() - began:.1f} s ({apache}), by {lanes}")
        yield site
    finally:
        site.stop()


def _print_site(settings: Settings, site: httpd.Httpd, appservers: Sequence[dict[str, Any]]) -> None:
    lbctl = Path(sys.executable).with_name("lbctl")
    page = "CountVisits" if settings.application.app == WEBWARE[0] else ""
    pids = ", ".join(f"slot {appserver['slot']}: pid {appserver['pid']}" for appserver in appservers)
    named = " that the page names" if page else ""
    lost = next((kept["why"] for appserver in appservers if (kept := appserver["kept"]) and kept["why"]), "")
    say(
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
    why = bind_error(LOOPBACK, port)
    if why:
        raise DemoFailed(
            f"port {port} on 127.0.0.1 cannot be used ({why}); take another: PORT=8080 make demo, or "
            "lbctl demo --port 8080"
        )


def _require_webware() -> None:
    if importlib.util.find_spec("webware") is None:
        raise DemoFailed("Webware is missing: pip install 'lbadaptor[demo]', or name an application with --app")

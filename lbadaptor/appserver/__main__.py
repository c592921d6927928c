"""`python -m lbadaptor.appserver module:callable`: one AppServer alone, for a try with a browser."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import socket
import sys
from collections.abc import Callable

from lbadaptor.appserver.main import BASE_PORT, CANNOT_START, line, main, reporter
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.process.messages import Assignment, Failed, Ready, decode_assignment
from lbadaptor.appserver.template import template
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")


def command() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lbadaptor.appserver",
        description="Serve a WSGI application from one AppServer, alone: without Apache, monitor and ticket.",
    )
    parser.add_argument("app", nargs="?", default="", help="the application, module:callable")
    parser.add_argument("--slot", type=int, default=0, help="its slot: the port is 9000 + slot (default 0)")
    parser.add_argument("--address", help="where to listen, host:port (default 127.0.0.1 and the slot's port)")
    parser.add_argument("--session-cookie", default="", metavar="NAME", help="the application's session cookie")
    parser.add_argument("--threads", type=int, default=8, help="requests at work at once (default 8)")
    parser.add_argument("--preload", action="store_true", help=argparse.SUPPRESS)  # the monitor's: a template
    parser.add_argument("--captured", action="store_true", help=argparse.SUPPRESS)  # by the monitor's watcher
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)  # the monitor's: a socket's descriptor
    options = parser.parse_args()
    sys.argv = ["mod_wsgi"]  # as the application sees it in mod_wsgi: our own options are not its own
    if options.channel is not None:
        channel = socket.socket(fileno=options.channel)
        channel.set_inheritable(False)
        forks.guard(channel.close)
        _log("template" if options.preload else str(options.slot), options.captured)
        if not options.preload:
            return _serve(channel, options.slot, options.address)
        try:
            asked, channel = template(channel)
        except Exception as error:
            return _fell(reporter(channel), error)
        forks.guard(channel.close)
        return _serve(channel, asked.slot, asked.address)
    _log(str(options.slot))
    if not options.app:
        parser.error("name the application, module:callable")
    assignment = Assignment(options.app, session_cookie=options.session_cookie, threads=options.threads)

    where = options.address or f"127.0.0.1:{BASE_PORT + options.slot}"

    def report(message: object) -> None:
        if isinstance(message, Ready):
            print(f"AppServer {options.slot}: {options.app} at http://{where}/", flush=True)

    return main(options.slot, where, assignment=assignment, report=report)


def _serve(channel: socket.socket, slot: int, address: str) -> int:
    """What the monitor hands over, until it orders to stop."""
    report = reporter(channel)
    try:
        return main(slot, address, assignment=decode_assignment(line(channel)), report=report)
    except Exception as error:
        return _fell(report, error)
    finally:
        with contextlib.suppress(OSError):  # the application may have closed what is not its own
            channel.close()


def _fell(report: Callable[[Failed], object], error: Exception) -> int:
    """An error of our own, which the monitor shall be able to name."""
    log.error("it ends: %s", texts.of(error), exc_info=error)
    report(Failed(texts.of(error)))
    return CANNOT_START


def _log(name: str, is_captured: bool = False) -> None:
    """Our own messages to standard error; `logging` is left to the application."""
    if is_captured:
        logs.to_captured()
    else:
        logs.to_stderr(f"AppServer {name}: ")
    if not faulthandler.is_enabled():  # the template's application may have chosen a file of its own
        faulthandler.enable(file=2)  # a crash in a C library says where in the application it was
    if sys.stdout is not None:
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(command())

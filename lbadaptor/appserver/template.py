"""The template of `preload`: a process that has imported the application, from which AppServers are forked.

It has one thread and serves no requests. It imports, and then forks what the monitor asks for, until the monitor's
end of the channel is closed. All AppServers share what it has read into memory.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from lbadaptor.appserver.main import CANNOT_START, cannot_start, imported, line, reporter
from lbadaptor.appserver.process import forks
from lbadaptor.appserver.process.messages import (
    Failed,
    Fork,
    Forked,
    Imported,
    Preload,
    TemplateReport,
    Unfit,
    Unforked,
    decode_fork,
    decode_preload,
)
from lbadaptor.appserver.process.startup import Watch, failed
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

_fork_bare = ctypes.PyDLL(None).fork
"""fork(2) without the hooks of `os.register_at_fork`; with the interpreter's lock held throughout."""


def template(channel: socket.socket) -> tuple[Fork, socket.socket]:
    """Be a template. Returns in AppServers alone: what each is to be, and its own channel."""
    _be_called("template")
    report = reporter(channel)
    _prepare(decode_preload(line(channel)), report)
    report(Imported())
    while asked := _asked(channel):
        try:
            pid = _fork()
        except OSError as error:
            report(Unforked(texts.what(error)))
        else:
            if not pid:
                forks.belongs()
                channel.close()
                _become(*asked)
                return asked
            report(Forked(pid))
        asked[1].close()
    return _end(0)


def _prepare(preload: Preload, report: Callable[[TemplateReport], object]) -> None:
    """Import the application, and be fit for a fork; or end."""
    before = _sockets()
    watch = Watch(preload.app, preload.start_timeout, preload.ready_by, report)
    try:
        for name in (preload.app, preload.session_count):
            if ":" in name:  # a count may be a framework's name
                imported(name)
    except BaseException as error:
        if forks.is_child():
            forks.end(error)
        cannot_start(report, failed(preload.app, error))
        _end(CANNOT_START)
    if forks.is_child():
        forks.end(None)
    watch.end()
    if _thread._count():
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        report(
            Unfit(
                texts.clean(
                    f"the application starts threads when it is imported ({names}), which do not survive a fork"
                )
            )
        )
        _end(CANNOT_START)
    if more := len(os.listdir("/proc/self/task")) - 1:
        log.warning(
            "a library has started %s at import; it has to start them again after a fork",
            texts.count(more, "thread"),
        )
    if more := len(_sockets() - before):
        log.warning(
            "the application has opened %s at import: ALL AppServers share them; open them at the "
            "first request, or leave out preload",
            texts.count(more, "socket"),
        )
    gc.collect()
    gc.freeze()  # the collector of an AppServer would write to all that is shared (Python's docs on gc.freeze)


def _asked(channel: socket.socket) -> tuple[Fork, socket.socket] | None:
    """The next one to fork; None when the monitor is gone. Blocks. The monitor asks for one at a time."""
    data, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
    if not data:
        return None
    own = socket.socket(fileno=descriptors[0])
    own.set_inheritable(False)
    return decode_fork(data if data.endswith(b"\n") else data + line(channel)), own


def _fork() -> int:
    """Fork a process that is the monitor's child, not this one's; its pid here, 0 in it. Raises OSError.

    The process between exits at once, and the monitor, as the nearest subreaper, gets what it leaves (prctl(2)). It
    is forked bare, so that what the application has registered for a fork happens once.
    """
    _flush()
    reader, writer = os.pipe()
    between = _fork_bare()
    if not between:
        pid = -1
        with contextlib.suppress(BaseException):  # a hook of the application's, too: this process must not go on
            pid = os.fork()
        if pid:
            os._exit(0)
        os.setsid()
        os.close(reader)
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
        return 0
    os.close(writer)
    try:
        if between < 0:
            raise OSError(0, "fork: no process is left")
        with contextlib.suppress(ChildProcessError):  # the application may ignore SIGCHLD
            os.waitpid(between, 0)
        answer = os.read(reader, 20)
    finally:
        os.close(reader)
    if not answer:
        raise OSError(0, "fork: it ended at once")
    return int(answer)


def _become(asked: Fork, channel: socket.socket) -> None:
    """What the AppServer in this slot has for itself."""
    _be_called(f"AppServer {asked.slot}")
    os.environ.update(asked.environment)
    try:
        os.chdir(asked.folder or ".")
    except OSError as error:
        reporter(channel)(Failed(texts.of_os_error(error)))
        raise SystemExit(CANNOT_START) from None


def _be_called(name: str) -> None:
    """For `ps -o comm`: the command line is the same in template and AppServers."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _sockets() -> set[str]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if name.startswith("socket:"):
                found.add(name)
    return found


def _end(status: int) -> NoReturn:
    """What the application has registered for the end of a process is for those that serve."""
    _flush()
    os._exit(status)


def _flush() -> None:
    """What the application has said so far is not to be said again by each AppServer."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the application may have put anything there, or nothing
            stream.flush()

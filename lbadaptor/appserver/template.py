"""The template of `preload`: a process that has imported the application, from which AppServers are forked.

The template has one thread and serves no requests. It imports the application. Then it forks an AppServer whenever
the monitor asks for one, until the monitor closes its end of the channel. All AppServers share the template's memory
pages, except those that they write to.
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
"""fork(2) without the hooks of `os.register_at_fork`. ctypes.PyDLL keeps the interpreter lock during the call."""


def template(channel: socket.socket) -> tuple[Fork, socket.socket]:
    """Run the template. Returns only in the forked AppServers: what the AppServer shall be, and its own channel."""
    _set_name("template")
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
                return asked[:2]
            report(Forked(pid))
        asked[1].close()
        if asked[2] is not None:
            os.close(asked[2])
    return _end(0)


def _prepare(preload: Preload, report: Callable[[TemplateReport], object]) -> None:
    """Import the application and check that this process may fork. Ends the process if either fails."""
    before = _sockets()
    watch = Watch(preload.app, preload.start_timeout, preload.ready_by, report)
    try:
        for name in (preload.app, preload.session_count, preload.session_save, preload.session_load):
            if ":" in name:  # session_count may be a framework's name
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
    gc.freeze()  # an AppServer's garbage collector would write to all shared pages (Python's docs on gc.freeze)


def _asked(channel: socket.socket) -> tuple[Fork, socket.socket, int | None] | None:
    """Wait for the next order to fork. None: the monitor is gone. Blocks. The monitor sends one order at a time.

    The AppServer's own channel comes along, and its captured file, if it gets one.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, 65536, 2)
    except ConnectionResetError:  # the monitor was killed before it had read all that was reported
        return None
    if not data:
        return None
    own = socket.socket(fileno=descriptors[0])
    own.set_inheritable(False)
    file = descriptors[1] if descriptors[1:] else None
    return decode_fork(data if data.endswith(b"\n") else data + line(channel)), own, file


def _fork() -> int:
    """Fork a process that becomes the monitor's child, not the template's. Raises OSError.

    Returns its pid in the template, and 0 in the new process. There are two forks. The process between exits at once;
    the monitor is the nearest subreaper, so the kernel makes it the parent of the new process (prctl(2)). The first
    fork runs no hooks, so the application's hooks for a fork run only once.
    """
    _flush()
    reader, writer = os.pipe()
    between = _fork_bare()
    if not between:
        pid = -1
        with contextlib.suppress(BaseException):  # also from a hook of the application: this process must not go on
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
            raise OSError(0, "fork: no process could be forked")
        with contextlib.suppress(ChildProcessError):  # the application may ignore SIGCHLD
            os.waitpid(between, 0)
        answer = os.read(reader, 20)
    finally:
        os.close(reader)
    if not answer:
        raise OSError(0, "fork: the new process ended at once")
    return int(answer)


def _become(asked: Fork, channel: socket.socket, file: int | None) -> None:
    """Give the new AppServer its name, its log, its environment variables and its folder."""
    _set_name(f"AppServer {asked.slot}")
    if file is None:
        logs.to_stderr(f"AppServer {asked.slot}: ")
    else:
        logs.to_captured(file)
        os.close(file)
    os.environ.update(asked.environment)
    try:
        os.chdir(asked.folder or ".")
    except OSError as error:
        reporter(channel)(Failed(texts.of_os_error(error)))
        raise SystemExit(CANNOT_START) from None


def _set_name(name: str) -> None:
    """Set the name that `ps -o comm` shows: template and AppServers have the same command line."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if name.startswith("socket:"):
                found.add(name)
    return found


def _end(status: int) -> NoReturn:
    """End without the application's `atexit` functions: they are for AppServers."""
    _flush()
    os._exit(status)


def _flush() -> None:
    """Write out buffered output, or each forked AppServer would write it again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the application may have put anything there, or nothing
            stream.flush()

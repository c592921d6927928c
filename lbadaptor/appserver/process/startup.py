"""Reports of starts that fail or hang: the reason, and the place in the application."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from threading import Event, Thread, get_ident
from time import monotonic
from types import FrameType

from lbadaptor.appserver.process.messages import Failed
from lbadaptor.log import logs, texts

log = logs.logger("lbadaptor.appserver")

_PATHS = 6
"""How many of the folders are named in which Python looked for a module."""
_STANDARD = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
_PACKAGES = "/site-packages/", "/dist-packages/"


def failed(name: str, error: BaseException) -> Failed:
    """The report for an exception from the import of `module:callable`. Never raises."""
    place = _place(error)
    where = f" ({place})" if place else ""
    why = f"{name}: {texts.of(error)}{where}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        why += _looked_for(error.name, name.partition(":")[0], place)
    elif isinstance(error, SystemExit):
        why += ": the application ends the process while it is imported"
    elif isinstance(error, AttributeError) and not place:
        file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        why += f"; the module is {file}" if file else ""
    return Failed(texts.clean(why, texts.REASON), trace=tuple(texts.trace(error, always=False)))


def _looked_for(missing: str, module: str, place: str) -> str:
    """Text: which module imports the missing one, and where Python looked for it."""
    whose = "" if module == missing or module.startswith(f"{missing}.") or not place else ", which imports it"
    folders = [path or os.getcwd() for path in sys.path if not _is_standard(f"{path}/") and not path.endswith(".zip")]
    named = ", ".join(folders[:_PATHS]) + (" …" if len(folders) > _PATHS else "")
    return f"{whose}; looked for by {sys.executable} in {named or 'no folder'}"


def _place(error: BaseException) -> str:
    """The innermost line of the application in the traceback; empty if there is none."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if _is_application(file):
            found = f"{file}, line {line}"
    return found


def _is_application(file: str) -> bool:
    """Whether a file belongs to the application or a library, not to lbadaptor or Python."""
    return not (file.startswith("<") or texts.is_own(file) or texts.is_importlib(file) or _is_standard(file))


def _is_standard(file: str) -> bool:
    inside = any(folder and f"{file}/".startswith(f"{folder}/") for folder in _STANDARD)
    return inside and not any(part in f"{file}/" for part in _PACKAGES)


class Watch:
    """Watches a start. If it takes too long, reports where the main thread is, before the monitor ends the process.

    The thread that makes a Watch is the one that it watches; it calls `end`.
    """

    def __init__(self, name: str, timeout: float, ready_by: float, report: Callable[[Failed], object]) -> None:
        """The start has `timeout` seconds, until `ready_by` (time.monotonic(), one clock for all processes)."""
        self._name = name
        self._timeout = timeout
        self._until = ready_by - min(1.0, timeout / 4)
        self._report = report
        self._main = get_ident()
        self._over = Event()
        self._thread = Thread(target=logs.guarded(self._wait, log), name="start-watch", daemon=True)
        self._runs = False
        if timeout > 0:
            try:
                self._thread.start()
                self._runs = True
            except (RuntimeError, MemoryError) as error:
                log.warning("no thread can watch the start, so a start that hangs gets no explanation: %s", error)

    def end(self) -> None:
        """The start is over. Blocks until the watching thread has ended, for 4 s at most: a fork must not meet it."""
        self._over.set()
        if self._runs:
            self._thread.join(2.0)
            path = f"/proc/self/task/{self._thread.native_id}"
            until = monotonic() + 2.0
            while os.path.exists(path) and monotonic() < until:
                os.sched_yield()

    def _wait(self) -> None:
        if self._over.wait(max(0.0, self._until - monotonic())):
            return
        frames = sys._current_frames()
        mine = get_ident()
        others = [frame for thread, frame in frames.items() if thread not in (self._main, mine)]
        report = _hung(self._name, self._timeout, frames.get(self._main), others)
        log.error("%s", report.why)
        self._report(report)


def _hung(name: str, timeout: float, main: FrameType | None, others: list[FrameType]) -> Failed:
    """The report: where the main thread is. While it waits for the warm-up: where a warm-up request is."""
    why = f"{name} did not get ready within {timeout:g} s"
    whose = "its main thread is"
    frame = main
    if main is None or not any(_is_application(one.f_code.co_filename) for one in _outward(main)):
        for other in others:
            if any(_is_application(one.f_code.co_filename) for one in _outward(other)):
                frame, whose = other, "a request of its warm-up is"
                break
    if frame is None:
        return Failed(why)
    inner = next(_outward(frame))
    mine = [one for one in _outward(frame) if _is_application(one.f_code.co_filename)]
    own = [one for one in mine if not any(part in one.f_code.co_filename for part in _PACKAGES)]
    where = (own or mine or [inner])[0]
    nowhere = "" if mine else "no thread is in the application; "
    why += f": {nowhere}{whose} in {_at(where)}"
    if inner is not where:
        why += f", and there in {_at(inner)}"
    return Failed(texts.clean(why, texts.REASON), trace=tuple(texts.stack(frame)))


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a stack, from the innermost to the outermost."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _at(frame: FrameType) -> str:
    code = frame.f_code
    inside = f", in {code.co_name}" if code.co_name != "<module>" else ""
    return f"{code.co_filename}, line {frame.f_lineno}{inside}"

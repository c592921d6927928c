"""The log: whatever the application and the reader do, no line raises, blocks, or is lost in silence."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbadaptor.log import loggers, standard_error, wsgi_errors
from lbadaptor.log.writer import BACKLOG, TextStream, Writer

WAIT = 20.0
PREFIX = "AppServer 7: "


class Log:
    """A log that writes to one end of something, and its other end."""

    def __init__(self, descriptor: int) -> None:
        self.output = Writer(descriptor, PREFIX)
        self.lines = loggers.LineHandler(PREFIX, self.output)

    def close(self) -> None:
        os.close(self.output._descriptor)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> loggers.Logger:
    monkeypatch.setattr(loggers, "_threshold", loggers.INFO)
    return loggers.logger("test")


@contextlib.contextmanager
def logging_to(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    made = Log(descriptor)
    with monkeypatch.context() as patch:
        patch.setattr(loggers, "handlers", [made.lines])
        patch.setattr(loggers, "program", made.lines)
        yield made.output
    made.close()


@contextlib.contextmanager
def pipe(size: int = 4096) -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    try:
        yield reader, writer
    finally:
        for descriptor in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def drain(reader: int, output: Writer) -> str:
    """All that comes of a pipe or socket while the log is flushed."""
    os.set_blocking(reader, False)
    read = b""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        output.flush()
        try:
            more = os.read(reader, 65536)
        except BlockingIOError:
            if not output._waiting and not output._lost:
                break
            continue
        read += more
    return read.decode()


def test_a_line_for_each_record(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        log.info("slot %d is up", 3)
        log.warning("two\nlines \x1b[0m")
        log.debug("nobody wants to know")
        log.error("%d is no number", "x")
        log.warning("100 % sure")
        assert drain(reader, output).splitlines() == [
            f"{PREFIX}slot 3 is up",
            f"{PREFIX}two\\nlines \\x1b[0m",
            f"{PREFIX}%d is no number",
            f"{PREFIX}100 % sure",
        ]


def test_a_traceback_has_the_prefix_on_each_line(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(65536) as (reader, writer), logging_to(writer, monkeypatch) as output:
        try:
            raise KeyError("why")
        except KeyError:
            log.exception("it failed")
        told = drain(reader, output).splitlines()
    assert told[0] == f"{PREFIX}it failed"
    assert told[-1] == f"{PREFIX}KeyError: 'why'"
    assert all(line.startswith(PREFIX) for line in told)


def test_a_record_as_json_is_one_line(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(65536) as (reader, writer), logging_to(writer, monkeypatch) as output:
        standard_error.set_json(True)
        try:
            raise KeyError("why")
        except KeyError:
            log.exception("it “failed”\n")
        (line,) = drain(reader, output).splitlines()
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    first, *_, last = told.pop("text").splitlines()
    assert (first, last) == ("it “failed”\\n", "KeyError: 'why'")
    assert told == {"level": "error", "program": "AppServer 7"}


@pytest.mark.parametrize("kind", ["pipe", "pipe of another user", "stream socket", "datagram socket"])
def test_without_a_reader_it_does_not_block_and_says_how_much_was_lost(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with contextlib.ExitStack() as stack:
        if "pipe" in kind:
            reader, writer = stack.enter_context(pipe())
        else:
            ours, theirs = socket.socketpair(
                type=socket.SOCK_STREAM if kind.startswith("stream") else socket.SOCK_DGRAM
            )
            stack.enter_context(ours)
            stack.enter_context(theirs)
            reader, writer = ours.fileno(), theirs.fileno()
        if "another" in kind:  # who may not open it anew
            real = os.open

            def refused(path: Any, *more: Any) -> int:
                if str(path).startswith("/proc/self/fd/"):
                    raise PermissionError(13, "Permission denied", path)
                return real(path, *more)

            monkeypatch.setattr(os, "open", refused)
        output = stack.enter_context(logging_to(writer, monkeypatch))
        for number in range(3_000):
            log.info("line %d of many that are long enough", number)
        assert output._size <= BACKLOG
        assert os.get_blocking(writer)  # the application writes to the same open file description
        told = drain(reader, output).splitlines()
        log.info("and on")
        assert drain(reader, output) == f"{PREFIX}and on\n"
    lost = 3_000 - (len(told) - 1)
    assert told[0] == f"{PREFIX}line 0 of many that are long enough"
    assert told[-2] == f"{PREFIX}line {3_000 - lost - 1} of many that are long enough"
    assert told[-1] == f"{PREFIX}{lost} lines of the log lost: nobody read them"
    assert lost > 1000


def test_a_terminal_that_is_stopped(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    try:
        with logging_to(theirs, monkeypatch) as output:
            log.info("said")
            import termios

            termios.tcflow(theirs, termios.TCOOFF)
            for number in range(5000):
                log.info("line %d", number)
            assert output._lost
            termios.tcflow(theirs, termios.TCOON)
            assert "lines of the log lost" in drain(ours, output)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_reader_that_is_gone_has_no_effect(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, kind: str, handler: signal.Handlers
) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        with logging_to(writer, monkeypatch):
            os.close(reader)
            for _ in range(3000):
                log.info("is anybody there? %s", "x" * 50)
            standard_error.flush()
            assert signal.SIGPIPE not in signal.sigpending()
            assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGPIPE, before)
        os.close(writer)


def test_a_full_disk_is_said_when_there_is_room_again(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with open("/dev/full", "wb") as full, logging_to(full.fileno(), monkeypatch) as output:
        for number in range(5000):
            log.info("line %d that nobody keeps", number)
        with open(path, "wb", buffering=0) as file:
            output._put = file.write  # type: ignore[assignment]  # there is room again
            standard_error.flush()
    assert path.read_text().endswith("lines of the log lost: No space left on device\n")


def test_a_file_that_is_shared_is_not_overwritten(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with open(path, "wb", buffering=0) as file, logging_to(file.fileno(), monkeypatch):
        log.info("one")
        file.write(b"the application's\n")
        log.info("two")
    assert path.read_text().splitlines() == [f"{PREFIX}one", "the application's", f"{PREFIX}two"]


def test_a_descriptor_that_was_closed_and_used_again_gets_nothing(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        log.info("one")
        with open(tmp_path / "visitor", "wb") as file:
            number = output._descriptor
            os.dup2(file.fileno(), number)  # as a daemon's code does that closes everything, and goes on
            log.info("two")
            os.close(number)
        assert drain(reader, output) == f"{PREFIX}one\n{PREFIX}two\n"
    assert (tmp_path / "visitor").read_bytes() == b""


def test_in_a_forked_child_no_lock_is_held_and_nothing_is_said_twice(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        for number in range(200):
            log.info("line %d", number)  # more than the pipe takes
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with output._lock:
                held.set()
                let_go.wait(WAIT)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(WAIT)
        pid = os.fork()
        if not pid:
            signal.alarm(int(WAIT))
            log.info("the child")
            os._exit(0)
        ended = os.waitpid(pid, 0)[1]
        let_go.set()
        holder.join(WAIT)
        told = drain(reader, output)
    assert ended == 0
    assert told.count("line 150") == 1


def test_a_line_that_was_begun_before_a_fork_is_the_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch):
        wsgi_errors.stream.write("begun, ")
        pid = os.fork()
        if not pid:
            wsgi_errors.stream.write("the child\n")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        wsgi_errors.stream.write("and ended\n")
        assert os.read(reader, 4096).decode() == "the child\nbegun, and ended\n"


def test_what_waits_for_a_reader_is_written_by_the_next_line(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch):
        os.write(writer, b"x" * 4096)
        log.info("one")
        os.read(reader, 4096)
        log.info("two")
        assert os.read(reader, 4096).decode() == f"{PREFIX}one\n{PREFIX}two\n"


def test_many_threads_write_whole_lines(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(1 << 20) as (reader, writer), logging_to(writer, monkeypatch) as output:
        threads = [threading.Thread(target=lambda: [log.info("%s", "x" * 100) for _ in range(100)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert drain(reader, output).splitlines() == [PREFIX + "x" * 100] * 800


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("text", "args"),
    [("%s", (Unspeakable(),)), ("%d", ("x",)), ("%s %s", ("x",)), ("%", ("x",)), ("x", (1,)), ("\ud800", ())],
)
def test_no_line_raises(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, text: str, args: tuple[object, ...]
) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        log.error(text, *args)
        assert drain(reader, output).count("\n") == 1


def test_logging_and_its_configuration_do_not_reach_it(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **more: object) -> Any:
        raise AssertionError("the application's")

    monkeypatch.setattr(logging, "_logRecordFactory", never)
    monkeypatch.setattr(logging.Logger, "_log", never)
    monkeypatch.setattr(logging.Logger, "callHandlers", never)
    monkeypatch.setattr(logging.Logger, "isEnabledFor", never)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        log.error("logged")
        assert drain(reader, output) == f"{PREFIX}logged\n"


def test_the_journal_gets_the_level(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = os.fstat(theirs.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        with logging_to(theirs.fileno(), monkeypatch):
            log.info("one")
            log.warning("two")
            log.error("three")
        assert ours.recv(4096).decode() == f"<6>{PREFIX}one\n<4>{PREFIX}two\n<3>{PREFIX}three\n"


# wsgi.errors.


def test_wsgi_errors_is_a_text_stream_whose_lines_go_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch) as output:
        errors = wsgi_errors.WsgiErrors()
        assert errors.write("be") == 2
        print("gun", 7, file=errors)
        errors.writelines(["one\ntwo", " half \ud800"])
        assert drain(reader, output) == "begun 7\none\n"
        errors.flush()
        errors.close()
        errors.write("x" * 10_000)
        assert drain(reader, output) == "two half \\ud800" + "x" * 10_000


def test_what_no_line_ends_goes_out_with_the_next_flush_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer), logging_to(writer, monkeypatch):
        wsgi_errors.stream.write("half")
        standard_error.flush()
        assert os.read(reader, 100) == b"half"


def test_a_guarded_thread_says_what_ended_it(
    log: loggers.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        raise GeneratorExit("enough")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    thread = threading.Thread(target=standard_error.guarded(work, log), name="worker")
    thread.start()
    thread.join(WAIT)
    assert "the thread worker has ended" in caplog.text
    assert "GeneratorExit: enough" in caplog.text


def test_a_stream_that_is_closed_or_missing_is_no_error(log: loggers.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as stream:
        pass
    for closed in (stream, None):
        monkeypatch.setattr(loggers, "handlers", [loggers.LineHandler("", TextStream(closed))])
        log.error("unheard")


def test_no_other_module_uses_pythons_own_logging() -> None:
    top = Path(__file__).parents[3]
    modules = [
        path for path in (*top.glob("lbadaptor/**/*.py"), *top.glob("monitor/**/*.py")) if path.name != "loggers.py"
    ]
    assert not [path for path in modules if "logging." in path.read_text() or "import logging" in path.read_text()]

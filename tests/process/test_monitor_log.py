"""The log of real processes: nobody reads it, or the application takes it away. Nothing may wait, or be lost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from monitor_fixture import Site


@contextlib.contextmanager
def written_to(site: Site, log: IO[bytes] | int) -> Iterator[None]:
    """A monitor whose standard error is `log`; the application's own output goes nowhere."""
    site.settings("monitor")
    site.monitor = subprocess.Popen(
        site.command(),
        cwd=site.app_folder,
        env=site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    site.wait_ok()
    yield


def kill_and_wait(site: Site, times: int = 3) -> None:
    """Kill an AppServer, and wait for its next life, again and again."""
    for _ in range(times):
        old = site.entry(0)
        assert old is not None
        os.kill(site.get(0).content["pid"], signal.SIGKILL)
        site.wait_reborn(old)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("preload", [False, True])
def test_a_killed_appserver_is_replaced_though_no_process_reads_the_log(site: Site, kind: str, preload: bool) -> None:
    site.settings("appservers", preload=preload)
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    try:
        with written_to(site, writer):
            os.set_blocking(writer, False)  # this end is shared, until it is full
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"x" * 512)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"x")
            os.set_blocking(writer, True)
            kill_and_wait(site)
            os.kill(site.pid, signal.SIGHUP)
            os.set_blocking(reader, False)
            said = b""

            def more() -> bool:
                nonlocal said
                with contextlib.suppress(BlockingIOError):
                    said += os.read(reader, 65536)
                return b"release: every AppServer has been replaced" in said

            site.wait(more, "what waited is said")
            assert said.count(b"slot 0 (OK) was ended by SIGKILL") == 3
            site.end()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_stopped_reader_of_the_log_stops_no_process(site: Site) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
        assert reader.stdin is not None
        fcntl.fcntl(reader.stdin, fcntl.F_SETPIPE_SZ, 4096)
        with written_to(site, reader.stdin):
            reader.send_signal(signal.SIGSTOP)
            os.set_blocking(reader.stdin.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(reader.stdin.fileno(), b"x" * 4096)
            os.set_blocking(reader.stdin.fileno(), True)
            kill_and_wait(site)
            reader.send_signal(signal.SIGCONT)
            site.end()


def test_a_reader_of_the_log_that_is_gone_stops_no_process(site: Site) -> None:
    reader, writer = os.pipe()
    with contextlib.closing(os.fdopen(writer, "wb")), written_to(site, writer):
        os.close(reader)
        kill_and_wait(site)
        site.end()


ATTACKS = {
    "dictConfig": "import logging.config; logging.config.dictConfig({'version': 1})",
    "disable": "import logging; logging.disable(logging.CRITICAL)",
    "shutdown": "import logging; logging.shutdown()",
    "basicConfig": "import logging; logging.basicConfig(level=100, force=True, filename='/dev/null')",
    "record factory": "import logging; logging.setLogRecordFactory(lambda *a, **k: 1/0)",
    "logger class": "import logging\nclass Bad(logging.Logger):\n    def __init__(self, name): 1/0\n"
    "logging.setLoggerClass(Bad)",
    "raiseExceptions": "import logging; logging.raiseExceptions = True; logging.Logger.handle = None",
    "stderr closed": "sys.stderr.close()",
    "stderr None": "sys.stderr = sys.stdout = None",
    "stderr a file": "sys.stdout = sys.stderr = open(os.devnull, 'w')",
    "stderr raises": "class Bad:\n    def write(self, text): 1/0\nsys.stderr = sys.stdout = Bad()",
    "descriptor 2 closed": "os.close(2)",
    "descriptor 2 replaced": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
    "descriptor 2 read-only": "os.dup2(os.open(os.devnull, os.O_RDONLY), 2)",
    "hooks": "import threading\ndef bad(*a): 1/0\nsys.excepthook = threading.excepthook = sys.unraisablehook = bad",
    "SIGPIPE": "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("preload", [False, True])
def test_whatever_an_application_does_to_its_log_ours_is_written(site: Site, attack: str, preload: bool) -> None:
    site.settings("appservers", servers=1, preload=preload)
    site.write_application(
        ATTACKS[attack]
        + """
def failing(environ, start_response):
    if environ["PATH_INFO"] == "/fails":
        environ["wsgi.errors"].write("written to wsgi.errors\\n")
        raise KeyError("the reason")
    return app(environ, start_response)
"""
    )
    site.settings("application", app="shop:failing")
    site.start()
    site.wait_ok()
    assert site.get(0, "/fails").status == 500
    assert site.get(0, "/where").status == 200
    site.wait_said("AppServer 0: KeyError: 'the reason'")
    assert "AppServer 0: GET x: the application failed" in site.said or "/fails: the application failed" in site.said
    assert "written to wsgi.errors" in site.said
    site.end()


@pytest.mark.parametrize("preload", [False, True])
def test_what_an_application_prints_is_not_lost_with_its_process(site: Site, preload: bool) -> None:
    site.settings("appservers", servers=1, preload=preload)
    site.write_application("print('printed at import')")
    site.up()
    site.eval(0, "print('printed in a request')")
    pid = site.pids()[0] if not preload else site.get(0).content["pid"]
    os.kill(pid, signal.SIGKILL)
    site.wait_said("printed in a request")
    assert "printed at import" in site.said
    site.end()


@pytest.mark.parametrize("preload", [False, True])
def test_a_start_that_hangs_says_where(site: Site, preload: bool) -> None:
    site.settings("appservers", servers=2, preload=preload)
    site.settings("monitor", start_timeout=2.0)
    site.write_application("import threading\nthreading.Event().wait()")
    site.start()
    site.wait_said("shop:app did not get ready within 2 s: its main thread is in")
    site.wait_control()
    site.wait(lambda: f"{site.app_folder}/shop.py, line " in site.lbctl("status")[1], "lbctl says where")
    site.end()


def test_a_traceback_is_said_once(site: Site) -> None:
    site.settings("appservers", servers=4)
    site.settings("monitor", backoff_limit=0.1)
    site.write_application("import pandemonium")
    site.start()
    site.wait(lambda: site.said.count("cannot start: shop:app: ModuleNotFoundError") >= 8, "several tries")
    assert site.said.count("Traceback") == 1
    site.write_application("import inferno")
    site.wait_said("No module named 'inferno'")
    site.end()


def test_in_apache_the_log_is_what_stderr_was_at_import(tmp_path: Path) -> None:
    """mod_wsgi makes `sys.stderr` an object of its own; another application in the same process may replace it."""
    script = """
import io, logging.config, sys
kept = sys.stderr = io.StringIO()
from lbadaptor.adaptor.wsgi import application
sys.stderr.flush()
sys.stderr = sys.stdout = None
logging.config.dictConfig({"version": 1})
logging.disable(logging.CRITICAL)
environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "LBADAPTOR_CONFIG": sys.argv[1]}
list(application(environ, lambda *_: None))
sys.stdout = sys.__stdout__
print(kept.getvalue())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "absent.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "absent.toml: No such file or directory" in done.stdout
    assert (done.stdout.strip().count("\n"), done.stderr) == (0, "")

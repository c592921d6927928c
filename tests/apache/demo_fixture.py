"""`lbctl demo` as a person runs it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import requests
from cluster import LBCTL, TIMEOUT, eventually, processes_of

from tests.ports import free_ports

PLACES = re.compile(
    r"the site +(http://127\.0\.0\.1:\d+/\w*)\n +address\.text +(\S+)\n +control socket +(\S+)\n", re.MULTILINE
)


class Demo:
    """A running `lbctl demo`, its temporary files in `folder`/tmp, started in `folder`."""

    def __init__(
        self, folder: Path, *words: str, program: tuple[str, ...] = (str(LBCTL), "demo"), **options: Any
    ) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        self.port = free_ports(60)
        self.output = ""
        environment = {**os.environ, "TMPDIR": str(self.temporary), **options.pop("env", {})}
        self.process = subprocess.Popen(
            [*program, "--port", str(self.port), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
            **options,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def await_ready(self, timeout: float = TIMEOUT) -> None:
        """Wait until it has told where everything is."""

        def look() -> bool:
            assert self.process.poll() is None, self.output
            return "Ctrl-C ends it." in self.output

        eventually("the demo is up", look, timeout)

    def await_up(self) -> tuple[str, Path, Path]:
        """Wait for the site's address, address.text, and the control socket."""
        self.await_ready()
        found = PLACES.search(self.output)
        assert found, self.output
        return found[1], Path(found[2]), Path(found[3])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return status

    def assert_nothing_left(self) -> None:
        assert processes_of(self.temporary) == {}, self.output
        assert list(self.temporary.iterdir()) == []

    def clear(self) -> None:
        """Whatever became of the test."""
        left = processes_of(self.temporary)
        for pid in (self.process.pid, *left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def fetch(http: requests.Session, url: str) -> requests.Response:
    http.trust_env = False
    answer = http.get(url, timeout=TIMEOUT)
    assert answer.status_code == 200, answer.text
    return answer

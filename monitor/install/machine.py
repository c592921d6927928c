"""The machine: its files, and commands that are run on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lbadaptor.log import texts
from monitor.apacheconfig.write import replace
from monitor.install.wanted import Refused

TIMEOUT = 180.0
"""Seconds that one command may take: the end of all AppServers takes the longest."""


SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has what only root needs. After `su` without `-` it is not in PATH."""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    said: str


def run(words: Sequence[str]) -> Done:
    """Blocks for TIMEOUT at most."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}"}
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            cwd="/",
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Done(1, f"it has not ended within {TIMEOUT:.0f} s")
    except OSError as error:
        return Done(1, f"{words[0]}: {texts.what(error)}")
    return Done(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace").strip())


class Machine:
    """`root` is the folder for /, and `runner` runs commands; both are others in tests only."""

    def __init__(self, root: Path = Path("/"), runner: Callable[[Sequence[str]], Done] = run) -> None:
        self._root = root
        self._runner = runner

    def place(self, path: str) -> Path:
        """Where a file of the machine is."""
        return self._root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """None: there is none. Raises OSError, Refused."""
        try:
            return self.place(path).read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise Refused(f"{path} is not UTF-8 text") from None

    def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing if it is missing."""
        try:
            return sorted(os.listdir(self.place(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write(self, path: str, text: str) -> list[str]:
        """Replace a file atomically. The folders that were made for it, outermost first. Raises LbadaptorError."""
        place, made = self.place(path), []
        try:
            for folder in reversed(place.parents):
                if not folder.exists():
                    folder.mkdir(mode=0o755)
                    folder.chmod(0o755)  # whatever the umask is
                    made.append("/" + str(folder.relative_to(self._root)))
        except OSError as error:
            raise Refused(f"{error.filename}: {texts.what(error)}") from None
        replace(place, text)
        return made

    def remove(self, path: str) -> None:
        """A file. Raises OSError, but not where there is none."""
        with contextlib.suppress(FileNotFoundError):
            self.place(path).unlink()

    def remove_folder(self, path: str) -> None:
        """If it is empty."""
        with contextlib.suppress(OSError):
            self.place(path).rmdir()

    def remove_tree(self, path: str) -> None:
        """A folder with all that is in it. Links are not followed."""
        shutil.rmtree(self.place(path), ignore_errors=True)

    def run(self, *words: str) -> Done:
        """Blocks for TIMEOUT at most."""
        return self._runner(words)

    def must(self, *words: str) -> str:
        """What a command says. Raises Refused if it fails."""
        done = self.run(*words)
        if done.code:
            raise Refused(f"`{' '.join(words)}` failed (exit status {done.code}): {done.said}")
        return done.said

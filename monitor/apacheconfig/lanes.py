"""The file that Apache's configuration includes: one of the snippets (the Python lane), then the fast lane. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.apacheconfig.quoting import comment, is_plain, quoted

SNIPPETS = {"embedded": "lbadaptor.conf", "daemon": "lbadaptor-daemon.conf", "cgi": "lbadaptor-cgi.conf"}
"""By how Apache runs the adaptor."""
WRITTEN_BY = "# lbctl "
"""Beginning of the line with the command by which a file was written."""
CONFIG = "Define LBADAPTOR_CONFIG "
"""Beginning of a line that each file has; those of earlier releases had the fast lane alone."""


@dataclass(frozen=True)
class PythonLane:
    """The Python lane of one mount."""

    snippet: str | Path
    """one of SNIPPETS, or the path of another one"""
    share: Path
    """the folder of the snippets"""
    config: Path
    """lbadaptor.toml"""
    mount: str
    """a path without a slash at its end; empty: the whole site"""


def both(python: PythonLane, fast_lane: str, command: str) -> str:
    """The file with both lanes; `command` is what writes it.

    Raises SettingsError for a path that Apache's configuration cannot hold.
    """
    return "".join(f"{line}\n" for line in (*_head(python, command), *_python(python), "")) + fast_lane


def python_alone(python: PythonLane, why: str, command: str) -> str:
    """The file without a fast lane; `command` is what writes it.

    Raises SettingsError for a path that Apache's configuration cannot hold.
    """
    reason = ["", "# There is no fast lane:", *comment(why)]
    return "".join(f"{line}\n" for line in (*_head(python, command), *reason, *_python(python)))


def _head(python: PythonLane, command: str) -> Iterator[str]:
    yield f"# lbadaptor for {python.mount or 'the whole site'}; written by"
    yield from comment(command)
    yield "#"
    yield "# Include it in the server's configuration or in a <VirtualHost>, after rewrite rules of your own; that of"
    yield "# the whole site last. It holds no secret. No reload is needed when AppServers come and go."
    yield "# `lbctl apache-config --check FILE` tells whether it still fits the settings and Apache's configuration."


def _python(python: PythonLane) -> Iterator[str]:
    yield ""
    yield f"Define LBADAPTOR_SHARE {_word(str(python.share))}"
    yield f"{CONFIG}{_word(str(python.config))}"
    if python.mount:
        yield f"Define LBADAPTOR_MOUNT {_word(python.mount)}"
    yield f"Include {_word(str(python.share / python.snippet))}"


def _word(text: str) -> str:
    return text if is_plain(text) else quoted(text)

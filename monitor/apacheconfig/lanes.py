"""The file that Apache's configuration includes: one of the snippets (the Python lane), then the fast lane. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbadaptor.contract.headers import REQUEST_ID_PATTERN
from lbadaptor.contract.settings import Settings
from monitor.apacheconfig import front
from monitor.apacheconfig.quoting import comment, is_plain, quoted

SNIPPETS = {"embedded": "lbadaptor.conf", "daemon": "lbadaptor-daemon.conf", "cgi": "lbadaptor-cgi.conf"}
"""By how Apache runs the adaptor."""
WRITTEN_BY = "# lbctl "
"""Beginning of the line with the command by which a file was written."""
LOG_FORMAT = (
    r'LogFormat "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" lane=%{lb_lane}n slot=%{lb_slot}n '
    r'verdict=%{lb_verdict}n tries=%{lb_tries}n app_us=%{lb_time}n us=%D id=%{UNIQUE_ID}e" lbadaptor'
)
"""Apache's combined format, and what lbadaptor tells."""
_LOG = "LBADAPTOR_LOG"
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
    log: bool = True
    """Apache's access log can tell slot, lane, verdict, tries and the AppServer's time"""
    trust_request_id: bool = False
    """the visitor's X-Request-Id is the request's id"""
    front: Sequence[str] = ()
    """addresses of the HAProxies in front"""

    @classmethod
    def of(cls, settings: Settings, snippet: str | Path, share: Path, config: Path, mount: str) -> PythonLane:
        """As the settings of `config` say."""
        adaptor, machine = settings.adaptor, settings.machine
        return cls(snippet, share, config, mount, adaptor.log_variables, adaptor.trust_request_id, machine.front)


def both(python: PythonLane, fast_lane: str, command: str) -> str:
    """The file with both lanes; `command` is what writes it.

    Raises SettingsError for a path that Apache's configuration cannot hold.
    """
    lines = *_head(python, command), *_python(python), ""
    return "".join(f"{line}\n" for line in lines) + fast_lane + "".join(f"{line}\n" for line in _end(python))


def python_alone(python: PythonLane, why: str, command: str) -> str:
    """The file without a fast lane; `command` is what writes it.

    Raises SettingsError for a path that Apache's configuration cannot hold.
    """
    reason = ["", "# There is no fast lane:", *comment(why)]
    return "".join(f"{line}\n" for line in (*_head(python, command), *reason, *_python(python), *_end(python)))


def _head(python: PythonLane, command: str) -> Iterator[str]:
    yield f"# lbadaptor for {python.mount or 'the whole site'}; written by"
    yield from comment(command)
    yield "#"
    yield "# Include it in the server's configuration or in a <VirtualHost>, after rewrite rules of your own; that of"
    yield "# the whole site last. It holds no secret. No reload is needed when AppServers come and go."
    yield "# `lbctl apache-config --check FILE` tells whether it still fits the settings and Apache's configuration."


def _python(python: PythonLane) -> Iterator[str]:
    yield from front.lines(python.front, python.share)
    yield ""
    yield f"Define LBADAPTOR_SHARE {_word(str(python.share))}"
    yield f"{CONFIG}{_word(str(python.config))}"
    if python.mount:
        yield f"Define LBADAPTOR_MOUNT {_word(python.mount)}"
    if python.log:
        yield f"Define {_LOG}"
    yield f"Include {_word(str(python.share / python.snippet))}"
    if python.log:
        yield ""
        yield "# For `CustomLog /path/access.log lbadaptor`, or for a format of your own."
        yield "<IfModule log_config_module>"
        yield f"    {LOG_FORMAT}"
        yield "</IfModule>"
    if python.trust_request_id:
        yield ""
        yield "# A proxy before this Apache gives each request an id, which takes the place of mod_unique_id's."
        yield f"<Location {_word(python.mount or '/')}>"
        yield f'    SetEnvIfExpr "%{{req_novary:X-Request-Id}} =~ m#^({REQUEST_ID_PATTERN})$#" UNIQUE_ID=$1'
        yield "</Location>"


def _end(python: PythonLane) -> Iterator[str]:
    """A Define is global in Apache."""
    if python.log:
        yield f"UnDefine {_LOG}"


def _word(text: str) -> str:
    return text if is_plain(text) else quoted(text)

"""What the pages say of sessions that outlive their process. A section without figures is left out."""

from __future__ import annotations

from collections.abc import Mapping

from .ends import SERVERS, SYSTEMS
from .markdown import table
from .session_site import COOKIES
from .visitors import VISITORS

NAMES = {
    "flask": "Flask-Session",
    "django": "Django",
    "cherrypy": "CherryPy",
    "webware": "Webware",
    "beaker": "Beaker",
}
WAITING = {
    "waiting_start_s": "until 4 AppServers are OK, s",
    "waiting_known_s": "until `lbctl status` tells how many files there are, s",
    "waiting_status_s": "`lbctl status`, s",
    "waiting_appserver_mb": "the largest AppServer, MB",
    "waiting_monitor_mb": "the monitor's arbiter, MB",
    "sweep_counted_s": "CPU time to count them, s",
    "sweep_removed_s": "CPU time to look into each, and remove those that have ended, s",
    "sweep_longest_ms": "the longest turn of the sweep, ms",
    "sweep_mb": "memory that the sweep takes, MB",
}


def sections(scale: Mapping[str, float]) -> list[str]:
    """Paragraphs and tables in Markdown."""
    return [*_ends(scale), *_cost(scale), *_waiting(scale)]


def _ends(scale: Mapping[str, float]) -> list[str]:
    rows = []
    for name, what in SYSTEMS.items():
        figures = [
            *(_told(scale, f"release_{figure} {name}", form) for figure, form in _RELEASE),
            *(_told(scale, f"kills_{figure} {name}", form) for figure, form in _KILLS),
        ]
        if any(figures):
            rows.append([f"**{what}**" if name == "anything" else what, *(figure or "–" for figure in figures)])
    if not rows:
        return []
    sessions, kills = _first(scale, "release_sessions"), _first(scale, "kills_number")
    text = [
        "## What becomes of sessions when processes end",
        f"{SERVERS} processes with Flask-Session, and {VISITORS} visitors who come all the time. *Release*: all"
        f" processes are replaced, {sessions:,.0f} sessions live. *Kills*: one process after another is ended by"
        f" SIGKILL, {kills:.0f} times. The longest wait is that of all visitors for an answer. Without `survive` a"
        " drain waits for the end of the sessions, here for a short `drain_limit`.",
    ]
    heads = ["", "release: sessions lost", "failed requests", "longest wait, s", "old ones gone after, s"]
    heads += ["kills: sessions lost", "failed GETs", "longest wait, s"]
    return [*text, table(heads, rows)]


_RELEASE = (("lost", ".0f"), ("failed", ".0f"), ("pause_s", ".2f"), ("gone_s", ".1f"))
_KILLS = (("lost", ".0f"), ("failed_gets", ".0f"), ("pause_s", ".2f"))


def _cost(scale: Mapping[str, float]) -> list[str]:
    rows = []
    for framework in COOKIES:
        figures = [_told(scale, f"{page}_us {framework}", ".1f") for page in ("change", "read")]
        if any(figures):
            rows.append([NAMES[framework], *(figure or "–" for figure in figures)])
    if not rows:
        return []
    text = ["## What it costs that sessions survive"]
    words = 'What `survive = "anything"` adds to a request with a session of 2 KB, in µs of the AppServer\'s CPU.'
    if nothing := _told(scale, "nothing_us", ".0f"):
        words += f' `"nothing"` adds {nothing} µs.'
    left, killed = (_told(scale, f"take_over_ms {how}", ".2f") for how in ("left", "killed"))
    if left and killed:
        words += (
            f" The first request after a move takes {left} ms longer, after a kill {killed} ms, because the session"
            " is taken over."
        )
    if "idle_percent" in scale:
        words += (
            f" {scale['idle_sessions']:,.0f} sessions that nobody uses take {scale['idle_percent']:.1f} % of a core,"
            " because the AppServer looks at them twice a second."
        )
    return [*text, words, table(["", "the session changes", "it does not"], rows)]


def _waiting(scale: Mapping[str, float]) -> list[str]:
    files = scale.get("waiting_files")
    rows = [
        [words, f"{scale[f'{key} none']:.2f}", f"{scale[f'{key} many']:.2f}"]
        for key, words in WAITING.items()
        if f"{key} none" in scale and f"{key} many" in scale
    ]
    if not rows or files is None:
        return []
    return [
        "Sessions in files whose visitors do not come back:",
        table(["", "no files", f"{files:,.0f} files"], rows),
    ]


def _first(scale: Mapping[str, float], figure: str) -> float:
    return next((value for key, value in scale.items() if key.partition(" ")[0] == figure), 0.0)


def _told(scale: Mapping[str, float], key: str, form: str) -> str:
    """Empty: it was not measured."""
    return format(scale[key] + 0.0, form) if key in scale else ""

"""Lines with a style, and how they are drawn on a whole screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Line = tuple[str, str]
"""A line, and its style (rich's)."""
HEADING, FAINT, WARNING, ALARM = "bold", "dim", "yellow", "bold red"


def drawn(lines: Iterable[Line]) -> Any:
    """What rich draws of them; a line that is too long for the screen is cut off."""
    from rich.text import Text  # a command that draws nothing starts faster without it

    return Text("\n", no_wrap=True, overflow="crop").join(Text(line, style) for line, style in lines)


@contextlib.contextmanager
def whole() -> Iterator[Callable[[Iterable[Line]], None]]:
    """The whole screen, as before at the end; and what draws lines on it."""
    from rich.live import Live

    with Live(screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda lines: live.update(drawn(lines), refresh=True)

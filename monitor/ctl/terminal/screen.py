"""Lines with a style, and how they are drawn on a whole screen."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator

Line = tuple[str, str]
"""A line, and its style (rich's)."""
HEADING, FAINT, WARNING, ALARM = "bold", "dim", "yellow", "bold red"


def height() -> int:
    """Lines of the terminal at standard output."""
    return shutil.get_terminal_size().lines


@contextlib.contextmanager
def whole() -> Iterator[Callable[[Iterable[Line]], None]]:
    """The whole screen, as before at the end; and what draws lines on it. It cuts off what has no room."""
    from rich.live import Live  # a command that draws nothing starts faster without it
    from rich.text import Text

    def draw(lines: Iterable[Line]) -> None:
        texts = (Text(line, style) for line, style in lines)
        live.update(Text("\n", no_wrap=True, overflow="crop").join(texts), refresh=True)

    with Live(screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield draw

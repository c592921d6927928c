"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def figure(value: float | None, form: str = ".0f") -> str:
    """A dash means that it was not measured."""
    return "–" if value is None else format(value, form)

"""Plots, as SVG that any browser shows: bars that stand for a chain and its parts, lines over the connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = (
    "#2f6f9f",
    "#e08e2b",
    "#5a9e4b",
    "#b5484a",
    "#7d62a8",
    "#7f7f7f",
    "#c479a8",
    "#3aa6a0",
    "#9c7a4d",
    "#b8b03a",
)
WIDTH = 860
LABELS = 290
ROW = 24
HEIGHT = 320


def bars(title: str, rows: Sequence[tuple[str, Mapping[str, float]]], unit: str) -> str:
    """A bar for each row, made of its parts, with their sum behind it."""
    parts = list(dict.fromkeys(part for _, values in rows for part in values))
    greatest = max(sum(values.values()) for _, values in rows)
    step = (WIDTH - LABELS - 90) / greatest
    shapes, y = _legend(parts, ROW * 2)
    for label, values in rows:
        y, x = y + ROW, float(LABELS)
        shapes.append(_text(LABELS - 8, y + 14, label, "end"))
        for part, value in values.items():
            width, colour = value * step, COLOURS[parts.index(part)]
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>')
            x += width
        shapes.append(_text(x + 6, y + 14, f"{sum(values.values()):.0f} {unit}"))
    return _svg(title, y + 2 * ROW, shapes)


def lines(title: str, rows: Sequence[tuple[str, Mapping[int, float]]], across: Sequence[int], unit: str) -> str:
    """A line for each row over equal steps of `across`."""
    greatest = max(value for _, values in rows for value in values.values())
    bottom, left, right = HEIGHT - 30, 60, WIDTH - LABELS - 20
    place = {point: left + (right - left) * number / (len(across) - 1) for number, point in enumerate(across)}
    shapes = [_text(x, bottom + 18, str(point), "middle") for point, x in place.items()]
    for quarter in range(5):
        y = bottom - (bottom - 50) * quarter / 4
        shapes.append(f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>')
        shapes.append(_text(left - 6, y + 4, f"{greatest * quarter / 4:.0f}", "end"))
    for number, (label, values) in enumerate(rows):
        points = [
            (place[point], bottom - (bottom - 50) * value / greatest) for point, value in sorted(values.items())
        ]
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = f'stroke="{colour}" stroke-width="2"'
        if number >= len(COLOURS):
            stroke += ' stroke-dasharray="5 3"'
        y = 50 + number * 20
        shapes.append(f'<polyline points="{drawn}" fill="none" {stroke}/>')
        shapes.append(f'<line x1="{right + 16}" y1="{y - 3}" x2="{right + 38}" y2="{y - 3}" {stroke}/>')
        shapes.append(_text(right + 44, y + 1, label))
    shapes.append(_text(left, 40, unit))
    return _svg(title, max(HEIGHT, 60 + 20 * len(rows)), shapes)


def _legend(parts: Sequence[str], y: int) -> tuple[list[str], int]:
    """What the colours mean, in as many rows as it takes, and where the last of them is."""
    shapes: list[str] = []
    x = LABELS
    for part, colour in zip(parts, COLOURS, strict=False):
        width = 40 + 8 * len(part)
        if x > LABELS and x + width > WIDTH:
            x, y = LABELS, y + ROW
        shapes.append(f'<rect x="{x}" y="{y - 2}" width="12" height="12" fill="{colour}"/>')
        shapes.append(_text(x + 18, y + 8, part))
        x += width
    return shapes, y


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: int, shapes: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
            *shapes,
            "</svg>\n",
        ]
    )

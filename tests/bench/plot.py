"""Plots, as SVG that any browser shows. Every axis begins at 0. Rows that are ours stand out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

OURS = ("#1f5f99", "#d9730d")
"""Colours of our lines, and of the parts of our bars."""
THEIRS = ("#a9c1d6", "#efc79f")
"""The same parts in the bars of others."""
MORE_PARTS = ("#b5a3cf", "#c4c4c4")
"""Parts that only others have."""
MUTED = ("#7d62a8", "#5a9e4b", "#b5484a", "#3aa6a0", "#9c7a4d", "#c479a8", "#7f7f7f", "#8a9a2b", "#4d4d4d", "#5b8ad0")
"""Colours of others' lines."""
WIDTH = 860
LABELS = 270
ROW = 26
TOP = 34
"""Below the title."""
LINES_HEIGHT = 460
GAP = 15
"""Between the labels of two lines, at least."""


@dataclass(frozen=True)
class Panel:
    """A column of bars, one for each row; `values` by row."""

    title: str
    values: Mapping[str, float]
    form: str = ".0f"


def bars(title: str, rows: Mapping[str, Mapping[str, float]], unit: str, ours: Collection[str]) -> str:
    """A bar for each row, made of its parts, with their sum behind it. `ours`: rows that stand out."""
    parts = list(dict.fromkeys(part for label in (*ours, *rows) for part in rows.get(label, ())))
    greatest = max(sum(values.values()) for values in rows.values())
    step = (WIDTH - LABELS - 80) / greatest
    shapes, begin = _legend(parts, TOP + 4)
    y = begin
    for label, values in rows.items():
        y, x = y + ROW, float(LABELS)
        own = label in ours
        shapes.append(_text(LABELS - 8, y + 15, label, "end", own))
        for part, value in values.items():
            width = value * step
            shapes.append(_bar(x, y, width, _colour(parts, part, own)))
            x += width
        shapes.append(_text(x + 6, y + 15, f"{sum(values.values()):.0f} {unit}", bold=own))
    return _svg(title, y + ROW + 10, [*shapes, _axis(LABELS, begin + ROW, y + ROW)])


def panels(title: str, rows: Sequence[str], columns: Sequence[Panel], ours: Collection[str]) -> str:
    """Several figures of the same rows side by side, each with a scale of its own."""
    width = (WIDTH - LABELS) / len(columns)
    bottom = TOP + ROW * (len(rows) + 1)
    shapes = []
    for number, label in enumerate(rows):
        shapes.append(_text(LABELS - 8, TOP + ROW * (number + 1) + 15, label, "end", label in ours))
    for place, column in enumerate(columns):
        left = LABELS + place * width
        step = (width - 62) / max(column.values.values())
        shapes.append(_text(left, TOP + 14, column.title))
        for number, label in enumerate(rows):
            value, y = column.values.get(label), TOP + ROW * (number + 1)
            if value is None:
                shapes.append(_text(left + 6, y + 15, "–"))
                continue
            own = label in ours
            shapes.append(_bar(left, y, value * step, (OURS if own else THEIRS)[0]))
            shapes.append(_text(left + value * step + 5, y + 15, format(value, column.form), bold=own))
        shapes.append(_axis(left, TOP + ROW, bottom))
    return _svg(title, bottom + 10, shapes)


def lines(
    title: str,
    rows: Mapping[str, Mapping[int, float]],
    across: Sequence[int],
    axes: tuple[str, str],
    ours: Collection[str],
) -> str:
    """A line for each row over equal steps of `across`, with its name at its end. `axes`: what they show."""
    greatest = _round_up(max(value for values in rows.values() for value in values.values()))
    top, bottom, left, right = TOP + 26, LINES_HEIGHT - 46, 50, WIDTH - LABELS - 10
    height = bottom - top
    place = {point: left + (right - left) * number / (len(across) - 1) for number, point in enumerate(across)}
    shapes = [_text(x, bottom + 18, str(point), "middle") for point, x in place.items()]
    shapes.append(_text((left + right) / 2, bottom + 38, axes[0], "middle"))
    shapes.append(_text(left - 42, TOP + 10, axes[1]))
    for quarter in range(5):
        y = bottom - height * quarter / 4
        shapes.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        shapes.append(_text(left - 6, y + 4, f"{greatest * quarter / 4:.0f}", "end"))
    colours = dict(zip((label for label in rows if label in ours), OURS, strict=False))
    others = [label for label in rows if label not in ours]
    colours |= {label: MUTED[number % len(MUTED)] for number, label in enumerate(others)}
    ends = {}
    for label in (*others, *(label for label in rows if label in ours)):  # ours above the others
        points = [(place[point], bottom - height * value / greatest) for point, value in sorted(rows[label].items())]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        width = 3.5 if label in ours else 1.5
        shapes.append(
            f'<polyline points="{drawn}" fill="none" stroke="{colours[label]}" stroke-width="{width}" '
            'stroke-linejoin="round"/>'
        )
        ends[label] = points[-1]
    for label, y in apart({label: y for label, (_, y) in ends.items()}, GAP).items():
        x, end = ends[label]
        shapes.append(
            f'<polyline points="{x + 2:.1f},{end:.1f} {right + 18:.1f},{y:.1f}" fill="none" '
            f'stroke="{colours[label]}" stroke-width="0.7"/>'
        )
        shapes.append(_text(right + 22, y + 4, label, bold=label in ours, colour=colours[label]))
    return _svg(title, LINES_HEIGHT, shapes)


def apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Move labels up and down, as little as it takes, until none is nearer to the next one than `gap`."""
    # Labels that touch are one group, which stands around the mean of where its labels want to be.
    groups: list[tuple[float, list[str]]] = []
    for label in sorted(places, key=lambda label: places[label]):
        middle, labels = places[label], [label]
        while groups and middle - groups[-1][0] < gap * (len(groups[-1][1]) + len(labels)) / 2:
            labels = groups.pop()[1] + labels
            middle = sum(places[one] for one in labels) / len(labels)
        groups.append((middle, labels))
    return {
        label: middle + (number - (len(labels) - 1) / 2) * gap
        for middle, labels in groups
        for number, label in enumerate(labels)
    }


def _round_up(value: float) -> float:
    """The next number that is four steps of 1, 2, 2.5 or 5 times a power of ten."""
    power: float = 10 ** math.floor(math.log10(value / 4))
    return next(4 * digit * power for digit in (1, 2, 2.5, 5, 10) if value <= 4 * digit * power)


def _colour(parts: Sequence[str], part: str, own: bool) -> str:
    place = parts.index(part)
    if place < len(OURS):
        return (OURS if own else THEIRS)[place]
    return MORE_PARTS[(place - len(OURS)) % len(MORE_PARTS)]


def _legend(parts: Sequence[str], y: int) -> tuple[list[str], int]:
    """What the colours mean, if there are several, and where that is."""
    shapes: list[str] = []
    if len(parts) < 2:
        return shapes, y - ROW
    x = float(LABELS)
    for part in parts:
        for own in (True, False) if parts.index(part) < len(OURS) else (False,):
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="11" height="11" fill="{_colour(parts, part, own)}"/>')
            x += 13
        shapes.append(_text(x + 3, y + 10, part))
        x += 20 + 6.4 * len(part)
    return shapes, y


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>'


def _axis(x: float, top: float, bottom: float) -> str:
    return f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom - 2}" stroke="#555"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", bold: bool = False, colour: str = "#222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'


def _svg(title: str, height: float, shapes: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
            f'<text x="12" y="22" font-size="16" font-weight="bold">{escape(title)}</text>',
            *shapes,
            "</svg>\n",
        ]
    )

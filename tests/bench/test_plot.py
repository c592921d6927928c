"""Plots: honest lengths, labels that can be read, ours in sight."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tests.bench.plot import OURS, Panel, apart, bars, lines, panels


def rects(svg: str) -> list[tuple[float, str]]:
    """Width and colour of each bar, without the background and the legend."""
    ElementTree.fromstring(svg)
    found = re.findall(r'<rect x="[\d.]+" y="\d+" width="([\d.]+)" height="20" fill="([^"]+)"', svg)
    return [(float(width), colour) for width, colour in found]


def test_bars_are_as_long_as_their_figures() -> None:
    svg = bars("Cost", {"ours": {"httpd": 50.0}, "theirs": {"httpd": 150.0, "backend": 50.0}}, "µs", ["ours"])
    (ours, _), (httpd, _), (backend, _) = rects(svg)
    assert httpd / ours == pytest.approx(3, rel=0.01)
    assert backend / ours == pytest.approx(1, rel=0.01)
    assert ">200 µs<" in svg


def test_ours_stands_out() -> None:
    svg = bars("Cost", {"ours & more": {"httpd": 50.0}, "theirs": {"httpd": 50.0}}, "µs", ["ours & more"])
    (_, ours), (_, theirs) = rects(svg)
    assert ours == OURS[0] != theirs
    assert 'font-weight="bold">ours &amp; more<' in svg
    assert 'font-weight="bold">theirs<' not in svg


def test_each_panel_has_a_scale_of_its_own_and_a_dash_for_what_is_missing() -> None:
    columns = [Panel("rate", {"a": 1000.0, "b": 500.0}), Panel("ms", {"a": 2.5}, ".1f")]
    svg = panels("Figures", ["a", "b"], columns, ["a"])
    widths = [width for width, _ in rects(svg)]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert widths[2] == pytest.approx(widths[0])
    assert ">2.5<" in svg
    assert ">–<" in svg


def test_the_axis_of_lines_begins_at_zero_and_ends_at_a_round_number() -> None:
    svg = lines(
        "Cost", {"ours": {1: 330.0, 2: 165.0}, "theirs": {1: 10.0, 2: 1.0}}, [1, 2], ("across", "µs"), ["ours"]
    )
    ElementTree.fromstring(svg)
    assert [f'text-anchor="end" fill="#222">{number}<' in svg for number in (0, 100, 200, 300, 400)] == [True] * 5
    _, ours = re.findall(r'<polyline points="([^"]+)" fill="none" stroke="[^"]+" stroke-width="(?:1.5|3.5)"', svg)
    (_, high), (_, low) = (map(float, point.split(",")) for point in ours.split())
    zero = float(re.findall(r'y1="([\d.]+)"', svg)[0])
    assert (zero - high) / (zero - low) == pytest.approx(2, rel=0.01)


def test_labels_keep_their_distance_and_their_order() -> None:
    places = {"a": 100.0, "b": 101.0, "c": 102.0, "d": 200.0, "e": 118.0}
    found = apart(places, 15)
    assert sorted(found, key=lambda label: found[label]) == sorted(places, key=lambda label: places[label])
    heights = sorted(found.values())
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(heights))
    assert found["d"] == 200.0

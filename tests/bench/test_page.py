"""The pages say what the last run found."""

from dataclasses import replace

import pytest

from tests.bench import page, results, spread
from tests.bench.chains import ALONE, ARRIVING, CHAINS, DEFAULT, FRONTED, OWN, SCALE
from tests.bench.measure import Cell, Figures, Sample

EVERY = [*ALONE, *CHAINS, *SCALE]
BENCH = page.DOCS / "bench.md"


def given(figures: Figures, scale: dict[str, float]) -> results.Results:
    machine = {"processor": "AMD EPYC", "cores": 2, "kernel": "6", "python": "3.11"}
    return results.Results(figures, scale, {}, EVERY, False, 1.0, machine)


def figures(cost: float, cells: list[Cell]) -> Figures:
    return Figures(Sample(cell, 0, cost, {"httpd": cost}, 1e6 / cost, 500, 900, 1000, 0, "") for cell in cells)


def test_pages_and_plots_are_current() -> None:
    told = results.read(EVERY)
    if told.quick:
        pytest.skip("a quick run writes no page")
    for file, text in page.pages(told).items():
        assert file.read_text() == text, f"{file.name}: run `python -m tests.bench --pages-only`"


def test_users_read_nothing_of_targets() -> None:
    assert "target" not in page.pages(results.read(EVERY))[BENCH].lower()


def test_first_visits_spread_and_memory_are_told_where_they_were_measured() -> None:
    cells = [Cell(16, name, chain.name) for name in ("small", "first", ARRIVING) for chain in OWN]
    found = spread.spread([spread.Visit(backend, 0.0, 1.0) for backend in "abcd"], "a")
    scale = {f"memory_mb {DEFAULT}": 123.4} | spread.keys(DEFAULT, "equal", found)
    written = page.pages(given(figures(100.0, cells), scale))
    assert "| **lbadaptor** | 100 | 100 | 100 |" in written[BENCH]
    assert "25 · 25 · 25 · 25" in written[BENCH]
    assert "| **lbadaptor** | 100 | – | 10000 | 0.9 | 123 |" in written[BENCH]
    assert "memory, MB" in written[page.DOCS / "bench-figures.svg"]


def test_sections_without_figures_are_left_out() -> None:
    text = page.pages(given(figures(100.0, [Cell(16, "small", DEFAULT)]), {}))[BENCH]
    assert "## Visitors without a session" not in text
    assert "## How new sessions are spread" not in text


def test_what_haproxy_adds_is_told_where_it_was_measured() -> None:
    cells = [Cell(16, "small", DEFAULT), Cell(16, "small", FRONTED)]
    parts = {"haproxy": 50.0, "httpd": 80.0}
    told = given(
        Figures(
            Sample(cell, 0, cost, parts, 1e3, 500, 900, 1000, 0, "")
            for cell, cost in zip(cells, (100.0, 160.0), strict=True)
        ),
        {},
    )
    assert "| 16 | 100 | 160 | 50 | 80 |" in page.pages(told)[page.DOCS / "bench-details.md"]
    without = page.pages(given(figures(100.0, cells[:1]), {}))[page.DOCS / "bench-details.md"]
    assert "HAProxy in front" not in without


def test_the_verdicts_are_those_of_the_figures_and_the_processor() -> None:
    cells = [Cell(16, "small", name) for name in (DEFAULT, "balancer-granian")]
    told = given(Figures([*figures(110.0, cells[:1]).samples, *figures(100.0, cells[1:]).samples]), {})
    name = "default ÷ balancer-granian, 16 connections"

    def reached(told: results.Results) -> object:
        return next(line["reached"] for line in told.targets if line["name"] == name)

    assert reached(told) is False
    assert reached(replace(told, machine={**told.machine, "processor": "Intel(R) Xeon(R)"})) is True

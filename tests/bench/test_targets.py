"""Ratios and verdicts, from figures that are given."""

from collections.abc import Sequence

import pytest

from tests.bench.chains import ALONE, CHAINS, SCALE
from tests.bench.measure import Cell, Figures, Sample
from tests.bench.targets import KEPT, Absolute, Versus, granian_limit, judge, targets

OURS = Cell(16, "small", "ours")
THEIRS = Cell(16, "small", "theirs")
CHEAPER = Versus("ours ÷ theirs", 0.9, OURS, THEIRS)
FASTER = Versus("throughput", 1.0, OURS, THEIRS, "rate", 2)


def samples(
    cell: Cell, costs: Sequence[float], rates: Sequence[float] = (), wrong: int = 0, httpd: float = 0.0
) -> list[Sample]:
    return [
        Sample(cell, number, cost, {"httpd": httpd}, rate, 500.0, 900.0, 1000, wrong, "")
        for number, (cost, rate) in enumerate(zip(costs, rates or [100.0] * len(costs), strict=True))
    ]


def test_ratio_is_the_median_of_the_rounds() -> None:
    # The second round was measured while the machine was busy: it costs both alike.
    figures = Figures(samples(OURS, [10, 100, 12]) + samples(THEIRS, [20, 200, 20]))
    assert judge(CHEAPER, figures, {}, {}) == {"name": "ours ÷ theirs", "ratio": 0.5, "limit": 0.9, "reached": True}


def test_limit_itself_is_reached_and_what_is_above_is_not() -> None:
    at = Figures(samples(OURS, [9]) + samples(THEIRS, [10]))
    above = Figures(samples(OURS, [9.01]) + samples(THEIRS, [10]))
    assert judge(CHEAPER, at, {}, {})["reached"] is True
    assert judge(CHEAPER, above, {}, {})["reached"] is False


def test_more_throughput_is_a_lower_ratio() -> None:
    figures = Figures(samples(OURS, [1], [400]) + samples(THEIRS, [1], [300]))
    assert judge(FASTER, figures, {}, {})["ratio"] == 0.75


def test_equality_is_shown_with_two_decimals() -> None:
    same = Figures(samples(OURS, [1], [399]) + samples(THEIRS, [1], [400]))
    worse = Figures(samples(OURS, [1], [395]) + samples(THEIRS, [1], [400]))
    assert judge(FASTER, same, {}, {})["reached"] is True
    assert judge(FASTER, worse, {}, {})["reached"] is False


def test_a_part_is_compared_with_the_same_part() -> None:
    part = Versus("httpd", 1.1, OURS, THEIRS, "httpd")
    figures = Figures(samples(OURS, [50], httpd=30) + samples(THEIRS, [500], httpd=20))
    assert judge(part, figures, {}, {})["ratio"] == 1.5


@pytest.mark.parametrize("absent", ["ours", "theirs"])
def test_who_is_absent_is_named_and_not_judged(absent: str) -> None:
    figures = Figures(samples(OURS, [10]) + samples(THEIRS, [20]))
    line = judge(CHEAPER, figures, {}, {absent: "not installed", "another": "neither"})
    assert (line["ratio"], line["reached"]) == (None, None)
    assert line["absent"] == {absent: "not installed"}


@pytest.mark.parametrize(("ours", "theirs"), [(1, 0), (0, 1)])
def test_a_wrong_answer_has_no_ratio_and_reaches_nothing(ours: int, theirs: int) -> None:
    figures = Figures(samples(OURS, [10], wrong=ours) + samples(THEIRS, [20], wrong=theirs))
    line = judge(CHEAPER, figures, {}, {})
    assert (line["ratio"], line["reached"]) == (None, False)


def test_a_figure_of_our_own_is_held_against_its_limit() -> None:
    target = Absolute("reload, ms", 10.0, "reload_ms")
    assert judge(target, Figures(), {"reload_ms": 9.5}, {})["reached"] is True
    assert judge(target, Figures(), {"reload_ms": 10.5}, {})["reached"] is False
    assert judge(target, Figures(), {}, {})["reached"] is False


def test_what_was_not_measured_is_not_judged() -> None:
    line = judge(CHEAPER, Figures(samples(OURS, [10])), {}, {})
    assert (line["ratio"], line["reached"], line["absent"]) == (None, None, {"theirs": "was not measured"})


@pytest.mark.parametrize(
    ("processor", "limit"),
    [("AMD EPYC 7763", 0.95), ("Intel(R) Xeon(R) CPU @ 2.50GHz", 1.2), ("aarch64", 1.2), ("", 1.2)],
)
def test_the_limit_before_granian_is_that_of_the_processor(processor: str, limit: float) -> None:
    assert granian_limit(processor) == limit
    limits = {target.limit for target in targets(processor) if target.name.startswith("default ÷ balancer-granian")}
    assert limits == {limit}


def test_targets_have_names_of_their_own() -> None:
    names = [target.name for target in targets("")]
    assert len(names) == len(set(names))


def test_every_cell_is_one_that_its_chain_is_measured_with() -> None:
    pages = {chain.name: chain.pages for chain in (*ALONE, *CHAINS, *SCALE)}
    cells = {*KEPT, *(cell for target in targets("") for cell in target.cells)}
    assert [cell for cell in cells if cell.page not in pages[cell.chain]] == []

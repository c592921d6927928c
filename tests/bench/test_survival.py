"""What is measured of sessions that survive: every piece runs, and finds what its targets and the pages ask for."""

from __future__ import annotations

import pytest

from tests.bench import ends, page_survival, saving, survival
from tests.bench.measure import Figures
from tests.bench.targets import judge, survival_targets

TINY = survival.Effort(
    saving.Effort(rounds=1, requests=16, taken=2, idle=8, seconds=0.5),
    ends.Effort(sessions=32, kills=1, pause=0.5, drain_limit=0.5, quiet=0.2),
    100,
)
SLOW = ("release nothing", "release gunicorn", "kills gunicorn")
"""Others run the same code."""
NAMES = [name for name in survival.pieces(TINY) if name not in SLOW]


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    """The figures of all pieces."""
    figures, failed = survival.measure(TINY, NAMES)
    assert failed == []
    return figures


def test_every_target_has_its_figure(found: dict[str, float]) -> None:
    """But for the one that the code before is needed for: a copy of the checkout may be without its history."""
    missing = {aim.key for aim in survival_targets() if judge(aim, Figures(), found, {})["ratio"] is None}
    assert missing <= {"nothing_us"}


def test_lost_sessions_are_seen_where_they_do_not_survive(found: dict[str, float]) -> None:
    assert found["kills_lost nothing"] > 0


def test_no_session_is_lost_and_no_request_fails_where_they_survive(found: dict[str, float]) -> None:
    for figure in ("release_lost", "release_failed", "kills_lost", "kills_failed_gets"):
        assert found[f"{figure} anything"] == 0


def test_the_page_has_all_tables(found: dict[str, float]) -> None:
    ends_table, cost_table, files_table = (text for text in page_survival.sections(found) if text.startswith("| "))
    assert ends_table.count("\n") == 3
    assert cost_table.count("\n") == 6
    assert files_table.count("\n") == 1 + len(page_survival.WAITING)
    assert "–" not in ends_table.splitlines()[2] + cost_table


def test_the_page_has_no_section_without_figures() -> None:
    assert page_survival.sections({"reload_ms": 1.0}) == []

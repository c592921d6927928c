"""What wrk is told to send, and what memory is counted."""

import os
from pathlib import Path

from tests.bench import cost
from tests.bench.load import PAGES, Visitor, plain, write_plan

VISITORS = [Visitor("aa", "1", "sid=aa"), Visitor("bb", "2", "sid=bb")]


def test_a_visitor_is_sent_with_their_cookie_and_answered_by_their_process(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan", PAGES["small"], plain, VISITORS, sticky=True)
    plan = (tmp_path / "plan").read_text()
    assert "first = false" in plan
    assert "Cookie: sid=aa" in plan
    assert '["aa"] = { ["1"] = true }' in plan


def test_who_comes_for_the_first_time_has_no_cookie_and_any_process_may_answer(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan", PAGES["first"], plain, VISITORS, sticky=True)
    plan = (tmp_path / "plan").read_text()
    assert "first = true" in plan
    assert "Cookie" not in plan
    assert all(f'["{backend}"] = true' in plan for backend in "12")


def test_shared_memory_counts_in_parts_and_who_is_gone_takes_none() -> None:
    own = cost.proportional([os.getpid()])
    assert 0 < own <= cost.resident([os.getpid()])[0] * 1.1
    assert cost.proportional([2**22 + 1]) == 0.0

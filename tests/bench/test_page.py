"""The pages say what the last run found."""

import pytest

from tests.bench import page, results
from tests.bench.chains import ALONE, CHAINS, SCALE


def test_pages_and_plots_are_current() -> None:
    told = results.read([*ALONE, *CHAINS, *SCALE])
    if told.quick:
        pytest.skip("a quick run writes no page")
    for file, text in page.pages(told).items():
        assert file.read_text() == text, f"{file.name}: run `python -m tests.bench --pages-only`"

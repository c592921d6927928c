"""Pages that are written from the code say what the code says."""

from pathlib import Path

import pytest

from lbadaptor.contract.settings import reference
from monitor.policy import states

DOCS = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize(("page", "text"), [("settings.md", reference.page()), ("states.md", states.page())])
def test_generated_page_is_current(page: str, text: str) -> None:
    assert (DOCS / page).read_text() == text, "run: make docs"

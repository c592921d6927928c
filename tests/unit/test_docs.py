"""Pages that are written from the code say what the code says."""

from pathlib import Path

import pytest

from lbadaptor import settings
from monitor import life

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "text"), [("settings.md", settings.reference()), ("states.md", life.page())])
def test_generated_page_is_current(page: str, text: str) -> None:
    assert (DOCS / page).read_text() == text, "run: make docs"

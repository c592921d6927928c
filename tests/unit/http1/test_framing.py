"""Where a body ends."""

from __future__ import annotations

import pytest

from lbadaptor.http1.framing import length
from lbadaptor.http1.lines import ProtocolError


@pytest.mark.parametrize("value", ["", "-1", "+1", "1_0", " 1", "0x1", "1, 1", "\xb2", "9" * 19, "9" * 5000])
def test_a_length_is_a_number_of_bytes(value: str) -> None:
    assert length("0") == 0
    assert length("012") == 12
    with pytest.raises(ProtocolError):
        length(value)

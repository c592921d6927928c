"""Two spellings of an IP address are one."""

from __future__ import annotations

import pytest

from lbadaptor.contract.address import canonical


@pytest.mark.parametrize(
    ("written", "one"),
    [
        ("10.0.0.11", "10.0.0.11"),
        ("::ffff:10.0.0.11", "10.0.0.11"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::1", "::1"),
        *((text, text) for text in ("", "web1", "10.0.0", "10.0.0.0/8", "a\0b", "\udcff", "unix:")),
    ],
)
def test_each_address_has_one_spelling(written: str, one: str) -> None:
    assert canonical(written) == one

from __future__ import annotations

import pytest

from lbadaptor.contract import headers

ALL = "".join(map(chr, range(256)))


def test_every_byte_comes_back() -> None:
    assert headers.decode(headers.encode(ALL)) == ALL
    assert headers.encode(ALL).isascii()


@pytest.mark.parametrize("character", ALL)
def test_no_byte_can_end_or_change_a_header(character: str) -> None:
    wire = headers.encode(f"a{character}b")
    assert wire.isascii()
    assert wire.isprintable()
    assert " " not in wire
    assert headers.decode(wire) == f"a{character}b"


@pytest.mark.parametrize("text", ["", "/shop/cart", "192.0.2.7", "a?b=c&d#e", "CN=Jo;O=X"])
def test_plain_text_travels_as_it_is(text: str) -> None:
    assert headers.encode(text) == text


def test_a_percent_sign_is_encoded_so_that_it_means_itself() -> None:
    assert headers.encode("100%41") == "100%2541"
    assert headers.decode("100%2541") == "100%41"


def test_every_name_of_ours_has_the_prefix() -> None:
    names = [*headers.MANDATORY, *headers.OPTIONAL, headers.KEY, headers.GENERATION, headers.SESSION, headers.PROBE]
    names += [headers.PATH, headers.VAR, headers.STATUS, headers.LOAD, headers.REFUSED, headers.MOVED_TO]
    assert all(name.startswith(headers.PREFIX) for name in names)
    assert len({name.lower() for name in names}) == len(names)


def test_hop_by_hop_names_are_in_lower_case() -> None:
    assert {name.lower() for name in headers.HOP_BY_HOP} == headers.HOP_BY_HOP

"""A machine of several that starts without a key file makes none: its own key is one that the others do not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbadaptor.contract.address import Identity
from lbadaptor.contract.errors import KeyFileError
from lbadaptor.contract.settings import parse
from lbadaptor.contract.ticket import make_keys
from monitor.arbiter.key_file import keys_of

SETTINGS = '[application]\napp = "shop:app"\nsession_cookie = "sid"\n[files]\nkey_file = "keys"\n'


def test_a_machine_alone_makes_its_keys(tmp_path: Path) -> None:
    keys_of(parse(SETTINGS, str(tmp_path)), None, [])
    assert (tmp_path / "keys").exists()


@pytest.mark.parametrize("number", [0, 7])
def test_one_of_several_machines_makes_none_and_names_both_ways_out(number: int, tmp_path: Path) -> None:
    settings = parse(f"{SETTINGS}[machine]\nnumber = {number}\n", str(tmp_path))
    with pytest.raises(KeyFileError, match=r"lbctl key export \| ssh MACHINE lbctl key import.*lbctl key make"):
        keys_of(settings, None, [])
    assert list(tmp_path.iterdir()) == []
    made = make_keys(tmp_path / "keys")
    ticket = made.ticket(Identity(0, 1))
    assert keys_of(settings, None, []).signed(ticket)

"""One table of orders: the arbiter obeys each row, and lbctl has a subcommand for each."""

from __future__ import annotations

import pytest

from monitor.arbiter import loop
from monitor.contract.orders import ORDERS
from monitor.ctl.main import parser


def test_the_arbiter_obeys_each_order_and_no_other() -> None:
    assert set(loop.HANDLERS) == set(ORDERS)


@pytest.mark.parametrize("name", ORDERS)
def test_lbctl_gives_each_order_with_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    order = ORDERS[name]
    words = [name, *(["3"] if order.takes_slot else []), *(f"--{option.name}" for option in order.options)]
    given = vars(parser().parse_args(words))
    assert given["command"] == name
    assert all(given[option.name] is True for option in order.options)
    assert given.get("slot") == (3 if order.takes_slot else None)
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert order.about in " ".join(capsys.readouterr().out.split())

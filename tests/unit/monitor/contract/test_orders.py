"""One table of orders: the arbiter obeys each row, and lbctl has a subcommand for each."""

from __future__ import annotations

import click
import pytest

from monitor.arbiter import orders
from monitor.contract.orders import ORDERS, Takes
from monitor.ctl.commands.which_monitor import Which
from monitor.ctl.main import lbctl, main


def test_the_arbiter_obeys_each_order_and_no_other() -> None:
    assert set(orders.HANDLERS) == set(ORDERS)


@pytest.mark.parametrize("name", ORDERS)
def test_lbctl_gives_each_order_with_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    order = ORDERS[name]
    takes_slot = order.slot is not Takes.NO
    words = [*(["3"] if takes_slot else []), *(["4"] if order.number else [])]
    words += [f"--{option.name}" for option in order.options]
    command = lbctl.get_command(click.Context(lbctl), name)
    assert command is not None
    given = command.make_context(name, words, obj=Which()).params
    assert all(given[option.name] is True for option in order.options)
    assert given.get("slot") == (3 if takes_slot else None)
    assert order.number is None or given[order.number.name] == 4
    assert main(["--help"]) == 0
    assert order.about in " ".join(capsys.readouterr().out.split())
    assert main([name, "--help"]) == 0
    assert all(f"  {example}\n" in capsys.readouterr().out for example in order.examples[:1])
    assert order.examples

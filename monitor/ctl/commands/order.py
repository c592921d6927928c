"""`lbctl ORDER`: give an order of `monitor.contract.orders`, and print the reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from monitor.contract import client
from monitor.contract.orders import ORDERS, Order, Takes
from monitor.ctl.commands import base, which_monitor
from monitor.ctl.commands.which_monitor import Which


def of(order: Order, run: Callable[..., int] | None = None, more: Sequence[click.Parameter] = ()) -> base.Command:
    """The command that gives an order. `run` is called in place of this module's, and gets the values of `more`."""
    own: list[click.Parameter] = []
    if order.slot is not Takes.NO:
        in_place = any(option.for_slot for option in order.options)
        own.append(base.slot(required=order.slot is Takes.MUST and not in_place))
    if order.number is not None:
        own.append(click.Argument([order.number.name], type=_whole, required=False, metavar="N"))
    own += [base.flag(option.name, option.about) for option in order.options]

    def give_and_print(which: Which, **values: Any) -> int:
        print(give(which, order.name, **values), flush=True)
        return 0

    return base.Command(order.name, order.about, run or give_and_print, [*own, *more], order.examples)


def _whole(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise click.BadParameter(f"a whole number is wanted, not {text!r}")


def give(which: Which, name: str, slot: int | None = None, **values: Any) -> str:
    """Give an order, and return the reply. `values` are those of its number and its options, by their names.

    Raises LbadaptorError, and UsageError where they do not go together.
    """
    order = ORDERS[name]
    value = values[order.number.name] if order.number else None
    given = [option.name for option in order.options if values[option.name]]
    if fault := order.fault(slot, value, given):
        raise click.UsageError(fault)
    return str(client.ask(which_monitor.control_socket(which), name, slot, given, value)["text"])

"""`lbctl ORDER`: give an order of `monitor.contract.orders`, and print the reply."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from monitor.contract import client
from monitor.contract.orders import MAX_SLOT, ORDERS, Order
from monitor.ctl.commands import which_monitor


def arguments(order: Order) -> Callable[[argparse.ArgumentParser], None]:
    """The slot and the options that the order takes."""

    def add(parser: argparse.ArgumentParser) -> None:
        if order.takes_slot:
            parser.add_argument("slot", type=_slot, metavar="SLOT", help="the AppServer's slot, from `lbctl status`")
        for option in order.options:
            parser.add_argument(f"--{option.name}", action="store_true", help=option.about)

    return add


def _slot(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= MAX_SLOT:
        return int(text)
    raise argparse.ArgumentTypeError(f"the number of a slot is wanted, such as 3 (see `lbctl status`), not {text!r}")


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises LbadaptorError."""
    print(give(options), flush=True)
    return 0


def give(options: argparse.Namespace) -> str:
    """Give the order, and return the reply. Raises LbadaptorError."""
    order = ORDERS[options.command]
    given = [option.name for option in order.options if getattr(options, option.name)]
    slot = options.slot if order.takes_slot else None
    return str(client.ask(which_monitor.control_socket(options), order.name, slot, given)["text"])

"""The orders that people give the monitor: one table.

The control socket accepts what this table says. `lbctl` has a subcommand for each row, with the text as its help. The
arbiter has a function for each row (`monitor.arbiter.loop.HANDLERS`). docs/reference/orders.md is this table. To add
an order, add a row here and its function there.

`python -m monitor.contract.orders` prints docs/reference/orders.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """A boolean in the body of an order, and an option `--name` of lbctl. It is False where it is not given."""

    name: str
    about: str


@dataclass(frozen=True)
class Order:
    """`about` says what it does."""

    name: str
    about: str
    takes_slot: bool = False
    options: tuple[Option, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """What may be in the body of the request."""
        return frozenset((*(["slot"] if self.takes_slot else []), *(option.name for option in self.options)))


MAX_SLOT = 65535
"""The highest number that is taken for a slot; whether there is such a slot the monitor says."""
_TABLE = (
    Order(
        "drain",
        "replace an AppServer; the old one takes no new visitors, and ends after its last session",
        takes_slot=True,
    ),
    Order("undrain", "let a DYING AppServer take new visitors again", takes_slot=True),
    Order(
        "restart",
        "a release: replace every AppServer, a few at a time; the old ones are drained",
        options=(Option("now", "end sessions; only requests in flight may finish"),),
    ),
    Order("reexec", "upgrade the monitor in place; its AppServers go on"),
    Order("stop", "end the AppServers in order, and then the monitor"),
)

ORDERS = {order.name: order for order in _TABLE}
"""By name."""
OPTIONS = tuple(dict.fromkeys(option.name for order in _TABLE for option in order.options))
"""The names of all options."""


def page() -> str:
    """docs/reference/orders.md."""
    lines = [
        "# Orders",
        "",
        "Written from `monitor/contract/orders.py` by `make docs`; do not edit.",
        "",
        "An order tells the monitor what to do. `lbctl ORDER` gives an order; so does a POST request to the control",
        "socket, `control.sock` in the run folder, with a JSON object as its body. Only root and the monitor's own",
        "user may give orders.",
        "",
        "| order | body | lbctl | does |",
        "|---|---|---|---|",
        *(f"| {order.name} | {_body(order)} | {_command(order)} | {_does(order)} |" for order in _TABLE),
        "",
        '`"slot"` is the number of a slot; a value that is not given counts as false. For example:',
        "",
        "    curl --unix-socket /run/lbadaptor/control.sock -H 'Content-Type: application/json' \\",
        "        -d '{\"slot\": 3}' http://monitor/drain",
        "",
        'The answer is `{"text": …}` with status 200 when the order is accepted, and `{"error": …}` otherwise: 404',
        "for an unknown order, 400 or 415 for a body that is not understood in full, 409 when the monitor refuses",
        "the order. Nothing is done in these cases. `GET /status` returns what `lbctl status --json` prints.",
        "",
    ]
    return "\n".join(lines)


def _body(order: Order) -> str:
    fields = ['"slot": N'] if order.takes_slot else []
    fields += [f'"{option.name}": true' for option in order.options]
    return f"`{{{', '.join(fields)}}}`" if fields else ""


def _command(order: Order) -> str:
    options = "".join(f" [--{option.name}]" for option in order.options)
    return f"`lbctl {order.name}{options}{' SLOT' if order.takes_slot else ''}`"


def _does(order: Order) -> str:
    return ". ".join((order.about, *(f"`{option.name}`: {option.about}" for option in order.options)))


if __name__ == "__main__":
    print(page(), end="")

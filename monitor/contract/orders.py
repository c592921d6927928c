"""The orders that people give the monitor: one table.

The control socket accepts what this table says. `lbctl` has a subcommand for each row, with the text as its help. The
arbiter has a function for each row (`monitor.arbiter.orders.HANDLERS`). docs/reference/orders.md is this table. To
add an order, add a row here and its function there.

`python -m monitor.contract.orders` prints docs/reference/orders.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

REPLY_TIMEOUT = 10.0
"""Seconds to wait for the arbiter's reply to an order."""


class Takes(Enum):
    """Whether an order is about one slot."""

    NO = ""
    MAY = "[SLOT]"
    MUST = "SLOT"


@dataclass(frozen=True)
class Number:
    """A whole number in the body of an order, and an argument of lbctl."""

    name: str
    least: int
    most: int


@dataclass(frozen=True)
class Option:
    """A boolean in the body of an order, and an option `--name` of lbctl. It is False where it is not given."""

    name: str
    about: str
    for_number: bool = False
    """it is given in place of the order's number"""
    for_slot: bool = False
    """it is given in place of the slot"""


@dataclass(frozen=True)
class Order:
    """`about` says what it does."""

    name: str
    about: str
    slot: Takes = Takes.NO
    number: Number | None = None
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()
    """for the help of lbctl"""

    @property
    def keys(self) -> frozenset[str]:
        """What may be in the body of the request."""
        slot = ["slot"] if self.slot is not Takes.NO else []
        number = [self.number.name] if self.number else []
        return frozenset((*slot, *number, *(option.name for option in self.options)))

    def fault(self, slot: int | None, value: int | None, options: Collection[str]) -> str:
        """What is wrong with an order that was given with these; empty: nothing. `value` is its number's."""
        whole = next((option.name for option in self.options if option.for_slot), "")
        if self.slot is Takes.MUST and (slot is None) != (whole in options):
            return f"{self.name} needs a slot" + (f" or {whole}, and not both" if whole else "")
        if self.number is None:
            return ""
        instead = next((option.name for option in self.options if option.for_number), "")
        if (value is None) != (instead in options):
            return f"{self.name} needs a number" + (f" or {instead}, and not both" if instead else "")
        if value is not None and not self.number.least <= value <= self.number.most:
            return f"{self.number.name} is to be from {self.number.least} to {self.number.most}, not {value}"
        return ""


MAX_SLOT = 65535
"""The highest number that is taken for a slot; whether there is such a slot the monitor says."""
RESET = Option("reset", "go by lbadaptor.toml again", for_number=True)
_TABLE = (
    Order(
        "drain",
        "replace an AppServer; the old one takes no new visitors, and ends after its last session",
        Takes.MUST,
        options=(
            Option(
                "all",
                "the whole machine gets empty, to be switched off: nothing in it is replaced until `undrain --all`",
                for_slot=True,
            ),
        ),
        examples=("lbctl drain 2", "lbctl drain --all --wait 3600"),
    ),
    Order(
        "undrain",
        "let a DYING AppServer take new visitors again",
        Takes.MUST,
        options=(Option("all", "the machine stays, and goes on as before `drain --all`", for_slot=True),),
        examples=("lbctl undrain 2", "lbctl undrain --all"),
    ),
    Order(
        "restart",
        "a release: replace every AppServer, a few at a time; the old ones are drained. With a slot: replace that "
        "AppServer alone, without new settings",
        Takes.MAY,
        options=(Option("now", "end sessions; only requests in flight may finish"),),
        examples=("lbctl restart --wait 300", "lbctl restart 2 --now"),
    ),
    Order(
        "scale",
        "change how many AppServers take new visitors, until it is taken back; without a release",
        number=Number("servers", 1, 1000),
        options=(RESET,),
        examples=("lbctl scale 6", "lbctl scale --reset"),
    ),
    Order(
        "weight",
        "change the share of new visitors that AppServers in a slot get, until it is taken back (100 is usual, 0: "
        "none as long as others take them)",
        Takes.MUST,
        number=Number("weight", 0, 10_000),
        options=(RESET,),
        examples=("lbctl weight 2 50", "lbctl weight 2 --reset"),
    ),
    Order(
        "kill",
        "end an AppServer and all that it started by SIGKILL; it is replaced at once, and its sessions are lost "
        "unless they are saved",
        Takes.MUST,
        examples=("lbctl kill 2",),
    ),
    Order("reexec", "upgrade the monitor in place; its AppServers go on", examples=("lbctl reexec",)),
    Order("stop", "end the AppServers in order, and then the monitor", examples=("lbctl stop", "lbctl stop --all")),
)

ORDERS = {order.name: order for order in _TABLE}
"""By name."""
OPTIONS = tuple(dict.fromkeys(option.name for order in _TABLE for option in order.options))
"""The names of all options."""
NUMBERS = tuple(order.number.name for order in _TABLE if order.number)
"""The names of all numbers."""


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
        '`"slot"` is the number of a slot; a value that is not given counts as false. `reset` stands in place of the',
        "number, `all` in place of the slot. For example:",
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
    fields = ['"slot": N'] if order.slot is not Takes.NO else []
    fields += [f'"{order.number.name}": N'] if order.number else []
    fields += [f'"{option.name}": true' for option in order.options]
    return f"`{{{', '.join(fields)}}}`" if fields else ""


def _command(order: Order) -> str:
    words = []
    if order.slot is not Takes.NO:
        words.append(
            "|".join((order.slot.value, *(f"--{option.name}" for option in order.options if option.for_slot)))
        )
    if order.number:
        words.append("|".join(("N", *(f"--{option.name}" for option in order.options if option.for_number))))
    words += [f"[--{option.name}]" for option in order.options if not (option.for_number or option.for_slot)]
    return f"`{' '.join(('lbctl', order.name, *words))}`".replace("|", "\\|")


def _does(order: Order) -> str:
    return ". ".join((order.about, *(f"`{option.name}`: {option.about}" for option in order.options)))


if __name__ == "__main__":
    print(page(), end="")

"""`lbctl stop`: order the end of everything; with `--all`, end whatever runs, with or without a monitor."""

from __future__ import annotations

from monitor.contract.orders import ORDERS
from monitor.ctl.commands import order, which_monitor
from monitor.ctl.commands.base import flag
from monitor.ctl.commands.which_monitor import Which


def run(which: Which, everything: bool) -> int:
    """The exit status. Raises LbadaptorError, OSError."""
    if everything:
        from monitor.ctl.commands import stop_all  # the other commands start faster without what it imports

        return stop_all.run(which_monitor.settings(which))
    print(order.give(which, "stop"), flush=True)
    return 0


command = order.of(
    ORDERS["stop"],
    run,
    [
        flag(
            "all",
            "end whatever runs from the run folder, with or without a monitor; needs no control socket",
            "everything",
        )
    ],
)

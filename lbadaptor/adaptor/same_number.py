"""Finds another machine with this one's number (`[machine] number`), by the tickets that visitors bring from it."""

from __future__ import annotations

from lbadaptor.contract.address import Given
from lbadaptor.contract.generation import made_at
from lbadaptor.contract.ticket import Keys, identity_of
from lbadaptor.log import logs
from lbadaptor.log.once import Once

log = logs.logger("lbadaptor")


class SameNumber:
    """Looks at tickets that are LOST here. Any thread may use it."""

    def __init__(self) -> None:
        self._said = Once()

    def look(self, ticket: str, given: Given, keys: Keys) -> None:
        """Log once that another machine has this one's number, if the ticket proves it. `keys` signed the ticket."""
        if _is_of_another(ticket, given, keys) and self._said.first(given.number):
            log.error(
                "lbadaptor: another machine has the number %d of this one, too: a visitor brings the ticket of an "
                "AppServer %s, which carries that number and never was here. Two AppServers may get the same ticket. "
                "Give each machine a number of its own ([machine] number), and restart its monitor",
                given.number,
                identity_of(ticket),
            )


def _is_of_another(ticket: str, given: Given, keys: Keys) -> bool:
    """Whether another machine of the same number has given it.

    `given` names a span of time, and the newest generation that this machine made in it. So what was made in that
    span and is newer is another machine's. Before the span, the clock may have been wrong. After it, an AppServer of
    our own may have come and gone since address.text was written.
    """
    generation = int(identity_of(ticket).partition(".")[2])
    return (
        generation > given.newest
        and given.since < made_at(generation) < given.until
        and keys.number_in(ticket) == given.number
    )

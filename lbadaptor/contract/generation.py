"""The generation of an AppServer: a number that rises with every start, and is never used twice. Pure.

On a machine without a number it is unix time in ms: 13 digits. Two AppServers that are born in the same slot and the
same millisecond on two machines would have the same ticket and the same caller's key. So with `[machine] number` it
is ms × 1000 + (number + mask) mod 1000: 16 digits. The mask is made from the key that signs, the slot and the ms:
nobody can read the number without the key.

Generations of both kinds are above all that were used before on this machine, of either kind.
"""

from __future__ import annotations

from collections.abc import Callable

Next = Callable[[int, int, int], int]
"""The next generation. Its arguments: the last one that was used on this machine, unix time in ms, the slot."""
Mask = Callable[[int, int], int]
"""0 to 999, made from a slot and a unix time in ms."""

NUMBERS = 1000
"""Numbers of machines: 0 to 999."""
_FIRST_MS, _END_MS = 10**12, 10**13
"""The unix times in ms that have 13 digits: of the years 2001 to 2286."""


def without_number(last: int, wall_ms: int, slot: int) -> int:
    """The next generation on a machine without a number."""
    return max(last + 1, wall_ms)


def with_number(number: int, mask: Mask, last: int, wall_ms: int, slot: int) -> int:
    """The next generation on the machine of this number. It has 16 digits, also where the clock is wrong."""
    if not _FIRST_MS <= wall_ms < _END_MS:
        wall_ms = _FIRST_MS + wall_ms % _FIRST_MS  # another one after the next boot with that clock
    ms = max(wall_ms, made_at(last) + 1)
    return ms * NUMBERS + (number + mask(slot, ms)) % NUMBERS


def number_of(generation: int, slot: int, mask: Mask) -> int | None:
    """The number of the machine that made a generation; None if the machine never had one.

    `mask` is of the key that was the newest one then: the one that signed the ticket. A machine whose number was
    taken away goes on above its last generation: what is found in those means nothing.
    """
    ms = made_at(generation)
    return (generation - mask(slot, ms)) % NUMBERS if ms >= _FIRST_MS else None


def made_at(generation: int) -> int:
    """The unix time in ms that stands in a generation that was made with a number."""
    return generation // NUMBERS

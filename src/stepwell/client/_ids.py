"""Ids of runs: what users may give, and the sortable ones that are made."""

from __future__ import annotations

import os
import time

from stepwell.errors import BadArguments

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no i, l, o, u."""
LONGEST = 128


def new_id() -> str:
    """A new id: 10 characters of time (ms, sortable), 12 of chance (60 bits). 22 in all."""
    number = (time.time_ns() // 1_000_000 << 60) | int.from_bytes(os.urandom(8), "big") >> 4
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(105, -1, -5))


def checked_id(given: str) -> str:
    """The id, if it can be one: 1 to 128 printable characters, no spaces, no ``/``.

    Raises:
        BadArguments: it cannot.
    """
    fine = 0 < len(given) <= LONGEST and given.isprintable()
    if not fine or any(c.isspace() or c == "/" for c in given):
        message = f"run id {given!r}: 1 to {LONGEST} printable characters without spaces or '/'"
        raise BadArguments(message)
    return given

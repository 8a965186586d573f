"""Ids of runs: what users may give, and the sortable ones that are made."""

from __future__ import annotations

import os
import time

from stepwell.durable._checks import checked_id

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no i, l, o, u."""


def new_id() -> str:
    """A new id: 10 characters of time (ms, sortable), 12 of chance (60 bits). 22 in all."""
    number = (time.time_ns() // 1_000_000 << 60) | int.from_bytes(os.urandom(8), "big") >> 4
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(105, -1, -5))


__all__ = ["checked_id", "new_id"]

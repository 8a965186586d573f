"""Retry and backoff arithmetic. No clock and no dice: jitter is a hash of run, key and attempt."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Literal

Jitter = Literal["NONE", "HALF", "FULL"]
US = 1_000_000
"""Microseconds in a second."""


def jitter_fraction(run_id: str, key: str, attempt: int) -> float:
    """A number in [0, 1) that is the same whenever the same attempt is asked about."""
    digest = blake2b(f"{run_id}\0{key}\0{attempt}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)


def exponential(initial: float, rate: float, maximum: float, attempt: int) -> float:
    """Seconds to wait after attempt ``attempt`` (from 1): ``min(initial·rate^(attempt−1), maximum)``."""
    try:
        return min(initial * rate ** (attempt - 1), maximum)
    except OverflowError:
        return maximum


def linear(initial: float, increment: float, maximum: float, attempt: int) -> float:
    """Seconds to wait after attempt ``attempt`` (from 1): ``min(initial + increment·(attempt−1), maximum)``."""
    return min(initial + increment * (attempt - 1), maximum)


def jittered(base: float, jitter: Jitter, fraction: float) -> float:
    """NONE x; HALF x/2 + u·x/2; FULL u·x."""
    if jitter == "NONE":
        return base
    if jitter == "HALF":
        return base / 2 + fraction * base / 2
    return fraction * base


def rounded(delay: float, *, whole: bool) -> float:
    """Whole seconds, rounded up, at least 1, where the settings are whole seconds; else to the millisecond."""
    return float(max(1, math.ceil(delay))) if whole else round(delay, 3)

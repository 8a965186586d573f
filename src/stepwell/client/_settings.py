"""What an engine and the start of a run are given, checked before anything is opened or written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.client._views import EXIT_CODES
from stepwell.durable._checks import (
    check_count,
    check_executor,
    check_serdes,
    check_strategy,
    check_texts,
    check_time_limit,
)
from stepwell.durable._duration import to_seconds
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.durable._duration import DurationLike

THREADS = 64
MODES = ("store", "replay")


def host_options(
    *, hold: DurationLike | None, max_threads: int | None, lease: DurationLike, start_flush: DurationLike, mode: str
) -> dict[str, Any]:
    """Settings of the host; spans of time in seconds. Raises ValidationError."""
    check_time_limit("lease", lease)
    if max_threads is not None:
        check_count("max_threads", max_threads, 1)
    if mode not in MODES:
        raise ValidationError(f"large_child_results must be one of {', '.join(MODES)}, not {mode!r}")
    return {
        "hold": None if hold is None else to_seconds(hold),
        "max_threads": THREADS if max_threads is None else max_threads,
        "lease": to_seconds(lease),
        "start_flush": to_seconds(start_flush),
        "large_child_results": mode,
    }


def step_settings(*, retry: Any, serdes: Any, executor: Any) -> dict[str, Any]:
    """What steps take that have no such settings of their own. Raises ValidationError."""
    check_strategy("retry", retry)
    check_serdes("serdes", serdes)
    check_executor(executor)
    return {"retry": retry, "serdes": serdes, "executor": executor}


def seconds(timeout: DurationLike | None) -> float | None:
    """How long a caller waits; None: for ever. Raises ValidationError."""
    return None if timeout is None else to_seconds(timeout)


def check_start(tags: Sequence[str], queue: str | None) -> None:
    """What a start of a run is given besides function, input and id. Raises ValidationError."""
    check_texts("tags", tags)
    if queue is not None:
        check_texts("queue", (queue,))


def check_listing(status: str | None, limit: int) -> None:
    """Which runs are asked for. Raises ValidationError."""
    if status is not None and status not in EXIT_CODES:
        raise ValidationError(f"status must be one of {', '.join(EXIT_CODES)}, not {status!r}")
    check_count("limit", limit, 0)

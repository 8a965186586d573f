"""Planned crashes: after which operation, on which side of its record, a life of the run under test is dropped."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from stepwell.core import (
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeSucceeded,
    Recorded,
    ScopeFailed,
    ScopeSucceeded,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepSucceeded,
    WaitEnded,
)
from stepwell.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord, RunState

When = Literal["before", "after"]
ENDS = (
    StepSucceeded, StepFailed, StepRetryPlanned, WaitEnded, ScopeSucceeded, ScopeFailed, Recorded, CallbackSucceeded,
    CallbackFailed, InvokeSucceeded, InvokeFailed, SignalTaken, SignalTimedOut,
)  # fmt: skip
"""Records that say how an operation, or one attempt of it, ended."""


class _Plan:
    """One call of `Crashes.plan`."""

    def __init__(self, name: str, when: When, times: int) -> None:
        self.name = name
        self.when: When = when
        self.left = times
        self.happened = False


class Crashes:
    """What was planned, and which lives it has ended. Thread-safe."""

    def __init__(self) -> None:
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self.dropped: set[tuple[int, int]] = set()
        """The lives that are gone, as (rid, epoch)."""

    def plan(self, name: str, when: str, times: int) -> None:
        """Drop the life at the next ``times`` ends of an operation with this name or key.

        Raises:
            UsageError: no such side, or fewer than one time.
        """
        if when not in ("before", "after"):
            message = f"crash_at({name!r}, when={when!r}): when is 'before' or 'after'"
            raise UsageError(message)
        if times < 1:
            message = f"crash_at({name!r}, times={times!r}): at least once"
            raise UsageError(message)
        with self._lock:
            self._plans.append(_Plan(name, when, times))  # type: ignore[arg-type] # checked above

    def due(self, records: Sequence[AnyRecord], run: RunState | None) -> When | None:
        """Whether a life that writes these dies before or after them."""
        if not self._plans:
            return None
        with self._lock:
            names = {record.key: record.name for record in records if getattr(record, "name", None)}  # type: ignore[union-attr]
            for record in records:
                if isinstance(record, ENDS) and (plan := self._planned(record.key, names, run)) is not None:
                    plan.left -= 1
                    plan.happened = True
                    return plan.when
        return None

    def _planned(self, key: str, names: dict[str, str | None], run: RunState | None) -> _Plan | None:
        op = None if run is None else run.ops.get(key)
        called = {key, names.get(key), None if op is None else op.name}
        return next((plan for plan in self._plans if plan.left and plan.name in called), None)

    def take_unmet(self) -> list[str]:
        """Names of what was planned and never came about; they are forgotten."""
        with self._lock:
            unmet = [plan.name for plan in self._plans if not plan.happened]
            self._plans = []
        return unmet

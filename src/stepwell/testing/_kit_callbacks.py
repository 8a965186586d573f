"""The callbacks that a run waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.client._outcome import state_of
from stepwell.core import parent_of
from stepwell.testing._kit import ENDED
from stepwell.testing._lookup import DurableFunctionsTestError

if TYPE_CHECKING:
    from stepwell.core import Op, RunState
    from stepwell.testing._kit import Kit


def open_callback(kit: Kit, run_id: str, name: str | None, timeout: float) -> str:
    """Id of a callback that the parked run waits for; the newest one where no name is given.

    Raises:
        DurableFunctionsTestError: it is completed already, or the run has ended.
        TimeoutError: there is none after ``timeout`` seconds.
    """
    called = f" called {name!r}" if name else ""

    def look() -> str | None:
        row = kit.row(run_id)
        if row.status not in ENDED and row.status != "blocked" and row.owner is not None:
            return None
        run = state_of(kit.engine.store, row)
        found = [op for op in run.ops.values() if op.kind == "callback" and (name is None or _is(run, op, name))]
        waiting = [op for op in found if op.status == "started"]
        if waiting:
            return waiting[-1].callback_id
        if name is not None and found:
            message = f"callback {name!r} is completed already: {found[-1].status}"
            raise DurableFunctionsTestError(message)
        if row.status in ENDED or row.status == "blocked":
            message = f"run {run_id} is {row.status} and waits for no callback{called}"
            raise DurableFunctionsTestError(message)
        return None

    return str(kit.until(look, timeout, f"run {run_id} waits for no callback{called}"))


def _is(run: RunState, op: Op, name: str) -> bool:
    """Whether the callback has this name, or stands in a ``wait_for_callback`` that has."""
    scope = run.ops.get(parent_of(op.key))
    around = scope is not None and scope.kind == "wait_for_callback" and scope.name == name
    return op.name == name or around

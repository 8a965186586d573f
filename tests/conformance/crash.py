"""How a handler of a case ends its process: at once, and for real."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell import Engine
    from stepwell.durable import StepContext
    from stepwell.durable._function import DurableFunction

CRASHED = 86
"""Exit code of a process that a case has ended in the middle of a body."""
engine: Engine | None = None
"""The engine of this process; only processes made to crash have one here."""


_crashing: set[DurableFunction] = set()


def crashing(handler: DurableFunction) -> DurableFunction:
    """Mark a durable function that ends its process."""
    _crashing.add(handler)
    return handler


def crashes(handler: DurableFunction) -> bool:
    """Whether the durable function ends its process."""
    return handler in _crashing


def end_process(context: StepContext) -> None:
    """The process ends in this step's body as by a kill: nothing is unwound or handed back.

    The start of the step is on record by then, as it is after ``start_flush`` in a body that takes its time.
    """
    assert engine is not None, "this case runs in processes of its own"
    host = engine.host
    host.pulse.flush(0.0)
    host.pulse.flush(host.clock.monotonic() + 60)
    handle = engine.get_run(context.run_id)
    while not any(r["record"] == "StepStarted" and r["key"] == context.key for r in handle.history()):
        engine.store.wait(0.01)
    os._exit(CRASHED)


def first_life(context: Any) -> bool:
    """Whether this is the first invocation of the run."""
    return str(context.lambda_context.aws_request_id).endswith("-1")

"""One life of an async run: as `_live`, in a task of a loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stepwell.core import Done, Failed, RunSucceeded, crash_loop, step
from stepwell.errors import DurableOperationError, Suspend
from stepwell.journal import End, Unpark
from stepwell.runtime._api import LifeOver, Unwinding
from stepwell.runtime._drive_async import drive_async
from stepwell.runtime._live import (
    Ending,
    after_handler,
    block,
    current_life,
    end_of,
    given_up,
    open_children,
    parent_here,
    parked,
    tell_swallowed,
    verdict,
)
from stepwell.runtime._rollback import Outcome, must_discover, to_undo, undo_plan, undo_wanted
from stepwell.runtime._unused import note_unused
from stepwell.runtime._values import failed
from stepwell.serde import capture, current_redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord
    from stepwell.errors import ErrorRecord
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Scope

GRACE = 5.0
"""Seconds that tasks of user code get to settle after their run is over, before they are left alone."""


async def live_async(life: Life) -> Ending:
    """Run one life of an async run in this task. Cancelling the task interrupts the life: it hands its lease back."""
    life.loop = asyncio.get_running_loop()
    current_redactor.set(life.redactor)
    current_life.set(life)
    try:
        if life.watch is not None:
            life.watch.begin()
        if (blocked := crash_loop(life.run)) is not None:
            return block(life, blocked)
        outcome = await _handler(life)
        await settle_tasks(life)
        if (ending := after_handler(life)) is not None:
            return ending
        return await _conclude(life, outcome)
    except LifeOver as over:
        return given_up(life, over)
    except Suspend:
        return parked(life)
    except BaseException as error:
        if life.host.forked:
            raise
        return given_up(life, life.stop(LifeOver("interrupted", error)))


async def _handler(life: Life) -> Done | Failed | None:
    run = life.run
    if run.rollback is not None:
        life.rolling_back = True
        return None
    if run.cancel is not None or (life.deadline is not None and life.deadline <= life.store.now()):
        life.over = Unwinding("cancelled" if run.cancel is not None else "timed_out")
        return None
    return await call_program(life)


async def call_program(life: Life) -> Done | Failed | None:
    """Run the handler in a task of its own, which can be told to unwind; None if it was left early."""
    assert life.loop is not None
    task = life.root.task = life.loop.create_task(life.program.call(life))
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            life.stop(LifeOver("interrupted", error))
    if task.cancelled():
        return None if life.over is not None else failed(life, asyncio.CancelledError("the handler was cancelled"))
    raised = task.exception()
    if raised is None:
        tell_swallowed(life, task.result())
        return task.result()  # type: ignore[no-any-return]
    if isinstance(raised, BaseExceptionGroup | Suspend) and (life.over is not None or life.replay_only):
        return None
    raise raised


async def settle_tasks(life: Life) -> None:
    """No task in which the run's operations ran outlives the life: each is cancelled and waited for."""
    tasks = {task for task in life.tasks if not task.done()}
    for task in tasks:
        task.cancel()
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=GRACE)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved: the life is over, nobody asks for it


async def _conclude(life: Life, outcome: Done | Failed | None) -> Ending:
    why, error = verdict(life, outcome)
    if outcome is not None:
        note_unused(life)
    if why == "succeeded":
        assert isinstance(outcome, Done)
        return await _end(life, RunSucceeded(life.store.now(), outcome.payload), End("succeeded"))
    for child in open_children(life):
        await asyncio.to_thread(life.host.children.cancel, child)
    await _undo_all(life, why, error)
    return await _end(life, *end_of(life, why, error))


async def _end(life: Life, record: AnyRecord, end: End) -> Ending:
    await life.settle_async(life.enqueue(None, (record,), end, life.outside.told_parent(record, end)))
    if (parent := parent_here(life)) is not None:
        await asyncio.to_thread(life.host.take_inbox, parent)
    return Ending("ended")


async def _undo_all(life: Life, outcome: Outcome, error: ErrorRecord | None) -> None:
    run = life.run
    life.begin_rollback()
    records = undo_plan(life, outcome, error)
    if records:
        await life.commit_async(None, records, Unpark("rolling_back"))
    if must_discover(life):
        await discover_async(life)
        life.begin_rollback()
    life.root.open = 1
    await undo_keys_async(life.root_scope(), life.undo_order(to_undo(run)))


async def undo_keys_async(scope: Scope, keys: Sequence[str]) -> None:
    """Undo these, in this order; a failing one is on record and the next goes on."""
    for want in undo_wanted(scope, keys):
        try:
            await drive_async(scope, step(scope.life.run, want, capture))
        except DurableOperationError:
            pass  # on record; the run's end lists it


async def discover_async(life: Life) -> None:
    """Find the undo functions of finished steps by replaying the handler without executing anything of it."""
    life.replay_only = True
    try:
        await call_program(life)
    except Suspend:
        pass  # it has come to something that is not on record, as it must
    finally:
        life.replay_only = False
        await settle_tasks(life)

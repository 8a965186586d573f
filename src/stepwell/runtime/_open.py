"""Operations of an async run that are under way, and when what is left of a branch waits.

A sync branch does one thing at a time. An async one may have any number of operations open; it waits when all of them
wait. What awaited an operation that has just ended may begin another one in the same turn of the loop, or in one of the
next: a branch settles for some turns before it is taken to wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Branch

TURNS = 10
"""Turns of the loop that a branch settles for."""


def op_begin(life: Life, branch: Branch) -> None:
    """One more operation is under way."""
    with life.lock:
        branch.open += 1
        life.busy_again(branch)


def op_end(life: Life, branch: Branch) -> None:
    """An operation has ended. Whether the branch waits now shows when what awaited it has gone on."""
    with life.lock:
        branch.open -= 1
    if branch.open and branch.waiting == branch.open and not branch.settling and life.loop is not None:
        branch.settling = True
        life.loop.call_soon(_settle, life, branch, branch.open, TURNS)


def op_enter(life: Life, branch: Branch) -> None:
    """An operation runs code of its own in this branch (a child context): what that code has under way counts from
    here on, not the operation.
    """
    op_end(life, branch)


def op_leave(life: Life, branch: Branch) -> None:
    """That code is left."""
    op_begin(life, branch)


def _settle(life: Life, branch: Branch, seen: int, turns: int) -> None:
    if turns and branch.open == seen and branch.waiting == branch.open and life.loop is not None:
        life.loop.call_soon(_settle, life, branch, seen, turns - 1)
        return
    branch.settling = False
    if life.over is not None or branch.gone:
        return
    with life.lock:
        life.idle_if_waiting(branch)
        wait = next(iter(life.waits), None)
        ticket = life.park_ticket(()) if wait is not None else None
    if ticket is not None and wait is not None:
        from stepwell.runtime._parking_async import park_later

        _spawn(life, park_later(life, wait, ticket))


def _spawn(life: Life, work: Coroutine[Any, Any, None]) -> None:
    """A task of the life's own."""
    assert life.loop is not None
    task = life.loop.create_task(work)
    life.tasks.add(task)
    task.add_done_callback(life.tasks.discard)

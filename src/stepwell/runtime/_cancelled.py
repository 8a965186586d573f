"""What user code cancels in an async run is on record, so that replay finds the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core import OperationCancelled

if TYPE_CHECKING:
    from stepwell.core import Kind
    from stepwell.runtime._scope import Scope


async def cancelled(scope: Scope, key: str, kind: Kind) -> None:
    """User code cancelled the task that awaits this operation: on record, so that replay raises the same."""
    life = scope.life
    op = life.run.ops.get(key)
    ended = op is not None and op.ended
    if ended or life.over is not None or life.replay_only or life.follower is not None or scope.branch.gone:
        return
    record = OperationCancelled(life.store.now(), key, kind)
    ticket = life.outside.cancel_ticket(scope.branch, record)
    if ticket is not None:
        await life.settle_async(ticket)

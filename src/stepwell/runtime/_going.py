"""`Going`: an operation of an async run, as a coroutine that is told when it is cancelled before it has begun."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from stepwell.core import OperationCancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from stepwell.core import Kind
    from stepwell.runtime._scope import Scope

    _Work = Coroutine[Any, Any, Any]


class Going(Coroutine[Any, Any, Any]):
    """A coroutine that was never begun lets a cancellation pass without a line of it being run, so that nothing would
    be on record, and a later life, in which it may not be cancelled so early, would run the operation.
    """

    __slots__ = ("_begun", "_instead", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, Any], instead: Callable[[BaseException], Coroutine[Any, Any, Any]]
    ) -> None:
        self._work = work
        self._instead = instead
        """What is run if it is ended before it has begun."""
        self._begun = False

    def send(self, value: Any) -> Any:
        """As of every coroutine."""
        self._begun = True
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """As of every coroutine."""
        if self._begun:
            return self._work.throw(kind if value is None else value)
        self._begun = True
        self._work.close()
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        self._work = self._instead(error)
        return self._work.send(None)

    def close(self) -> None:
        """As of every coroutine."""
        self._work.close()

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._begun = True
        return self._work.send(None)


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

"""`Pending`: an operation that goes on beside the code that began it; and what waits for several (durable.md §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stepwell.core import Kind
from stepwell.durable._awaited import Awaited, at_once
from stepwell.durable.config import CompletionConfig, ParallelConfig
from stepwell.errors import ValidationError
from stepwell.runtime._strand import Strand

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Generator, Sequence

    from stepwell.core import Flow
    from stepwell.durable._operations import Operations
    from stepwell.durable.concurrency.models import BatchResult
    from stepwell.runtime._scope import Scope

T = TypeVar("T")

RACE = CompletionConfig(min_successful=1, tolerated_failure_percentage=100)
ALL = CompletionConfig.all_completed()


class Pending(Generic[T]):
    """An operation under way: what ``step_async`` and its like give. Settled before its scope ends, whoever asks."""

    def __init__(self, context: Operations) -> None:
        self._context = context
        self.asked = False
        """Whether anybody took its result: a failure that nobody took fails the scope."""
        context._scope.pendings.append(self)

    def joined(self, scope: Scope) -> Any:
        """The value, from any scope of the run."""
        raise NotImplementedError

    def settled(self, scope: Scope) -> Any:
        """Wait until it has ended, however."""
        raise NotImplementedError

    def result(self) -> Any:
        """The value; waits for it. In async functions an awaitable of it.

        Raises:
            Exception: what the operation raised.
            CancelledError: it was cancelled.
        """
        raise NotImplementedError

    def done(self) -> bool:
        """Whether it has ended just now. Not on record: a later life may answer otherwise at the same place."""
        raise NotImplementedError

    def cancel(self) -> Any:
        """Let go of it, on record. In async functions an awaitable.

        Returns:
            Whether it was cancelled; False if it had ended.
        """
        raise NotImplementedError


class SyncPending(Pending[T]):
    """Of a sync function: on a thread of its own."""

    def __init__(self, context: Operations, flow: Flow[Any], key: str, kind: Kind) -> None:
        super().__init__(context)
        self._strand = Strand.of(context._scope, flow, key, kind)

    def result(self) -> T:
        """The value; waits for it."""
        scope = self._context._scope
        scope.check("result", "pending")
        return self.joined(scope)

    def settled(self, scope: Scope) -> None:
        """Wait until it has ended."""
        self._strand.join(scope)

    def joined(self, scope: Scope) -> T:
        """The value, on a thread of any scope of the run."""
        self.asked = True
        strand = self._strand
        strand.join(scope)
        if strand.cancelled:
            from concurrent.futures import CancelledError

            raise CancelledError
        if strand.error is not None:
            raise strand.error
        return strand.value  # type: ignore[no-any-return]

    def done(self) -> bool:
        """Whether it has ended."""
        return self._strand.done

    def cancel(self) -> bool:
        """Let go of it, on record. False if it had ended."""
        self.asked = True
        return self._strand.cancel()


class AsyncPending(Pending[T]):
    """Of an async function: a task. ``await`` it, or its ``result()``."""

    def __init__(self, context: Operations, work: Awaitable[T]) -> None:
        import asyncio

        super().__init__(context)
        if not isinstance(work, Awaited):
            # Its value is on record: a task that has only that to tell counts for nothing, and a scope that waited for
            # it would park its run.
            self._task: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            self._task.set_result(at_once(work))
            return
        task = asyncio.ensure_future(work)
        self._task = task
        self._context._scope.life.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        """Nobody may ever ask for it: what a life that is over raises is not to be reported by the loop."""
        self._context._scope.life.tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    async def result(self) -> T:
        """The value; waits for it. Who stops waiting does not stop the operation."""
        import asyncio

        self.asked = True
        return await asyncio.shield(self._task)

    async def settled(self, scope: Scope) -> None:
        """Wait until it has ended."""
        from stepwell.runtime._parking_async import join_async

        await join_async(scope, self._task)

    async def joined(self, scope: Scope) -> T:
        """The value, from a task of another scope: it waits there as an operation does."""
        import asyncio

        await self.settled(scope)
        self.asked = True
        if self._task.cancelled():
            raise asyncio.CancelledError
        return self._task.result()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    async def cancel(self) -> bool:
        """Let go of it, on record. False if it had ended."""
        import asyncio

        self.asked = True
        if self._task.done():
            return self._task.cancelled()
        self._task.cancel()
        await asyncio.wait({self._task})
        return self._task.cancelled()


# -- gather and race


def split(args: Sequence[Any], method: str) -> tuple[list[tuple[int, Any]], list[tuple[int, Pending[Any]]]]:
    """Functions and pendings among the arguments, each with its place.

    Raises:
        ValidationError: one is neither.
    """
    functions, pendings = [], []
    for place, given in enumerate(args):
        if isinstance(given, Pending):
            pendings.append((place, given))
        elif callable(given):
            functions.append((place, given))
        else:
            raise ValidationError(f"{method}: argument {place} is neither a pending nor a function, but {given!r}")
    return functions, pendings


def values(
    args: Sequence[Any], result: BatchResult[Any] | None, places: Sequence[int], settled: dict[int, Any], errors: bool
) -> list[Any]:
    """What `gather` gives: values and errors in order of the arguments. ``settled``: of pendings, by place.

    Raises:
        Exception: the first error by place, unless ``errors`` asks for them in the list.
    """
    from stepwell.durable.concurrency.models import error_of

    found: dict[int, Any] = {}
    failed: dict[int, BaseException] = {}
    for item in result.all if result is not None else ():
        if item.error is None:
            found[places[item.index]] = item.result
        else:
            failed[places[item.index]] = error_of(item)
    for place, (value, error) in settled.items():
        if error is None:
            found[place] = value
        else:
            failed[place] = error
    if failed and not errors:
        raise failed[min(failed)]
    return [failed[place] if place in failed else found[place] for place in range(len(args))]


def winner(context: Operations, key: str, result: BatchResult[Any]) -> Any:
    """What `race` gives: the first success.

    Raises:
        ChildContextError: all failed; the last one's error.
    """
    from stepwell.durable.concurrency.models import error_of

    for item in result.succeeded():
        return item.result
    ops = context._scope.life.run.ops
    last = max(result.failed(), key=lambda item: (ops[f"{key}[{item.index}]"].ended_at, item.index))
    raise error_of(last)


def fan(
    context: Operations, kind: Kind, functions: Sequence[Any], places: Sequence[int], rule: CompletionConfig
) -> Any:
    """Functions, each in a branch of its own, as a batch: (key, what the core wants)."""
    from stepwell.durable._batches import batch_wanted
    from stepwell.durable._operations import scope_function

    runs = [scope_function(given, kind)[0] for given in functions]
    for run in runs:
        context._refuse_async(kind, run)
    key, _ = context._scope.begin(kind, None, kind)
    context._began(key, kind)
    config = ParallelConfig(completion_config=rule)
    return key, batch_wanted(context, (key, None), kind, config, runs, [None] * len(runs), places=places)


__all__ = ["ALL", "RACE", "AsyncPending", "Pending", "SyncPending", "fan", "split", "values", "winner"]

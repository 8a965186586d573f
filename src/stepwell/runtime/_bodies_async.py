"""Calling a step's body in an async run: async bodies in the operation's task, sync ones on a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stepwell.core import Done, Failed
from stepwell.errors import StepTimeoutError, UsageError
from stepwell.runtime._api import Attempt, ReplayEnd
from stepwell.runtime._bodies import awaited_watched, done, elsewhere, on_thread, remaining, timed_out, watched
from stepwell.runtime._scope import current_attempt
from stepwell.runtime._values import failed

if TYPE_CHECKING:
    from stepwell.core import Call
    from stepwell.runtime._api import Body
    from stepwell.runtime._scope import Scope


async def call_async(scope: Scope, effect: Call) -> Done | Failed:
    """Run one attempt: its value on its way into the journal, or its error."""
    life, want = scope.life, effect.want
    if life.replay_only:
        raise ReplayEnd
    life.usable(scope.branch)
    body: Body = life.host.body_of(want)
    attempt = Attempt(scope, want.key, want.name, effect.attempt, effect.state)
    if life.watch is not None:
        life.watch.deliver()
    try:
        if body.transactional:
            message = "transactional steps need a sync durable function"
            raise UsageError(message)
        if body.is_async:
            value = await _awaited(attempt, body)
        else:
            value = await _on_thread(attempt, body)
            if hasattr(type(value), "__await__"):
                value = await _in_attempt(attempt, value)
        return done(attempt, body, want, value)
    except Exception as error:
        return failed(life, error)
    finally:
        attempt.over = True


async def _in_attempt(attempt: Attempt, value: Any) -> Any:
    """Await what a body gave that did not look async (an undo in a lambda): it is still this attempt's body."""
    token = current_attempt.set(attempt)
    try:
        return await value
    finally:
        current_attempt.reset(token)


async def _awaited(attempt: Attempt, body: Body) -> Any:
    token = current_attempt.set(attempt)
    try:
        if body.timeout is None and body.heartbeat_timeout is None:
            if attempt.scope.life.watch is None:
                return await body.call(attempt)
            return await awaited_watched(attempt, body)
        return await _timed(attempt, body)
    finally:
        current_attempt.reset(token)


async def _timed(attempt: Attempt, body: Body) -> Any:
    """Await a body that has a limit; when its time is up it is cancelled."""
    clock = attempt.scope.life.host.clock
    begun = attempt.last_heartbeat_at = clock.monotonic()
    task = asyncio.ensure_future(awaited_watched(attempt, body))
    error: StepTimeoutError | None = None
    try:
        while not task.done():
            left = remaining(attempt, body, begun, clock.monotonic())
            if left is not None and left <= 0:
                attempt.over = True
                error = timed_out(attempt, body, begun, clock.monotonic())
                break
            await asyncio.wait({task}, timeout=left)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if error is not None:
        if not task.cancelled():
            task.exception()  # retrieved: what it says after its time is dropped
        raise error
    return task.result()


async def _on_thread(attempt: Attempt, body: Body) -> Any:
    """A sync body must not block the loop."""
    host, loop = attempt.scope.life.host, asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def inline() -> Any:
        token = current_attempt.set(attempt)
        try:
            with watched(attempt):
                return body.call(attempt)
        finally:
            current_attempt.reset(token)

    def work() -> None:
        if future.cancelled():
            return  # it was let go of while it waited for a thread: it must not begin behind the run's back
        try:
            if body.executor is not None and body.executor != "thread":
                value = elsewhere(attempt, body)
            elif body.timeout is None and body.heartbeat_timeout is None:
                value = inline()
            else:
                value = on_thread(attempt, inline, body)
        except BaseException as error:
            _tell(loop, future, None, error)
        else:
            _tell(loop, future, value, None)

    host.submit_for_loop(work)
    return await future


def _tell(loop: Any, future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    def tell() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError(f"step body raised StopIteration: {error!r}"))
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        pass  # the loop is closed: the life is given up by the beat

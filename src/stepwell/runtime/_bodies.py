"""Calling a step's body in a sync run: inline, or on a thread that can be abandoned, or where an executor says."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from stepwell.core import Done, Failed
from stepwell.errors import StepInterruptedError, StepTimeoutError
from stepwell.executors import Stopped, TimeUp
from stepwell.runtime._api import Attempt, LifeOver, ReplayEnd
from stepwell.runtime._on_loop import OnLoop
from stepwell.runtime._scope import current_attempt
from stepwell.runtime._threads import Job
from stepwell.runtime._values import failed, pack

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stepwell.core import Call, StepWanted
    from stepwell.runtime._api import Body
    from stepwell.runtime._scope import Scope

MOST_ABANDONED = 64
"""Threads that may hang behind a time-out before no further step is started (ENGINE.md §9)."""


def call(scope: Scope, effect: Call) -> Done | Failed:
    """Run one attempt: its value on its way into the journal, or its error."""
    life, want = scope.life, effect.want
    if life.replay_only:
        raise ReplayEnd
    life.usable(scope.branch)  # its start may have been committed beside what ended the life
    body: Body = life.host.body_of(want)
    attempt = Attempt(scope, want.key, want.name, effect.attempt, effect.state)
    if life.watch is not None:
        life.watch.deliver()
    try:
        if body.timeout is None and body.heartbeat_timeout is None and body.executor is None and not body.transactional:
            value = _inline(attempt, body)
        else:
            special = _special(attempt, body, want)
            if type(special) is Done:
                return special
            value = special
        return done(attempt, body, want, value)
    except Exception as error:
        return failed(life, error)
    finally:
        attempt.over = True


def _inline(attempt: Attempt, body: Body) -> Any:
    token = current_attempt.set(attempt)
    try:
        if attempt.scope.life.watch is None:
            return _called(attempt, body)
        if body.is_async:
            return _on_loop(attempt, awaited_watched(attempt, body))
        with watched(attempt):
            return _called(attempt, body)
    finally:
        current_attempt.reset(token)


def _called(attempt: Attempt, body: Body) -> Any:
    value = body.call(attempt)
    return _on_loop(attempt, value) if hasattr(type(value), "__await__") else value


def watched(attempt: Attempt) -> AbstractContextManager[None]:
    """Around a body, on its thread: observers are told that it begins and how it was left."""
    watch = attempt.scope.life.watch
    return nullcontext() if watch is None else watch.body(attempt.scope, attempt.key, attempt.attempt)


async def awaited_watched(attempt: Attempt, body: Body) -> Any:
    """An async body, likewise."""
    with watched(attempt):
        return await body.call(attempt)


def _on_loop(attempt: Attempt, work: Any) -> Any:
    """Wait here for an async body, which runs on the engine's loop."""

    def is_over() -> bool:
        return attempt.over

    if is_over():  # its time was up before it began
        if hasattr(work, "close"):
            work.close()
        raise CancelledError
    awaited = attempt.awaited = OnLoop(attempt.scope.life.host.loop(), work)
    if is_over():
        awaited.cancel()  # just now, and who found that may not have seen what there is to cancel
    try:
        return awaited.result()
    except BaseException:
        awaited.cancel()  # an interruption came to this thread; after its own end this is harmless
        raise


def _special(attempt: Attempt, body: Body, want: StepWanted) -> Any:
    if body.transactional:
        from stepwell.runtime._transactional import call_in_transaction

        return call_in_transaction(attempt, body, want)
    if body.executor is not None and body.executor != "thread":
        return elsewhere(attempt, body)
    return on_thread(attempt, lambda: _inline(attempt, body), body)


def done(attempt: Attempt, body: Body, want: StepWanted, value: Any) -> Done:
    """A body's value on its way out: serialized, read back, and for polls the decision."""
    life = attempt.scope.life
    payload, value = pack(life, body.codec, value, want.key, want.name or "result")
    if body.finish is None:
        return Done(payload, value, life.store.now())
    stop, delay = body.finish(value, attempt)
    return Done(payload, value, life.store.now(), stop, delay)


def elsewhere(attempt: Attempt, body: Body) -> Any:
    """Run where an executor says, outside this process: the function gets a `StepContext` that can be pickled."""
    assert body.remote is not None
    remote, host, name = body.remote(attempt), attempt.scope.life.host, attempt.name or attempt.key
    executor: Any = host.executor(body.executor)
    if not hasattr(executor, "converse"):
        with watched(attempt):
            return executor.call(remote.func, remote.args, remote.kwargs, timeout=body.timeout, name=name)
    clock = host.clock
    begun = attempt.last_heartbeat_at = clock.monotonic()
    try:
        with watched(attempt):
            return executor.converse(
                remote.func, remote.args, remote.kwargs, name=name, hear=remote.hear,
                left=lambda: remaining(attempt, body, begun, clock.monotonic()),
            )  # fmt: skip
    except TimeUp:
        attempt.over = True
        raise timed_out(attempt, body, begun, clock.monotonic()) from None
    except Stopped:
        attempt.scope.life.usable(attempt.scope.branch)
        message = f"step '{name}' was told to stop"
        raise StepInterruptedError(message) from None


class _Reply:
    """What comes back from a thread."""

    __slots__ = ("error", "ready", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.ready = False


def on_thread(attempt: Attempt, run: Any, body: Body) -> Any:
    """Run on a thread of the bodies' pool, and abandon it when its time is up: a late result is dropped. An async body
    is cancelled then.

    Raises:
        StepTimeoutError: its time is up, or its heartbeat stayed away.
        LifeOver: too many threads hang already.
    """
    host = attempt.scope.life.host
    if host.abandoned >= MOST_ABANDONED:
        raise attempt.scope.life.stop(LifeOver(f"{host.abandoned} threads hang behind time-outs; restart the process"))
    reply, gate = _Reply(), host.bodies.gate()

    def work() -> None:
        try:
            # It may have waited for a thread for longer than its life, or its branch, was there.
            attempt.scope.life.usable(attempt.scope.branch)
            reply.value = run()
        except BaseException as error:
            reply.error = error
        reply.ready = True
        gate.open()

    job = Job(work)
    clock = host.clock
    begun = attempt.last_heartbeat_at = clock.monotonic()
    host.bodies.submit(job)
    while not reply.ready:
        left = remaining(attempt, body, begun, clock.monotonic())
        if left is not None and left <= 0:
            error = timed_out(attempt, body, begun, clock.monotonic())
            attempt.over = True
            if job.take():
                raise error
            if attempt.awaited is None:
                host.abandoned += 1
                host.bodies.detach(job)
                raise error
            # The next attempt must not meet this one: it is waited for, as in an async run.
            attempt.awaited.cancel()
            while not reply.ready:
                gate.wait(None)
            raise error
        gate.wait(left)
    if reply.error is not None:
        raise reply.error
    return reply.value


def remaining(attempt: Attempt, body: Body, begun: float, now: float) -> float | None:
    """Seconds that the attempt still has; None for no limit."""
    limits = []
    if body.timeout is not None:
        limits.append(begun + body.timeout - now)
    if body.heartbeat_timeout is not None:
        limits.append(attempt.last_heartbeat_at + body.heartbeat_timeout - now)
    return min(limits, default=None)


def timed_out(attempt: Attempt, body: Body, begun: float, now: float) -> StepTimeoutError:
    """The error of an attempt whose time is up."""
    name = attempt.name or attempt.key
    if body.timeout is not None and now - begun >= body.timeout:
        return StepTimeoutError(f"step '{name}' timed out after {body.timeout:g} s in attempt {attempt.attempt}")
    return StepTimeoutError(
        f"step '{name}' sent no heartbeat for {body.heartbeat_timeout:g} s in attempt {attempt.attempt}"
    )

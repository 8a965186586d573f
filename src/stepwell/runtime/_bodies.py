"""Calling a step's body in a sync run: inline, or on a thread that can be abandoned, or where an executor says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import Done, Failed
from stepwell.errors import StepTimeoutError
from stepwell.runtime._api import Attempt, LifeOver, ReplayEnd
from stepwell.runtime._scope import current_attempt
from stepwell.runtime._threads import Job
from stepwell.runtime._values import failed, pack

if TYPE_CHECKING:
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
    body: Body = want.body
    attempt = Attempt(scope, want.key, want.name, effect.attempt, effect.state)
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
        life.partial.pop(want.key, None)


def _inline(attempt: Attempt, body: Body) -> Any:
    token = current_attempt.set(attempt)
    try:
        value = body.call(attempt)
        if hasattr(type(value), "__await__"):
            value = attempt.scope.life.host.await_on_loop(value)
        return value
    finally:
        current_attempt.reset(token)


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
    func, args, kwargs = body.remote
    executor = attempt.scope.life.host.executor(body.executor)
    return executor.call(func, (attempt.attempt, *args), kwargs, timeout=body.timeout, name=attempt.name or attempt.key)


class _Reply:
    """What comes back from a thread."""

    __slots__ = ("error", "ready", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.ready = False


def on_thread(attempt: Attempt, run: Any, body: Body) -> Any:
    """Run on a thread of the bodies' pool, and abandon it when its time is up: a late result is dropped.

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
            attempt.over = True
            if not job.take():
                host.abandoned += 1
                host.bodies.detach(job)
            raise timed_out(attempt, body, begun, clock.monotonic())
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

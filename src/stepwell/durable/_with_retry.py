"""`with_retry`: a block of operations that is tried again as a whole (durable.md §11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import jitter_fraction
from stepwell.durable._checks import check_config
from stepwell.durable.config import ChildConfig
from stepwell.durable.retries import RetryDecision, WithRetryConfig, create_retry_strategy
from stepwell.errors import ValidationError
from stepwell.runtime._scope import checked_name, part_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.durable._operations import Operations


def with_retry(
    context: Any, func: Callable[[Any, int], Any], config: WithRetryConfig[Any] | None = None, name: str | None = None
) -> Any:
    """Call ``func(context, attempt)`` until it succeeds or its strategy gives up, waiting durably in between.

    Args:
        context: of the durable function; with an async one the result is awaited.
        func: the block, ``def`` or ``async def`` as the context is; its finished operations are not run again within
            an attempt, each attempt has operations of its own.
        config: strategy (default 3 attempts), and whether the block is a child context (default yes).
        name: of the child context; waits between attempts are called ``NAME-backoff-N``.

    Raises:
        ValidationError: bad arguments; nothing was written.
        ChildContextError: the last failure, where the block is a child context; else the failure itself.
    """
    if not hasattr(context, "_scope") or not callable(func):
        raise ValidationError(f"with_retry needs a context and a function, not {context!r} and {func!r}")
    check_config("with_retry", config, WithRetryConfig)
    if name:
        checked_name(name)
    context._refuse_async("with_retry", func)
    settings: WithRetryConfig[Any] = config or WithRetryConfig()
    run = _async_block if context._scope.life.is_async else _block
    if not settings.wrap_with_run_in_child_context:
        return run(context, func, settings, name)
    child = settings.child_context_config or ChildConfig()

    def block(inner: Any) -> Any:
        return run(inner, func, settings, name)

    block.__name__ = "with_retry"  # its label where it has no name
    return context.run_in_child_context(block, name, child)


def _delay(context: Operations, settings: WithRetryConfig[Any], error: Exception, attempt: int) -> Any:
    """What the strategy says after a failure: a delay, or None to give up."""
    strategy: Any = settings.retry_strategy or create_retry_strategy()
    decide = getattr(strategy, "decide", None)
    if decide is None:
        decision = strategy(error, attempt)
    else:
        decision = decide(error, attempt, jitter_fraction(context.run_id, context.key, attempt))
    if not isinstance(decision, RetryDecision):
        message = f"retry strategy of with_retry returned {decision!r}, not a RetryDecision"
        raise ValidationError(message) from error
    return decision.delay if decision.should_retry else None


def _backoff(name: str | None, attempt: int) -> str | None:
    return part_name(name, f"-backoff-{attempt}") if name else None


def _block(context: Any, func: Callable[[Any, int], Any], settings: WithRetryConfig[Any], name: str | None) -> Any:
    attempt = 0
    while True:
        attempt += 1
        try:
            return func(context, attempt)
        except Exception as error:
            delay = _delay(context, settings, error, attempt)
            if delay is None:
                raise
        context.wait(delay, name=_backoff(name, attempt))


async def _async_block(
    context: Any, func: Callable[[Any, int], Any], settings: WithRetryConfig[Any], name: str | None
) -> Any:
    attempt = 0
    while True:
        attempt += 1
        try:
            value = func(context, attempt)
            return await value if hasattr(type(value), "__await__") else value
        except Exception as error:
            delay = _delay(context, settings, error, attempt)
            if delay is None:
                raise
        await context.wait(delay, name=_backoff(name, attempt))

"""What ``wait_for_callback`` runs: a callback, the step that tells somebody of it, the answer."""

from __future__ import annotations

from typing import Any

from stepwell.durable._bound import Binder, Bound, described, positional
from stepwell.durable.config import CallbackConfig, StepConfig, WaitForCallbackConfig
from stepwell.durable.types import WaitForCallbackContext
from stepwell.errors import CallbackSubmitterError, StepError, ValidationError
from stepwell.runtime._scope import part_name


class Submitter:
    """The function that gets a callback's id to whoever will answer."""

    def __init__(self, func: Any, name: str | None, label: str | None, *, takes_context: bool) -> None:
        self.func = func
        self.name = name
        self.label = label
        self._takes_context = takes_context

    @classmethod
    def of(cls, func: Any) -> Submitter:
        """What a caller passed.

        Raises:
            ValidationError: it cannot be called, or its arguments are missing.
        """
        method = "wait_for_callback"
        if isinstance(func, Binder):
            if func.needs_arguments():
                call = f"context.{method}({func.name}({func.missing()}))"
                raise ValidationError(f"{func.name} needs arguments: write {call}")
            func = func()
        if isinstance(func, Bound):
            return cls(func, func.name, func.name, takes_context=True)
        if not callable(func):
            raise ValidationError(f"context.{method} needs a submitter function, not {func!r}")
        fewest, most = positional(func)
        if most < 1 or fewest > 2:
            raise ValidationError(f"a submitter takes (callback_id, context), not {func!r}")
        return cls(func, None, described(func), takes_context=most > 1)

    def inside(self, context: Any, name: str | None, config: CallbackConfig) -> Any:
        """The body of the scope, sync."""
        callback = context.create_callback(_named(name, "create callback id"), _of_callback(config))
        try:
            context.step(Submission(self, callback.callback_id), _named(name, "submitter"), _of_step(config))
        except StepError as error:
            raise _failed(error) from error
        return callback.result()

    async def inside_async(self, context: Any, name: str | None, config: CallbackConfig) -> Any:
        """The body of the scope, async."""
        callback = await context.create_callback(_named(name, "create callback id"), _of_callback(config))
        try:
            await context.step(Submission(self, callback.callback_id), _named(name, "submitter"), _of_step(config))
        except StepError as error:
            raise _failed(error) from error
        return await callback.result()

    def submit(self, callback_id: str, step_context: Any) -> Any:
        """Call the function, as a step's body."""
        if not self._takes_context:
            return self.func(callback_id)
        return self.func(callback_id, WaitForCallbackContext(step_context.logger))


class Submission:
    """The step's function. ``func`` is what its fingerprint is of."""

    def __init__(self, submitter: Submitter, callback_id: str) -> None:
        self.func = submitter.func
        self._submitter = submitter
        self._callback_id = callback_id

    def __call__(self, step_context: Any) -> Any:
        """Run the submitter."""
        return self._submitter.submit(self._callback_id, step_context)


def _named(name: str | None, part: str) -> str | None:
    return None if name is None else part_name(name, f" {part}")


def _of_callback(config: CallbackConfig) -> CallbackConfig:
    return CallbackConfig(config.timeout, config.heartbeat_timeout, config.serdes)


def _of_step(config: CallbackConfig) -> StepConfig:
    retry = config.retry_strategy if isinstance(config, WaitForCallbackConfig) else None
    return StepConfig(retry_strategy=retry, serdes=config.serdes)


def _failed(error: StepError) -> CallbackSubmitterError:
    return CallbackSubmitterError(str(error), error.error_type, error.data, error.stack_trace)

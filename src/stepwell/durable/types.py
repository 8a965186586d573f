"""Types for annotations, and the small objects that a durable function is handed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from stepwell.durable._context import DurableContext
    from stepwell.durable._outside import Callback
    from stepwell.durable._step_context import StepContext
    from stepwell.durable.concurrency.models import BatchResult

__all__ = [
    "BatchResult",
    "Callback",
    "DurableContext",
    "DurableExecutionArn",
    "LambdaContext",
    "LoggerInterface",
    "OperationContext",
    "StepContext",
    "SummaryGenerator",
    "WaitForCallbackContext",
    "WaitForConditionCheckContext",
]

# What comes from modules that cost more to import, or that need this one.
_LATE = {
    "BatchResult": "stepwell.durable.concurrency.models",
    "Callback": "stepwell.durable._outside",
    "DurableContext": "stepwell.durable._context",
    "StepContext": "stepwell.durable._step_context",
}


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)


class LoggerInterface(Protocol):
    """What ``set_logger`` takes: any object with these methods, `logging.Logger` included."""

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log for those who look for a fault."""

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log what happens."""

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log what may go wrong."""

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log what went wrong."""

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log what went wrong, with the exception that is being handled."""


class OperationContext(msgspec.Struct, frozen=True):
    """What every function that an operation calls is told. Frozen."""

    logger: LoggerInterface


class WaitForConditionCheckContext(OperationContext, frozen=True):
    """What the check of ``wait_for_condition`` is told: ``attempt`` is its number, from 1. Frozen."""

    attempt: int = 1


class WaitForCallbackContext(OperationContext, frozen=True):
    """What the submitter of ``wait_for_callback`` is told. Frozen."""


_C_contra = TypeVar("_C_contra", contravariant=True)


class SummaryGenerator(Protocol[_C_contra]):
    """Text to keep of a result that is too large to keep."""

    def __call__(self, result: _C_contra, /) -> str:
        """The text."""


class LambdaContext:
    """About the life of a run, in the words of AWS Lambda.

    ``aws_request_id`` is the life's id, ``function_name`` the name under which the run was started, ``tenant_id`` what
    the invoker gave. ``remaining`` gives the seconds until the run times out, or None where it does not.
    """

    __slots__ = ("_remaining", "aws_request_id", "function_name", "tenant_id")

    def __init__(
        self,
        aws_request_id: str,
        function_name: str,
        *,
        tenant_id: str | None = None,
        remaining: Callable[[], float | None] | None = None,
    ) -> None:
        self.aws_request_id = aws_request_id
        self.function_name = function_name
        self.tenant_id = tenant_id
        self._remaining = remaining

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the run times out, 0 when it is overdue; 900,000 (AWS's limit) where it has no limit."""
        seconds = None if self._remaining is None else self._remaining()
        return 900_000 if seconds is None else max(0, int(seconds * 1000))


_ARN = re.compile(
    r"arn:(?P<partition>[^:]*):(?P<service>[^:]*):(?P<region>[^:]*):(?P<account_id>[^:]*):function:"
    r"(?P<function_name>[^:]+?)(?::(?P<version>[^:/]+))?/durable-execution/(?P<execution_name>[^/]+)/(?P<invocation_id>[^/]+)"
)


class DurableExecutionArn(msgspec.Struct, frozen=True):
    """The parts of ``arn:PARTITION:SERVICE:REGION:ACCOUNT:function:NAME:VERSION/durable-execution/RUN/INVOCATION``.

    ``str()`` gives the ARN. ``execution_name`` is the run's id.
    """

    function_name: str
    execution_name: str
    invocation_id: str
    partition: str = "stepwell"
    service: str = "lambda"
    region: str = "local"
    account_id: str = "000000000000"
    version: str | None = "$LATEST"

    @classmethod
    def from_arn(cls, arn: str) -> DurableExecutionArn | None:
        """The parts of an ARN of this library or of AWS; None where it is of another shape."""
        found = _ARN.fullmatch(arn)
        return None if found is None else cls(**found.groupdict())

    @classmethod
    def for_run(cls, function_name: str, run_id: str) -> DurableExecutionArn:
        """The ARN of a run of ours; a ``:`` in the function's name is written as ``.``."""
        return cls(function_name.replace(":", "."), run_id, run_id)

    def __str__(self) -> str:
        version = "" if self.version is None else f":{self.version}"
        return (
            f"arn:{self.partition}:{self.service}:{self.region}:{self.account_id}:function:{self.function_name}{version}"
            f"/durable-execution/{self.execution_name}/{self.invocation_id}"
        )

"""Finding operations by name: the same on results and contexts, in the shapes of both runners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.durable.lambda_service import OperationType
from stepwell.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class DurableFunctionsTestError(UsageError):
    """The test asks for something that the run does not have, or the run broke a rule that the kit checks."""


class Lookup:
    """Operations by name. The outermost one with the name is found; of several, the first in call order."""

    __slots__ = ()

    def _inside(self) -> tuple[Any, ...]:
        return tuple(self.operations)  # type: ignore[attr-defined]

    def get_all_operations(self) -> list[Any]:
        """All operations inside, those in contexts included: each before what is inside of it."""
        return list(_all(self._inside()))

    def get_operation_by_name(self, name: str) -> Any:
        """The operation with this name. Raises `DurableFunctionsTestError` that lists the names there are."""
        return self._get(name, None, "operation")

    def get_step(self, name: str) -> Any:
        """The step (or condition) with this name. Raises `DurableFunctionsTestError`."""
        return self._get(name, OperationType.STEP, "step")

    def get_wait(self, name: str) -> Any:
        """The wait with this name. Raises `DurableFunctionsTestError`."""
        return self._get(name, OperationType.WAIT, "wait")

    def get_context(self, name: str) -> Any:
        """The child context, map, parallel, branch or item with this name. Raises `DurableFunctionsTestError`."""
        return self._get(name, OperationType.CONTEXT, "context")

    def get_callback(self, name: str) -> Any:
        """The callback with this name. Raises `DurableFunctionsTestError`."""
        return self._get(name, OperationType.CALLBACK, "callback")

    def get_invoke(self, name: str) -> Any:
        """The invoked function with this name. Raises `DurableFunctionsTestError`."""
        return self._get(name, OperationType.CHAINED_INVOKE, "invoke")

    def _get(self, name: str, kind: OperationType | None, word: str) -> Any:
        level = self._inside()
        while level:
            for op in level:
                if op.name == name and kind in (None, op.operation_type):
                    return op
            level = tuple(inner for op in level for inner in _inside(op))
        fitting = [op.name for op in self.get_all_operations() if op.name and kind in (None, op.operation_type)]
        names = ", ".join(dict.fromkeys(fitting)) or "none with a name"
        message = f"there is no {word} called {name!r}; there is: {names}"
        raise DurableFunctionsTestError(message)


def _inside(op: Any) -> tuple[Any, ...]:
    return op._inside() if isinstance(op, Lookup) else ()


def _all(level: tuple[Any, ...]) -> Iterator[Any]:
    for op in level:
        yield op
        yield from _all(_inside(op))

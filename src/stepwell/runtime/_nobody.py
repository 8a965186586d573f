"""What stands where there is nobody: no program that drives a run, nobody who knows what is invoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import InvokeFailed
from stepwell.errors import InvokeError
from stepwell.serde import capture

if TYPE_CHECKING:
    from stepwell.core import AnyRecord, Op
    from stepwell.runtime._host import Host
    from stepwell.runtime._life import Life
    from stepwell.runtime._observe import Observer


class _Nobody:
    """The program of a run that this process only puts on record."""

    name = identity = "nobody"
    is_async = False
    timeout: float | None = None
    hold: float | None = None

    def observers(self, host: Host, run_id: str) -> tuple[Observer, ...]:
        """Nobody drives it here."""
        return ()

    def call(self, life: Life) -> Any:
        """Never called."""
        raise NotImplementedError(life.run.id)


NOBODY = _Nobody()


class NoChildren:
    """Where runs are driven and no function is known by name: nothing can be invoked."""

    def start(self, life: Life, op: Op) -> AnyRecord | None:
        """Refuse."""
        error = capture(InvokeError(f"function '{op.function}' is not registered"))
        return InvokeFailed(life.store.now(), op.key, error)

    def cancel(self, run_id: str) -> None:
        """Nothing was started here."""

    def add(self, function: Any) -> None:
        """Nothing is started here."""

"""What a step's body is told about its attempt (durable.md §5.1)."""

from __future__ import annotations

from typing import Any, Protocol

from stepwell.durable._checks import check_progress
from stepwell.durable.types import OperationContext


class _StepPort(Protocol):
    """The engine's side of a StepContext."""

    def heartbeat(self, details: Any) -> None:
        """The body is alive; ``details`` for the next attempt."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """How far the body has come."""

    def check(self) -> None:
        """Raise if the run is cancelled or its lease is lost."""

    def cancelled(self) -> bool:
        """Whether the run is cancelled or its lease is lost."""
        ...


class _First(OperationContext, frozen=True):
    attempt: int = 1


class StepContext(_First, frozen=True, kw_only=True):
    """About the attempt of a step that calls the body. Frozen.

    Made by hand, with ``StepContext(logger, attempt)``, it belongs to no run: its methods do nothing.

    Args:
        logger: Logs beside the step.
        attempt: Number of this attempt, from 1.
        run_id: The run's id.
        name: The step's name, if it has one.
        key: Where in the run the step stands.
        connection: In a transactional step, the connection whose transaction the step's record shares.
        last_heartbeat: Details of the last heartbeat of the attempt before.
    """

    run_id: str = ""
    name: str | None = None
    key: str = ""
    connection: Any = None
    last_heartbeat: Any = None
    _template: str | None = None
    _port: _StepPort | None = None

    @property
    def operation_id(self) -> str:
        """The step's id: equal in every attempt, and in every run of the same code."""
        from stepwell.core import operation_id

        return operation_id(self.key)

    @property
    def idempotency_key(self) -> str:
        """A text to send to other services: equal for all attempts of this step of this run, and for nothing else."""
        from stepwell.core import idempotency_key

        if self._template is None:
            return idempotency_key(self.run_id, self.key)
        text = self._template.replace("{run_id}", self.run_id).replace("{name}", self.name or "")
        text = text.replace("{operation_id}", self.operation_id)
        return text.replace("{key}", self.key)

    @property
    def cancelled(self) -> bool:
        """Whether the body should stop: its run is cancelled, or is held by somebody else now."""
        return self._port is not None and self._port.cancelled()

    def heartbeat(self, details: Any = None) -> None:
        """Say that the body is alive.

        ``details`` (anything that can be recorded) are in ``last_heartbeat`` of the next attempt; durable within 1 s.
        """
        if self._port is not None:
            self._port.heartbeat(details)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the body has come: ``done`` of ``total``, or ``done`` as a fraction from 0 to 1.

        Raises:
            ValidationError: ``done`` or ``total`` is no number of 0 or more, or ``message`` no text.
        """
        check_progress(done, total, message)
        if self._port is not None:
            self._port.progress(done, total, message)

    def check(self) -> None:
        """Raise if the body should stop, as ``cancelled`` says; else do nothing."""
        if self._port is not None:
            self._port.check()


StepContext.__module__ = "stepwell.durable"

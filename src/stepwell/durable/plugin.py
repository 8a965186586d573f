"""Plugins: objects whose hooks are told of the lives of runs and of their operations, and change nothing.

A plugin is given as an instance, a class or a factory, in ``plugins=[...]`` of `durable_execution`, `Engine` or
`stepwell.run`, or by name in the environment variable ``DURABLE_EXECUTION_PLUGINS``. docs/reference/plugins.md says
when each hook is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationSubType, OperationType
from stepwell.errors import ErrorObject, PluginLoadError

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "DurableInstrumentationPlugin",
    "DurableInstrumentationPluginFactory",
    "InvocationEndInfo",
    "InvocationInfo",
    "InvocationStartInfo",
    "OperationInfo",
    "PluginLoadError",
    "UserFunctionEndInfo",
    "UserFunctionOutcome",
    "UserFunctionStartInfo",
]


class UserFunctionOutcome(Enum):
    """How a function of the user's was left. INCOMPLETE: the run parked inside, or its life is over."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INCOMPLETE = "INCOMPLETE"


class OperationInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, as its committed records leave it. Frozen.

    Attributes:
        operation_id: equal in every life and run.
        operation_type: STEP, WAIT, CONTEXT, CALLBACK or CHAINED_INVOKE.
        sub_type: a member of `OperationSubType`, or text.
        name: None where it has none.
        parent_id: id of the operation around it; None at the top.
        start_time: when it was first on record.
        is_replayed: it was begun by an earlier life.
        status: STARTED, PENDING (a retry is planned), or how it ended.
        end_time: None while it is open.
        result: the recorded text of its value; None while there is none.
        error: how it failed, or what its last attempt failed with.
        attempt: attempts begun, from 1; 0 for what has no attempts.
    """

    operation_id: str
    operation_type: OperationType
    sub_type: OperationSubType | str | None = None
    name: str | None = None
    parent_id: str | None = None
    start_time: datetime | None = None
    is_replayed: bool = False
    status: OperationStatus = OperationStatus.STARTED
    end_time: datetime | None = None
    result: str | None = None
    error: ErrorObject | None = None
    attempt: int = 0


class InvocationInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One life of a run. Frozen.

    Attributes:
        request_id: id of the life.
        execution_arn: ARN of the run.
        is_first_invocation: no life was before it.
        execution_start_time: when the run was put on record.
        execution_input: the recorded text of its input.
        operations: what is on record, in order of first record; made when it is looked at.
        metadata: what the plugins of the run that started this one provided for it.
    """

    request_id: str
    execution_arn: str
    is_first_invocation: bool = True
    execution_start_time: datetime | None = None
    execution_input: str | None = None
    operations: Sequence[OperationInfo] = ()
    metadata: Mapping[str, str] = {}


class InvocationStartInfo(InvocationInfo, frozen=True, kw_only=True):
    """A life begins. ``updated_operations``: what came from outside since the last one, and what has become due."""

    updated_operations: tuple[OperationInfo, ...] = ()


class InvocationEndInfo(InvocationInfo, frozen=True, kw_only=True):
    """A life has ended.

    Attributes:
        status: PENDING: the run waits. SUCCEEDED or FAILED: it has ended (cancelled, timed out and blocked are FAILED).
            RETRY: this life was cut short, and another goes on.
        error: of a run that did not succeed.
        execution_result: the recorded text of its value.
    """

    status: InvocationStatus = InvocationStatus.PENDING
    error: ErrorObject | None = None
    execution_result: str | None = None


class UserFunctionStartInfo(OperationInfo, frozen=True, kw_only=True):
    """A function of the user's is about to be called: a step's body, a check, or the inside of a scope.

    The fields are those of its operation. ``is_replay_children``: the scope has finished; its value was too large to
    keep and is made again.
    """

    is_replay_children: bool = False


class UserFunctionEndInfo(UserFunctionStartInfo, frozen=True, kw_only=True):
    """It was left. ``error``: what it raised."""

    outcome: UserFunctionOutcome = UserFunctionOutcome.SUCCEEDED


class DurableInstrumentationPlugin:
    """Derive from it and write the hooks that you need; any object that has some of them will do, too.

    An exception in a hook is logged once for each plugin and hook, and changes nothing.
    """

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        """A life of a run begins."""

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        """A life of a run has ended: the run is parked, or over."""

    def on_operation_start(self, info: OperationInfo) -> None:
        """An operation has begun; with ``is_replayed``: code has come to one that an earlier life began."""

    def on_operation_change(self, info: OperationInfo) -> None:
        """An open operation has changed and stays open: a retry is planned, another attempt begins, a heartbeat."""

    def on_operation_end(self, info: OperationInfo) -> None:
        """An operation has ended. Called once a run, before the code behind the operation goes on."""

    def on_user_function_start(self, info: UserFunctionStartInfo) -> None:
        """Called on the thread of the function, before it."""

    def on_user_function_end(self, info: UserFunctionEndInfo) -> None:
        """Called on the thread of the function, after it."""

    def provide_propagation_metadata(self, info: OperationInfo) -> Mapping[str, str] | None:
        """What the run that ``info`` starts is to be told: its plugins find it in ``InvocationInfo.metadata``."""
        return None


class DurableInstrumentationPluginFactory(Protocol):
    """Makes a plugin for each life of a run."""

    def create_plugin(self, info: InvocationInfo) -> Any:
        """The plugin of this life."""
        ...

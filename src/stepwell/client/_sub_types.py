"""What the kinds of operations are called in the shapes of `stepwell.durable.lambda_service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.durable.lambda_service import OperationSubType

if TYPE_CHECKING:
    from stepwell.core import Kind

SUB_TYPES: dict[Kind, OperationSubType] = {
    "step": OperationSubType.STEP,
    "once": OperationSubType.STEP,
    "rollback": OperationSubType.STEP,
    "wait": OperationSubType.WAIT,
    "child": OperationSubType.RUN_IN_CHILD_CONTEXT,
    "with_retry": OperationSubType.RUN_IN_CHILD_CONTEXT,
    "map": OperationSubType.MAP,
    "map_item": OperationSubType.MAP_ITERATION,
    "parallel": OperationSubType.PARALLEL,
    "parallel_branch": OperationSubType.PARALLEL_BRANCH,
    "gather": OperationSubType.PARALLEL,
    "race": OperationSubType.PARALLEL,
    "wait_for_condition": OperationSubType.WAIT_FOR_CONDITION,
    "callback": OperationSubType.CALLBACK,
    "wait_for_callback": OperationSubType.WAIT_FOR_CALLBACK,
    "invoke": OperationSubType.CHAINED_INVOKE,
    "start": OperationSubType.CHAINED_INVOKE,
}

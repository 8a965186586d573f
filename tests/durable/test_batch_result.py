"""Results of map and parallel (durable.md §10, §14)."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import serde
from stepwell.core import verdict
from stepwell.durable import config, types
from stepwell.durable.concurrency import models
from stepwell.durable.concurrency.models import (
    BatchItem,
    BatchItemStatus,
    BatchResult,
    CompletionPolicy,
    CompletionReason,
    failed_item,
    started_item,
    succeeded_item,
)
from stepwell.durable.config import (
    CompletionConfig,
    CompletionOutcome,
    CompletionStatus,
    complete_batch,
    continue_batch,
)
from stepwell.errors import BatchCompletionError, ChildContextError, ErrorObject

ALL = CompletionReason.ALL_COMPLETED


def record_of(error: Exception) -> Any:
    try:
        raise error
    except Exception as caught:
        return serde.capture(caught)


def mixed() -> BatchResult[Any]:
    failed = failed_item(1, record_of(ValueError("bad", 3)), key="m[1]", run_id="r")
    return BatchResult([succeeded_item(0, {"x": (1,)}), failed, started_item(2), succeeded_item(3, None)], ALL)


def test_names() -> None:
    assert models.__all__ == sorted(models.__all__)
    assert models.BatchItemStatus is config.BatchItemStatus
    assert types.BatchResult is BatchResult
    assert models.BatchCompletionError is BatchCompletionError
    assert str(CompletionReason.ALL_COMPLETED) == "CompletionReason.ALL_COMPLETED"


def test_views() -> None:
    batch = mixed()
    assert [item.index for item in batch.succeeded()] == [0, 3]
    assert [item.index for item in batch.failed()] == [1]
    assert [item.index for item in batch.started()] == [2]
    assert (batch.success_count, batch.failure_count, batch.started_count, batch.total_count) == (2, 1, 1, 4)
    assert batch.get_results() == [{"x": (1,)}, None]
    assert [(error.type, error.message) for error in batch.get_errors()] == [("ValueError", "('bad', 3)")]
    assert batch.has_failure
    with pytest.raises(AttributeError):
        batch.all = []  # type: ignore[misc]


def test_status() -> None:
    ok, bad = succeeded_item(0, 1), failed_item(1, record_of(ValueError()))
    assert BatchResult([ok], ALL).status is BatchItemStatus.SUCCEEDED
    assert BatchResult([ok, bad], ALL).status is BatchItemStatus.FAILED
    assert BatchResult([bad], CompletionReason.CUSTOM_COMPLETION_SUCCEEDED).status is BatchItemStatus.SUCCEEDED
    assert BatchResult([ok], CompletionReason.CUSTOM_COMPLETION_FAILED).status is BatchItemStatus.FAILED
    assert BatchResult([], ALL).status is BatchItemStatus.SUCCEEDED


def test_throw_if_error_raises_the_first_as_its_own_class() -> None:
    for batch in (mixed(), serde.decode(serde.encode(mixed()))):
        with pytest.raises(ChildContextError) as caught:
            batch.throw_if_error()
        error = caught.value
        assert isinstance(error, ValueError)
        assert type(error).__name__ == "ChildContextError"
        assert error.args == ("bad", 3)
        assert (error.error_type, error.key, error.run_id) == ("ValueError", "m[1]", "r")
        assert type(error.__cause__) is ValueError
        assert error.stack_trace
        assert "record_of" in error.stack_trace[-1]


def test_throw_if_error_of_an_error_that_is_only_described() -> None:
    cause = ErrorObject("inner", "KeyError", None, None)
    item = BatchItem[Any](0, BatchItemStatus.FAILED, None, ErrorObject("m", "my.Error", "d", ["frame"], cause=cause))
    with pytest.raises(ChildContextError, match=r"^m$") as caught:
        BatchResult([item], ALL).throw_if_error()
    assert (caught.value.error_type, caught.value.data, caught.value.stack_trace) == ("my.Error", "d", ["frame"])
    with pytest.raises(ChildContextError):
        BatchResult([BatchItem[Any](0, BatchItemStatus.FAILED)], ALL).throw_if_error()


def test_throw_if_error_without_a_failed_branch() -> None:
    BatchResult([succeeded_item(0, 1), started_item(1)], ALL).throw_if_error()
    BatchResult([], CompletionReason.CUSTOM_COMPLETION_SUCCEEDED).throw_if_error()
    with pytest.raises(BatchCompletionError) as caught:
        BatchResult([succeeded_item(0, 1)], CompletionReason.CUSTOM_COMPLETION_FAILED).throw_if_error()
    assert caught.value.completion_reason is CompletionReason.CUSTOM_COMPLETION_FAILED


def test_the_dict_form() -> None:
    batch = mixed()
    form = batch.to_dict()
    assert form["completionReason"] == "ALL_COMPLETED"
    assert form["all"][0] == {"index": 0, "status": "SUCCEEDED", "result": {"x": (1,)}, "error": None}
    assert form["all"][1]["error"]["ErrorType"] == "ValueError"
    assert form["all"][2] == {"index": 2, "status": "STARTED", "result": None, "error": None}
    assert BatchResult.from_dict(form) == batch
    assert BatchResult.from_dict({"all": [{"index": 0, "status": "SUCCEEDED"}]}).completion_reason is ALL
    several: list[dict[str, object]] = [{"index": 0, "status": "FAILED"}, {"index": 1, "status": "STARTED"}]
    assert BatchResult.from_dict({"all": several}).completion_reason is CompletionReason.FAILURE_TOLERANCE_EXCEEDED
    tolerant = BatchResult.from_dict({"all": several}, CompletionConfig.all_completed())
    assert tolerant.completion_reason is ALL


def test_from_items() -> None:
    items: list[BatchItem[Any]] = [succeeded_item(0, 1), started_item(1)]
    assert BatchResult.from_items(items).completion_reason is ALL
    first = BatchResult.from_items(items, CompletionConfig.first_successful())
    assert first.completion_reason is CompletionReason.MIN_SUCCESSFUL_REACHED


def test_it_is_a_value() -> None:
    batch = mixed()
    again = serde.decode(serde.encode({"b": batch}))["b"]
    assert again == batch
    assert again.all[1].record == batch.all[1].record
    assert again.get_results() == batch.get_results()
    described = BatchResult.from_dict(batch.to_dict())
    assert serde.decode(serde.encode(described)) == described
    assert pickle.loads(pickle.dumps(batch)) == copy.deepcopy(batch) == batch
    assert (
        repr(batch.all[2]) == "BatchItem(index=2, status=<BatchItemStatus.STARTED: 'STARTED'>, result=None, error=None)"
    )
    assert hash(batch.all[0]) == hash(succeeded_item(0, {"x": (1,)}))
    assert batch.all[0] != 3


@given(
    st.integers(1, 20), st.integers(0, 20), st.integers(0, 20), st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5), st.none() | st.floats(0, 100),
)  # fmt: skip
def test_the_policy_says_what_the_coordinator_says(
    total: int, succeeded: int, failed: int, least: int | None, count: int | None, percentage: float | None
) -> None:
    succeeded = min(succeeded, total)
    failed = min(failed, total - succeeded)
    chosen = CompletionConfig(least, count, percentage)
    policy = CompletionPolicy.from_config(total, chosen)
    expected = verdict(chosen.to_core(), succeeded=succeeded, failed=failed, total=total)
    found = policy.verdict(succeeded, failed)
    assert (None if found is None else found.value) == expected
    assert policy.is_complete(succeeded, failed) == (expected is not None)
    assert policy.reason(succeeded, failed).value == (expected or "ALL_COMPLETED")


def test_should_complete_alone_decides_the_early_end() -> None:
    seen: list[CompletionStatus] = []

    def quorum(status: CompletionStatus) -> config.CompletionDecision:
        seen.append(status)
        if status.failure_count > 1:
            return complete_batch(CompletionOutcome.FAILED)
        return complete_batch() if status.success_count > 1 else continue_batch()

    policy = CompletionPolicy.from_config(5, CompletionConfig(tolerated_failure_count=0, should_complete=quorum))
    assert policy.verdict(1, 1) is None
    assert policy.verdict(2, 1) is CompletionReason.CUSTOM_COMPLETION_SUCCEEDED
    assert policy.verdict(1, 2) is CompletionReason.CUSTOM_COMPLETION_FAILED
    assert (seen[0].completed_count, seen[0].total_count) == (2, 5)
    assert CompletionPolicy.from_config(2, None).verdict(0, 1) is CompletionReason.FAILURE_TOLERANCE_EXCEEDED

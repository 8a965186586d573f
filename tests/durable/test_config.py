"""Durations and the settings of operations (durable.md §5.1, §6, §10)."""

import copy
import math
import pickle
import subprocess
import sys
from datetime import timedelta
from enum import Enum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core import BranchEnded, Completion
from stepwell.durable import config
from stepwell.durable._completion import completion_status
from stepwell.durable._duration import to_duration, to_seconds, to_us
from stepwell.durable.config import (
    BatchItemStatus,
    ChildConfig,
    CompletionConfig,
    CompletionDecision,
    CompletionItemStatus,
    CompletionOutcome,
    CompletionStatus,
    Duration,
    JitterStrategy,
    MapConfig,
    NestingType,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    StepSemantics,
    complete_batch,
    continue_batch,
)
from stepwell.durable.lambda_service import OperationSubType
from stepwell.durable.retries import Retry, RetryStrategyConfig, create_retry_strategy
from stepwell.durable.serdes import JsonSerDes
from stepwell.errors import UsageError, ValidationError


def test_all_is_sorted_and_every_public_object_is_at_home() -> None:
    assert config.__all__ == sorted(config.__all__)
    assert {getattr(config, name).__module__ for name in config.__all__} == {"stepwell.durable.config"}


# Duration


def test_duration_reads_every_unit() -> None:
    assert Duration(90) == Duration.from_seconds(90) == Duration.from_minutes(1.5)
    assert Duration.from_hours(2) == Duration(7200)
    assert Duration.from_days(1) == Duration(86_400)
    assert Duration(1, milliseconds=250) == Duration(1.25)
    assert Duration() == Duration(0)
    assert Duration(milliseconds=1500).seconds == 1


def test_to_seconds_is_an_int_when_whole() -> None:
    assert Duration(2.0).to_seconds() == 2
    assert type(Duration(2.0).to_seconds()) is int
    assert Duration(milliseconds=2500).to_seconds() == 2.5


@pytest.mark.parametrize(
    "bad",
    [
        -1,
        -0.5,
        math.nan,
        math.inf,
        -math.inf,
        1e300,
        10**400,
        True,
        "5",
        None,
        timedelta(seconds=-1),
        8_000 * 366 * 86_400,
    ],
)
def test_what_is_no_span_of_time(bad: object) -> None:
    with pytest.raises(ValidationError):
        to_us(bad)  # type: ignore[arg-type]


def test_a_validation_error_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="negative"):
        Duration(-1)
    with pytest.raises(ValidationError):
        Duration(milliseconds=-1)


def test_duration_is_frozen_hashed_copied_and_printed() -> None:
    duration = Duration(1.5)
    with pytest.raises(AttributeError):
        duration.seconds = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del duration._us
    assert pickle.loads(pickle.dumps(duration)) == copy.deepcopy(duration) == duration
    assert len({Duration(1), Duration(milliseconds=1000)}) == 1
    assert repr(duration) == "Duration(seconds=1.5)"
    assert duration != 1.5
    with pytest.raises(TypeError):
        _ = duration < 2  # type: ignore[operator]


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_durations_are_ordered_as_their_microseconds(a: float, b: float) -> None:
    x, y = Duration(a), Duration(b)
    p, q = to_us(x), to_us(y)
    assert (x < y, x <= y, x > y, x >= y, x == y) == (p < q, p <= q, p > q, p >= q, p == q)


@given(st.timedeltas(timedelta(0), timedelta(days=40_000)))
def test_all_four_ways_to_write_a_span_agree(span: timedelta) -> None:
    us = span // timedelta(microseconds=1)
    assert to_us(span) == us
    assert to_us(to_duration(span)) == us
    assert to_us(to_seconds(span)) == us
    assert abs(to_seconds(span) - span.total_seconds()) < 1e-6
    if us % 1_000_000 == 0:
        assert to_us(us // 1_000_000) == us


# StepConfig


def test_the_first_three_of_a_step_config_are_positional() -> None:
    strategy, serdes = create_retry_strategy(), JsonSerDes[int]()
    made = StepConfig(strategy, StepSemantics.AT_MOST_ONCE_PER_RETRY, serdes)
    assert (made.retry_strategy, made.step_semantics, made.serdes) == (
        strategy,
        StepSemantics.AT_MOST_ONCE_PER_RETRY,
        serdes,
    )
    with pytest.raises(TypeError):
        StepConfig(strategy, StepSemantics.AT_MOST_ONCE_PER_RETRY, serdes, "sub")  # type: ignore[call-arg]


def test_defaults_of_a_step_config() -> None:
    made = StepConfig()
    assert made.retry_strategy is None
    assert made.step_semantics is StepSemantics.AT_LEAST_ONCE_PER_RETRY
    assert made.transactional is False
    assert (made.timeout, made.executor, made.undo, made.weight, made.sub_type) == (None, None, None, None, None)
    with pytest.raises(AttributeError):
        made.weight = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "settings",
    [
        {"sub_type": ""},
        {"sub_type": "x" * 33},
        {"sub_type": "two words"},
        {"sub_type": "line\n"},
        {"timeout": 0},
        {"timeout": -1},
        {"heartbeat_timeout": "1m"},
        {"weight": -1},
        {"weight": math.nan},
        {"weight": True},
        {"retry_strategy": 3},
        {"undo": "no"},
        {"serdes": JsonSerDes},
        {"serdes": object()},
        {"step_semantics": "AT_MOST_ONCE_PER_RETRY"},
        {"executor": "moon"},
        {"transactional": 3},
        {"idempotency_key": ""},
    ],
)
def test_a_step_config_is_checked_when_it_is_made(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings)) if "timeout" not in next(iter(settings)) else "."):
        StepConfig(**settings)  # type: ignore[arg-type]


def test_a_config_where_a_strategy_belongs_gets_a_hint() -> None:
    with pytest.raises(ValidationError, match=r"create_retry_strategy\(config\)"):
        StepConfig(RetryStrategyConfig())  # type: ignore[arg-type]


def test_what_a_step_config_takes() -> None:
    for sub_type in ("A", "a-b_9", "x" * 32, OperationSubType.STEP):
        assert StepConfig(sub_type=sub_type).sub_type == sub_type
    StepConfig(Retry(), timeout=Duration(1), heartbeat_timeout=timedelta(seconds=2), weight=0, executor="thread")
    StepConfig(transactional="sqlite:///x.db", undo=print, undo_retry=Retry(), idempotency_key="order-{run_id}")


# The others


def test_defaults_of_map_and_parallel_differ() -> None:
    assert MapConfig().completion_config == CompletionConfig()
    assert ParallelConfig().completion_config == CompletionConfig.all_successful()
    assert MapConfig().nesting_type is ParallelConfig().nesting_type is NestingType.NESTED
    assert MapConfig[int](3, item_key=lambda item, index: item).item_key is not None
    with pytest.raises(TypeError):
        MapConfig(None, CompletionConfig(), None, None, None, NestingType.FLAT, None, str)  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("kind", [MapConfig, ParallelConfig])
@pytest.mark.parametrize("most", [0, -1, True, 1.5])
def test_max_concurrency_is_at_least_one(kind: type[MapConfig] | type[ParallelConfig], most: int) -> None:
    with pytest.raises(ValidationError, match="max_concurrency"):
        kind(most)


def test_child_config_and_branch() -> None:
    assert ChildConfig[int](sub_type="Mine").is_virtual is False
    with pytest.raises(ValidationError):
        ChildConfig(sub_type="not mine")
    branch = ParallelBranch(lambda ctx: ctx + 1, "plus")
    assert branch(1) == 2
    with pytest.raises(ValidationError):
        ParallelBranch(3)  # type: ignore[arg-type]


def test_kinds_of_enums() -> None:
    for plain in (BatchItemStatus, CompletionOutcome, NestingType, StepSemantics):
        assert issubclass(plain, Enum)
        assert not issubclass(plain, str)
        assert all(member.name == member.value for member in plain)
    assert issubclass(JitterStrategy, StrEnum)
    assert str(BatchItemStatus.SUCCEEDED) == "BatchItemStatus.SUCCEEDED"
    assert list(JitterStrategy) == ["NONE", "FULL", "HALF"]


# Completion


@pytest.mark.parametrize(
    "settings",
    [
        {"min_successful": -1},
        {"min_successful": 1.5},
        {"tolerated_failure_count": -1},
        {"tolerated_failure_percentage": -0.1},
        {"tolerated_failure_percentage": 100.1},
        {"tolerated_failure_percentage": math.nan},
        {"should_complete": 3},
    ],
)
def test_completion_is_checked_when_it_is_made(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        CompletionConfig(**settings)  # type: ignore[arg-type]


def test_completion_against_the_number_of_branches() -> None:
    CompletionConfig(min_successful=3).validate(3)
    with pytest.raises(ValidationError, match="only 2 branches"):
        CompletionConfig(min_successful=3).validate(2)


def test_completion_shorthands_and_the_core() -> None:
    assert CompletionConfig.first_successful().to_core() == Completion(min_successful=1)
    assert CompletionConfig.all_completed().to_core() == Completion(tolerated_failure_percentage=100)
    assert CompletionConfig.all_successful().to_core() == Completion(None, 0, 0)
    assert CompletionConfig(should_complete=lambda status: continue_batch()).to_core() == Completion(custom=True)


def test_what_should_complete_says() -> None:
    status = CompletionStatus(1, 0, 1, 3)
    answers = {
        "": continue_batch(),
        "CUSTOM_COMPLETION_SUCCEEDED": complete_batch(),
        "CUSTOM_COMPLETION_FAILED": complete_batch(CompletionOutcome.FAILED),
    }
    for reason, answer in answers.items():
        assert CompletionConfig(should_complete=lambda status, answer=answer: answer).ask(status) == reason  # type: ignore[misc]
    assert CompletionConfig().ask(status) == ""
    with pytest.raises(ValidationError, match="bool"):
        CompletionConfig(should_complete=lambda status: True).ask(status)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValidationError):
        complete_batch("SUCCEEDED")  # type: ignore[arg-type]
    assert continue_batch() == CompletionDecision(complete=False)


def test_the_status_of_a_batch_shows_every_branch_asked_for() -> None:
    ended = {0: BranchEnded(0, True, None, 1), 2: BranchEnded(2, False, None, None)}
    status = completion_status(5, ended, {0, 1, 2})
    assert (status.success_count, status.failure_count, status.completed_count, status.total_count) == (1, 1, 2, 5)
    expected = (BatchItemStatus.SUCCEEDED, BatchItemStatus.STARTED, BatchItemStatus.FAILED, None, None)
    assert status.items == tuple(CompletionItemStatus(index, state) for index, state in enumerate(expected))
    assert [item.status for item in status.items] == list(expected)
    assert len(status.items) == 5
    assert status.items[1:3] == status.items[1:][:2]
    assert completion_status(5, ended, {0, 1, 2}, succeeded=1) == status


def test_settings_are_light_to_import() -> None:
    heavy = ("asyncio", "sqlite3", "logging", "pydantic", "random", "stepwell.core", "stepwell.serde")
    code = f"import sys, stepwell.durable.config, stepwell.durable.retries; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

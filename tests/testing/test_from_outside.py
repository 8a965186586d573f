"""What comes from outside of a run under test: answers, signals, other functions, time."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import Duration, UsageError, durable_execution
from stepwell.durable.config import CallbackConfig, InvokeConfig, WaitForCallbackConfig
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus
from stepwell.errors import ErrorObject
from stepwell.testing import DurableFunctionTestRunner, DurableRunner
from stepwell.testing.runner import CallbackOperation, DurableFunctionsTestError, InvokeOperation


@durable_execution
def asks(event: Any, context: Any) -> Any:
    sent: list[str] = []
    answer = context.wait_for_callback(lambda callback_id, _: sent.append(callback_id), name="approval")
    context.wait(60)
    return answer


@durable_execution
async def asks_async(event: Any, context: Any) -> Any:
    answer = await context.wait_for_callback(lambda callback_id, _: None, name="approval")
    await context.wait(60)
    return answer


both = pytest.mark.parametrize("handler", [asks, asks_async], ids=["sync", "async"])


@both
def test_a_callback_is_waited_for_and_answered(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        handle = runner.start()
        callback_id = runner.wait_for_callback(handle, "approval")
        assert runner.wait_for_callback(handle) == callback_id
        runner.heartbeat(callback_id)
        runner.complete(callback_id, {"yes": True})
        result = runner.result(handle)
        with pytest.raises(DurableFunctionsTestError, match="callback 'approval' is completed already"):
            runner.wait_for_callback(handle, "approval")
        with pytest.raises(DurableFunctionsTestError, match=r"is succeeded and waits for no callback$"):
            runner.wait_for_callback(handle)
        with pytest.raises(UsageError, match="already completed"):
            runner.complete(callback_id, "again")
    assert result.result == '{"yes":true}'
    callback = result.get_callback("approval create callback id")
    assert (callback.callback_id, callback.result) == (callback_id, '{"yes":true}')
    assert callback.status is InvocationStatus.SUCCEEDED


@both
@pytest.mark.parametrize("error", ["no", ValueError("no"), ErrorObject("no", "Denied", None, None)], ids=repr)
def test_a_callback_is_refused(handler: Any, error: Any) -> None:
    with DurableRunner(handler) as runner:
        handle = runner.start()
        runner.fail(runner.wait_for_callback(handle), error)
        result = runner.result(handle)
    assert result.status is InvocationStatus.FAILED
    assert "CallbackExternalError: no" in str(result.error)


def test_nobody_waits_for_a_callback_that_is_not_there() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.create_callback("one").result()

    with DurableRunner(handler) as runner:
        handle = runner.start()
        with pytest.raises(TimeoutError, match="waits for no callback called 'other'"):
            runner.wait_for_callback(handle, "other", timeout=0.05)
        assert handle.status == "waiting"
        runner.complete(runner.wait_for_callback(handle, "one"))
        assert runner.result(handle).result is None


def test_the_deadlines_of_the_outside_are_passed_by_advance_alone() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        callback = context.create_callback("slow", CallbackConfig(timeout=Duration(100), heartbeat_timeout=40))
        context.wait(30, name="own")
        return callback.result()

    with DurableRunner(handler) as runner:
        handle = runner.start()
        callback_id = runner.wait_for_callback(handle)
        runner.advance(5)
        assert handle.status == "waiting"
        runner.heartbeat(callback_id)
        runner.advance(39)
        assert handle.status == "waiting"
        runner.advance(2)
        assert handle.status == "failed"
        result = runner.result(handle)
    assert "CallbackTimeoutError" in str(result.error)
    assert result.get_callback("slow").status is InvocationStatus.FAILED


def test_a_run_that_waits_for_the_outside_alone_is_not_jumped_over() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.wait_signal("go", timeout=100)

    with DurableRunner(handler) as runner:
        stuck = runner.run(timeout=0.1)
        assert stuck.execution_status is OperationStatus.TIMED_OUT
        assert "it is waiting" in str(stuck.error)
        handle = runner.start({"n": 1})
        runner.signal(handle, "go", {"n": 2})
        assert runner.result(handle).result == {"n": 2}
        late = runner.start({"n": 3})
        runner.advance(101)
        assert "TimeoutError" in str(runner.result(late).error)


@durable_execution
def doubles(event: Any, context: Any) -> Any:
    context.wait(600)
    return context.step(lambda: event["n"] * 2, name="double")


@durable_execution
def invokes(event: Any, context: Any) -> Any:
    durable = context.invoke("doubler", {"n": event["n"]}, name="durable", config=InvokeConfig(timeout=10_000))
    return [durable, context.invoke("plain", {"n": durable}, name="plain")]


def test_invoked_functions_are_registered_with_the_runner() -> None:
    runner = DurableRunner(invokes).register("doubler", doubles).register("plain", lambda event: event["n"] + 1)
    with runner:
        runner.crash_at("double", "before")
        runner.crash_at("durable", "before")
        result = runner.run({"n": 5})
    assert result.result == [10, 11]
    assert result.get_invoke("durable").result == 10
    assert result.get_invoke("plain").status is InvocationStatus.SUCCEEDED
    with DurableRunner(invokes) as lonely:
        assert "is not registered" in str(lonely.run({"n": 1}).error)


def test_an_invoked_function_that_does_not_replay_is_found() -> None:
    count = iter(range(100))

    @durable_execution
    def shifty(event: Any, context: Any) -> Any:
        return next(count)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.invoke("shifty", None)

    runner = DurableRunner(handler).register("shifty", shifty)
    with runner, pytest.raises(DurableFunctionsTestError, match=r"run c-.* does not replay"):
        runner.run()


# -- the SDK's shapes


def test_the_other_runner_answers_by_arn() -> None:
    with DurableFunctionTestRunner(asks) as runner:
        arn = runner.run_async()
        callback_id = runner.wait_for_callback(arn, name="approval")
        runner.send_callback_heartbeat(callback_id)
        runner.send_callback_success(callback_id, b'{"ok": 1}')
        result = runner.wait_for_result(arn)
        with pytest.raises(DurableFunctionsTestError, match="completed already"):
            runner.wait_for_callback(arn, name="approval create callback id")
    assert result.result == '"{\\"ok\\": 1}"'
    callback = result.get_context("approval").get_callback("approval create callback id")
    assert isinstance(callback, CallbackOperation)
    assert (callback.callback_id, callback.result) == (callback_id, '{"ok": 1}')
    assert callback.status is OperationStatus.SUCCEEDED


def test_an_uncaught_refusal_has_a_message_and_a_type() -> None:
    with DurableFunctionTestRunner(asks) as runner:
        arn = runner.run_async()
        runner.send_callback_failure(runner.wait_for_callback(arn), ErrorObject("no", "Denied", None, None))
        result = runner.wait_for_result(arn)
    assert result.error is not None
    assert set(result.error.to_dict()) == {"ErrorMessage", "ErrorType"}
    assert result.get_callback("approval create callback id").status is OperationStatus.FAILED


def test_the_other_runner_registers_functions() -> None:
    with DurableFunctionTestRunner(invokes) as runner:
        runner.register_durable_function("doubler", doubles, execution_timeout=60, retention_period_days=7)
        result = runner.register_function("plain", lambda event: event["n"] + 1).run({"n": 5})
    assert result.result == "[10,11]"
    invoked = result.get_invoke("durable")
    assert isinstance(invoked, InvokeOperation)
    assert (invoked.result, invoked.status) == ("10", OperationStatus.SUCCEEDED)


def test_the_tenant_reaches_the_function() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.lambda_context.tenant_id

    with DurableFunctionTestRunner(handler) as runner:
        assert runner.run(tenant_id="acme").result == '"acme"'
        assert runner.run().result == "null"


def test_the_settings_of_a_callback_hold() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config = WaitForCallbackConfig(timeout=50)
        return context.wait_for_callback(lambda callback_id, _: None, name="ask", config=config)

    with DurableRunner(handler) as runner:
        handle = runner.start()
        runner.wait_for_callback(handle, "ask")
        runner.advance(51)
        assert "CallbackTimeoutError" in str(runner.result(handle).error)

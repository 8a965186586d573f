"""The plugin as a user's pytest meets it: in a process of its own, loaded by its entry point, warnings are errors."""

from __future__ import annotations

import pytest

HEAD = """\
import pytest
from stepwell import durable_execution

@durable_execution
def handler(event, context):
    context.wait(3600)
    return context.step(lambda: event.get("n", 0) + 1, name="add")
"""
STRICT = ("-W", "error", "--strict-markers", "--strict-config", "-p", "no:randomly")


@pytest.fixture(autouse=True)
def settings(pytester: pytest.Pytester) -> None:
    """Of the user's own project: nothing of what lies above its folder counts."""
    pytester.makeini("[pytest]")


def outcome(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + test)
    return pytester.runpytest_subprocess(*STRICT, *options)


def test_a_marked_test_runs_its_function(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
@pytest.mark.durable_execution(handler=handler, lambda_function_name="adder")
def test_it(durable_runner):
    result = durable_runner.run({"n": 1})
    assert result.result == 2
    with durable_runner:
        assert durable_runner.run({"n": 2}).result == 3
    with durable_runner:
        assert durable_runner.run({"n": 2}).get_step("add").result == 3
    assert result.get_step("add").result == 2
""",
    )
    result.assert_outcomes(passed=1)


def test_without_the_marker_the_fixture_shows_it(pytester: pytest.Pytester) -> None:
    result = outcome(pytester, "\ndef test_it(durable_runner): ...\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*durable_runner does not know*", "*@pytest.mark.durable_execution(handler=handler*"])


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("'handler'", "*named arguments only*"),
        ("handler=handler, skiptime=False", "*no argument 'skiptime' (handler, lambda_function_name*"),
        ("lambda_function_name='x'", "*needs handler=*"),
    ],
)
def test_wrong_arguments_of_the_marker_are_told(pytester: pytest.Pytester, arguments: str, told: str) -> None:
    marked = f"\n@pytest.mark.durable_execution({arguments})\ndef test_it(durable_runner): ...\n"
    result = outcome(pytester, marked)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([told])


def test_a_conftest_with_its_own_fixture_wins(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef durable_runner():\n    return 'mine'\n")
    result = outcome(pytester, "\ndef test_it(durable_runner):\n    assert durable_runner == 'mine'\n")
    result.assert_outcomes(passed=1)


def test_the_marker_is_listed(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers", *STRICT)
    result.stdout.fnmatch_lines(["@pytest.mark.durable_execution(handler, lambda_function_name=None, skip_time=True*"])


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    result = outcome(pytester, "\ndef test_it(durable_runner): ...\n", "-p", "no:stepwell")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'durable_runner' not found*"])


def test_at_its_start_pytest_pays_for_no_engine(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import sys

def test_it():
    loaded = [name for name in sys.modules if name.startswith("stepwell")]
    assert sorted(loaded) == ["stepwell", "stepwell.testing", "stepwell.testing.pytest_plugin"]
"""
    )
    pytester.runpytest_subprocess(*STRICT).assert_outcomes(passed=1)


def test_the_kit_needs_no_pytest(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(
        app="""
import sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None  # importing one of them fails
from stepwell import durable_execution
from stepwell.testing import *

@durable_execution
def handler(event, context):
    return context.step(lambda: 8)

assert DurableRunner(handler).run().result == 8
with DurableFunctionTestRunner(handler) as runner:
    assert runner.run().result == "8"
"""
    )
    result = pytester.runpython(script)
    assert result.ret == 0, result.stderr.str()


def test_code_that_does_not_replay_fails_the_test(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
lives = []

@durable_execution
def shifty(event, context):
    lives.append(1)
    return len(lives)

@pytest.mark.durable_execution(handler=shifty)
def test_it(durable_runner):
    durable_runner.run()

@pytest.mark.durable_execution(handler=shifty)
def test_started(durable_runner):
    durable_runner.start({"n": 1}).wait(10)
""",
    )
    result.assert_outcomes(failed=1, passed=1, errors=1)
    result.stdout.fnmatch_lines(["*does not replay: its result was 1, replayed it is 2*"])

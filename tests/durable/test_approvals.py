"""Approvals: questions to people, with forms whose answers are checked where they are given (durable.md §7)."""

from __future__ import annotations

import dataclasses
import json
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pytest

from stepwell import Engine, UsageError
from stepwell.durable import ApprovalRejected, CallbackExternalError, CallbackTimeoutError, ValidationError
from stepwell.durable._form import check_answer
from stepwell.errors import BadArguments, RunFailed
from stepwell.testing import DurableRunner
from tests.durable.kit import giver, records
from tests.durable.twins import Way, at_every_append, coloured, journal, violations

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell import RunHandle

SOON = 30


class Budget(pydantic.BaseModel):
    amount: int
    currency: Literal["EUR", "USD"] = "EUR"
    note: str | None = None


@dataclasses.dataclass
class Visit:
    city: str
    days: int = 1


FIELDS = {"amount": int, "why": str}


async def asks(event: Any, context: Any) -> Any:
    answer = await context.approve("Spend it?", form=Budget, who=["ann", "ben"], timeout=SOON, name="budget")
    return [type(answer).__name__, answer.amount, answer.currency, await context.step(giver("after"), name="after")]


async def asks_plainly(event: Any, context: Any) -> Any:
    return await context.approve("Really?", timeout=SOON, name="really")


async def asks_of(event: Any, context: Any) -> Any:
    form = {"model": Budget, "dataclass": Visit, "dict": FIELDS}[event["form"]]
    answer = await context.approve("What?", form=form, timeout=SOON, name="what")
    return [type(answer).__name__, answer if isinstance(answer, dict) else vars(answer)]


# -- answers


def test_a_model_comes_back(way: Way) -> None:
    handle = way.start(asks)
    handle.approve("budget", {"amount": 7})
    assert handle.result(20) == ["Budget", 7, "EUR", "after"]
    assert violations(way.engine, "r") == []


@pytest.mark.parametrize(
    "form, answer, value",
    [
        ("model", {"amount": "7", "currency": "USD"}, ["Budget", {"amount": 7, "currency": "USD", "note": None}]),
        ("dataclass", {"city": "Graz"}, ["Visit", {"city": "Graz", "days": 1}]),
        ("dict", {"amount": 7, "why": "so"}, ["dict", {"amount": 7, "why": "so"}]),
    ],
)
def test_each_kind_of_form(way: Way, form: str, answer: Any, value: Any) -> None:
    handle = way.start(asks_of, {"form": form})
    handle.approve("what", answer)
    assert handle.result(20) == value


@pytest.mark.parametrize("given, value", [((), True), (({"a": 1},), {"a": 1}), ((None,), None), ((False,), False)])
def test_without_a_form_any_answer_will_do(way: Way, given: Any, value: Any) -> None:
    handle = way.start(asks_plainly)
    handle.approve("really", *given)
    assert handle.result(20) == value


def test_the_only_one_needs_no_name_and_a_key_is_one(way: Way) -> None:
    async def two(event: Any, context: Any) -> Any:
        async def ask(child: Any, item: Any, *_: Any) -> Any:
            return await child.approve("Really?", timeout=SOON, name=item)

        found = await context.map(["a", "b"], ask, "m")
        found.throw_if_error()
        return found.get_results()

    handle = way.start(two)
    way.until(lambda: len(handle.callbacks()) == 2)
    both = "(a, b|b, a)"  # they are listed as they were asked, and two threads ask in any order
    with pytest.raises(UsageError, match=rf"name the approval of run r; open: {both}$"):
        handle.approve()
    with pytest.raises(UsageError, match=rf"run r has no open approval called 'c'; open: {both}$"):
        handle.approve("c")
    handle.approve("m[1]/b", "second")
    way.until(lambda: len(handle.callbacks()) == 1)
    handle.approve(value="first")
    assert handle.result(20) == ["first", "second"]
    with pytest.raises(UsageError, match="run r waits for no approval"):
        handle.approve()


def test_who_and_when_is_on_record(way: Way) -> None:
    handle = way.start(asks)
    handle.approve("budget", {"amount": 7})
    handle.wait(20)
    ended = next(r for r in handle.history() if r["record"] == "CallbackSucceeded")
    assert ended["by"]
    assert ended["at"]


def test_it_is_a_callback_with_a_form(way: Way) -> None:
    handle = way.start(asks)
    (found,) = handle.callbacks()
    assert (found["name"], found["form"]["title"], found["form"]["who"]) == ("budget", "Spend it?", ["ann", "ben"])
    assert found["form"]["model"] == "tests.durable.test_approvals:Budget"
    assert found["form"]["schema"]["required"] == ["amount"]
    created = next(r for r in handle.history() if r["record"] == "CallbackCreated")
    assert created["sub_type"] == "Approval"
    way.engine.send_callback_success(found["id"], '{"amount": 3}')
    assert handle.result(20)[:2] == ["Budget", 3]


def test_one_asked_may_be_a_text(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await context.approve("Really?", who="ann", timeout=SOON)

    handle = way.start(body)
    assert handle.callbacks()[0]["form"]["who"] == ["ann"]
    handle.approve()
    assert handle.result(20) is True


# -- answers that do not fit


def refused(call: Any) -> list[str]:
    with pytest.raises(BadArguments) as error:
        call()
    return list(error.value.problems)


@pytest.mark.parametrize("by", ["handle", "engine"])
def test_all_problems_are_listed_and_it_stays_open(way: Way, by: str) -> None:
    handle = way.start(asks)
    (found,) = handle.callbacks()
    bad = {"amount": "much", "currency": "GBP"}

    def send() -> None:
        if by == "handle":
            handle.approve("budget", bad)
        else:
            way.engine.send_callback_success(found["id"], json.dumps(bad))

    problems = refused(send)
    assert len(problems) == 2
    assert problems[0].startswith("amount: ")
    assert problems[1].startswith("currency: ")
    assert [c["id"] for c in handle.callbacks()] == [found["id"]]
    assert not [r for r in handle.history() if r["record"].startswith("CallbackS")]
    handle.approve("budget", {"amount": 1})
    assert handle.result(20)[1] == 1


@pytest.mark.parametrize("text", ["no json", "", "[1", "7", "true", "null"])
def test_an_answer_that_is_no_form_at_all(way: Way, text: str) -> None:
    handle = way.start(asks)
    (found,) = handle.callbacks()
    with pytest.raises(BadArguments):
        way.engine.send_callback_success(found["id"], text)
    assert handle.callbacks() != []
    handle.approve("budget", {"amount": 1})
    handle.wait(20)


def test_a_value_that_is_no_json(way: Way) -> None:
    handle = way.start(asks_plainly)
    with pytest.raises(BadArguments, match="an approval's answer is plain JSON"):
        handle.approve("really", Decimal)
    assert handle.callbacks() != []
    handle.approve("really")
    handle.wait(20)


@pytest.mark.parametrize("form", [7, int, [("a", int)], {"not a name": int}, {1: int}, Budget(amount=1)])
def test_what_is_no_form(way: Way, form: Any) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.approve("Really?", form=form)
        except ValidationError:
            return "refused"
        return "never"

    assert way.run(body) == "refused"
    assert [r["record"] for r in records(way.engine, "r")] == ["RunStarted", "RunSucceeded"]


def test_a_question_needs_a_title(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.approve("")
        except ValidationError as error:
            return str(error)
        return "never"

    assert way.run(body) == "approve needs a title: what is asked"


# -- no


def test_a_rejection(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.approve("Really?", form=Budget, timeout=SOON, name="ask")
        except ApprovalRejected as error:
            await context.wait(0.01)
            return [type(error).__name__, str(error), isinstance(error, CallbackExternalError)]
        return "never"

    handle = way.start(body)
    handle.approve("ask", reject="too much")
    assert handle.result(20) == ["ApprovalRejected", "too much", True]


def test_a_rejection_nobody_catches_fails_the_run(way: Way) -> None:
    handle = way.start(asks)
    handle.approve(reject="too much")
    with pytest.raises(RunFailed, match="too much") as failed:
        handle.result(20)
    assert isinstance(failed.value, ApprovalRejected)


def test_a_failure_of_a_callback_is_no_rejection(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask")
        try:
            await callback.result()
        except CallbackExternalError as error:
            return isinstance(error, ApprovalRejected)
        return "never"

    handle = way.start(body)
    way.engine.send_callback_failure(way.callback(handle), "no")
    assert handle.result(20) is False


def test_nobody_answers(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.approve("Really?", timeout=3600)
        except CallbackTimeoutError as error:
            return error.error_type
        return "never"

    with DurableRunner(coloured(body, colour)) as runner:
        handle = runner.start()
        runner.advance(3599)
        assert handle.status == "waiting"
        runner.advance(2)
        assert runner.result(handle).result == "Callback.Timeout"


# -- where the class is not at hand


def test_without_the_class_the_recorded_schema_counts() -> None:
    form = json.dumps({
        "title": "t", "who": [], "model": "gone:Model",
        "schema": {
            "properties": {"n": {"type": "integer"}, "s": {"type": "string"}, "b": {"type": "boolean"}, "any": {}},
            "required": ["n", "s"],
        },
    })  # fmt: skip

    def check(value: Any) -> None:
        check_answer(form, json.dumps(value), lambda name: None)

    check({"n": 1, "s": "x", "b": True, "any": [1], "more": 1})
    assert refused(lambda: check({"b": 1})) == ["n: Field required", "s: Field required", "b: must be of type boolean"]
    assert refused(lambda: check({"n": True, "s": 1})) == ["n: must be of type integer", "s: must be of type string"]
    assert refused(lambda: check([1])) == ["answer: must be a JSON object"]


def test_a_process_without_the_class_checks_by_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "asking_app.py"
    module.write_text(
        "import pydantic\n"
        "from stepwell import durable_execution\n"
        "class Form(pydantic.BaseModel):\n"
        "    amount: int\n"
        "@durable_execution(name='asking')\n"
        "def asking(event, context):\n"
        "    return context.approve('Spend it?', form=Form, name='ask').amount\n"
    )
    url = f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"
    monkeypatch.syspath_prepend(str(tmp_path))
    import asking_app  # type: ignore[import-not-found]

    first = Engine(url, hold=0)
    handle = first.start_run(asking_app.asking, {}, id="r")
    while handle.status != "waiting":
        first.store.wait(0.02)
    first.stop()
    del sys.modules["asking_app"]
    module.rename(tmp_path / "moved.py")
    from stepwell.durable._function import _functions

    monkeypatch.delitem(_functions, "asking")
    outside = Engine(url)
    assert refused(lambda: outside.get_run("r").approve("ask", {"amount": "much"})) == [
        "amount: must be of type integer"
    ]
    outside.get_run("r").approve("ask", {"amount": 5})
    outside.stop()
    second = Engine(url, functions=[asking_app.asking], hold=0)
    assert second.run(asking_app.asking, {}, id="r", timeout=20) == 5
    second.stop()


# -- crashes, twins


def act(runner: DurableRunner, handle: RunHandle) -> None:
    runner.wait_for_callback(handle, "budget")
    handle.approve("budget", {"amount": 7})


def test_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(asks, colour), act) == ["Budget", 7, "EUR", "after"]


def test_journals_of_twins_are_equal() -> None:
    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"approval-twins-{colour}-{hold}")
        handle = way.start(asks)
        handle.approve("budget", {"amount": 7})
        handle.result(20)
        found.append(journal(way.engine, "r"))
        way.engine.stop()
    assert len(found[0]) > 4
    assert found[1:] == [found[0]] * 3

"""What a run has revealed is in nothing that it leaves, not even in what its operations are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Secret
from stepwell.durable import ValidationError
from stepwell.durable.config import ChildConfig, MapConfig
from tests.durable.kit import giver

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durable.twins import Way

CANARY = "canary-4711-canary"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_TEST_CANARY", CANARY)


def revealed() -> str:
    return Secret.env("STEPWELL_TEST_CANARY").reveal()


def everything(way: Way, run_id: str = "r") -> str:
    """All that the store has of a run."""
    store = way.engine.store
    row = way.engine.find(run_id)
    notes = store.note_load(row.rid, kind=None, key=None, after=0, limit=100)
    rows: list[Any] = [row, *store.record_load(row.rid), *notes]
    return repr(rows)


async def child(context: Any) -> int:
    return 1


async def item(context: Any, item: int, index: int, inputs: list[int]) -> int:
    return item


NAMED: dict[str, Callable[[Any, str], Any]] = {
    "step": lambda context, text: context.step(giver(1), name=text),
    "wait": lambda context, text: context.wait(0.001, name=text),
    "child": lambda context, text: context.run_in_child_context(child, name=text),
    "once": lambda context, text: context.once(text, giver(1)),
    "publish": lambda context, text: context.publish(text, 1),
    "signal": lambda context, text: context.try_signal(text),
    "item": lambda context, text: context.map([1], item, "m", MapConfig(item_namer=lambda *_: text)),
    "item key": lambda context, text: context.map([1], item, "m", MapConfig(item_key=lambda *_: text)),
    "child run": lambda context, text: context.start_run("nobody", 1, id=text),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_name_that_holds_a_secret_is_refused(way: Way, kind: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        await NAMED[kind](context, f"for-{revealed()}")

    with pytest.raises(ValidationError, match=r"for-\*\*\*.*holds a secret") as refused:
        way.run(body)
    assert CANARY not in str(refused.value)
    assert CANARY not in everything(way)


@pytest.mark.parametrize("virtual", [False, True])
def test_what_was_on_record_before_the_secret_was_revealed_is_found(way: Way, virtual: bool) -> None:
    lives: list[int] = []

    async def inside(context: Any) -> int:
        found: int = await context.step(giver(len(lives)), name="s")
        return found

    async def body(event: Any, context: Any) -> Any:
        lives.append(1)
        if len(lives) > 1:
            revealed()
        config: ChildConfig[Any] = ChildConfig(is_virtual=virtual)
        found = await context.run_in_child_context(inside, name=CANARY, config=config)
        await context.wait(0.01 if way.hold == 0 else 0)
        return found

    assert way.run(body) == 1


def test_what_a_person_is_asked_is_masked(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        text = revealed()
        return await context.approve(f"Pay with {text}?", form={"amount": int}, who=[f"ann {text}"], name="pay")

    handle = way.start(body)
    (asked,) = handle.callbacks()
    assert asked["form"]["title"] == "Pay with ***?"
    assert asked["form"]["who"] == ["ann ***"]
    assert CANARY not in everything(way)
    handle.approve("pay", {"amount": 3})
    assert handle.result(20) == {"amount": 3}

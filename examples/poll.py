"""Look until it is ready: each look is on record, and between two of them nothing runs.

stepwell run examples/poll.py:export_report --input '{"looks": 3}' --id report
"""

from typing import Any

from stepwell import DurableContext, durable_execution
from stepwell.durable import Duration
from stepwell.durable.types import WaitForConditionCheckContext
from stepwell.durable.waits import WaitForConditionConfig, WaitStrategyConfig, create_wait_strategy


def ask(state: dict[str, Any], check: WaitForConditionCheckContext) -> dict[str, Any]:
    """Ask the other side how far it is (here: it is ready after so many looks)."""
    return {**state, "done": check.attempt >= state["looks"], "asked": check.attempt}


@durable_execution
def export_report(event: dict[str, Any], context: DurableContext) -> str:
    """Begin, poll, fetch."""
    job = context.step(lambda _: "job-1", name="begin")
    patience = create_wait_strategy(
        WaitStrategyConfig(
            should_continue_polling=lambda state: not state["done"],
            max_attempts=50,
            initial_delay=Duration(milliseconds=10),
            max_delay=Duration.from_minutes(1),
        )
    )
    state = {"looks": event["looks"], "done": False}
    ready = context.wait_for_condition(ask, WaitForConditionConfig(patience, state), name="until ready")
    return context.step(lambda _: f"{job} after {ready['asked']} looks", name="fetch")

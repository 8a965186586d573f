"""A payment that is undone if what follows it fails: the plug may be pulled anywhere.

    stepwell run examples/payment.py:order --input '{"id": "o-1", "amount": 40}' --id order-o-1

Three things make it safe: the charge runs at most once per attempt, it carries a key by which the bank knows it again,
and what was reserved or charged is given back if the run fails later.
"""

from typing import Any

from stepwell import DurableContext, Retry, StepConfig, StepContext, StepSemantics, durable_execution, durable_step

BOOKS: list[str] = []
"""What the bank and the warehouse of this example have been told."""


@durable_step
def reserve(step: StepContext, order_id: str) -> str:
    """Take the goods from the shelf; doing it twice changes nothing."""
    BOOKS.append(f"reserved {order_id}")
    return order_id


def give_back(step: StepContext, order_id: str) -> None:
    """The goods go back."""
    BOOKS.append(f"gave back {order_id}")


@durable_step
def charge(step: StepContext, amount: int) -> str:
    """Take the money. The key is the same in every attempt and every life of the run."""
    BOOKS.append(f"charged {amount}")
    return f"receipt {step.idempotency_key}"


def refund(step: StepContext, receipt: str) -> None:
    """Give the money back."""
    BOOKS.append("refunded")


@durable_step
def ship(step: StepContext, order_id: str, lost: bool) -> str:
    """The parcel service may say no."""
    if lost:
        raise LookupError(f"no address for {order_id}")
    return f"shipped {order_id}"


@durable_execution
def order(event: dict[str, Any], context: DurableContext) -> str:
    """Reserve, charge, ship: all of it, or none."""
    context.step(reserve(event["id"]), undo=give_back)
    once = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
    context.step(charge(event["amount"]), config=once, undo=refund)
    return context.step(ship(event["id"], event.get("lost", False)), retry=Retry(1))

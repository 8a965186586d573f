"""A refund that a person must allow, and a parcel that comes back when it comes back.

    stepwell run examples/approval.py:refund --input '{"order": "o-1", "amount": 40}' --id refund-o-1 --no-wait
    stepwell show refund-o-1          # prints the command that answers
    stepwell approve refund-o-1 allow --json '{"amount": 25, "note": "box was open"}'
    stepwell worker examples/approval.py --drain

Nothing runs while the run waits, for a minute or for a month.
"""

from dataclasses import dataclass
from typing import Any

from stepwell import DurableContext, durable_execution
from stepwell.durable import ApprovalRejected, CallbackTimeoutError, Duration


@dataclass
class Allowance:
    """What whoever allows it fills in."""

    amount: int
    note: str = ""


@durable_execution
def refund(event: dict[str, Any], context: DurableContext) -> dict[str, Any]:
    """Ask, then pay; say no by default."""
    title = f"Refund {event['amount']} for order {event['order']}?"
    try:
        allowed = context.approve(title, form=Allowance, who=["finance"], timeout=Duration.from_days(14), name="allow")
    except ApprovalRejected as refused:
        return {"refunded": 0, "why": str(refused)}
    except CallbackTimeoutError:
        return {"refunded": 0, "why": "nobody answered"}
    amount = min(allowed.amount, event["amount"])
    context.step(lambda _: print(f"paying back {amount}"), name="pay back")
    return {"refunded": amount, "why": allowed.note}

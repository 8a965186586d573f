"""Many at a time, a few at once; what failed is told at the end and tried again on its own.

stepwell run examples/fan_out.py:thumbnails --input '{"pictures": ["a.png", "b.png", "broken.txt"]}' --id pictures
"""

from typing import Any

from stepwell import DurableContext, Retry, durable_execution
from stepwell.durable.config import CompletionConfig, MapConfig


def shrink(picture: str) -> str:
    """The work on one picture."""
    if not picture.endswith(".png"):
        raise ValueError(f"{picture} is no picture")
    return picture.replace(".png", "-small.png")


def one(context: DurableContext, picture: str, index: int, pictures: list[str]) -> str:
    """A picture in a scope of its own: finished ones are not made again, whatever becomes of the others."""
    return context.step(lambda _: shrink(picture), name="shrink", retry=Retry(2, delay=0.01))


@durable_execution
def thumbnails(event: dict[str, Any], context: DurableContext) -> dict[str, Any]:
    """Four at once; the list may change between two lives, since pictures are known by their name."""
    config = MapConfig(
        max_concurrency=4,
        completion_config=CompletionConfig.all_completed(),
        item_key=lambda picture, index: picture,
    )
    made = context.map(event["pictures"], one, name="pictures", config=config)
    return {"made": made.get_results(), "failed": [error.message for error in made.get_errors()]}

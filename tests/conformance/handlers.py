"""The handlers of one suite, by the number of their requirement file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.durable._function import DurableFunction


class Handlers(dict[str, "DurableFunction"]):
    """``@HANDLERS.case("1-1")`` above a durable function adds it."""

    def case(self, number: str) -> Callable[[DurableFunction], DurableFunction]:
        def add(handler: DurableFunction) -> DurableFunction:
            self[number] = handler
            return handler

        return add

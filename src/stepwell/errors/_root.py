"""The root of the tree: how every error of Stepwell is made, printed, copied and sent to another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def default_message(cls: type) -> str:
    """The first sentence of the docstring of `cls`, or of the nearest parent that has one, without its full stop."""
    for parent in cls.__mro__:
        doc = parent.__dict__.get("__doc__")
        if isinstance(doc, str) and doc.strip():
            first = " ".join(doc.split("\n\n")[0].split())
            return first.split(". ")[0].rstrip(".")
    return cls.__name__


def _revive(cls: type[StepwellError], args: tuple[object, ...]) -> StepwellError:
    # Not `cls(*args)`: the constructors take fields by keyword and would lose or recompute them.
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class StepwellError(Exception):
    """Stepwell could not do what was asked.

    `exit_code` is what a command line ends with, `http_status` what the HTTP API answers, `hint` the next step for the
    person who sees the error. All three belong to the class and may be set on one instance.
    """

    exit_code: int = 1
    http_status: int = 500
    hint: str | None = None

    def __init__(self, *args: object, hint: str | None = None) -> None:
        if not args or (len(args) == 1 and args[0] is None):
            args = (default_message(type(self)),)
        super().__init__(*args)
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        # Said here and not left to BaseException, so that a class which is also a KeyError shows no quotes.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep every attribute; an error that was rebuilt from its record is rebuilt from it again.

        `_recipe` is `(function, arguments)`, put there by `stepwell.serde`: the class of such an error is made on the
        fly and cannot be found by its name. The function takes the attributes as one more argument.
        """
        state = dict(self.__dict__)
        recipe: tuple[Callable[..., Any], tuple[Any, ...]] | None = state.pop("_recipe", None)
        if recipe is not None:
            function, arguments = recipe
            return function, (*arguments, state)
        return _revive, (type(self), self.args), state

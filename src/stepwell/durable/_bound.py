"""Functions made ready for a context: ``durable_step`` and its like bind arguments and keep a name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from stepwell.errors import ValidationError

P = ParamSpec("P")
T = TypeVar("T")
_COROUTINE = inspect.CO_COROUTINE
ANY_NUMBER = 1000
"""Positional arguments that a callable with ``*args`` takes."""


class Bound(Generic[T]):
    """A function with its arguments, waiting for its context: what ``f(1, 2)`` of a ``durable_step`` f gives."""

    __slots__ = ("args", "func", "is_async", "kwargs", "name")

    def __init__(
        self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, is_async: bool
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.name = name
        self.is_async = is_async

    def __call__(self, context: Any, *more: Any) -> T:
        """Call the function with the context (of a submitter: callback id and context) before its arguments."""
        return self.func(context, *more, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        return f"<{self.name or self.func!r} with its arguments>"


class Binder(Generic[P, T]):
    """A function that takes its arguments now and its context later."""

    def __init__(
        self, func: Callable[..., T], *, named: bool = True, name: str | None = None, leading: int = 1
    ) -> None:
        """``leading``: parameters before the caller's arguments that the engine fills in."""
        functools.update_wrapper(self, func)
        self.func = func
        self.name = name or (getattr(func, "__name__", None) if named else None)
        self.is_async = inspect.iscoroutinefunction(func)
        self._leading = leading
        self._signature = inspect.signature(func)
        self._arity = _plain_arity(self._signature, leading)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Bound[T]:
        """Bind the arguments. Raises `TypeError` here, not in the step, if they do not fit."""
        arity = self._arity
        if kwargs or arity is None or not arity[0] <= len(args) <= arity[1]:
            self._signature.bind(*[None] * self._leading, *args, **kwargs)
        return Bound(self.func, args, kwargs, self.name, self.is_async)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """On a method, ``self`` comes before the context."""
        if instance is None:
            return self
        return Binder(self.func.__get__(instance, owner), name=self.name, leading=self._leading)

    def needs_arguments(self) -> bool:
        """Whether it cannot be used without being called first."""
        return self._arity is None or self._arity[0] > 0

    def missing(self) -> str:
        """The arguments that it needs, as a call shows them."""
        return ", ".join(
            p.name for p in list(self._signature.parameters.values())[self._leading :] if p.default is p.empty
        )


def _plain_arity(signature: inspect.Signature, leading: int) -> tuple[int, int] | None:
    """(fewest, most) positional arguments after what the engine fills in, where a count is all that is to check."""
    fewest = most = 0
    parameters = list(signature.parameters.values())
    for parameter in parameters[leading:]:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return None
        most += 1
        fewest += parameter.default is parameter.empty
    return (fewest, most) if len(parameters) >= leading else None


def durable_step(func: Callable[Concatenate[Any, P], T]) -> Binder[P, T]:
    """Make a function a step: ``f(1, 2)`` binds the arguments, ``context.step(f(1, 2))`` runs it.

    Its first parameter receives the `StepContext`; its name becomes the step's name. Works on ``async def`` and on
    methods. Wrong arguments are a `TypeError` at the binding call.
    """
    return Binder(func)


def durable_with_child_context(func: Callable[Concatenate[Any, P], T]) -> Binder[P, T]:
    """Make a function the body of a child context: ``context.run_in_child_context(f(1, 2))``."""
    return Binder(func)


def durable_wait_for_callback(func: Callable[Concatenate[str, Any, P], Any]) -> Binder[P, Any]:
    """Make a function a submitter: ``context.wait_for_callback(f(1, 2))`` calls it with the callback's id and a
    `WaitForCallbackContext` before its arguments; its name becomes the operation's name.
    """
    return Binder(func, leading=2)


@overload
def durable_parallel_branch(name: str | None = None) -> Callable[[Callable[Concatenate[Any, P], T]], Binder[P, T]]: ...
@overload
def durable_parallel_branch(name: Callable[..., Any]) -> Any: ...
def durable_parallel_branch(name: Any = None) -> Any:
    """Make a function a branch of ``context.parallel``. Called with parentheses; without a name the branch is called
    ``parallel-branch-{index}``.
    """
    if callable(name):
        message = "durable_parallel_branch is used with parentheses: @durable_parallel_branch() or (name=...)"
        raise ValidationError(message)
    return lambda func: Binder(func, named=False, name=name)


def positional(func: Callable[..., Any]) -> tuple[int, int]:
    """(fewest, most) positional arguments that a callable takes; most is large for ``*args``."""
    code = getattr(func, "__code__", None)
    if code is not None and not code.co_flags & 0x04:
        most = code.co_argcount - (getattr(func, "__self__", None) is not None)
        return most - len(getattr(func, "__defaults__", None) or ()), most
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return 1, 1
    fewest = most = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most += ANY_NUMBER
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            fewest += parameter.default is parameter.empty
    return fewest, most


def is_async_callable(func: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as far as can be told without calling."""
    code = getattr(func, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _COROUTINE)
    if isinstance(func, functools.partial):
        return is_async_callable(func.func)
    call = vars(type(func)).get("__call__")
    return bool(getattr(getattr(call, "__code__", None), "co_flags", 0) & _COROUTINE)


def described(func: Any) -> str | None:
    """The label of an unnamed operation: the name of a plain function; a lambda has none."""
    name = getattr(func, "__name__", None)
    return None if name == "<lambda>" or not isinstance(name, str) else name


def item_function(func: Any) -> tuple[Any, str | None, int]:
    """What a caller passed as a map's function: (callable, name, how many of context, item, index, inputs it takes).

    Raises:
        ValidationError: it cannot be called.
    """
    auto = func.name if isinstance(func, Binder | Bound) else None
    bound = len(func.args) if isinstance(func, Bound) else 0
    call = func.func if isinstance(func, Binder) else func
    if not callable(call):
        raise ValidationError(f"map needs a function, not {func!r}")
    _, most = positional(func.func if auto is not None else call)
    return call, auto, min(max(most - bound, 2), 4)


def check_function(check: Any) -> tuple[Any, str | None]:
    """What a caller passed as a check: (callable taking state and context, label if unnamed)."""
    if isinstance(check, Binder):
        return check.func, check.name
    return check, check.name if isinstance(check, Bound) else described(check)

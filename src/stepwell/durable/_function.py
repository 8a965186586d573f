"""`durable_execution`: a function becomes a durable function."""

from __future__ import annotations

import functools
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from stepwell.durable._checks import check_serdes, check_strategy, check_text, check_texts
from stepwell.errors import UsageError
from stepwell.runtime._hooks import hook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stepwell.runtime._life import Life

_functions: dict[str, DurableFunction] = {}
"""The process's table: the latest function with a name wins; engines fall back to it for names they do not know."""
_CONTEXT_NAMES = frozenset({"context", "ctx"})


class DurableFunction:
    """A durable function: ordinary Python whose operations on its context are recorded.

    Made by `durable_execution`. ``name`` is what its runs are recorded under, ``func`` the function itself.
    """

    door = "durable"
    """What its runs are written as."""
    listed = True
    """Whether it can be found by its name: others than the one who made it may drive its runs."""

    def __init__(  # the decorator's settings
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Any = None,
        timeout: Any = None,
        hold: Any = None,
        version: str | None = None,
        tags: Sequence[str] = (),
        queue: str = "default",
        strict: bool = False,
        serdes: Any = None,
        plugins: Sequence[Any] | None = None,
        boto3_client: Any = None,
    ) -> None:
        self._check_kind(func)
        check_text("name", name or None)
        check_strategy("retry", retry)
        check_text("version", version)
        check_texts("tags", tags)
        check_texts("queue", (queue,))
        check_serdes("serdes", serdes)
        functools.update_wrapper(self, func)
        self.func = func
        self.is_async = inspect.iscoroutinefunction(func)
        self._pass = _shape(func)
        self.identity = f"{_module_of(func)}:{func.__qualname__}"
        self.name = name or self.identity
        self.retry = retry
        self.timeout = None if timeout is None else _seconds(timeout)
        self.hold = None if hold is None else _seconds(hold)
        self.version = version
        self.tags = tuple(tags)
        self.queue = queue
        self.strict = strict
        self.serdes = serdes
        self.plugins = () if plugins is None else _plugins(plugins)
        self.plain: Callable[..., Any] | None = None
        """The function that is not durable and that this one makes a step of."""
        self.boto3_client = boto3_client
        if self.listed:
            _functions[self.name] = self

    @staticmethod
    def _check_kind(func: Any) -> None:
        if not inspect.isroutine(func) or not hasattr(func, "__qualname__"):
            message = f"durable_execution decorates a function (def or async def), not {func!r}"
            raise UsageError(message)
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            message = f"{func.__qualname__} is a generator; a durable function returns its result"
            raise UsageError(message)

    def __repr__(self) -> str:
        return f"<DurableFunction {self.name}>"

    def queue_of(self, text: str) -> str:
        """The queue of a run with this encoded event, where its caller names none."""
        return self.queue

    def invoke(self, event: Any, context: Any) -> Any:
        """Call the body with what its signature asks for. A coroutine for ``async def``."""
        if self._pass == "both":
            return self.func(event, context)
        return self.func(context if self._pass == "context" else event)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body inline in a given context; a run of its own is started with ``stepwell.run``.

        Raises:
            UsageError: the second argument is no context of this door.
        """
        from stepwell.durable._operations import Operations

        if len(args) == 2 and not kwargs and isinstance(args[1], Operations):
            return self.invoke(*args)
        message = "call stepwell.run(handler, event) to start a run"
        raise UsageError(message)

    def event_of(self, value: Any) -> Any:
        """What is recorded as the event of a run that is started with ``value``."""
        return value

    def codec(self, life: Life) -> Any:
        """How this function's event and result are recorded."""
        return self.codec_of(life.host.settings, life.run.id)

    def codec_of(self, settings: Mapping[str, Any], run_id: str) -> Any:
        """The same outside of a life. ``settings``: of the engine."""
        from stepwell.durable._codec import codec_for

        return codec_for(self.serdes or settings.get("serdes"), run_id)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """As `stepwell.run` with this function: start or attach, block, return the result."""
        return hook("run")(self, *args, **kwargs)

    async def run_async(self, *args: Any, **kwargs: Any) -> Any:
        """As `stepwell.run_async` with this function."""
        return await hook("run_async")(self, *args, **kwargs)

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """As `stepwell.start` with this function: a `RunHandle`."""
        return hook("start")(self, *args, **kwargs)


@overload
def durable_execution(func: Callable[..., Any]) -> DurableFunction: ...
@overload
def durable_execution(
    func: None = None,
    *,
    name: str | None = None,
    retry: Any = None,
    timeout: Any = None,
    hold: Any = None,
    version: str | None = None,
    tags: Sequence[str] = (),
    queue: str = "default",
    strict: bool = False,
    serdes: Any = None,
    plugins: Sequence[Any] | None = None,
    boto3_client: Any = None,
) -> Callable[[Callable[..., Any]], DurableFunction]: ...
def durable_execution(func: Callable[..., Any] | None = None, **settings: Any) -> Any:
    """Make a function durable. Used bare or called.

    The body takes ``(event, context)``; with one parameter it gets the context if that is called ``context`` or
    ``ctx``, else the event. ``async def`` bodies get an `AsyncDurableContext`.

    Args:
        func: the body.
        **settings: ``name`` (default ``module:qualname``); ``retry``, the default strategy of the function's steps;
            ``timeout`` for the whole run, waits included (`Duration` or seconds); ``hold``, how long frames are kept
            while the run waits (seconds); ``version``; ``tags``; ``queue``; ``strict``, an unnamed step whose code
            has changed is an error; ``serdes`` of event and result; ``plugins`` (`stepwell.durable.plugin`);
            ``boto3_client``, kept for whoever runs the function as a Lambda function, and used by nothing here.

    Raises:
        UsageError: the body is a generator, no function, or has another signature.
    """
    if func is not None:
        return DurableFunction(func, **settings)
    return lambda body: DurableFunction(body, **settings)


def registered(name: str) -> DurableFunction | None:
    """The latest durable function with this name in this process."""
    return _functions.get(name)


def _shape(func: Callable[..., Any]) -> str:
    """What the body wants: both, context or event."""
    parameters = list(inspect.signature(func).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(positional) >= 2 and len(needed) <= 2 and all(p in positional[:2] for p in needed):
        return "both"
    if len(positional) == 1 and all(p in positional for p in needed):
        return "context" if positional[0].name in _CONTEXT_NAMES else "event"
    name = getattr(func, "__qualname__", repr(func))
    message = f"{name}{inspect.signature(func)}: a durable function takes (event, context), (event) or (context)"
    raise UsageError(message)


def _module_of(func: Any) -> str:
    """The module's name as an import would see it, also for a script that runs as ``__main__``."""
    module = str(func.__module__)
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def _plugins(given: Any) -> tuple[Any, ...]:
    from stepwell.durable._plugin_list import checked

    return checked(given, "durable_execution")


def _seconds(value: Any) -> float:
    from stepwell.durable._duration import to_seconds

    return to_seconds(value)

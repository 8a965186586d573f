"""Pipelines by import path: ``stepwell run app.py:build``, resumed by whoever can import it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwell import serde
from stepwell.durable._function import _module_of
from stepwell.errors import BadArguments, UsageError
from stepwell.pipeline._execution import event_of
from stepwell.pipeline._function import PipelineFunction
from stepwell.pipeline._interpreter import Interpreter, Memory
from stepwell.pipeline._plan import Plan
from stepwell.pipeline._results import joined, split
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps.orchestrator import Orchestrator
from stepwell.pipeline.steps.registry import StepRegistry


class Builder:
    """A function that builds a pipeline, marked by `pipeline`. Called, it builds."""

    def __init__(self, func: Callable[..., Any]) -> None:
        functools.update_wrapper(self, func)
        self.func = func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        return self.func(*args, **kwargs)


def pipeline(func: Callable[..., Any]) -> Builder:
    """Mark a function that returns an `Orchestrator`, or ``(registry, context)``, as a pipeline for the command line.

    It is called again whenever its run is taken up, and must have no side effects. A parameter ``runtime_ctx`` is
    filled in.
    """
    return Builder(func)


class Target(PipelineFunction):
    """What a command line names as a durable function: the event of its runs has the given arguments as ``input``."""

    def __init__(self, found: Any, target: str) -> None:
        name = f"{_module_of(found)}:{found.__qualname__}"
        super().__init__(self._begin, name, target=target, queue="default")
        self.rolls_back = True
        """Whether runs that this process starts undo what they have done when they fail or are cancelled."""

    def build(self, given: Any) -> Orchestrator[Any]:
        """Steps and context for these arguments."""
        raise NotImplementedError

    def event_of(self, value: Any) -> Any:
        """The arguments, the context as it is at first, and the plan."""
        built = self.build(value)
        event = event_of(built.context, Plan(built.registry.get_steps()), self.recorded(value))
        return event if self.rolls_back else joined({**split(event), "rollback": "false"})

    def recorded(self, value: Any) -> Any:
        """The arguments as they are put on record."""
        return dict(value)

    def plan(self, given: Any) -> list[list[Any]]:
        """Names and weights."""
        return Plan(self.build(given).registry.get_steps()).shown()

    def _begin(self, event: str, handler: Any) -> Interpreter:
        built = self.build(serde.decode(split(event)["input"]))
        return interpreter_of(built, handler)


def interpreter_of(built: Orchestrator[Any], handler: Any, more: Any = None) -> Interpreter:
    """One life of a run that this process builds anew. ``more``: see `Interpreter`."""
    plan = Plan(built.registry.get_steps())
    return Interpreter(plan, built.context, built.progress_callback, Memory(fresh=False), handler, more)


def unrecorded(event: str) -> list[str]:
    """Places of the input that hold secrets, which are not on record."""
    places: list[str] = serde.decode(split(event).get("unrecorded", "[]"))
    return places


class BuiltPipeline(Target):
    """A function that builds a pipeline: its keyword arguments are the input."""

    def __init__(self, func: Callable[..., Any], target: str) -> None:
        super().__init__(func, target)
        self._builder = func

    def build(self, given: Any) -> Orchestrator[Any]:
        """Call the builder.

        Raises:
            BadArguments: it does not take these arguments.
            UsageError: it returned something else than a pipeline.
        """
        if not isinstance(given, Mapping):
            message = f"the input of {self.name} must be an object of keyword arguments, got {type(given).__name__}"
            raise BadArguments(message)
        arguments = {str(name): value for name, value in given.items()}
        signature = inspect.signature(self._builder)
        if "runtime_ctx" in signature.parameters:
            arguments.setdefault("runtime_ctx", RuntimeContext())
        try:
            signature.bind(**arguments)
        except TypeError as error:
            message = f"{self.name}{signature}: {error}"
            raise BadArguments(message) from error
        return made(self._builder(**arguments), self.name)


def made(given: Any, name: str) -> Orchestrator[Any]:
    """The pipeline that a builder returned. Raises `UsageError` if it is none."""
    if isinstance(given, Orchestrator):
        return given
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], StepRegistry):
        return Orchestrator(given[0], given[1])
    message = f"{name} must return an Orchestrator or (registry, context), got {type(given).__name__}"
    raise UsageError(message)


def function_of(found: Any, target: str) -> Target:
    """What a target stands for that is no durable function.

    Raises:
        BadArguments: nothing that can be run.
    """
    if isinstance(found, type) and _is_action(found):
        from stepwell.pipeline._action_target import ActionFunction  # late: brings pydantic

        return ActionFunction(found, _place(target))
    func = found.func if isinstance(found, Builder) else found
    if not inspect.isfunction(func) or inspect.iscoroutinefunction(func):
        message = (
            f"{target} is a {type(found).__name__}, no durable function, no action and no function that builds a "
            "pipeline; decorate it with @durable_execution or @pipeline"
        )
        raise BadArguments(message)
    return BuiltPipeline(func, _place(target))


def _is_action(found: type) -> bool:
    """Whether it is an action; where nobody has imported that module, there are none."""
    module = sys.modules.get("stepwell.pipeline.actions.action")
    return module is not None and issubclass(found, module.BaseAction)


def _place(target: str) -> str:
    """Where other processes find it, whatever their folder: the file. A module of a package keeps its name, for what it
    imports relative to itself.
    """
    module, _, name = target.rpartition(":")
    if module.endswith(".py") or "/" in module:
        return f"{Path(module).expanduser().resolve()}:{name}"
    file = getattr(sys.modules.get(module), "__file__", None)
    return target if "." in module or not file or file.endswith("__init__.py") else f"{Path(file).resolve()}:{name}"

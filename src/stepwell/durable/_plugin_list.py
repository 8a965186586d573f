"""Which plugins an engine and its runs have: what was given, and what the environment names."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepwell.durable.plugin import DurableInstrumentationPlugin
from stepwell.errors import PluginLoadError, UsageError
from stepwell.runtime._observe import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUPS = ("stepwell.plugins", "aws_durable_execution.plugins")
"""Groups of entry points in which names of the environment variable are looked for, in this order."""
BUILT_IN = {"opentelemetry": "stepwell.observe:OpenTelemetry"}
"""Names of what this library brings along, on a higher floor than this module."""
VARIABLE = "DURABLE_EXECUTION_PLUGINS"
HOOKS = tuple(name for name in vars(DurableInstrumentationPlugin) if not name.startswith("_"))


def checked(plugins: Any, where: str) -> tuple[Any, ...]:
    """What a caller gave as ``plugins=``.

    Raises:
        UsageError: one of them is no plugin and no factory.
    """
    if isinstance(plugins, str | bytes) or not hasattr(plugins, "__iter__"):
        message = f"{where}: plugins is a list, not {plugins!r}"
        raise UsageError(message)
    found = tuple(plugins)
    for given in found:
        if not (
            callable(given)
            or isinstance(given, Observer)
            or hasattr(given, "create_plugin")
            or any(hasattr(given, hook) for hook in HOOKS)
        ):
            message = f"{where}: {given!r} is no plugin: it has none of the hooks {', '.join(HOOKS)}"
            raise UsageError(message)
    return found


class Plugins:
    """The plugins of one engine, and of the runs that were started with some of their own."""

    def __init__(self, given: Sequence[Any] = ()) -> None:
        self._given = checked(given, "Engine")
        self._named: tuple[Any, ...] | None = None
        self.of_run: dict[str, tuple[Any, ...]] = {}

    def all(self) -> tuple[Any, ...]:
        """The engine's, with those that the environment names.

        Raises:
            PluginLoadError: one of these cannot be loaded.
        """
        if self._named is None:
            self._named = tuple(_load(name) for name in os.environ.get(VARIABLE, "").split(",") if name.strip())
        return (*self._given, *self._named)

    def for_run(self, own: tuple[Any, ...], run_id: str) -> tuple[Any, ...]:
        """Those of a run, whose function has its ``own``. Raises `PluginLoadError`."""
        return (*self.all(), *own, *self.of_run.get(run_id, ()))


def _made(name: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        message = f"{VARIABLE}: plugin {name} cannot be loaded: {error}"
        raise PluginLoadError(message) from error


def _load(name: str) -> Any:
    from importlib.metadata import entry_points

    name = name.strip()
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return _made(repr(name), lambda: getattr(import_module(module), attribute)())  # noqa: PLW0108 - the import may fail
    for group in GROUPS:
        for point in entry_points(group=group, name=name):
            found = _made(f"{name!r} ({point.value})", point.load)
            try:
                return checked([found], point.value)[0]
            except UsageError as error:
                raise PluginLoadError(f"{VARIABLE}: {error}") from error
    message = f"{VARIABLE}: no plugin is called {name!r} in the entry points {' and '.join(GROUPS)}"
    raise PluginLoadError(message)

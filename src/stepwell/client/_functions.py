"""Which durable function a name or a target stands for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.durable._function import DurableFunction, registered
from stepwell.errors import BadArguments, UsageError
from stepwell.runtime._hooks import hook

if TYPE_CHECKING:
    from types import ModuleType


class Functions:
    """The durable functions of one engine, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, DurableFunction] = {}

    def add(self, fn: Any, name: str | None = None) -> DurableFunction:
        """Make a function known.

        Raises:
            UsageError: another function has the name.
        """
        function = fn if isinstance(fn, DurableFunction) else DurableFunction(fn)
        name = name or function.name
        known = self._by_name.get(name)
        if known is not None and known.identity != function.identity:
            message = f"two functions are called {name!r}: {known.identity} and {function.identity}; give one name="
            raise UsageError(message)
        self._by_name[name] = function
        return function

    def get(self, name: str) -> DurableFunction | None:
        """The function with this name, of this engine or of this process."""
        return self._by_name.get(name) or registered(name)

    def invokable(self, name: str) -> DurableFunction | None:
        """The function that a run asks for by name, ARN, or name with a version."""
        for candidate in names_of(name):
            if (found := self.get(candidate)) is not None:
                return found
        return None

    def add_plain(self, name: str, fn: Any) -> DurableFunction:
        """Make a function known that is not durable: a run of it is one step.

        Raises:
            UsageError: it cannot be called, or another function has the name.
        """
        if not callable(fn) or isinstance(fn, DurableFunction):
            message = f"register_function needs a plain function, not {fn!r}"
            raise UsageError(message)
        known = self._by_name.get(name)
        if known is not None:
            if getattr(known, "plain", None) is fn:
                return known
            message = f"two functions are called {name!r}: give one another name"
            raise UsageError(message)
        self._by_name[name] = function = as_durable(name, fn)
        return function

    def names(self) -> tuple[str, ...]:
        """What this engine was given."""
        return tuple(self._by_name)

    def resolve(self, fn: Any) -> DurableFunction:
        """What a caller passed to `run`: a durable function, a plain one, or a registered name.

        Raises:
            UsageError: nothing is known under the name.
        """
        if isinstance(fn, str):
            found = self.get(fn)
            if found is None:
                message = f"no durable function is called {fn!r}; import its module or pass the function itself"
                raise UsageError(message)
            return found
        return fn if isinstance(fn, DurableFunction) and not fn.listed else self.add(fn)


def names_of(name: str) -> list[str]:
    """What a function may be known under that somebody names: as it is, and without ARN and version."""
    names = [name]
    if ":function:" in name:
        name = name.partition(":function:")[2]
        names.append(name)
    head = name.rpartition(":")[0]
    return [*names, head] if head else names


def as_durable(name: str, fn: Any) -> DurableFunction:
    """A durable function whose only step calls a plain one with the event (and the context of AWS Lambda)."""
    from stepwell.durable._bound import is_async_callable, positional

    most = positional(fn)[1]

    def call(event: Any, context: Any) -> Any:
        return fn(*(event, context.lambda_context)[:most])

    def plain(event: Any, context: Any) -> Any:
        return context.step(lambda: call(event, context), name)

    async def plain_async(event: Any, context: Any) -> Any:
        return await context.step(lambda: call(event, context), name)

    function = DurableFunction(plain_async if is_async_callable(fn) else plain, name=name)
    function.plain = fn
    return function


_loading = threading.RLock()


def load_module(target: str) -> ModuleType:
    """The module of ``file.py`` or ``package.module``.

    Raises:
        BadArguments: it does not exist, or importing it fails; the text says which, and where.
    """
    try:
        if target.endswith(".py") or "/" in target:
            return _load_file(target)
        return importlib.import_module(target)
    except BadArguments:
        raise
    except ModuleNotFoundError as error:
        message = f"{target}: no such module ({error}); name a file as path/to/app.py:handler"
        raise BadArguments(message) from error
    except Exception as error:
        message = f"{target}: importing it failed: {type(error).__name__}: {error}"
        raise BadArguments(message) from error


def _load_file(target: str) -> ModuleType:
    path = Path(target).expanduser().resolve()
    if not path.is_file():
        message = f"{target}: no such file"
        raise BadArguments(message)
    with _loading:  # whoever comes meanwhile must not be given half a module
        return _load_once(target, path)


def _load_once(target: str, path: Path) -> ModuleType:
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        message = f"{target}: not a Python file"
        raise BadArguments(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def load_target(target: str) -> DurableFunction:
    """The durable function of ``file.py:name`` or ``package.module:name``.

    Raises:
        BadArguments: file, module or name does not exist, or it is no durable function.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        message = f"target {target!r}: write file.py:function or package.module:function"
        raise BadArguments(message)
    module = load_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        known = sorted(n for n, v in vars(module).items() if isinstance(v, DurableFunction))
        hint = f"; it has {', '.join(known)}" if known else ""
        message = f"{place} has no {name!r}{hint}"
        raise BadArguments(message)
    if not isinstance(found, DurableFunction):
        return hook("target")(found, target)  # type: ignore[no-any-return]
    return found


def target_of(function: DurableFunction) -> str | None:
    """Where the function can be found again by another process: ``/path/app.py:handler``."""
    if not function.listed:
        return getattr(function, "target", None)
    name = function.func.__qualname__
    place = None if "<locals>" in name else _place(function.func.__code__.co_filename)
    return None if place is None else f"{place}:{name}"


@cache
def _place(filename: str) -> str | None:
    """Asked once a file: each start of a run needs it, and asking the file system takes half as long as the run."""
    path = Path(filename)
    return str(path.resolve()) if path.is_file() else None

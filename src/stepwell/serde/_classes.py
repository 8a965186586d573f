"""From a class to its name on record and back."""

from __future__ import annotations

import importlib
import importlib.util
import os.path
import sys
from collections.abc import Iterator
from types import ModuleType

from stepwell.errors import class_ref, main_module


def find_class(ref: str, *, load: bool = True) -> type:
    """The class that `ref` (`module:qualname`) names.

    `load=False` looks only among the modules that are loaded. Raises LookupError with the reason when there is none.
    """
    module_name, _, qualname = ref.partition(":")
    if "<locals>" in qualname:
        raise LookupError(f"{ref} was defined inside a function")
    reason = f"{ref} is gone: there is no module {module_name!r}"
    for module in _modules(module_name, load):
        if isinstance(module, str):
            reason = f"{ref} cannot be loaded: {module}"
            continue
        found: object = module
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
        reason = f"{ref} is gone: module {module_name!r} has no class {qualname!r}"
    raise LookupError(reason)


def _modules(name: str, load: bool) -> Iterator[ModuleType | str]:
    """Where to look for a class of module `name`, in order; a string is the reason why one cannot be had.

    The running script first when it bears the name: importing it would make a second set of its classes, and run it a
    second time.
    """
    main = sys.modules.get("__main__")
    is_main = main is not None and name in ("__main__", main_module())
    if main is not None and is_main:
        yield main
    loaded = sys.modules.get(name)
    if loaded is not None:
        yield loaded
    elif load and not (is_main and _is_the_script(name, main)):
        try:
            yield importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                yield f"{type(error).__name__}: {error}"
        except (Exception, SystemExit) as error:
            yield f"importing {name!r} raised {type(error).__name__}: {error}"


def _is_the_script(name: str, main: ModuleType | None) -> bool:
    """Whether importing `name` would run the running script again; a program `app` may also start a package `app`."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return True
    file = getattr(main, "__file__", None)
    return (
        spec is None
        or spec.origin is None
        or (isinstance(file, str) and os.path.realpath(file) == os.path.realpath(spec.origin))
    )


def recordable_ref(cls: type) -> str:
    """The name of `cls` for the record, once it is sure that it leads back to `cls`.

    Raises LookupError with what is wrong, in words that follow the class's name.
    """
    if "<locals>" in cls.__qualname__:
        raise LookupError("a class defined inside a function cannot be found again; move it to module level")
    ref = class_ref(cls)
    module_name, _, qualname = ref.partition(":")
    for module in _modules(module_name, load=True):
        found: object = module
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is cls:
            return ref
    raise LookupError(f"{ref} does not lead back to this class; define it under that name at module level")


def static_base(cls: type) -> type:
    """The nearest class of the interpreter or of an extension that lays out the instances of `cls`."""
    while cls.__flags__ & _HEAP_TYPE:
        parent = cls.__base__
        if parent is None:
            break
        cls = parent
    return cls


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, as all classes written in Python are

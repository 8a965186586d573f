"""How classes are called in records: the same name from a script and from an import of that script."""

from __future__ import annotations

import sys

_MAIN = ("__main__", "__mp_main__")  # the second is the first one's name in a child process of multiprocessing


def main_module() -> str:
    """The name under which the running script can be imported: `app` for `python app.py`, `pkg.app` for `-m pkg.app`.

    `__main__` where there is none (interactive, `-c`, standard input).
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return "__main__"
    name = file.replace("\\", "/").rpartition("/")[2]
    return name.rpartition(".")[0] or name or "__main__"


def module_of(cls: type) -> str:
    """The module that `cls` is recorded under. The running script counts under its importable name."""
    module = str(cls.__module__)
    return main_module() if module in _MAIN else module


def class_ref(cls: type) -> str:
    """`module:qualname`, the form in which a class is recorded. Does not check that it can be found again."""
    return f"{module_of(cls)}:{cls.__qualname__}"


def type_name(cls: type) -> str:
    """The `error_type` of an exception class: bare for builtins and Stepwell's own, else `module.QualName`."""
    module = module_of(cls)
    if module in ("builtins", "stepwell") or module.startswith("stepwell."):
        return cls.__qualname__
    return f"{module}.{cls.__qualname__}"

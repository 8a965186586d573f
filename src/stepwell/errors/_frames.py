"""The stack trace of an error as it is recorded: the user's frames, one string each."""

from __future__ import annotations

from collections.abc import Callable

_PACKAGE = __file__.replace("\\", "/").rsplit("/", 2)[0] + "/"
_FIRST, _LAST = 20, 80  # of a longer trace (endless recursion) these are kept


def in_stepwell(file: str) -> bool:
    """Whether `file` (a code object's file name) lies inside this package."""
    return file.replace("\\", "/").startswith(_PACKAGE)


def format_frames(error: BaseException, skip: Callable[[str], bool] | None = None) -> list[str]:
    """The frames of `error.__traceback__`, outermost first, formatted as `traceback.format_list` does.

    Frames whose file lies in Stepwell, or for which `skip(file)` is true, are left out unless none would be left.
    At most 100 frames are given; a line says how many are missing.
    """
    if error.__traceback__ is None:
        return []
    import traceback  # late: reads sources, and most processes never format an error

    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = [(frame, line) for frame, line in frames if not _left_out(frame.f_code.co_filename, skip)]
    chosen = theirs or frames
    missing = len(chosen) - _FIRST - _LAST
    if missing <= 0:
        return list(traceback.StackSummary.extract(iter(chosen)).format())
    head = traceback.StackSummary.extract(iter(chosen[:_FIRST])).format()
    tail = traceback.StackSummary.extract(iter(chosen[-_LAST:])).format()
    return [*head, f"  ... {missing} frames left out ...\n", *tail]


def _left_out(file: str, skip: Callable[[str], bool] | None) -> bool:
    return in_stepwell(file) or (skip is not None and skip(file))

"""Whether a ``finally`` runs because the run parks."""

from __future__ import annotations

from stepwell.errors import Suspend


def is_suspending() -> bool:
    """Inside ``finally`` or ``except BaseException``: whether the frames are being left because the run parks or its
    life is over, and will be entered again in a later life.
    """
    from stepwell.runtime._live import current_life

    life = current_life.get()
    return life is not None and isinstance(life.over, Suspend)

"""`Exporter`: the hooks of an export, to be overridden."""

from __future__ import annotations

from typing import Any

HOOKS = ("before_convert", "convert_data", "after_convert", "additional_file_saving")


class Exporter:
    """Changes items on their way out. Each hook does nothing here.

    Args:
        context: of the export.
    """

    def __init__(self, context: Any) -> None:
        self.context = context

    def before_convert(self, data: dict[str, Any]) -> dict[str, Any]:
        """First: the item as it was read. Returns an item."""
        return data

    def convert_data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Second: the conversion proper. Returns an item."""
        return data

    def after_convert(self, data: dict[str, Any]) -> dict[str, Any]:
        """Third. Returns an item, whose ``data`` is what is saved."""
        return data

    def additional_file_saving(self, path: str) -> None:
        """Once, at the end: write more files.

        Args:
            path: URL of the export's folder; a local path where the storage is local.
        """


def hook_of(context: Any, name: str) -> Any:
    """The action's own method of this name, else that of its exporter."""
    action = context.action
    own = getattr(action, name, None)
    if callable(own):
        return own
    kind = getattr(action, "exporter_class", None) or Exporter
    return getattr(kind(context), name)

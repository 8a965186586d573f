"""Predictors for tests."""

from __future__ import annotations

from typing import Any


def predict(task: dict[str, Any]) -> dict[str, Any]:
    if task["id"] == 2:
        raise ValueError("cannot see")
    return {"label": f"p{task['id']}"}


class Model:
    def __init__(self, model: str | None, scale: int = 1) -> None:
        self.model, self.scale = model, scale

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.model, "scaled": task["id"] * self.scale}

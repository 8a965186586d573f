"""Where a step's body runs outside the engine's own threads; an executor holds no truth and may die at any time."""

from stepwell.executors._api import Executor, Stopped, Talking, TimeUp, current_port, open_executor

__all__ = ["Executor", "Stopped", "Talking", "TimeUp", "current_port", "open_executor"]

"""The run as the steps see it: what `BaseStepContext` serves beyond its fields, and where what they say goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.errors import SerDesError, StepwellError, Suspend

if TYPE_CHECKING:
    from stepwell.durable._door import Door
    from stepwell.pipeline._plan import Progress

EVERY = 0.5
"""Seconds between two notes of one bar or of one category's metrics: the latest wins, first and last are kept."""


class Notes:
    """What a run's pipeline says of itself, beside the run's records."""

    def __init__(self, door: Door, progress: Progress) -> None:
        self._door = door
        self.progress = progress
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str | None], float] = {}
        self._late: dict[tuple[str, str | None], tuple[str, Any]] = {}
        self._timer: threading.Timer | None = None

    def put(self, key: str, kind: str, data: Any) -> None:
        """A note that rides with the next commit. Where the run is over, nobody hears it."""
        try:
            self._door.note(key, kind, data)
        except (StepwellError, Suspend):
            pass

    def step_done(self) -> None:
        """A step has ended: what was held back of it, and how far the run is."""
        if self._late:
            self.flush()
        self.rarely("", "progress", None, [self.progress.fraction(), None, ""])

    def rarely(self, key: str, kind: str, category: str | None, data: Any) -> None:
        """A note of which the latest is enough."""
        place, now = (kind, category), self._door.monotonic()
        with self._lock:
            last = self._last.get(place)
            if last is not None and now - last < EVERY:
                if kind == "metrics" and place in self._late:
                    data = [category, {**self._late[place][1][1], **data[1]}]
                self._late[place] = (key, data)
                if self._timer is None:
                    self._timer = threading.Timer(EVERY, self.flush, [True])
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._last[place] = now
        self.put(key, kind, data)

    def flush(self, whole: bool = False) -> None:
        """Write what was held back. ``whole``: also how far the whole run is, which may wait beyond a step's end."""
        if not self._late:
            return
        with self._lock:
            late = {place: said for place, said in self._late.items() if whole or place[0] != "progress"}
            self._late = {place: said for place, said in self._late.items() if place not in late}
            if self._timer is not None and not self._late:
                self._timer.cancel()
                self._timer = None
            self._last.update(dict.fromkeys(late, self._door.monotonic()))
        for (kind, _), (key, data) in late.items():
            self.put(key, kind, data)

    def masked(self, value: Any) -> Any:
        """The value without the run's secrets."""
        return self._door.redactor.redact_value(value)

    def secret(self, text: str) -> None:
        """Mask this text from here on."""
        self._door.redactor.feed(text)


class Voice:
    """What one step says: `stepwell.pipeline._sink.Sink`."""

    def __init__(
        self, notes: Notes, step: str = "", weight: float = 0.0, over: Callable[[], bool] | None = None
    ) -> None:
        self._notes = notes
        self._over = over
        self.step = step
        self.weight = weight

    def _unheard(self) -> bool:
        """Whether this is an attempt whose time was up: what its body still says is dropped."""
        return self._over is not None and self._over()

    def event(self, event: str, data: Mapping[str, Any], file: str | None) -> None:
        """Something happened."""
        if self._unheard():
            return
        self._notes.put(self.step, "event", [event, recordable(dict(data)), file])

    def progress(self, category: str | None, current: int, total: int, percent: float) -> None:
        """A bar has moved; the overall one with it, if it is the step's own."""
        if self._unheard():
            return
        self._notes.rarely(self.step, "bar", category, [category, current, total, percent])
        if self.weight and category == self.step:
            fraction = self._notes.progress.fraction(self.weight * current / total)
            self._notes.rarely("", "progress", None, [fraction, None, self.step])

    def metrics(self, category: str | None, value: Mapping[str, Any]) -> None:
        """Figures."""
        if self._unheard():
            return
        self._notes.rarely(self.step, "metrics", category, [category, recordable(dict(value))])

    def masked(self, value: Any) -> Any:
        """The value without the run's secrets."""
        return self._notes.masked(value)

    def secret(self, text: str) -> None:
        """Mask this text from here on."""
        self._notes.secret(text)


def recordable(value: Any) -> Any:
    """The value, or where it cannot be recorded something like it: nobody's work fails for what it says."""
    try:
        serde.encode(value)
    except SerDesError:
        if isinstance(value, dict):
            return {str(key): recordable(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [recordable(item) for item in value]
        return f"<{type(value).__name__}>"
    return value


class StepLink:
    """The run as one step sees it: `stepwell.pipeline.steps.context.Link`."""

    def __init__(
        self, door: Door, sink: Voice, key: str, *, attempt: int = 1, in_loop: bool = False,
        over: Callable[[], bool] | None = None, undoing: bool = False,
    ) -> None:  # fmt: skip
        self._door = door
        self._undoing = undoing
        self.sink = sink
        self._key = key
        self.attempt = attempt
        self._in_loop = in_loop
        self._over = over
        self.run_id: str | None = door.run_id

    def once(self, key: str, fn: Callable[[], Any]) -> Any:
        """See `BaseStepContext.once`."""
        from stepwell.core import label

        if not self._key:
            message = f"once({key!r}): only a step that is executed can record it"
            raise RuntimeError(message)
        place = f"{self._key}/once:{label(key)}"
        if self._undoing:
            return self._door.recalled(place, fn, in_loop=self._in_loop)
        return self._door.once(place, fn, in_loop=self._in_loop)

    def cancelled(self) -> bool:
        """Whether the run is being cancelled, or the attempt is over."""
        return self._door.cancelled or (self._over is not None and self._over())

"""Actions by import path: ``stepwell run app.py:MyUploadAction``, whose input are the action's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.client._retry import SCRIPT_QUEUE
from stepwell.core import RunSucceeded
from stepwell.durable._door import Door
from stepwell.errors import UsageError
from stepwell.pipeline._results import joined, split
from stepwell.pipeline._target import Target, interpreter_of, unrecorded
from stepwell.pipeline.actions._params import MASK, checked_params, split_secrets
from stepwell.runtime._observe import Observer

if TYPE_CHECKING:
    from stepwell.pipeline._interpreter import Interpreter
    from stepwell.pipeline.actions.action import BaseAction
    from stepwell.pipeline.steps.orchestrator import Orchestrator
    from stepwell.runtime._life import Life
    from stepwell.runtime._live import Ending


class ActionFunction(Target):
    """An action class as a durable function. The value of its runs is what the action's ``execute`` returns."""

    def __init__(self, kind: type[BaseAction[Any]], target: str) -> None:
        super().__init__(kind, target)
        self._kind = kind
        self._given: dict[str, Any] = {}
        """Parameters with secrets, which are on record nowhere, by the text of the input that is."""
        self.plugins = (_Finisher(self),)
        self.under_way: dict[str, tuple[BaseAction[Any], Any]] = {}
        """By run, the action and the context of the life that this process drives."""

    def build(self, given: Any) -> Orchestrator[Any]:
        """Make the action.

        Raises:
            BadArguments: with all problems of the parameters.
            UsageError: it has no steps.
        """
        action = self._kind(given)
        try:
            return action.orchestrator()
        except RuntimeError as error:
            message = f"{self.name}: {error}"
            raise UsageError(message) from error

    def event_of(self, value: Any) -> Any:
        """As of every target; secrets are masked, and the places named where they were."""
        event = super().event_of(value)
        parts = split(event)
        recorded = serde.decode(parts["input"])
        places = list(_differing(value, recorded, ""))
        if not places:
            return event
        self._given[parts["input"]] = value
        return joined({**parts, "unrecorded": serde.encode(places)})

    def recorded(self, value: Any) -> Any:
        """The parameters without secrets. Those in longer texts are masked with the whole event."""
        _, secrets = split_secrets(checked_params(self._kind.params_model, value))
        return _masked(value, frozenset(secrets.values()))

    def queue_of(self, text: str) -> str:
        """No worker can go on with what was given secrets that are not recorded."""
        return SCRIPT_QUEUE if unrecorded(text) else self.queue

    def _begin(self, event: str, handler: Any) -> Interpreter:
        text = split(event)["input"]
        given = self._given.get(text)
        if given is None and (places := unrecorded(event)):
            message = f"{', '.join(places)}: a secret is not recorded; give it again, or as ${{env:NAME}}"
            raise Door(handler).refused(message)
        action = self._kind(serde.decode(text) if given is None else given)
        built = action.orchestrator()
        interpreter = interpreter_of(built, handler, action.result)
        self.under_way[interpreter.door.run_id] = action, built.context
        return interpreter


class _Finisher(Observer):
    """Lets go of what was kept for a rollback, once the run has succeeded on record."""

    def __init__(self, function: ActionFunction) -> None:
        self._function = function

    def on_life_end(self, life: Life, ending: Ending) -> None:
        """See the class."""
        known = self._function.under_way.pop(life.run.id, None)
        if known is not None and ending.how == "ended" and isinstance(life.run.end, RunSucceeded):
            action, context = known
            action.finished(context)


def _masked(value: Any, secrets: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_masked(item, secrets) for item in value)
    return MASK if isinstance(value, str) and value in secrets else value


def _differing(given: Any, recorded: Any, place: str) -> Iterator[str]:
    """Places of texts that are not on record as they were given: ``storage.configuration.secret_key``."""
    if isinstance(given, Mapping):
        for key, item in given.items():
            yield from _differing(item, recorded.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(given, list | tuple):
        for number, item in enumerate(given):
            yield from _differing(item, recorded[number], f"{place}.{number}")
    elif given != recorded:
        yield place

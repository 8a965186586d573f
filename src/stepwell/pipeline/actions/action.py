"""`BaseAction`: parameters, steps and a context, run as one pipeline."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, get_args

from pydantic import BaseModel

from stepwell.errors import BadArguments
from stepwell.pipeline._storage_spec import REFERENCE, expanded, references
from stepwell.pipeline._workspace import Workspace
from stepwell.pipeline.actions._params import checked_params, revealed, split_secrets
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps.context import BaseStepContext
from stepwell.pipeline.steps.orchestrator import Orchestrator
from stepwell.pipeline.steps.registry import StepRegistry

if TYPE_CHECKING:
    from stepwell.client import Engine

P = TypeVar("P", bound=BaseModel)
TRANSIENT = {"transient": True}


@dataclass
class ActionContext(BaseStepContext):
    """What the contexts of all actions share.

    Args:
        params: the action's parameters, secrets masked.
        secrets: the secrets among them, and what ``${env:NAME}`` in them stands for; never recorded.
        action: the action, for its hooks; each process has its own.
    """

    params: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False, metadata={"secret": True})
    action: Any = field(default=None, repr=False, metadata=TRANSIENT)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that the runtime context gives."""
        env: Mapping[str, str] = getattr(self.runtime_ctx, "env", os.environ)
        return env

    @property
    def workspace(self) -> Workspace:
        """Where ids are looked up."""
        return Workspace.current(self.env)

    params_model: ClassVar[type[BaseModel]] = BaseModel
    """Where defaults of parameters come from that are not given."""

    def param(self, name: str) -> Any:
        """A parameter, with its secrets; its default if it is not given. ``${env:NAME}`` is what the variable holds.

        Raises:
            BadArguments: a secret is not there, or the variable is not set.
        """
        if name in self.params:
            value = revealed({name: self.params[name]}, self.secrets)[name]
            return expanded(value, self.env) if isinstance(value, str) and REFERENCE.fullmatch(value) else value
        field_info = self.params_model.model_fields.get(name)
        return None if field_info is None else field_info.get_default(call_default_factory=True)


class BaseAction(Generic[P]):
    """A pipeline with parameters of its own. A subclass gives steps and context; its generic argument (a pydantic
    model) says what the parameters are; without one, there are none.

    Args:
        params: a mapping or the model.
        runtime_ctx: logger, environment, clients; default a `RuntimeContext`.
        run_id: names the run, which is resumed if it exists.
        engine: what the run is kept with; default the store of ``STEPWELL_STORE``.
        progress_callback: called ``(percent, 100)`` after each step.

    Raises:
        BadArguments: with all problems of the parameters; nothing was written.
    """

    action_name: ClassVar[str] = ""
    """What `run_plugin` calls it."""
    params_model: ClassVar[type[BaseModel]] = BaseModel
    """The model of the parameters; taken from the generic argument."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for origin in getattr(cls, "__orig_bases__", ()) if "__orig_bases__" in cls.__dict__ else ():
            for argument in get_args(origin):
                if isinstance(argument, type) and issubclass(argument, BaseModel):
                    cls.params_model = argument

    def __init__(
        self,
        params: Mapping[str, Any] | BaseModel | None = None,
        runtime_ctx: Any = None,
        *,
        run_id: str | None = None,
        engine: Engine | None = None,
        progress_callback: Callable[[int, int], Any] | None = None,
    ) -> None:
        self.params: P = cast("P", checked_params(self.params_model, params))
        self.runtime_ctx = RuntimeContext() if runtime_ctx is None else runtime_ctx
        self.run_id = run_id
        self.engine = engine
        self.progress_callback = progress_callback

    def setup_steps(self, registry: StepRegistry[Any]) -> None:
        """Register the steps; here none. To be overridden."""

    def create_context(self) -> BaseStepContext:
        """Make the context of a run."""
        return ActionContext(**self.shared_fields())

    def result(self, context: Any) -> dict[str, Any]:
        """What `execute` returns besides the summary, from the context at the end."""
        return {}

    def finished(self, context: Any) -> None:
        """The run has succeeded: what was kept for a rollback may go. May be called again."""

    def execute(self) -> dict[str, Any]:
        """Run the steps as one durable run, or take it up again.

        Returns:
            ``success``, ``steps_executed``, ``steps_total``, and the action's own keys.

        Raises:
            StepFailed: a step failed, and what was done was rolled back.
            RuntimeError: there are no steps.
        """
        orchestrator = self.orchestrator()
        summary = orchestrator.execute()
        self.run_id = orchestrator.run_id
        context = orchestrator.context
        result = {**summary, **self.result(context)}
        self.finished(context)
        return result

    def run(self) -> dict[str, Any]:
        """The same as `execute`."""
        return self.execute()

    def orchestrator(self) -> Orchestrator[Any]:
        """Steps and context, ready to be executed.

        Raises:
            RuntimeError: there are no steps.
        """
        registry: StepRegistry[Any] = StepRegistry()
        self.setup_steps(registry)
        if not registry:
            message = "No steps registered. Override setup_steps() and register at least one step."
            raise RuntimeError(message)
        return Orchestrator(
            registry,
            self.create_context(),
            self.progress_callback,
            run_id=self.run_id,
            name=self.action_name or type(self).__name__,
            engine=self.engine,
        )

    def shared_fields(self) -> dict[str, Any]:
        """The fields of an `ActionContext`, as this action fills them."""
        recorded, secrets = split_secrets(self.params)
        env: Mapping[str, str] = getattr(self.runtime_ctx, "env", os.environ)
        storages = _storages(env)
        wanted = set(references(recorded)) | set(references(storages))
        secrets |= {f"storages.yaml/{place}": text for place, text in split_secrets(storages)[1].items()}
        secrets |= {f"${{env:{name}}}": env[name] for name in wanted if name in env}
        return {"runtime_ctx": self.runtime_ctx, "params": recorded, "secrets": secrets, "action": self}


def _storages(env: Mapping[str, str]) -> dict[str, Any]:
    """Configured storages, whose variables may be secrets. Mistakes in them are for the step that opens one."""
    try:
        return Workspace.current(env).storages()
    except (OSError, BadArguments):
        return {}


def scratch_folder(context: ActionContext) -> Path:
    """A local folder of the run's own, for what is needed until the run has ended. Not made."""
    return context.workspace.local_folder() / "runs" / run_token(context)


def remove_scratch(folder: Path) -> None:
    """Remove a run's `scratch_folder`, and the folder of such folders when it is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def run_token(context: ActionContext) -> str:
    """Sixteen hex digits that stand for the run in names of files; also when the run has ended."""
    known = context.run_id or getattr(context.action, "run_id", None)
    return hashlib.sha256(str(known or "").encode()).hexdigest()[:16]

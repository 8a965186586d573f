"""Map and parallel: from what a caller writes to what the core's coordinator wants, and the result back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from stepwell.core import BatchWanted, BlobRef, Wanted, item_key, named_item_key
from stepwell.durable._checks import is_encodable
from stepwell.durable._completion import completion_status
from stepwell.durable._settling import settle, settle_async
from stepwell.durable.concurrency.models import (
    BatchResult,
    CompletionReason,
    failed_item,
    started_item,
    succeeded_item,
)
from stepwell.durable.config import NestingType
from stepwell.errors import ErrorRecord, ValidationError
from stepwell.runtime._scope import checked_name
from stepwell.runtime._values import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stepwell.core import BranchEnded, Kind
    from stepwell.durable._operations import Operations
    from stepwell.runtime._scope import Scope


class _Item(msgspec.Struct, array_like=True):
    """One branch in the recorded result. Payload and error only where the branch has no records of its own."""

    index: int
    status: str
    payload: str | BlobRef | None = None
    error: ErrorRecord | None = None


class _Envelope(msgspec.Struct):
    """A batch's recorded result: why it was over, and how each branch stood then."""

    reason: str
    items: list[_Item]


_decode = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder().encode


class ScopeBody:
    """The inside of a child context or branch: `stepwell.runtime._api.ScopeBody`."""

    def __init__(self, context: Operations, run: Callable[[Any], Any], codec: Any, summarize: Any = None) -> None:
        self._context = context
        self._run = run
        self.codec = codec
        self._summarize = summarize

    def call(self, scope: Scope) -> Any:
        """Run it in a context on ``scope``, and see what it began to its end."""
        if scope.life.is_async:
            return self._call_async(scope)
        try:
            value = self._run(self._context._inner(scope))
            if hasattr(type(value), "__await__"):
                refuse_awaitable(value)
        except Exception:
            settle(scope, failed=True)
            raise
        settle(scope, failed=False)
        return value

    async def _call_async(self, scope: Scope) -> Any:
        import asyncio

        try:
            value = self._run(self._context._inner(scope))
            if hasattr(type(value), "__await__"):
                value = await value
        except (Exception, asyncio.CancelledError):
            if scope.life.over is None:
                await settle_async(scope, failed=True)
            raise
        if scope.pendings:
            await settle_async(scope, failed=False)
        return value

    def summary(self, value: Any) -> str | None:
        """What to keep of a value that is too large to keep."""
        return None if self._summarize is None else str(self._summarize(value))


class Batch:
    """The insides of a map or parallel: `stepwell.runtime._api.BatchBody`."""

    def __init__(self, context: Operations, config: Any, runs: Sequence[Callable[[Any], Any]], key: str) -> None:
        self._context = context
        self._config = config
        self._runs = runs
        life = context._scope.life
        self._life = life
        self._item_codec = context._codec(config.item_serdes or config.serdes, key)
        self._whole = None if config.serdes is None else context._codec(config.serdes, key)

    @property
    def item_codec(self) -> Any:
        """How an item's result is recorded."""
        return self._item_codec

    def branch(self, index: int) -> ScopeBody:
        """Body of one branch."""
        return ScopeBody(self._context, self._runs[index], self._item_codec, self._config.summary_generator)

    def ask(self, asked: BatchWanted, ended: dict[int, BranchEnded]) -> str:
        """The user's ``should_complete``: "" or a reason."""
        started = range(len(asked.branches)) if asked.max_concurrency is None else set(ended)
        answer = self._config.completion_config.ask(completion_status(len(asked.branches), ended, started))
        return str(answer or "")

    def conclude(
        self, scope: Scope, asked: BatchWanted, reason: str, ended: dict[int, BranchEnded], started: frozenset[int]
    ) -> tuple[str, Any]:
        """Text for the record, and the value."""
        items, parts = [], []
        for index in sorted(started):
            event, key = ended.get(index), asked.branches[index].key
            if event is None:
                items.append(_Item(index, "STARTED"))
                parts.append(started_item(index))
            elif event.ok:
                items.append(_Item(index, "SUCCEEDED", event.payload if asked.virtual else None))
                parts.append(succeeded_item(index, event.value))
            else:
                assert event.error is not None
                items.append(_Item(index, "FAILED", None, event.error if asked.virtual else None))
                parts.append(failed_item(index, event.error, key=key, run_id=self._life.run.id))
        result: BatchResult[Any] = BatchResult(parts, CompletionReason(reason))
        if self._whole is not None:
            text = self._whole.encode(result, asked.want.name or "result")
            return text, self._whole.decode(text, asked.want.key)
        return _encode(_Envelope(reason, items)).decode(), result

    def missing(self, scope: Scope, asked: BatchWanted, text: str) -> tuple[int, ...]:
        """Branches whose values a replay must make again."""
        if self._whole is not None or asked.virtual:
            return ()
        ops = scope.life.run.ops
        large = (i.index for i in _decode(text).items if i.status == "SUCCEEDED")
        return tuple(i for i in large if i < len(asked.branches) and ops[asked.branches[i].key].replay_children)

    def restore(self, scope: Scope, asked: BatchWanted, text: str, again: dict[int, BranchEnded]) -> Any:
        """The recorded value again."""
        if self._whole is not None:
            return self._whole.decode(text, asked.want.key)
        envelope, life, parts = _decode(text), self._life, []
        for item in envelope.items:
            key = asked.branches[item.index].key if item.index < len(asked.branches) else asked.want.key
            op = life.run.ops.get(key)
            if item.status == "STARTED":
                parts.append(started_item(item.index))
            elif item.status == "FAILED":
                error = item.error or (op.error if op is not None else None)
                assert error is not None
                parts.append(failed_item(item.index, error, key=key, run_id=life.run.id))
            elif item.index in again:
                parts.append(succeeded_item(item.index, again[item.index].value))
            else:
                payload = item.payload if asked.virtual or op is None else op.payload
                parts.append(succeeded_item(item.index, unpack(life, self._item_codec, payload, key)))
        return BatchResult(parts, CompletionReason(envelope.reason))


def batch_wanted(  # the parts of a map or parallel
    context: Operations,
    place: tuple[str, str | None],
    kind: Kind,
    config: Any,
    runs: Sequence[Callable[[Any], Any]],
    names: Sequence[str | None],
    item_names: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> BatchWanted:
    """The batch as the core wants it.

    Raises:
        ValidationError: criteria that these branches cannot meet, item keys that are not all different, or a name
            that holds a secret.
    """
    key, name = place
    config.completion_config.validate(len(runs))
    batch = Batch(context, config, runs, key)
    branch_kind: Kind = "map_item" if kind == "map" else "parallel_branch"
    keys = [item_key(key, i) for i in places or range(len(runs))]
    if item_names is not None:
        keys = [named_item_key(key, text) for text in item_names]
        if len(set(keys)) < len(keys):
            twice = next(text for text in item_names if item_names.count(text) > 1)
            message = f"map '{name or key}': item_key gives {twice!r} for more than one item"
            raise ValidationError(message)
    for given in (names, item_names or ()):
        for own, text in zip(keys, given, strict=False):
            if text:
                context._scope.refuse_secret(text, own)
    branches = tuple(Wanted(own, branch_kind, names[i], None, None, batch.item_codec) for i, own in enumerate(keys))
    return BatchWanted(
        Wanted(key, kind, name, None, None, None),
        branches,
        config.completion_config.to_core(),
        config.max_concurrency,
        config.nesting_type is NestingType.FLAT,
        batch,
    )


def listed(inputs: Iterable[Any]) -> list[Any]:
    """A list of what may be any iterable. Raises ValidationError for text and what cannot be gone through."""
    if isinstance(inputs, str | bytes) or not hasattr(inputs, "__iter__"):
        raise ValidationError(f"map and parallel take a list, not {type(inputs).__name__}")
    return list(inputs)


def refuse_awaitable(value: Any) -> NoReturn:
    """What a function of a sync scope gave is not awaited: its context would block the loop. Raises ValidationError."""
    if hasattr(value, "close"):
        value.close()  # nobody awaits it, and Python would complain of that
    raise ValidationError("a scope of a sync durable function gave an awaitable: make the durable function async def")


def branch_name(given: object, default: str) -> str:
    """The name that the user gave a branch, or the default. Raises ValidationError for what is no name."""
    return default if given is None or given == "" else checked_name(given)


def item_key_text(given: object) -> str:
    """What the user's ``item_key`` gave. Raises ValidationError for anything but a text or an int."""
    if isinstance(given, bool) or not isinstance(given, str | int) or not is_encodable(str(given)):
        raise ValidationError(f"map: item_key gives {given!r}, not a text or an int")
    return str(given)


def item_run(func: Any, takes: int, items: list[Any], index: int) -> Callable[[Any], Any]:
    """A map's function with its item: it takes the context and as many of item, index, inputs as it wants."""
    rest = (items[index], index, items)[: takes - 1]
    return lambda context: func(context, *rest)

"""`RunHandle`: one run, to wait for, look at, and put right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, overload

from stepwell import serde
from stepwell.client import _answers
from stepwell.client._history import aws_events
from stepwell.client._ids import new_id
from stepwell.client._none import NONE
from stepwell.client._operations import operations_of
from stepwell.client._outcome import Reader, state_of
from stepwell.client._retry import ENDED, SCRIPT_QUEUE, choice_of, reopen, undecided
from stepwell.client._settings import seconds
from stepwell.client._views import callback_object, shown_status
from stepwell.core import Reopened, SignalReceived, decode_records
from stepwell.durable._program import DurableProgram
from stepwell.errors import BadArguments, ErrorObject, UsageError
from stepwell.journal import RunFilter
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.runtime._hooks import of_door
from stepwell.runtime._nobody import NOBODY
from stepwell.runtime._values import text_of
from stepwell.serde import to_error_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.client._engine import Engine
    from stepwell.client._retry import Choice
    from stepwell.core import AnyRecord, RunState
    from stepwell.durable._duration import DurationLike
    from stepwell.durable._function import DurableFunction
    from stepwell.durable.lambda_service import Operation
    from stepwell.journal import RunRow
    from stepwell.runtime import Life


class RunHandle:
    """One run on record. ``id`` is its id; everything else is asked of the store when it is called."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self.id = run_id

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    @property
    def _row(self) -> RunRow:
        return self._engine.find(self.id)

    @property
    def _run(self) -> RunState:
        return state_of(self._engine.store, self._row)

    @property
    def status(self) -> str:
        """The status that is true now, in the words of ARCHITECTURE.md §7."""
        store = self._engine.store
        return shown_status(self._row, store.worker_silence(), store.now())

    def wait(self, timeout: DurationLike | None = None) -> None:
        """Block until the run has ended or is blocked, `TimeoutError` after ``timeout`` (Duration or seconds)."""
        self._engine.drive.wait(self.id, seconds(timeout))

    def result(self, timeout: DurationLike | None = None) -> Any:
        """The run's value. Raises as `stepwell.run` does, `TimeoutError` after ``timeout`` (Duration or seconds)."""
        return self._engine.drive.watch(self.id, seconds(timeout))

    async def wait_async(self, timeout: DurationLike | None = None) -> None:
        """As `wait`, for async callers."""
        import asyncio

        await asyncio.to_thread(self.wait, timeout)

    async def result_async(self, timeout: DurationLike | None = None) -> Any:
        """As `result`, for async callers."""
        import asyncio

        return await asyncio.to_thread(self.result, timeout)

    @property
    def error(self) -> ErrorObject | None:
        """The error on record of a run that did not succeed."""
        error = getattr(self._run.end, "error", None)
        return None if error is None else to_error_object(error)

    @property
    def operations(self) -> list[Operation]:
        """Top-level operations in call order, results decoded."""
        return operations_of(self._engine.store, self._run)

    def get_step(self, name: str) -> Operation:
        """The first step with this name, anywhere in the run. Raises `LookupError` that lists the names there are."""
        return self._get(name, {"STEP"})

    def get_wait(self, name: str) -> Operation:
        """The first wait with this name. Raises `LookupError`."""
        return self._get(name, {"WAIT"})

    def get_callback(self, name: str) -> Operation:
        """The first callback with this name. Raises `LookupError`."""
        return self._get(name, {"CALLBACK"})

    def get_invoke(self, name: str) -> Operation:
        """The first invoke with this name. Raises `LookupError`."""
        return self._get(name, {"CHAINED_INVOKE"})

    def get_context(self, name: str) -> Operation:
        """The first child context, map, parallel or branch with this name. Raises `LookupError`."""
        return self._get(name, {"CONTEXT"})

    def _get(self, name: str, types: set[str]) -> Operation:
        found = [op for op in _flat(self.operations) if op.operation_type.name in types]
        for op in found:
            if op.name == name:
                return op
        names = ", ".join(sorted({op.name for op in found if op.name})) or "none"
        message = f"run {self.id} has no {'/'.join(types).lower()} called {name!r}; it has: {names}"
        raise LookupError(message)

    @overload
    def history(self, format: Literal["stepwell"] = "stepwell") -> list[dict[str, Any]]: ...
    @overload
    def history(self, format: Literal["aws"], *, include_data: bool = True) -> dict[str, list[dict[str, Any]]]: ...
    def history(self, format: str = "stepwell", *, include_data: bool = True) -> Any:
        """What is on record of the run, in order.

        Args:
            format: ``stepwell``: a list of records, ``{seq, epoch, record, ...fields}``, times in microseconds since
                1970; ``aws``: ``{"Events": [...]}`` in the shape of AWS Lambda's durable executions (durable.md §18),
                times aware datetimes.
            include_data: of ``aws``: False leaves every ``Payload`` out.

        Raises:
            UsageError: another format.
            Corrupt: the journal is damaged.
        """
        if format == "aws":
            return {"Events": list(aws_events(self._engine.store, self._row, include_data=include_data))}
        if format != "stepwell":
            message = f"history format {format!r}: there are 'stepwell' and 'aws'"
            raise UsageError(message)
        return list(self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        import msgspec

        store, row, after = self._engine.store, self._row, 0
        while page := store.record_load(row.rid, after=after, limit=500):
            for entry in page:
                after = entry.seq
                for record in decode_records(entry.data):
                    fields = {f: getattr(record, f) for f in record.__struct_fields__}
                    yield {
                        "seq": entry.seq,
                        "epoch": entry.epoch,
                        "record": type(record).__name__,
                        **msgspec.to_builtins(fields),
                    }

    def logs(self, step: str | None = None) -> list[dict[str, Any]]:
        """Lines that loggers said beside the steps: ``{at, key, level, attempt, text}`` (at: microseconds)."""
        store, row, after, lines = self._engine.store, self._row, 0, []
        while page := store.note_load(row.rid, kind="log", key=None, after=after, limit=500):
            for n, note in page:
                after = n
                if step is None or note.key == step or note.key.endswith("/" + step):
                    level, attempt, text = serde.decode_lenient(note.data)
                    lines.append({"at": note.at, "key": note.key, "level": level, "attempt": attempt, "text": text})
        return lines

    # -- what waits for an answer

    def callbacks(self) -> list[dict[str, Any]]:
        """Callbacks and approvals that wait: ``{id, name, timeout_at, form}``. ``timeout_at``: aware datetime or None;
        ``form``: of approvals ``{title, who, model, schema}``, else None.
        """
        return [callback_object(op) for op in _answers.open_callbacks(self._engine.store, self._run)]

    def approve(self, name: str | None = None, value: Any = NONE, *, reject: str | None = None) -> None:
        """Answer the approval ``name`` (may be left out where only one waits): ``value`` fills in its form.

        Args:
            name: name or key of the approval.
            value: JSON-like; default True.
            reject: the reason of a refusal, instead.

        Raises:
            UsageError: no such approval waits; those that do are listed.
            BadArguments: the form refuses the value; all problems are listed, and the approval stays open.
        """
        op = _answers.pick(self._engine.store, self._run, name, approvals=True)
        assert op.callback_id is not None
        if reject is not None:
            _answers.answer(self._engine, op.callback_id, error=_answers.error_record(ErrorObject(reject, "Rejected")))
            return
        text = None if value is NONE else _plain_json(value)
        _answers.answer(self._engine, op.callback_id, text=text)

    def signal(self, name: str, value: Any = None, *, idempotency_key: str | None = None) -> None:
        """Send the run a signal; durable when this returns.

        Args:
            name: what ``wait_signal`` waits for.
            value: what it gives.
            idempotency_key: a second signal of this name with the same key is not sent.

        Raises:
            SerDesError: the value cannot be recorded.
            UsageError: the run has ended.
        """
        _answers.signal(self._engine, self._row.id, name, value, idempotency_key)

    def published(self, name: str, default: Any = None) -> Any:
        """The latest value that the run published under ``name``."""
        payload = self._run.published.get(name)
        if payload is None:
            return default
        reader: Any = Reader(self._engine.store)
        return serde.decode(text_of(reader, payload, name), key=name)

    # -- putting right

    def cancel(self, reason: str | None = None) -> None:
        """Ask for the end of the run: its finished steps are undone, then it is ``cancelled``.

        Returns once the request is durable; a live holder sees it within a second. With no holder this process runs
        the undos if it knows the function.

        Raises:
            UsageError: the run has ended.
        """
        row = self._row
        if row.status in ENDED:
            message = f"run {self.id} has ended: {row.status}"
            raise UsageError(message)
        if reason is not None:
            reason = reason[:500]
        if not _answers.tell(self._engine, row.id, CANCEL, encode_cancel(reason, _answers.user())):
            message = f"run {self.id} has just ended"
            raise UsageError(message)

    def _refuse_script(self, row: RunRow) -> None:
        """Raise for runs that only their own script can go on with."""
        if row.queue == SCRIPT_QUEUE and row.status not in ENDED:
            message, hint = of_door(row.door, "refusal")(self._engine.store, row)
            raise UsageError(message, hint=hint)

    def resume(self, *, wait: bool = True, no_wait_parked: bool = False) -> Any:
        """Take the run up here and drive it to its end; also a blocked one. Returns its value."""
        row = self._row
        self._refuse_script(row)
        function = self._engine.function_for(row)
        if function is None:
            message = f"run {self.id} is a run of {row.function}, which this process does not know; give its file"
            raise UsageError(message)
        drive = self._engine.drive
        life = drive.resume_blocked(function, row) if row.status == "blocked" else None
        if not wait:
            drive.keep(function, self.id, life)
            return None
        return drive.until_end(function, self.id, life, wait=not no_wait_parked)

    def retry(
        self, force: Sequence[str] = (), skip: Sequence[str] = (), set: Mapping[str, Any] | None = None,
        *, wait: bool = True,
    ) -> Any:  # fmt: skip
        """Take a failed, cancelled, timed out or blocked run up again: failed operations get new attempts.

        Args:
            force: names or keys of finished operations that run again.
            skip: names or keys taken as finished with None.
            set: names or keys taken as finished with these values.
            wait: drive it to its end here and return its value.

        Raises:
            UsageError: it is open, has succeeded (and nothing is forced), its steps were undone, or a name is unknown.
            BadArguments: a value does not fit.
            RunHeld: somebody else was quicker.

        A run that only its own script drives is opened again, and None is returned: it goes on when that is run again.
        """
        row, run = self._row, self._run
        choice = choice_of(self._engine.store, row, run, force, skip, set or {})
        record = Reopened(
            self._engine.store.now(), _answers.user(), choice.force, choice.skip, tuple(choice.values.items()),
            choice.again,
        )  # fmt: skip
        # In one commit: between the two a run that is taken up would begin a step that is to be skipped.
        records: list[AnyRecord] = [record, *self._decisions(row, record, choice)]
        host = self._engine.host
        if row.queue == SCRIPT_QUEUE:  # whoever started it goes on with it
            host.give_back(reopen(host, row, run, records, NOBODY))
            return None
        function = self._engine.function_for(row)
        if function is None:
            message = f"run {self.id} is a run of {row.function}, which this process does not know; give its file"
            raise UsageError(message)
        life = reopen(host, row, run, records, DurableProgram(function, row.function))
        if not wait:
            self._engine.drive.keep(function, self.id, life)
            return None
        return self._engine.drive.until_end(function, self.id, life)

    def _decisions(self, row: RunRow, record: Reopened, choice: Choice) -> Iterator[SignalReceived]:
        for decision in choice.decide:
            yield SignalReceived(record.at, of_door(row.door, "DECISIONS"), serde.encode(decision), record.by)

    def skip(self, step: str) -> None:
        """Let a step of a pipeline that has not begun end as skipped; ``can_skip`` is not asked.

        Args:
            step: its name or key.

        Raises:
            UsageError: it is a run of another door, has ended or is being rolled back, or the step has begun; nothing
                was written.
        """
        self._say_of_step(step, "skip")

    def force(self, step: str) -> None:
        """Let a step of a pipeline that has not begun be executed; ``can_skip`` is not asked. Raises as `skip`."""
        self._say_of_step(step, "force")

    def _say_of_step(self, step: str, verb: str) -> None:
        row = self._row
        key = undecided(self._engine.store, row, self._run, step, verb)
        self.signal(of_door(row.door, "DECISIONS"), {"step": key, "do": verb})

    def _start_over(self) -> tuple[DurableFunction, str, Life]:
        """A new run with the recorded input of this one. Raises `UsageError` if its function is not known here."""
        row, reader = self._row, Reader(self._engine.store)
        function = self._engine.function_for(row)
        if function is None:
            message = f"run {self.id} is a run of {row.function}, which this process does not know; give its file"
            raise UsageError(message)
        text, run_id = text_of(cast("Any", reader), self._run.input, "input"), new_id()
        new = self._engine._new(function, run_id, text, row.tags, row.queue)
        return function, run_id, self._engine.host.begin(new, DurableProgram(function, row.function), text)

    def fork(self, to: Any = None, *, at: str | None = None, id: str | None = None) -> RunHandle:
        """Put a new run on record that begins with what this one has finished; ``fork().resume()`` drives it.

        Operations that are open here are not taken over, nor are failed ones of a run that did not succeed (as with
        `retry`): the fork asks for them anew. It undoes nothing that it has not done itself. This run stays as it is.

        Args:
            to: the durable function, or the name of one, that the fork runs; default this run's.
            at: name or key of the operation at which the fork goes on by itself; it and what was first recorded after
                it are not taken over. Default: all that has finished is.
            id: of the fork; default a new one.

        Raises:
            UsageError: only its own script drives this run, its steps were undone, or it has no operation ``at``.
            DuplicateRun: ``id`` is taken.
        """
        from stepwell.client._fork import plan, put

        made = plan(self._engine, self._row, self._run, to=to, at=at, run_id=id)
        put(self._engine, made)
        return RunHandle(self._engine, made.new.id)

    def children(self) -> list[RunHandle]:
        """Runs that this run's steps started."""
        rows = self._engine.store.run_list(RunFilter(parent=self.id), limit=1000)
        return [RunHandle(self._engine, row.id) for row in rows]


def _flat(operations: list[Operation]) -> Iterator[Operation]:
    for op in operations:
        yield op
        yield from _flat(list(op.child_operations))


def _plain_json(value: Any) -> str:
    import msgspec

    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        message = f"an approval's answer is plain JSON: {error}"
        raise BadArguments(message) from error

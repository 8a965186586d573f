"""Commands that tell a run something: signal, callback, approve; and what ``show`` says of those who wait for it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.cli._errors import say
from stepwell.cli._open import opened
from stepwell.cli._output import print_json
from stepwell.cli._run import read_input
from stepwell.client import _answers
from stepwell.client._none import NONE
from stepwell.durable._outside import APPROVAL
from stepwell.errors import BadArguments, ErrorObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import RunState
    from stepwell.journal import Store


def signal(run_id: str, name: str, text: str | None, options: dict[str, Any]) -> int:
    """``stepwell signal``."""
    value = None if text is None else read_input(text, "JSON")
    with opened(options["store"], write=not options["dry_run"]) as engine:
        handle = engine.get_run(run_id)
        if not options["dry_run"]:
            handle.signal(name, value, idempotency_key=options["key"])
        return _said(options, f"signal '{name}' to run {handle.id}", {"run": handle.id, "signal": name})


def callback(callback_id: str, options: dict[str, Any]) -> int:
    """``stepwell callback``."""
    chosen = [name for name in ("success", "failure", "heartbeat") if options[name] not in (None, False)]
    if len(chosen) != 1:
        message = "say what the answer is: --success TEXT, --failure MSG, or --heartbeat"
        raise BadArguments(message)
    if options["error_type"] is not None and chosen != ["failure"]:
        message = "--type goes with --failure"
        raise BadArguments(message)
    with opened(options["store"], write=not options["dry_run"]) as engine:
        found = _answers.Found(engine, callback_id)
        if not options["dry_run"]:
            if options["heartbeat"]:
                engine.send_callback_heartbeat(callback_id)
            elif options["failure"] is not None:
                error = ErrorObject(options["failure"], options["error_type"])
                engine.send_callback_failure(callback_id, error)
            else:
                engine.send_callback_success(callback_id, options["success"])
        what = f"{chosen[0]} to callback '{found.row.name or found.row.key}' of run {found.run_id}"
        return _said(options, what, {"run": found.run_id, "callback": callback_id, "answer": chosen[0]})


def approve(run_id: str, name: str | None, options: dict[str, Any]) -> int:
    """``stepwell approve``."""
    if options["value"] is not None and options["reject"] is not None:
        message = "--json is a yes and --reject a no: give one of them"
        raise BadArguments(message)
    value = NONE if options["value"] is None else read_input(options["value"], "--json")
    with opened(options["store"], write=not options["dry_run"]) as engine:
        handle = engine.get_run(run_id)
        op = _answers.pick(engine.store, handle._run, name, approvals=True)
        if not options["dry_run"]:
            try:
                handle.approve(op.key, value, reject=options["reject"])
            except BadArguments as refused:
                if refused.hint is None and op.form is not None:
                    refused.hint = _approve_line(handle.id, op.name or op.key, msgspec.json.decode(op.form))
                raise
        verb = "yes" if options["reject"] is None else "no"
        what = f"{verb} to approval '{op.name or op.key}' of run {handle.id}"
        return _said(options, what, {"run": handle.id, "approval": op.name or op.key, "answer": verb})


def _said(options: dict[str, Any], what: str, told: dict[str, Any]) -> int:
    dry = options["dry_run"]
    if options.get("as_json"):
        print_json({"dry_run": dry, **told})
    else:
        click.echo(f"would send {what}" if dry else f"sent {what}")
        if not dry:
            say(f"next: stepwell show {told['run']}")
    return 0


def waiting_lines(store: Store, run: RunState) -> Iterator[tuple[str, str]]:
    """What a run waits for from outside, each with the command that brings it."""
    for op in _answers.open_callbacks(store, run):
        name = op.name or op.key
        if op.sub_type == APPROVAL and op.form is not None:
            form = msgspec.json.decode(op.form)
            asked = f" (asked: {', '.join(form['who'])})" if form.get("who") else ""
            yield f"waits for approval '{name}': {form['title']}{asked}", _approve_line(run.id, name, form)
        else:
            yield f"waits for callback '{name}'", f"stepwell callback {op.callback_id} --success TEXT"
    for op in run.ops.values():
        if op.kind == "signal" and op.status == "started" and run.end is None:
            yield f"waits for signal '{op.signal}'", f"stepwell signal {run.id} {shlex.quote(str(op.signal))} JSON"


def _approve_line(run_id: str, name: str, form: dict[str, Any]) -> str:
    fields = (form.get("schema") or {}).get("properties")
    filled = {field: f"<{about.get('type', 'value')}>" for field, about in (fields or {}).items()}
    answer = f" --json {shlex.quote(msgspec.json.encode(filled).decode())}" if filled else ""
    return f"stepwell approve {run_id} {shlex.quote(name)}{answer}"

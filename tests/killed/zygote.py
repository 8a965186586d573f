"""A process that forks lives of a durable function, each of which may kill itself with SIGKILL at a ledger line.

It imports everything once and opens no store itself, so that a life costs a fork and not an interpreter. One JSON
command a line on stdin, one JSON answer a line on stdout.

Every interesting place writes one line to the ledger, an append-only file apart from the journal: a body's begin and
end, the moments before and after each append, a park, an undo, a claim. ``kill_at`` names the line, counted from the
life's first of its tag, at which the life ends as by a pulled plug.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from stepwell import Engine, Retry, durable_execution
from stepwell.durable.config import MapConfig
from stepwell.journal import Park
from stepwell.journal._sqlite import SqliteStore

_ledger = -1
_lines: dict[str, int] = {}
_kill_at: tuple[str, int] = ("", 0)


def note(tag: str, key: str = "") -> None:
    """Write one line; end the process there if it is the one."""
    _lines[tag] = _lines.get(tag, 0) + 1
    os.write(_ledger, f"{os.getpid()} {tag} {key}\n".encode())
    if (tag, _lines[tag]) == _kill_at:
        os.write(_ledger, f"{os.getpid()} KILL {tag}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def body(key: str, value: Any) -> Any:
    """What every step does: say that it begins, and that it has ended."""
    note("begin", key)
    note("end", key)
    return value


def undo(_context: Any, result: Any) -> None:
    """Undo of a step."""
    note("undo-begin", str(result))
    note("undo-end", str(result))


_failures: dict[str, int] = {}


def flaky(run: str) -> str:
    """Fails once per process."""
    note("begin", "flaky")
    _failures[run] = _failures.get(run, 0) + 1
    if _failures[run] < 2:
        raise ConnectionError("not yet")
    note("end", "flaky")
    return "done"


@durable_execution(name="killed")
def handler(event: Any, context: Any) -> Any:
    """A bit of everything."""
    first = context.step(lambda: body("first", 1), name="first", undo=undo)
    context.step(lambda: body("charge", 2), name="charge", at_most_once=True, retry=Retry(9, delay=0.001), undo=undo)
    context.wait(0.002, name="pause")
    context.step(lambda: flaky(context.run_id), name="flaky", retry=Retry(99, delay=0.001))
    rows = context.map(
        range(4),
        lambda ctx, item: ctx.step(lambda: body(f"item{item}", item), name=f"item{item}"),
        name="items",
        config=MapConfig(max_concurrency=event["width"]),
    )
    last = context.run_in_child_context(lambda ctx: ctx.step(lambda: body("last", 3), name="last", undo=undo), "inner")
    if event["fail"]:
        context.step(_fail, name="fail", retry=Retry(1))
    return [first, rows.get_results(), last]


def _fail() -> None:
    raise RuntimeError("as asked")


def _watched(store: SqliteStore) -> SqliteStore:
    commit, claim = store.batch_commit, store.run_claim

    def batch_commit(batches: Any) -> Any:
        parks = any(isinstance(batch.change, Park) for batch in batches)
        note("park-before" if parks else "append-before")
        done = commit(batches)
        note("wait" if parks else "append-after")
        return done

    def run_claim(*args: Any) -> Any:
        note("claim-before")
        lease = claim(*args)
        note("claim-after")
        return lease

    store.batch_commit = batch_commit  # type: ignore[method-assign]
    store.run_claim = run_claim  # type: ignore[method-assign, assignment]
    return store


def life(command: dict[str, Any]) -> int:
    """One life, in the forked child: 0 when the run has ended, 1 when it has failed."""
    global _ledger, _kill_at  # noqa: PLW0603 - one life per process
    _ledger = os.open(command["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    _kill_at = (command["kill_at"][0], command["kill_at"][1])
    engine = Engine(command["store"], hold=command["hold"])
    _watched(engine.store)  # type: ignore[arg-type]
    try:
        value = engine.run(handler, command["event"], id=command["run"])
    except RuntimeError:
        engine.stop()
        return 1
    os.write(_ledger, f"{os.getpid()} RESULT {json.dumps(value)}\n".encode())
    engine.stop()
    return 0


def main() -> None:
    """Serve commands until stdin ends."""
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                os._exit(life(command))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(99)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()

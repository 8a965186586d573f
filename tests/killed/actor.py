"""What the processes of this ring run: durable functions whose bodies write a ledger, and the parts a process plays.

``python actor.py '{"part": "worker", "store": …, "ledger": …, …}'``. The ledger is an append-only file apart from the
journal, a line for each begin and end of a body: ``pid tag key nanoseconds`` (of the machine's monotonic clock). A body
may wait at a *gate*, a named pipe: it blocks until the test opens the pipe, and goes on when the test closes it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from stepwell import Engine, Retry, durable_execution
from stepwell.durable import StepContext, StepInterruptedError

LEDGER = "STEPWELL_TEST_LEDGER"
CUT = 77
"""Exit code of a process that ended at a statement."""


def note(tag: str, key: str) -> None:
    """One line of the ledger."""
    line = f"{os.getpid()} {tag} {key} {time.monotonic_ns()}\n".encode()
    handle = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, line)
    os.close(handle)


def say(text: str) -> None:
    """One line on stdout, for the test."""
    os.write(1, f"{text}\n".encode())


def body(key: str, value: Any) -> Any:
    """What every step does: say that it begins, and that it has ended."""
    note("begin", key)
    note("end", key)
    return value


def is_first(key: str) -> bool:
    """Whether this body is the first one with its key that began."""
    return Path(os.environ[LEDGER]).read_text().count(f" begin {key} ") == 1


def at_gate(key: str, gate: str) -> str:
    """A body that waits at the gate if it is the first one with its key."""
    note("begin", key)
    if is_first(key):
        Path(gate).read_text()
    note("end", key)
    return key


def at_gate_with_the_lock(key: str, gate: str) -> str:
    """As `at_gate`, in calls of C that keep the interpreter's lock, so that no other thread of the process runs."""
    note("begin", key)
    library = ctypes.PyDLL(None)
    handle = library.open(gate.encode(), os.O_RDONLY)
    while library.read(handle, ctypes.create_string_buffer(1), 1) > 0:
        pass
    os.close(handle)
    note("end", key)
    return key


@durable_execution(name="gated")
def gated(event: Any, context: Any) -> Any:
    """A body at a gate between two others; with ``lock`` it keeps the interpreter's lock meanwhile."""
    wait = at_gate_with_the_lock if event.get("lock") else at_gate
    first = context.step(lambda: body("first", 1), name="first")
    middle = context.step(lambda: wait("gated", event["gate"]), name="gated")
    last = context.step(lambda: body("last", 3), name="last")
    return [first, middle, last]


@durable_execution(name="whose")
def whose(event: Any, context: Any) -> Any:
    """Which process ran it."""
    return context.step(lambda: body(f"whose-{event.get('n', 0)}", os.getpid()), name="whose")


@durable_execution(name="sleeper")
def sleeper(event: Any, context: Any) -> Any:
    """A wait between two bodies."""
    context.step(lambda: body(f"{event['key']}-before", 1), name="before")
    context.wait(event["seconds"], name="pause")
    context.step(lambda: body(f"{event['key']}-after", 1), name="after")
    return event["key"]


@durable_execution(name="stepping")
def stepping(event: Any, context: Any) -> Any:
    """A body in which the host's clock steps back, and a wait behind it."""
    context.step(lambda: body("before", 1), name="before")
    context.step(lambda: shift_clock(-event["back"]), name="back")
    context.wait(event["seconds"], name="pause")
    context.step(lambda: body("after", 1), name="after")
    return "done"


@durable_execution(name="counted")
def counted(event: Any, context: Any) -> Any:
    """Many bodies one after the other; each says its number when it begins. The first, and the gate, wait for stdin."""

    def one(i: int) -> int:
        key = f"{event['key']}-{i}"
        note("begin", key)
        say(f"{i}")
        if i in (0, event.get("gate")) and is_first(key):
            sys.stdin.readline()
        note("end", key)
        return i

    return sum(context.step(partial(one, i), name=f"s{i}") for i in range(event["n"]))


@durable_execution(name="charging")
def charging(event: Any, context: Any) -> Any:
    """A body that must not run twice, at a gate; whoever catches what became of it goes on."""
    try:
        context.step(lambda: at_gate("charge", event["gate"]), name="charge", at_most_once=True)
    except StepInterruptedError as error:
        return [str(error), context.step(lambda: body("ask", "a person"), name="ask")]
    return "charged"


@durable_execution(name="loading")
def loading(event: Any, context: Any) -> Any:
    """Rows in the store's own database, or in another one, with the record of their step."""

    def load(ctx: StepContext, i: int) -> int:
        for n in range(2):
            ctx.connection.execute("insert into rows values (?, ?)", (context.run_id, f"{i}-{n}"))
        return i

    for i in range(event["n"]):
        context.step(partial(load, i=i), name=f"load {i}", transactional=event["into"])
    return "loaded"


@durable_execution(name="quota")
def quota(event: Any, context: Any) -> Any:
    """So many steps; a line of the ledger after each that is on record."""
    for i in range(event["n"]):
        context.step(lambda: 0, name=f"s{i}")
        note("done", event["key"])
    return event["n"]


@durable_execution(name="nested")
def nested(event: Any, context: Any) -> Any:
    """Maps inside a map, a wait in every third one, a gate in one."""

    def inner(item: int, i: int) -> int:
        key = f"{item}-{i}"
        return len(at_gate(key, event["gate"])) if key == event["stop"] else len(body(key, key))

    def outer(ctx: Any, item: int) -> int:
        if item % 3 == 0:
            ctx.wait(0.001, name="pause")
        batch = ctx.map(range(event["inner"]), lambda c, i: c.step(lambda: inner(item, i), name="s"), name="inner")
        return len(batch.get_results())

    return sum(context.map(range(event["outer"]), outer, name="outer").get_results())


@durable_execution(name="awaiting")
async def awaiting(event: Any, context: Any) -> Any:
    """An async body that never ends the first time, or a sync one at a gate, beside one that ends."""

    async def never() -> str:
        note("begin", "middle")
        if is_first("middle"):
            say("inside")
            await asyncio.Event().wait()
        note("end", "middle")
        return "middle"

    def wait() -> str:
        return at_gate("middle", event["gate"])

    first = await context.step(lambda: body("first", "first"), name="first")
    middle = await context.step(wait if event.get("gate") else never, name="middle")
    return [first, middle]


@durable_execution(name="forking")
def forking(event: Any, context: Any) -> Any:
    """A body that forks. The child does as it is told; the parent waits for it and tells its exit code."""

    def fork() -> int:
        note("begin", "fork")
        child = os.fork()
        if child == 0:
            in_child(event)
            note("end", "fork")
            return -1
        _, status = os.waitpid(child, 0)
        note("end", "fork")
        return os.waitstatus_to_exitcode(status)

    first = context.step(lambda: body("first", 1), name="first")
    forked = context.step(fork, name="fork", retry=Retry(1))
    context.wait(0.05, name="pause")
    last = context.step(lambda: body("last", 3), name="last")
    return [first, forked, last]


@durable_execution(name="forking_often")
def forking_often(event: Any, context: Any) -> Any:
    """One branch forks again and again while its neighbours write; each child goes on as if it were the parent."""

    def fork(i: int) -> int:
        child = os.fork()
        if child == 0:
            note("child", f"{i}")
            return -1
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def branch(ctx: Any, item: int) -> int:
        work = fork if item == 0 else partial(body, f"branch-{item}")
        return sum(ctx.step(partial(work, i), name="s") for i in range(event["n"]))

    return context.map(range(4), branch, name="branches").get_results()


def in_child(event: Any) -> None:
    """What the forked child of `forking` does."""
    note("child", event["child"])
    if event["child"] == "leave":
        sys.exit(0)
    if event["child"] == "use":
        # The lease of the parent's run is 30 s: what is done here is done beside a beating parent.
        from stepwell import run

        value = run(whose, {"n": 1}, id="of-the-child", store=event["store"])
        again = Engines.one.run(whose, {"n": 2}, id="of-the-child-2")
        sys.exit(0 if value == again == os.getpid() else 9)
    # "return": as if it were the parent, which is what forgetful code does.


class Engines:
    """The engine of this process."""

    one: Engine


def engine_of(command: dict[str, Any]) -> Engine:
    """The engine that the command asks for."""
    known = [
        gated, whose, sleeper, stepping, counted, charging, loading, quota, nested, awaiting, forking, forking_often,
    ]  # fmt: skip
    options = {name: command[name] for name in ("lease", "hold", "max_threads", "queues") if name in command}
    Engines.one = Engine(command["store"], functions=known, **options)
    return Engines.one


def writers(command: dict[str, Any]) -> None:
    """Many processes that each drive a run on the one store; they begin together, when stdin ends."""
    for n in range(command["processes"]):
        if os.fork() == 0:
            engine = engine_of(command)
            engine.run(whose, {}, id=f"warm-{n}")
            say("ready")
            sys.stdin.read()
            value = engine.run(quota, {"n": command["steps"], "key": f"{n}"}, id=f"writer-{n}")
            engine.stop()
            sys.exit(0 if value == command["steps"] else 9)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(command["processes"])]
    say(f"ended {sorted(set(codes))}")


def statements(command: dict[str, Any]) -> None:
    """The run again and again, under another id each time, in a process that ends at its first SQL statement, at its
    second…, until one comes to its end; each is taken up again by another process.
    """
    at = 0
    while True:
        at += 1
        code = _forked(command, f"{at}", at)
        if code == 0:
            break
        assert code == CUT, code
        assert _forked(command, f"{at}", 0) == 0
    say(f"{at - 1}")


def _forked(command: dict[str, Any], run_id: str, at: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = at

    def count(statement: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(CUT)

    connect: Any = sqlite3.connect

    def watched(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = watched
    engine = engine_of(command)
    engine.run(loading, command["event"], id=run_id)
    engine.stop()
    os._exit(0)


def worker(command: dict[str, Any]) -> None:
    """Drive what is due until stdin ends."""
    with engine_of(command):
        say(f"its clock says {time.time()}")
        sys.stdin.read()
    say("stopped")


def run(command: dict[str, Any]) -> None:
    """Drive one run to its end."""
    engine = engine_of(command)
    try:
        value = engine.run(command["function"], command["event"], id=command["id"])
    finally:
        engine.stop()
    say(f"result {json.dumps(value)}")


def closed_loop(command: dict[str, Any]) -> None:
    """Close the loop under a run; then run another one on a new loop."""
    engine = engine_of(command)
    loop = asyncio.new_event_loop()
    task = loop.create_task(engine.run_async(awaiting, command["event"], id=command["id"]))
    loop.call_soon(say, "begun")
    # Nobody else stops the loop: the test says when the run has come to where its loop is to close.
    loop.add_reader(0, loop.stop)
    loop.run_forever()
    sys.stdin.readline()
    loop.remove_reader(0)
    loop.close()
    say("closed")
    sys.stdin.readline()
    assert not task.done()
    say(json.dumps(asyncio.run(engine.run_async(whose, {}, id="another"))))
    sys.stdin.read()
    engine.stop()


PARTS = {"worker": worker, "run": run, "closed_loop": closed_loop, "writers": writers, "statements": statements}


def shift_clock(seconds: float) -> None:
    """Set this process's wall clock: what it reads is off by so much from here on."""
    real_ns, real = time.time_ns, time.time
    time.time_ns = lambda: real_ns() + round(seconds * 1e9)
    time.time = lambda: real() + seconds


def main() -> None:
    """Play the part."""
    command = json.loads(sys.argv[1])
    os.environ[LEDGER] = command["ledger"]
    if "clock" in command:
        shift_clock(command["clock"])
    PARTS[command["part"]](command)


if __name__ == "__main__":
    main()

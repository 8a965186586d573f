"""PostgreSQL crashes and a worker is killed at the same moment, with commits whose outcome nobody knows."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from tests.killed.stage import Actor, Ledger, lives, looking, succeeded, violations
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

STEPS = 200
ROUNDS = 6
WRITERS = "from pg_stat_activity where application_name = 'stepwell write' and datname = current_database()"
Admin = psycopg.Connection[Any]
Go = Callable[[], None]


def until(admin: Admin, question: str) -> None:
    """Ask the server again and again until it says yes."""
    while not (admin.execute(f"select {question}").fetchone() or (False,))[0]:
        pass


@contextmanager
def anywhere(database: str, go: Go) -> Iterator[None]:
    """Where both processes happen to be."""
    go()
    yield


@contextmanager
def before_it_is_durable(database: str, go: Go) -> Iterator[None]:
    """Both in the insert of a step's success, which is then not on record."""
    with closing(psycopg.connect(database, autocommit=True)) as admin:
        admin.execute(
            "create function hold() returns trigger language plpgsql as "
            "$$ begin perform pg_advisory_xact_lock(42); return new; end $$"
        )
        admin.execute("select pg_advisory_lock(42)")
        admin.execute("create trigger hold before insert on stepwell.record for each row execute function hold()")
        go()
        until(admin, f"count(*) = 2 {WRITERS} and wait_event = 'advisory'")
        yield


@contextmanager
def before_it_is_answered(database: str, go: Go) -> Iterator[None]:
    """Both in a commit that is on the server's disk and waits for a standby that does not exist."""
    with closing(psycopg.connect(database, autocommit=True)) as admin:
        admin.execute("alter system set synchronous_standby_names = 'nobody'")
        admin.execute("select pg_reload_conf()")
        go()
        until(admin, f"count(*) = 2 {WRITERS} and wait_event = 'SyncRep'")
        yield


PLACES: dict[str, Callable[[str, Go], AbstractContextManager[None]]] = {
    "anywhere": anywhere,
    "not durable": before_it_is_durable,
    "durable, not answered": before_it_is_answered,
}


class Rounds:
    """A server that is crashed in each round, and a database in it for each."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.again: Counter[str] = Counter()
        """How many bodies of the killed run ran a second time, by the place of the crash."""

    def play(self, seed: int, folder: Path) -> None:
        """Two processes drive a run each; at a seeded step the server crashes, and one of them is killed."""
        dice = random.Random(seed)
        database = self.server.database()
        ledger = Ledger(folder / f"{seed}.ledger")
        command = {"part": "run", "store": database, "ledger": str(ledger.path), "function": "counted"}
        place, step = list(PLACES)[seed % len(PLACES)], dice.randrange(2, 100)
        with (
            Actor(**command, event={"key": "killed", "n": STEPS, "gate": step}, id="killed") as killed,
            Actor(**command, event={"key": "lives", "n": STEPS, "gate": step}, id="lives") as survivor,
        ):

            def go() -> None:
                killed.tell()
                survivor.tell()

            assert killed.line() == survivor.line() == "0"
            go()
            for process in (killed, survivor):
                while process.line() != str(step):
                    pass
            with PLACES[place](database, go):
                crash = threading.Thread(target=self.server.stop, args=("immediate",))
                crash.start()
                if dice.random() < 0.5:
                    crash.join()
                killed.process.kill()
                killed.process.wait()
                crash.join()
            self.server.start()
            assert survivor.process.poll() is None
            self.settle(database)
            with Actor(**command, event={"key": "killed", "n": STEPS, "gate": step}, id="killed") as heir:
                for process in (survivor, heir):
                    code, out, errors = process.end()
                    assert (code, errors) == (0, ""), seed
                    assert out.endswith(f"result {sum(range(STEPS))}\n"), seed
        self.again[place] += self.check(seed, database, ledger)

    def settle(self, database: str) -> None:
        """Undo what held commits up."""
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("alter system reset synchronous_standby_names")
            connection.execute("select pg_reload_conf()")
            connection.execute("drop trigger if exists hold on stepwell.record")

    def check(self, seed: int, database: str, ledger: Ledger) -> int:
        """Hold both journals against the ledger. How many bodies ran a second time."""
        with looking(database) as engine:
            assert lives(engine, "killed")[1:] == ["dead", "takeover"], seed
            assert lives(engine, "lives") == ["start"], seed
            ended = ledger.count("end")
            for run, deaths in (("killed", 1), ("lives", 0)):
                assert violations(engine, run) == [], seed
                assert succeeded(engine, run) == {f"s{i}": 1 for i in range(STEPS)}, seed
                bodies = [ended[f"{run}-{i}"] for i in range(STEPS)]
                assert min(bodies) == 1, seed
                assert sum(bodies) <= STEPS + deaths, seed
            return sum(count - 1 for count in ended.values())


def test_the_server_crashes_and_a_worker_dies(tmp_path: Path) -> None:
    """ENGINE.md §3, outcome unknown: the identical batch is submitted again; P1, P3: each success is on record once."""
    with PostgresServer() as server:
        rounds = Rounds(server)
        for seed in range(ROUNDS):
            rounds.play(seed, tmp_path)
    # What was on the server's disk did not run again, though nobody had been told of it.
    assert rounds.again["durable, not answered"] == 0
    assert rounds.again["not durable"] == ROUNDS // len(PLACES)

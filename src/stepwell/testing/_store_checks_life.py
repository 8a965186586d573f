"""Checks of the store conformance suite: lent transactions, and the store as a whole."""

from __future__ import annotations

from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import TYPE_CHECKING, Any

from stepwell.errors import Fenced, JournalError, UsageError
from stepwell.journal._api import DoorRow, End, Note, RunFilter
from stepwell.testing._clock import START
from stepwell.testing._store_rig import StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import AnyRecord
    from stepwell.journal._api import Batch, Lease, Store, StoreTransaction


class TransactionChecks(StoreRig):
    """Rows of a step's body and its record: both or neither (durable.md §5.6)."""

    def lend(self, store: Store | None = None) -> StoreTransaction | None:
        """A transaction; None where the store has none, and says so."""
        store = store or self.store
        if store.kind != "memory":
            return store.transaction()
        try:
            store.transaction()
        except UsageError:
            return None
        self.expect(False, "a store in memory lends a transaction")
        return None

    def users_rows(self) -> list[int]:
        """What stands in the user's table."""
        transaction = self.store.transaction()
        try:
            cursor = transaction.connection.execute("SELECT x FROM mine ORDER BY x")
            return [row[0] for row in cursor.fetchall()]
        finally:
            transaction.rollback()

    def user_table(self, lease: Lease) -> bool:
        """The user's table, made in a transaction of a step; False where there are none."""
        transaction = self.lend()
        if transaction is None:
            return False
        transaction.connection.execute("CREATE TABLE mine (x integer)")
        self.end(transaction, self.batch(lease, self.record()))
        return True

    def end(self, transaction: StoreTransaction, batch: Batch) -> None:
        """Commit, successfully."""
        self.equal(transaction.commit(batch), None, "result of the transaction")
        batch.lease.seq = batch.seq or batch.lease.seq

    def check_transaction_commits_both(self) -> None:
        """The user's rows and the batch, with all its parts, are committed together."""
        lease = self.start("r")
        if not self.user_table(lease):
            return
        transaction = self.store.transaction()
        transaction.connection.execute("INSERT INTO mine VALUES (1), (2)")
        note = Note("k", "log", START, "said")
        self.end(transaction, self.batch(lease, self.record(), notes=[note], rows=[DoorRow("d", "k", "x", b"1")]))
        self.equal(self.users_rows(), [1, 2], "user's rows")
        self.equal([seq for seq, _, _ in self.texts(lease.rid)], [1, 2, 3], "seqs")
        self.equal(self.store.row_get("d", "k", "x"), b"1", "door's row")
        self.append(lease)

    def check_transaction_rolls_back_both(self) -> None:
        """After a rollback, which may be said twice, there is neither; the store goes on."""
        lease = self.start("r")
        if not self.user_table(lease):
            return
        transaction = self.store.transaction()
        transaction.connection.execute("INSERT INTO mine VALUES (1)")
        transaction.rollback()
        transaction.rollback()
        self.equal(self.users_rows(), [], "user's rows")
        self.append(lease)

    def check_transaction_is_fenced(self) -> None:
        """A stale lease commits neither the record nor the user's rows."""
        old = self.start("r", "w1")
        if not self.user_table(old):
            return
        self.claim("r", "w2")
        for batch in (self.batch(old, self.record()), self.batch(old, self.record(), seq=4)):
            transaction = self.store.transaction()
            transaction.connection.execute("INSERT INTO mine VALUES (1)")
            self.expect(isinstance(_outcome(transaction, batch), Fenced), "the stale lease is not Fenced")
            transaction.rollback()
            self.equal(self.users_rows(), [], "user's rows")
        self.equal(len(self.texts(old.rid)), 3, "rows of the run")

    def check_transaction_loses_to_a_claim(self) -> None:
        """A claim that comes while the body runs fences its commit (where the body does not hold the writers' lock)."""
        old = self.start("r", "w1")
        if self.store.transaction_excludes_writer or not self.user_table(old):
            return
        transaction = self.store.transaction()
        transaction.connection.execute("INSERT INTO mine VALUES (1)")
        self.claim("r", "w2", store=self.open())
        outcome = _outcome(transaction, self.batch(old, self.record()))
        transaction.rollback()
        self.expect(isinstance(outcome, Fenced), f"outcome {outcome!r}, expected Fenced")
        self.equal(self.users_rows(), [], "user's rows")

    def check_transaction_is_the_engines(self) -> None:
        """Commit, rollback, close and BEGIN by the body are `UsageError`, and what it wrote is rolled back."""
        lease = self.start("r")
        if not self.user_table(lease):
            return
        attempts: dict[str, Callable[[Any], object]] = {
            "commit()": lambda c: c.commit(),
            "rollback()": lambda c: c.rollback(),
            "close()": lambda c: c.close(),
            "COMMIT": lambda c: c.execute("COMMIT"),
            "ROLLBACK": lambda c: c.execute("rollback"),
            "BEGIN": lambda c: c.execute("  BEGIN"),
            "a cursor's COMMIT": lambda c: c.cursor().execute("/* mine */ commit"),
        }
        for name, attempt in attempts.items():
            transaction = self.store.transaction()
            transaction.connection.execute("INSERT INTO mine VALUES (1)")
            try:
                attempt(transaction.connection)
            except UsageError:
                pass
            except Exception as error:
                self.expect(False, f"{name} raised {error!r}, expected UsageError")
            else:
                self.expect(False, f"{name} raised nothing, expected UsageError")
            finally:
                transaction.rollback()
            self.equal(self.users_rows(), [], f"user's rows after {name}")
        self.append(lease)

    def check_transaction_interrupted(self) -> None:
        """A body that is stuck in the database is made to fail from another thread; the store goes on."""
        lease = self.start("r")
        transaction = self.lend()
        if transaction is None:
            return
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        stuck = "SELECT pg_sleep(60)" if self.store.kind == "postgres" else endless
        done = Event()

        def interrupt() -> None:
            while not done.wait(0.02):
                transaction.interrupt()

        thread = Thread(target=interrupt)
        thread.start()
        try:
            transaction.connection.execute(stuck)
        except Exception as error:
            self.expect(not isinstance(error, AssertionError), f"{error!r}")
        else:
            self.expect(False, "the statement ended without an error")
        finally:
            done.set()
            thread.join()
            transaction.rollback()
        self.append(lease)


def _outcome(transaction: StoreTransaction, batch: Batch) -> JournalError | None:
    """What a commit says, or the error that it raises."""
    try:
        return transaction.commit(batch)
    except JournalError as error:
        return error


class WholeStoreChecks(StoreRig):
    """Opening, closing, waiting."""

    def check_store_keeps_what_it_has(self) -> None:
        """After all processes closed the store and one opened it again, everything is there and the lease holds."""
        lease = self.start("r", "w1", tags=("t",))
        self.append(lease, "a")
        self.store.fact_deliver("r", "signal", START, b"s")
        more: list[AnyRecord] = [self.record("b")]
        self.commit(self.batch(lease, *more, rows=[DoorRow("d", "k", "x", b"1")], notes=[Note("k", "log", START, "n")]))
        before = self.seen("r")
        self.store.close()
        self._first = None
        self.equal(self.seen("r"), before, "what is on record after it was opened again")
        self.append(lease, "c")
        self.equal(self.store.row_get("d", "k", "x"), b"1", "door's row")

    def check_store_closes_twice(self) -> None:
        """Closing is idempotent, and a closed store says so by a `JournalError`."""
        other = self.open()
        other.run_count(RunFilter())
        other.close()
        other.close()
        try:
            other.run_count(RunFilter())
        except JournalError:
            return
        self.expect(False, "a closed store answers")

    def check_store_wait(self) -> None:
        """A wait ends by itself at its time-out, and at once by `poke`."""
        self.store.wait(0)
        ended = Event()

        def wait() -> None:
            self.store.wait(60)
            ended.set()

        thread = Thread(target=wait, daemon=True)
        thread.start()
        for _ in range(500):
            self.store.poke()
            if ended.wait(0.01):
                break
        self.expect(ended.is_set(), "five seconds of poking did not end the wait")
        thread.join()

    def check_store_wait_of_several(self) -> None:
        """What happens wakes each thread that waits; none takes it from another."""
        count, store = 3, self.store
        waiting, woken = Barrier(count + 1), Barrier(count + 1)

        def wait() -> None:
            store.wait(0)
            waiting.wait(60)
            store.wait(60)
            woken.wait(30)

        threads = [Thread(target=wait, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        waiting.wait(60)
        store.poke()
        try:
            woken.wait(30)
        except BrokenBarrierError:
            self.expect(False, "one poke did not wake all that wait")
        for thread in threads:
            thread.join()

    def check_store_is_sound(self) -> None:
        """A store that was only used through its methods has no problem to report, and tells facts for `doctor`."""
        lease = self.start("r")
        self.append(lease)
        self.commit(self.batch(self.start("ended"), self.record(), change=End("succeeded")))
        self.equal(list(self.store.check()), [], "problems")
        facts = self.store.facts()
        odd = [pair for pair in facts.items() if [type(part) for part in pair] != [str, str]]
        self.equal(odd, [], "facts that are no text")
        self.expect(self.store.url.startswith(("memory:", "sqlite:", "postgres")), f"url {self.store.url!r}")

"""Steps that share a transaction with a database (P4, durable.md §5.6)."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from stepwell.core import Done, StepSucceeded
from stepwell.errors import StepTimeoutError, UsageError
from stepwell.runtime._bodies import watched
from stepwell.runtime._external import call_in_other_database
from stepwell.runtime._scope import current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from stepwell.core import StepWanted
    from stepwell.journal import Exclusive, StoreTransaction
    from stepwell.runtime._api import Attempt, Body


def call_in_transaction(attempt: Attempt, body: Body, want: StepWanted) -> Any:
    """Run the body in a transaction: `Done` that is committed already, or (another database) its value."""
    if body.transactional is not True:
        return call_in_other_database(attempt, body, lambda: with_limit(attempt, body, None))
    return _in_store(attempt, body, want)


def _in_store(attempt: Attempt, body: Body, want: StepWanted) -> Done:
    """In the store's own database: the user's rows and the record of success appear together or not at all."""
    life = attempt.scope.life
    if life.store.kind == "memory":
        message = "memory:// has no transactions: use a SQLite or PostgreSQL store for transactional=True"
        raise UsageError(message)
    if life.store.transaction_excludes_writer:
        with life.writer.exclusive() as exclusive:
            return _lent(attempt, body, want, nullcontext(exclusive))
    return _lent(attempt, body, want, life.writer.exclusive())


def _lent(attempt: Attempt, body: Body, want: StepWanted, writer: AbstractContextManager[Exclusive]) -> Done:
    """Run the body in a lent transaction and commit it with its record; ``writer`` is needed for the commit alone."""
    life = attempt.scope.life
    with life.own_store():
        transaction = life.store.transaction()
    try:
        done = _run(attempt, body, want, transaction)
        with life.own_store(), writer as exclusive:
            ticket = life.line.take_riding((StepSucceeded(done.at, want.key, done.payload, want.undo),))
            exclusive.commit(ticket, transaction.commit)
    finally:
        transaction.rollback()
    return done


def _run(attempt: Attempt, body: Body, want: StepWanted, transaction: StoreTransaction) -> Done:
    life = attempt.scope.life
    attempt.connection = transaction.connection
    limit = life.host.lease / 3
    if body.timeout is not None and body.timeout > limit and life.store.transaction_excludes_writer:
        message = (
            f"a transactional step holds the store's write lock: timeout at most {limit:g} s, a third of the lease"
        )
        raise UsageError(message)
    value = with_limit(attempt, body, transaction.interrupt, limit if body.timeout is None else body.timeout)
    # The value goes into the record whole, whatever its size: a blob would need the write lock that is lent out.
    text = body.codec.encode(value, want.name or "result")
    if life.redactor.active:
        text = life.redactor.redact_json(text)
    return Done(text, body.codec.decode(text, want.key), life.store.now(), committed=True)


def with_limit(attempt: Attempt, body: Body, interrupt: Callable[[], None] | None, limit: float | None = None) -> Any:
    """Run the body on this thread; when its time is up what it does on the connection fails, and it may not commit."""
    limit = body.timeout if limit is None else limit
    timer = None
    if limit is not None:

        def expire() -> None:
            attempt.over = True
            if interrupt is not None:
                interrupt()

        timer = threading.Timer(limit, expire)
        timer.daemon = True
        timer.start()
    token = current_attempt.set(attempt)
    try:
        with watched(attempt):
            value = body.call(attempt)
        if hasattr(type(value), "__await__"):
            message = "a transactional step cannot be async"
            value.close()
            raise UsageError(message)
    except Exception as error:
        if attempt.over:
            raise _timed_out(attempt, limit) from error
        raise
    finally:
        current_attempt.reset(token)
        if timer is not None:
            timer.cancel()
    if attempt.over:
        raise _timed_out(attempt, limit)
    return value


def _timed_out(attempt: Attempt, limit: float | None) -> StepTimeoutError:
    name = attempt.name or attempt.key
    return StepTimeoutError(
        f"step '{name}' timed out after {limit:g} s in attempt {attempt.attempt}; it was rolled back"
    )

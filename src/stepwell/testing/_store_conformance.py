"""The suite that holds every store to the contract in `stepwell.journal`: one check for each promise.

A test makes a fresh database and names a check::

    StoreConformance(open_store).run("check_append_with_stale_epoch")

``open_store(clock)`` opens the same database at each call: every store stands for one more process, with clocks of its
own. A check that fails raises `NotConforming`, an `AssertionError` that says the rule and what was seen. Nothing here
needs a test framework.
"""

from __future__ import annotations

from stepwell.testing._store_checks_append import AppendChecks, GroupChecks, StartChecks
from stepwell.testing._store_checks_claim import ClaimChecks, DueChecks, ReopenChecks
from stepwell.testing._store_checks_facts import ClaimedFactChecks, OutgoingChecks
from stepwell.testing._store_checks_gc import RetentionChecks
from stepwell.testing._store_checks_hot import HotChecks, InboxChecks
from stepwell.testing._store_checks_life import TransactionChecks, WholeStoreChecks
from stepwell.testing._store_checks_race import RaceChecks
from stepwell.testing._store_checks_read import BlobChecks, CatalogueChecks, DoorRowChecks, NoteChecks
from stepwell.testing._store_checks_worker import WorkerChecks


class StoreConformance(
    StartChecks,
    AppendChecks,
    GroupChecks,
    HotChecks,
    InboxChecks,
    ClaimedFactChecks,
    OutgoingChecks,
    DueChecks,
    ClaimChecks,
    ReopenChecks,
    WorkerChecks,
    NoteChecks,
    DoorRowChecks,
    BlobChecks,
    CatalogueChecks,
    RetentionChecks,
    TransactionChecks,
    WholeStoreChecks,
    RaceChecks,
):
    """All checks, on one fresh database; an instance runs one of them."""

    @classmethod
    def checks(cls) -> list[str]:
        """The names that `run` takes, sorted."""
        return sorted(name for name in dir(cls) if name.startswith("check_"))

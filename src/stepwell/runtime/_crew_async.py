"""The branches of an async map or parallel: one task each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stepwell.core import BranchEnded, CancelBranches, Spawn, TakeEvent, scope_outcome
from stepwell.errors import Suspend
from stepwell.runtime._api import LifeOver, ReplayEnd
from stepwell.runtime._crew import Crew
from stepwell.runtime._drive_async import drive_async
from stepwell.runtime._parking_async import block_async, settle_parking_async
from stepwell.runtime._scope import Branch, Scope

if TYPE_CHECKING:
    from stepwell.core import BatchWanted, Effect


class AsyncCrew(Crew):
    """As `Crew`, in tasks of one loop."""

    def __init__(self, scope: Scope, asked: BatchWanted) -> None:
        super().__init__(scope, asked)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def perform(self, effect: Effect) -> Any:
        """Perform one effect of the batch flow."""
        kind = type(effect)
        if kind is Spawn:
            return self.spawn(effect.index)  # type: ignore[union-attr]
        if kind is TakeEvent:
            return await self.take_event_async()
        if kind is CancelBranches:
            return self.cancel()
        return super().perform(effect)

    def spawn(self, index: int) -> None:
        """The branch has a slot: its task begins."""
        if self.life.replay_only:
            raise ReplayEnd
        branch = self.new_branch(index)
        task = asyncio.get_running_loop().create_task(self._run_async(index, branch))
        branch.task = self._tasks[index] = task
        self.life.tasks.add(task)
        task.add_done_callback(self.life.tasks.discard)

    async def _run_async(self, index: int, branch: Branch) -> None:
        try:
            scope = Scope(self.life, self.scope.key, branch, virtual=self.scope.virtual, real=self.real)
            outcome = await drive_async(scope, scope_outcome(self.life.run, self.wanted(index)))
        except Suspend:
            self.post(branch, None)
        except asyncio.CancelledError:
            self.post(branch, None)
        except Exception as error:
            self.life.stop(error)
            self.post(branch, None)
        except BaseException as error:
            self.life.stop(LifeOver("interrupted", error))
            self.post(branch, None)
        else:
            self.post(branch, self.event(index, outcome))

    def wake(self) -> None:
        """Let the coordinator look. On the loop."""
        if self.waiting is not None:
            self.waiting.wake()

    async def take_event_async(self) -> BranchEnded:
        """The next branch that ends."""
        life, branch = self.life, self.scope.branch
        while True:
            with life.lock:
                life.usable(branch)
                if self.events:
                    return self.events.popleft()
                wait = self.waiting = life.wait_begin(branch, self.asked.want.key, None, own=False)
                ticket = life.park_ticket(())
            try:
                if ticket is None or await settle_parking_async(life, wait, ticket):
                    await block_async(life, wait)
            finally:
                with life.lock:
                    life.wait_end(wait)
                self.waiting = None

    def cancel(self) -> list[int]:
        """Let go of the branches that still run; their tasks are cancelled and settle by themselves."""
        gone = super().cancel()
        for index in gone:
            self._tasks[index].cancel()
        return gone

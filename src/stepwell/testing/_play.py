"""Plays a program: one text for both colours, as durable functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.durable import complete_batch, continue_batch, with_retry
from stepwell.durable.config import ChildConfig, CompletionConfig, MapConfig, NestingType, ParallelConfig
from stepwell.durable.retries import Retry, WithRetryConfig
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from stepwell.testing._baton import at_once
from stepwell.testing._bodies import far_body
from stepwell.testing._play_outside import OutsidePlayer, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stepwell.testing._bodies import Tales
    from stepwell.testing._programs import Node

tales: Tales = {}
"""The tale of each run that is being played."""


def play_sync(event: Any, context: Any) -> Any:
    """A program, in a sync run."""
    player = Player(tales[context.run_id])
    return at_once(player.nodes(context, player.tale.program.nodes))


async def play_async(event: Any, context: Any) -> Any:
    """A program, in an async run."""
    player = Player(tales[context.run_id])
    return await player.nodes(context, player.tale.program.nodes)


class Player(OutsidePlayer):
    """Plays nodes of one run's program. In a sync run no ``await`` here ever suspends."""

    async def nodes(self, context: Any, nodes: Sequence[Node]) -> list[Any]:
        """Several, one after the other."""
        return [await self.node(context, node) for node in nodes]

    async def node(self, context: Any, node: Node) -> Any:
        """One operation; a caught error is its value."""
        play: Callable[[Any, Node], Coroutine[Any, Any, Any]] = getattr(self, f"play_{node.what}")
        if node.what in ("fail", "on_failure", "rollback") or not node.caught:
            return await play(context, node)
        try:
            value = await play(context, node)
        except Exception as error:
            value = [type(error).__name__, str(error)]
        # Which attempts of an at-most-once step a crash took is not up to the program.
        return "once" if node.once else value

    async def play_step(self, context: Any, node: Node) -> Any:
        """A step."""
        settings: dict[str, Any] = {"retry": Retry(node.attempts, delay=node.seconds), "at_most_once": node.once}
        body: Any = self.one(lambda given: self.step_body(node, given))
        if node.far:
            settings["executor"] = "process"
            body = far_body(self.tale.id, node)
        elif node.transactional and self.world.kind == "sqlite" and not self.world.is_async:
            settings["transactional"] = True
            body = self.one(lambda given: self.transactional_body(node, given))
        if node.limit == "time":
            settings["timeout"] = self.limit_of(node)
        elif node.limit == "beat":
            settings["heartbeat_timeout"] = self.limit_of(node)
        if node.undo:
            settings["undo"] = self.two(lambda _, __: self.body(node.undo_fails, f"undo {node.name}"))
        return await value_of(context.step(body, node.name, **settings))

    async def play_wait(self, context: Any, node: Node) -> Any:
        """A timer."""
        return await value_of(context.wait(node.seconds, node.name))

    async def play_poll(self, context: Any, node: Node) -> Any:
        """A condition that comes true after some looks."""

        def strategy(state: Any, checks: int) -> WaitForConditionDecision:
            if checks > node.fails:
                return WaitForConditionDecision.stop_polling()
            return WaitForConditionDecision.continue_waiting(node.seconds)

        async def check(state: Any, _context: Any) -> Any:
            done = await self.body(0, node.name)
            return [*state, done[1]]

        return await value_of(
            context.wait_for_condition(self.two(check), WaitForConditionConfig(strategy, []), node.name)
        )

    async def play_once(self, context: Any, node: Node) -> Any:
        """Made once in the scope."""
        return await value_of(context.once(node.name, self.plain(lambda: self.body(0, node.name))))

    async def play_on_failure(self, context: Any, node: Node) -> Any:
        """Something to undo that no step did."""
        undo = self.one(lambda _: self.body(node.undo_fails, f"undo {node.name}"))
        return await value_of(context.on_failure(undo, name=node.name))

    async def play_now(self, context: Any, node: Node) -> Any:
        """The time, which no result depends on."""
        await value_of(context.now())
        return "now"

    async def play_random(self, context: Any, node: Node) -> Any:
        """A number that is the same for ever."""
        return await value_of(context.random())

    async def play_uuid(self, context: Any, node: Node) -> Any:
        """A UUID, which no result depends on."""
        await value_of(context.uuid())
        return "uuid"

    async def play_progress(self, context: Any, node: Node) -> Any:
        """How far it has come."""
        return await value_of(context.progress(1, 2, node.name))

    async def play_dropped(self, context: Any, node: Node) -> Any:
        """Async user code loses patience with a step; what it got by then is not up to the program."""
        body = self.one(lambda _: self.body(0, node.name))
        if not self.world.is_async:
            await value_of(context.step(body, node.name))
            return "dropped"
        import asyncio

        task = asyncio.ensure_future(context.step(body, node.name))
        await asyncio.wait({task}, timeout=1.0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        return "dropped"

    async def play_rollback(self, context: Any, node: Node) -> Any:
        """Undo what is finished."""
        return await value_of(context.rollback())

    async def play_fail(self, context: Any, node: Node) -> Any:
        """The handler lets an error out."""
        raise self.flaky(node.name)

    async def play_child(self, context: Any, node: Node) -> Any:
        """A child context."""
        inner = self.one(lambda inside: self.nodes(inside, node.inside[0]))
        return await value_of(context.run_in_child_context(inner, node.name, ChildConfig(is_virtual=node.flat)))

    async def play_with_retry(self, context: Any, node: Node) -> Any:
        """A block that is tried again."""

        async def block(inside: Any, attempt: int) -> Any:
            values = await self.nodes(inside, node.inside[0])
            if attempt <= node.fails:
                raise self.flaky(f"{node.name} in attempt {attempt}")
            return values

        config: WithRetryConfig[Any] = WithRetryConfig(
            Retry(node.attempts, delay=node.seconds), wrap_with_run_in_child_context=not node.flat
        )
        return await value_of(with_retry(context, self.two(block), config, node.name))

    async def play_map(self, context: Any, node: Node) -> Any:
        """A map whose items do the same."""
        inner = self.two(lambda inside, _: self.nodes(inside, node.inside[0]))
        config: MapConfig[Any] = MapConfig(
            max_concurrency=node.at_a_time, completion_config=_completion(node), nesting_type=_nesting(node),
            item_key=(lambda item, _: f"key {item}") if node.by_key else None,
        )  # fmt: skip
        return _batch(node, await value_of(context.map(range(node.width), inner, node.name, config)))

    async def play_parallel(self, context: Any, node: Node) -> Any:
        """Branches that do different things."""
        branches = [self._branch(part) for part in node.inside]
        config = ParallelConfig(
            max_concurrency=node.at_a_time, completion_config=_completion(node), nesting_type=_nesting(node)
        )
        return _batch(node, await value_of(context.parallel(branches, node.name, config)))

    def _branch(self, part: Sequence[Node]) -> Any:
        return self.one(lambda inside: self.nodes(inside, part))


def _completion(node: Node) -> CompletionConfig:
    if not node.early:
        return CompletionConfig.all_completed()
    if node.custom:
        return CompletionConfig(should_complete=lambda s: complete_batch() if s.success_count else continue_batch())
    return CompletionConfig.first_successful()


def _nesting(node: Node) -> NestingType:
    return NestingType.FLAT if node.flat else NestingType.NESTED


def _batch(node: Node, result: Any) -> Any:
    """What of a batch's result does not depend on who was first."""
    if node.early:
        return "early"
    return [result.get_results(), [error.message for error in result.get_errors()]]

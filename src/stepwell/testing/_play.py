"""Plays a program: one text for both colours, as two durable functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.durable import durable_execution, with_retry
from stepwell.durable.config import ChildConfig, CompletionConfig, MapConfig, NestingType, ParallelConfig
from stepwell.durable.retries import Retry, WithRetryConfig
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from stepwell.runtime._scope import current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stepwell.testing._programs import Node
    from stepwell.testing._world import World

worlds: dict[str, World] = {}
"""The world of each run that is being played."""


class Flaky(Exception):
    """What the bodies of programs raise."""


@durable_execution(name="stepwell.testing:sync")
def play_sync(event: Any, context: Any) -> Any:
    """A program, in a sync run."""
    world = worlds[context.run_id]
    return at_once(Player(world).nodes(context, world.program.nodes))


@durable_execution(name="stepwell.testing:async")
async def play_async(event: Any, context: Any) -> Any:
    """A program, in an async run."""
    world = worlds[context.run_id]
    return await Player(world).nodes(context, world.program.nodes)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError(f"{work!r} waits in a sync run")


async def value_of(given: Any) -> Any:
    """What an operation gives, in either colour."""
    return await given if hasattr(type(given), "__await__") else given


class Player:
    """Plays nodes of one world's program. In a sync run no ``await`` here ever suspends."""

    def __init__(self, world: World) -> None:
        self.world = world

    # -- what user code hands to operations

    def plain(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A function without parameters, of the run's colour."""
        if self.world.is_async:

            async def slow() -> Any:
                return await make()

            return slow

        def quick() -> Any:
            return at_once(make())

        return quick

    def one(self, make: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """A function of one parameter."""
        if self.world.is_async:

            async def slow(context: Any) -> Any:
                return await make(context)

            return slow

        def quick(context: Any) -> Any:
            return at_once(make(context))

        return quick

    def two(self, make: Callable[[Any, Any], Coroutine[Any, Any, Any]]) -> Any:
        """A function of two parameters."""
        if self.world.is_async:

            async def slow(context: Any, other: Any) -> Any:
                return await make(context, other)

            return slow

        def quick(context: Any, other: Any) -> Any:
            return at_once(make(context, other))

        return quick

    async def body(self, fails: int, value: Any, *, once: bool = False) -> Any:
        """What every body does: a line in the ledger before and after."""
        attempt = current_attempt.get()
        assert attempt is not None
        world, key, number = self.world, attempt.key, attempt.attempt
        world.body_begins(key, number, once=once)
        await world.pause()
        if number <= fails:
            world.body_ends(key, number, "fail")
            raise Flaky(f"{value} in attempt {number}")
        world.body_ends(key, number, "end")
        return [value, number]

    # -- nodes

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
        undo = self.two(lambda _, __: self.body(node.undo_fails, f"undo {node.name}")) if node.undo else None
        return await value_of(
            context.step(
                self.one(lambda _: self.body(node.fails, node.name, once=node.once)),
                node.name,
                retry=Retry(node.attempts, delay=node.seconds),
                at_most_once=node.once,
                undo=undo,
            )
        )

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

    async def play_rollback(self, context: Any, node: Node) -> Any:
        """Undo what is finished."""
        return await value_of(context.rollback())

    async def play_fail(self, context: Any, node: Node) -> Any:
        """The handler lets an error out."""
        raise Flaky(node.name)

    async def play_child(self, context: Any, node: Node) -> Any:
        """A child context."""
        inner = self.one(lambda inside: self.nodes(inside, node.inside[0]))
        return await value_of(context.run_in_child_context(inner, node.name, ChildConfig(is_virtual=node.flat)))

    async def play_with_retry(self, context: Any, node: Node) -> Any:
        """A block that is tried again."""

        async def block(inside: Any, attempt: int) -> Any:
            values = await self.nodes(inside, node.inside[0])
            if attempt <= node.fails:
                raise Flaky(f"{node.name} in attempt {attempt}")
            return values

        config: WithRetryConfig[Any] = WithRetryConfig(
            Retry(node.attempts, delay=node.seconds), wrap_with_run_in_child_context=not node.flat
        )
        return await value_of(with_retry(context, self.two(block), config, node.name))

    async def play_map(self, context: Any, node: Node) -> Any:
        """A map whose items do the same."""
        inner = self.two(lambda inside, _: self.nodes(inside, node.inside[0]))
        config: MapConfig[Any] = MapConfig(
            max_concurrency=node.at_a_time, completion_config=_completion(node), nesting_type=_nesting(node)
        )
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
    return CompletionConfig.first_successful() if node.early else CompletionConfig.all_completed()


def _nesting(node: Node) -> NestingType:
    return NestingType.FLAT if node.flat else NestingType.NESTED


def _batch(node: Node, result: Any) -> Any:
    """What of a batch's result does not depend on who was first."""
    if node.early:
        return "early"
    return [result.get_results(), [error.message for error in result.get_errors()]]

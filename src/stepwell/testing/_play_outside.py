"""Plays what something outside of the run ends, and what goes on beside the code; both colours, as `_play`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stepwell.durable.config import CallbackConfig, InvokeConfig, WaitForCallbackConfig
from stepwell.durable.exceptions import CallbackExternalError, CallbackSubmitterError, CallbackTimeoutError
from stepwell.durable.retries import Retry
from stepwell.errors import JournalError
from stepwell.runtime._scope import current_attempt
from stepwell.testing._bodies import Bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.testing._process import Process
    from stepwell.testing._programs import Node

IN_TIME = "in time, or not"
"""What comes of an operation that something outside ends and that gives up: it hangs on who was first."""


async def value_of(given: Any) -> Any:
    """What an operation gives, in either colour."""
    return await given if hasattr(type(given), "__await__") else given


class OutsidePlayer(Bodies):
    """See the module."""

    async def nodes(self, context: Any, nodes: Sequence[Node]) -> list[Any]:
        """Several, one after the other."""
        raise NotImplementedError

    # -- answers

    async def play_callback(self, context: Any, node: Node) -> Any:
        """A callback, with something done before its answer is asked for."""
        config: CallbackConfig = CallbackConfig(timeout=node.seconds, heartbeat_timeout=node.beat)
        callback = await value_of(context.create_callback(node.name, config))
        for part in node.inside:
            await self.nodes(context, part)
        first = await self._answer(node, callback.result)
        again = await self._answer(node, callback.result)
        if first != again:
            self.tale.say("outside", "", f"asked twice, {node.name} said {first} and {again}")
        return first

    async def play_submit(self, context: Any, node: Node) -> Any:
        """A callback that a step tells somebody of."""
        return await self._answer(node, lambda: context.wait_for_callback(*self.submission(node)))

    def submission(self, node: Node) -> tuple[Any, str, WaitForCallbackConfig]:
        """What ``wait_for_callback`` is called with."""

        async def submit(callback_id: Any, _context: Any) -> Any:
            await self.body(node.fails, node.name)
            self._submitted(callback_id)

        retry = Retry(node.attempts, delay=1)
        config = WaitForCallbackConfig(timeout=node.seconds, heartbeat_timeout=node.beat, retry_strategy=retry)
        return self.two(submit), node.name, config

    def _submitted(self, callback_id: str) -> None:
        """Sometimes who is told answers at once, in this process."""
        found = current_attempt.get()
        outsider = self.world.outsider
        if found is None or outsider is None or self.world.dice.random() >= 0.2:
            return
        process: Process = found.scope.life.host.process  # type: ignore[attr-defined]
        for opened in list(self.tale.letters.callbacks.values()):
            if opened.created.callback_id == callback_id:
                with suppress(JournalError):
                    outsider.answer(self.tale.id, opened.created, process.engine)
        if process.dead:
            self.world.lingers(process)

    async def play_approve(self, context: Any, node: Node) -> Any:
        """A person is asked."""
        form = {"n": int, "of": str} if node.by_key else None
        return await self._answer(
            node, lambda: context.approve("Well?", form=form, timeout=node.seconds, name=node.name)
        )

    async def _answer(self, node: Node, ask: Callable[[], Any]) -> Any:
        """The answer of whoever is asked: noted, and told without what is different each time."""
        try:
            value = await value_of(ask())
        except CallbackTimeoutError:
            return IN_TIME
        except CallbackSubmitterError:
            raise self.flaky(f"{node.name} is not told") from None
        except CallbackExternalError as error:
            self.tale.letters.answer_is(str(error))
            if node.seconds or node.beat:
                return IN_TIME
            raise self.flaky(f"{node.name} is refused") from None
        self.tale.letters.answer_is(value)
        return IN_TIME if node.seconds or node.beat else "answered"

    # -- signals

    async def play_signal(self, context: Any, node: Node) -> Any:
        """The next signal with a name."""
        try:
            value = await value_of(context.wait_signal(node.name, node.seconds or None))
        except TimeoutError:
            return IN_TIME
        self.tale.letters.signal_is(node.name, value)
        return IN_TIME if node.seconds else "came"

    async def play_look(self, context: Any, node: Node) -> Any:
        """A signal, if one has come."""
        value = await value_of(context.try_signal(node.name, None))
        if value is not None:
            self.tale.letters.signal_is(node.name, value)
        return IN_TIME

    async def play_publish(self, context: Any, node: Node) -> Any:
        """Something that others may read."""
        return await value_of(context.publish(node.name, [node.name]))

    # -- other runs

    def child(self, node: Node) -> tuple[Any, dict[str, int], str]:
        """Function, event and name of another run."""
        function = "nobody:knows" if node.unknown else self.world.function_of(None)
        return function, {"seed": node.seed, "generation": self.tale.generation}, node.name

    async def play_invoke(self, context: Any, node: Node) -> Any:
        """Another run, and its value."""
        value = IN_TIME
        try:
            found = await value_of(context.invoke(*self.child(node), InvokeConfig(timeout=node.seconds or None)))
        except Exception:
            if not node.seconds:
                raise
        else:
            value = IN_TIME if node.seconds else found
        return value

    async def play_start(self, context: Any, node: Node) -> Any:
        """Another run, which nobody waits for."""
        function, event, name = self.child(node)
        await value_of(context.start_run(function, event, name=name))
        return "started"

    # -- beside the code

    def _pending(self, context: Any, node: Node) -> Any:
        match node.kind:
            case "child":
                return context.child_async(self.one(lambda inside: self.nodes(inside, node.inside[0])), node.name)
            case "wait":
                return context.wait_async(node.seconds, node.name)
            case "invoke":
                return context.invoke_async(*self.child(node))
            case "submit":
                return context.callback_async(*self.submission(node))
            case _:
                return context.step_async(self.one(lambda _: self.body(0, node.name)), node.name)

    async def play_pending(self, context: Any, node: Node) -> Any:
        """Something begun, something else done, then its value; or it is let go of, or forgotten."""
        pending = self._pending(context, node)
        await self.nodes(context, node.inside[1])
        if node.early:
            await value_of(pending.cancel())
            return "let go"
        if node.custom and node.kind in ("step", "wait"):
            return "forgotten"
        if node.kind == "submit":
            return await self._answer(node, pending.result)
        return await value_of(pending.result())

    def _branches(self, context: Any, node: Node) -> list[Any]:
        branches: list[Any] = [self.one(lambda inside, part=part: self.nodes(inside, part)) for part in node.inside]  # type: ignore[misc]
        if node.by_key:
            branches[0] = context.wait_async(node.seconds, node.name)
        return branches

    async def play_gather(self, context: Any, node: Node) -> Any:
        """Branches and a timer, all of them."""
        values = await value_of(context.gather(*self._branches(context, node), return_errors=True))
        return [[type(value).__name__, str(value)] if isinstance(value, Exception) else value for value in values]

    async def play_race(self, context: Any, node: Node) -> Any:
        """Branches and a timer, the first of them."""
        try:
            await value_of(context.race(*self._branches(context, node)))
        except Exception:
            return "all failed, or not"
        return "all failed, or not"

"""A durable function as the runtime drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import Done, Failed
from stepwell.durable._settling import settle, settle_async
from stepwell.runtime._values import failed, pack, unpack

if TYPE_CHECKING:
    from stepwell.durable._context import DurableContext
    from stepwell.durable._context_async import AsyncDurableContext
    from stepwell.durable._function import DurableFunction
    from stepwell.durable._plugin_list import Plugins
    from stepwell.runtime._host import Host
    from stepwell.runtime._life import Life
    from stepwell.runtime._observe import Observer


class DurableProgram:
    """`stepwell.runtime.Program` of one durable function."""

    def __init__(self, function: DurableFunction, name: str | None = None) -> None:
        self.function = function
        self.name = name or function.name
        self.identity = function.identity
        self.is_async = function.is_async
        self.timeout = function.timeout
        self.hold = function.hold

    def observers(self, host: Host, run_id: str) -> tuple[Observer, ...]:
        """The run's plugins, if it has any."""
        plugins: Plugins | None = host.settings.get("plugins")
        found = self.function.plugins if plugins is None else plugins.for_run(self.function.plugins, run_id)
        if not found:
            return ()
        from stepwell.durable._plugins import PluginObserver
        from stepwell.runtime._observe import Observer

        observers = tuple(one for one in found if isinstance(one, Observer))
        hooked = tuple(one for one in found if not isinstance(one, Observer))
        return (*observers, PluginObserver(hooked, plugins)) if hooked else observers

    def call(self, life: Life) -> Any:
        """Run the handler; see `Program`."""
        return self._call_async(life) if self.is_async else self._call(life)

    def _call(self, life: Life) -> Done | Failed:
        from stepwell.durable._context import DurableContext

        scope = life.root_scope()
        try:
            event, codec = self._event(life)
            value = self._invoke(event, DurableContext(scope, self.function))
            return self._done(life, codec, value)
        except Exception as error:
            return failed(life, error)
        finally:
            scope.closed = True

    async def _call_async(self, life: Life) -> Done | Failed:
        from stepwell.durable._context_async import AsyncDurableContext

        scope = life.root_scope()
        try:
            event, codec = self._event(life)
            value = await self._invoke_async(event, AsyncDurableContext(scope, self.function))
            return self._done(life, codec, value)
        except Exception as error:
            return failed(life, error)
        finally:
            scope.closed = True

    def _invoke(self, event: Any, context: DurableContext) -> Any:
        try:
            value = self.function.invoke(event, context)
        except Exception:
            settle(context._scope, failed=True)
            raise
        settle(context._scope, failed=False)
        return value

    async def _invoke_async(self, event: Any, context: AsyncDurableContext) -> Any:
        try:
            value = await self.function.invoke(event, context)
        except Exception:
            await settle_async(context._scope, failed=True)
            raise
        await settle_async(context._scope, failed=False)
        return value

    def _event(self, life: Life) -> tuple[Any, Any]:
        codec = self.function.codec(life)
        return unpack(life, codec, life.input, "input"), codec

    def _done(self, life: Life, codec: Any, value: Any) -> Done:
        payload, value = pack(life, codec, value, "result", "result")
        return Done(payload, value, life.store.now())

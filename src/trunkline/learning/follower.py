"""What follows the work in a process of its own: the pipelines of messages and calls, with what the candidate
replaces."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from trunkline.learning.calls import Calls, stand_ins
from trunkline.learning.messages import Messages, SetClock
from trunkline.learning.run import ROUTER, TWIML, Side, settings_of
from trunkline.learning.wire import CallStep, Page, Step, Work
from trunkline.messaging.connectors import table
from trunkline.messaging.connectors.table import Context, make
from trunkline.messaging.routing import Router
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.voice import documents
from trunkline.voice.verbs import VERBS


class Follower:
    """See the module."""

    def __init__(self, side: Side, folder: Path) -> None:
        sys.path[:0] = side.path
        patches = dict(side.patches)
        router = _found(patches.pop(ROUTER)) if ROUTER in patches else Router
        patches.pop(TWIML, None)
        table.CONNECTORS.update(patches)
        settings = settings_of(side.settings)
        clock = SetClock()
        context = Context(clock=clock)
        connectors = {own.name: make(own, context) for own in settings.connectors}
        queue = SqliteQueue(folder / "queue.sqlite", own=True)
        routes = router(settings.routes, settings.rates, list(connectors))
        if TWIML in side.patches:
            vars(documents)["parse"] = _found(side.patches[TWIML])
        VERBS.update(stand_ins())
        self._calls = Calls(settings, clock)
        self._messages = Messages(settings, connectors, queue, clock, routes)

    def start(self) -> None:
        """Connect to the sinks."""
        self._messages.start()

    @property
    def ready(self) -> bool:
        """Whether it can follow."""
        return self._messages.ready

    async def follow(self, work: Work) -> dict[str, Any] | None:
        """What becomes of the work here; None when it cannot be told."""
        item = work.item
        if isinstance(item, Step):
            return await self._messages.follow(item, work.submits[0].now_ms if work.submits else 0)
        if isinstance(item, Page):
            return self._calls.read(item)
        if isinstance(item, CallStep):
            return await self._calls.follow(item, work.pages)
        return None


def _found(named: str) -> Any:
    module, _, attribute = named.partition(":")
    return getattr(import_module(module), attribute)

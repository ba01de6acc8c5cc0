"""What a node of a cluster does about what it owns, beside its parts of the queue (`trunkline.bootstrap_cluster`)."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from trunkline.cluster.fence import Fence
from trunkline.cluster.ownership import Hooks
from trunkline.messaging.leased import LeasedConnector
from trunkline.postflight.retention import Maintenance
from trunkline.voice.trunk_registration import TrunkRegistrations

FENCED_S: Final = 2.0
"""How long a node's fence is shut before it drops its carriers' binds: a node that was merely slow finds it open again
before that, and keeps them."""


class ConnectorHooks(Hooks):
    """A carrier's binds. A node that may not send drops them after FENCED_S, so that the carrier gives what it has to
    the heir's: it may be cut off from the other nodes alone."""

    def __init__(self, connectors: Mapping[str, object], grace_s: Callable[[], float], fence: Fence) -> None:
        """`grace_s`: how long answers under way are waited for."""
        self._connectors = connectors
        self._grace_s = grace_s
        self._fence = fence
        self._shut: asyncio.TimerHandle | None = None
        fence.on_close.append(self._closed)
        fence.on_open.append(self._opened)

    def _leased(self, thing: str) -> LeasedConnector | None:
        found = self._connectors.get(thing.partition("/")[2])
        return found if isinstance(found, LeasedConnector) else None

    async def gained(self, thing: str, former: str) -> None:
        """Bind."""
        leased = self._leased(thing)
        if leased is not None:
            leased.gain()

    async def released(self, thing: str) -> None:
        """Unbind, after the answers under way."""
        leased = self._leased(thing)
        if leased is not None:
            await leased.lose(self._grace_s())

    def lost(self, thing: str) -> None:
        """It is another's: no more of it, without a word."""
        leased = self._leased(thing)
        if leased is not None:
            leased.drop()

    def _closed(self) -> None:
        if self._shut is None:
            self._shut = asyncio.get_running_loop().call_later(FENCED_S, self._cut)

    def _opened(self) -> None:
        if self._shut is not None:
            self._shut.cancel()
            self._shut = None
        for leased in self._all():
            leased.mend()

    def _cut(self) -> None:
        self._shut = None
        if not self._fence.open:
            for leased in self._all():
                leased.cut("this node may not send, it is cut off from the others")

    def _all(self) -> list[LeasedConnector]:
        return [one for one in self._connectors.values() if isinstance(one, LeasedConnector)]


class TrunkHooks(Hooks):
    """A trunk's registrations at its carrier."""

    def __init__(self, registrations: TrunkRegistrations) -> None:
        self._registrations = registrations
        registrations.leased = True

    async def gained(self, thing: str, former: str) -> None:
        """Register."""
        self._registrations.gain(thing.partition("/")[2])

    async def released(self, thing: str) -> None:
        """Take it back."""
        await self._registrations.release(thing.partition("/")[2])

    def lost(self, thing: str) -> None:
        """Another node registers."""
        self._registrations.lose(thing.partition("/")[2])


class UpkeepHooks(Hooks):
    """The archive's upkeep."""

    def __init__(self, upkeep: Maintenance) -> None:
        self._upkeep = upkeep

    async def gained(self, thing: str, former: str) -> None:
        """See to it from now on."""
        self._upkeep.resume()

    async def released(self, thing: str) -> None:
        """Another node does."""
        self._upkeep.pause()

    def lost(self, thing: str) -> None:
        """Another node does."""
        self._upkeep.pause()

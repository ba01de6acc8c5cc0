"""What a node of a cluster does about what it owns, beside its parts of the queue (`trunkline.bootstrap_cluster`)."""

import asyncio
from collections.abc import Callable, Mapping

from trunkline.cluster.ownership import Hooks
from trunkline.messaging.leased import LeasedConnector
from trunkline.postflight.retention import Maintenance
from trunkline.voice.trunk_registration import TrunkRegistrations


class ConnectorHooks(Hooks):
    """A carrier's binds."""

    def __init__(self, connectors: Mapping[str, object], grace_s: Callable[[], float]) -> None:
        """`grace_s`: how long answers under way are waited for."""
        self._connectors = connectors
        self._grace_s = grace_s
        self._tasks: set[asyncio.Task[None]] = set()

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
        """Unbind at once."""
        leased = self._leased(thing)
        if leased is not None:
            task = asyncio.get_running_loop().create_task(leased.lose())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


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

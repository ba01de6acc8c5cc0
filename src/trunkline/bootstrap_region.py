"""Wiring of regions: what the settings name, opened; what a node does about its region. Nothing of it is loaded where
`[[regions]]` names none.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trunkline import inherited
from trunkline.bootstrap_stores import CannotStart, objects_location, open_archive
from trunkline.region import databases
from trunkline.region.beats import Beats
from trunkline.region.compare import Comparison, Side, compare
from trunkline.region.gate import Gate
from trunkline.region.guard import Guard
from trunkline.region.promotion import CannotPromote, Ways, begin
from trunkline.region.records import Epoch, Handover
from trunkline.region.rules import Role, Seen, Standing, Witnessed, judge
from trunkline.region.waiting import NotActive, Notice, until_active
from trunkline.region.witness import Witness
from trunkline.settings import Settings
from trunkline.storage.objects import Objects
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice.service import Former

if TYPE_CHECKING:
    from trunkline.bootstrap import Node

REFUSED = "region: "
"""How the reason begins for which nothing new is taken."""


def named(queue: tuple[str, ...], database: str) -> dict[str, str]:
    """The databases of a region by name."""
    return {**{f"queue{place}": str(dsn) for place, dsn in enumerate(queue)}, "database": str(database)}


def own(settings: Settings) -> dict[str, str]:
    """This region's databases."""
    return named(settings.storage.queue, settings.storage.database)


def others(settings: Settings) -> dict[str, dict[str, str]]:
    """Those of the other regions."""
    return {one.name: named(one.queue, one.database) for one in settings.regions}


def witness(settings: Settings) -> Witness:
    """The object store's. Raises StoreUnavailable without its driver."""
    location = objects_location(settings)
    if location is None:
        raise StoreUnavailable("objects.url is not set: regions need an object store")
    return Witness(Objects(location))


def ways(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Ways:
    """What a promotion needs."""
    region = settings.region
    return Ways(
        name=settings.node.region, own=own(settings), others=others(settings), witness=witness(settings),
        alone_s=region.alone_s, drain_s=region.drain_s, command=region.promote_command, say=say,
    )  # fmt: skip


def look_at_others(settings: Settings) -> dict[str, Seen]:
    """What the other regions' databases say. Blocks."""
    return {name: databases.look_at(dsns) for name, dsns in others(settings).items()}


def standing(settings: Settings) -> Standing:
    """Whether this region is the active one, looked at once. Blocks; never raises."""
    try:
        witnessed = Witnessed(witness(settings).newest())
    except StoreUnavailable as error:
        witnessed = Witnessed(None, str(error))
    around = {} if witnessed.epoch is not None else look_at_others(settings)
    return judge(settings.node.region, databases.look_at(own(settings)), around, witnessed)


def wait_until_active(settings: Settings) -> None:
    """Return when this region is the active one; say on the API's port meanwhile why not. Exits with status 1 and one
    line when it was replaced."""
    notice: Notice | None = None
    if not inherited.supervised():
        with contextlib.suppress(OSError):  # somebody else has the port: the start will say so
            notice = Notice(settings.server.host, settings.server.port)
    try:
        found = until_active(lambda: standing(settings), notice.say if notice is not None else lambda text: None)
        if found.role is Role.FIRST:
            begin(ways(settings))
    except (NotActive, CannotPromote, StoreUnavailable) as error:
        raise SystemExit(f"trunkline: {error}") from None
    finally:
        if notice is not None:
            notice.close()


def former(dsn: str, epoch: Epoch) -> Former | None:
    """The region before this epoch, and when it was last heard of by the databases that were promoted; None: there was
    none. Blocks. Raises StoreUnavailable."""
    found = next((one for one in databases.handovers(dsn) if one.epoch.epoch == epoch.epoch), None)
    if found is None:
        return Former(epoch.since_ms, epoch.since_ms) if epoch.former else None
    since_ms = found.epoch.since_ms
    return Former(since_ms, min((one.beat_ms for one in found.positions if one.beat_ms), default=since_ms))


class NodeRegion:
    """What a node of an active region does about it: asks, beats, and stops when it was replaced."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._settings = node.settings
        self._task: asyncio.Task[None] | None = None
        self._beats: Beats | None = None
        self.guard = Guard(
            self._settings.node.region, Epoch(epoch=0, region="", since_ms=0), witness(self._settings),
            self._settings.region.alone_s, self._look_around,
        )  # fmt: skip
        self.guard.moved = self._moved
        self.guard.replaced = self._replaced

    def front(self, app: Any) -> Gate:
        """What answers the API."""
        return Gate(app, self.guard)

    def _look_around(self) -> tuple[Seen, Mapping[str, Seen]]:
        return databases.look_at(own(self._settings)), look_at_others(self._settings)

    async def start(self) -> None:
        """Before the node is a member of its cluster. Raises CannotStart."""
        found = await asyncio.to_thread(standing, self._settings)
        if found.role is not Role.ACTIVE or found.epoch is None:
            raise CannotStart(found.text)
        self.guard.epoch = found.epoch
        await self.guard.look()
        if self._node.voice is not None:
            dsn = own(self._settings)["database"]
            self._node.voice.services.former = await asyncio.to_thread(former, dsn, found.epoch)
        self._task = asyncio.get_running_loop().create_task(self.guard.run())
        self._beats = Beats(own(self._settings), lambda: self.guard.open)

    def _moved(self, bound_ns: int) -> None:
        """Nothing leaves later than that, and nothing new is taken."""
        if self._node.cluster is not None:
            self._node.cluster.fence.bind(bound_ns)
        outbound, why = self._node.outbound, "" if self.guard.open else REFUSED + self.guard.problem
        if why or outbound.refuse.startswith(REFUSED):
            outbound.refuse = why
            if self._node.voice is not None:
                self._node.voice.outbound.refuse_all(why)

    def _replaced(self, epoch: Epoch) -> None:
        """Stop as a signal would: what may still be finished is."""
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop(self) -> None:
        """No more looks, no more beats."""
        if self._beats is not None:
            self._beats.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.guard.close()


def compare_with(settings: Settings, region: str, handover: Handover, now_ms: int) -> Comparison:
    """What a lost region's databases have that is not here. Blocks. Raises StoreUnavailable."""
    with asyncio.Runner() as runner:
        archive = open_archive(settings)

        def landed(account: str, sid: str) -> bool:
            return runner.run(archive.get(account, sid)) is not None

        try:
            with Side(own(settings)) as here, Side(others(settings)[region]) as there:
                return compare(here, there, region, handover, landed, now_ms)
        finally:
            runner.run(archive.close())

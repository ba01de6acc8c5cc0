"""What a node of the active region keeps asking: whether its region still is.

Theory. Each look that confirms the epoch opens the node until `alone_s` after the look *began*, by CLOCK_BOOTTIME, as
the fence of its lease does (and the fence is never open for longer: `Fence.bound_ns`). A higher epoch closes it: at
once, or, where the region is handed over in order, for new work at once and for what is under way after `drain_s`.
A promotion that cannot reach the former region waits `alone_s` after its epoch was written and its databases were
promoted before any node there opens; so the two are never open together, whatever the network does.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from trunkline.cluster.fence import NEVER_NS, boottime_ns
from trunkline.region.records import Epoch
from trunkline.region.rules import Role, Seen, Witnessed, judge, replaced
from trunkline.region.witness import Witness
from trunkline.storage.unavailable import StoreUnavailable

LOOK_S = 1.0
WITNESS_S = 2.0
"""A witness that takes longer is not waited for: the other regions are asked."""

log = logging.getLogger(__name__)


class Guard:
    """Whether this node may serve, as far as regions go."""

    def __init__(
        self,
        name: str,
        epoch: Epoch,
        witness: Witness,
        alone_s: float,
        ask_databases: Callable[[], tuple[Seen, Mapping[str, Seen]]],
        now_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        """`ask_databases`: this region's and the others'. Blocks."""
        self.name = name
        self.epoch = epoch
        self.problem = ""
        """Why the last look did not confirm it; empty: it did."""
        self.bound_ns = 0
        """Until when anything may be sent."""
        self.replaced_by: Epoch | None = None
        self.moved: Callable[[int], None] = lambda bound_ns: None
        """Told of each new bound."""
        self.replaced: Callable[[Epoch], None] = lambda epoch: None
        """Told, once, of the epoch that ends this one."""
        self._witness = witness
        self._alone_ns = int(alone_s * 1e9)
        self._ask_databases = ask_databases
        self._now = now_ns
        self._threads = ThreadPoolExecutor(2, "region")
        self._asking: asyncio.Future[Epoch] | None = None

    @property
    def open(self) -> bool:
        """Whether new work may be taken."""
        return self.replaced_by is None and self.acknowledges

    @property
    def acknowledges(self) -> bool:
        """Whether what was taken may be acknowledged: a region that is handed over in order still does."""
        return self._now() < self.bound_ns

    async def run(self) -> None:
        """Until cancelled, or replaced."""
        await self.look()
        while self.replaced_by is None:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Ask once."""
        start = self._now()
        loop = asyncio.get_running_loop()
        if self._asking is None:
            self._asking = loop.run_in_executor(self._threads, self._witness.after, self.epoch)
        try:
            newest = await asyncio.wait_for(asyncio.shield(self._asking), WITNESS_S)
            self._asking = None
        except TimeoutError:
            await self._look_around(start, "the object store does not answer")
        except StoreUnavailable as error:
            self._asking = None
            await self._look_around(start, str(error))
        else:
            self._decide(start, newest)

    async def _look_around(self, start: int, why: str) -> None:
        own, others = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask_databases)
        standing = judge(self.name, own, others, Witnessed(None, why))
        if standing.role is Role.ACTIVE:
            self._confirm(start)
        elif standing.role is Role.REPLACED and standing.epoch is not None:
            self._end(standing.epoch)
        elif self.problem != standing.text:
            self.problem = standing.text
            log.error("%s", standing.text)

    def _decide(self, start: int, newest: Epoch) -> None:
        if newest.epoch == self.epoch.epoch:
            self._confirm(start)
        else:  # also where it was handed over and taken back meanwhile: the next start looks anew
            self._end(newest)

    def _confirm(self, start: int) -> None:
        if self.problem:
            log.warning("region %s is known to be active again", self.name)
        self.problem = ""
        self._move(start + self._alone_ns if self._alone_ns else NEVER_NS)

    def _move(self, bound_ns: int) -> None:
        self.bound_ns = bound_ns
        self.moved(bound_ns)

    def _end(self, epoch: Epoch) -> None:
        self.replaced_by = epoch
        self.problem = replaced(self.name, epoch)
        log.error("%s", self.problem)
        self._move(self._now() + int(epoch.drain_s * 1e9) if epoch.planned else 0)
        self.replaced(epoch)

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

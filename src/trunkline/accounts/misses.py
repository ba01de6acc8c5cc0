"""Before a node of a cluster says that there is no such account, key, number or service, it asks the database, once.

Copies follow the database within milliseconds, and a change is answered only when the other nodes have it
(trunkline.cluster.copies); this is for what was written elsewhere while this node was cut off or slow. Junk costs the
database little: what was looked for is not looked for again for AGAIN_S, all look-ups together are bounded by a bucket,
and equal ones under way share a read. While the database is away the copies answer alone.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from trunkline.model.account import Account, ApiKey
from trunkline.model.numbers import Application, MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.record import Record
from trunkline.model.sip_trunk import SipTrunk
from trunkline.storage.unavailable import StoreUnavailable

LOOKS_PER_S: Final = 20.0
"""Look-ups of a node, in the long run."""
BURST: Final = 100.0
"""Look-ups at once."""
AGAIN_S: Final = 1.0
"""What was looked for is not looked for again so soon."""
MAX_KEYS: Final = 10_000
"""Of these; the oldest go first."""
LOOK_S: Final = 0.5
"""Longest look-up: then the copies answer."""
REST_S: Final = 2.0
"""No look-ups for so long after the database failed."""
BY_SID: Final[Mapping[str, type[Record]]] = {
    "AC": Account,
    "AP": Application,
    "MG": MessagingService,
    "SK": ApiKey,
    "TK": SipTrunk,
}
"""What is known by its SID, by the SID's prefix."""

Key = tuple[str, str, str]

log = logging.getLogger(__name__)


class Copies(Protocol):
    """trunkline.accounts.directory.Directory, as far as it is needed."""

    async def read(self, kind: type[Record], where: Mapping[str, str]) -> bool: ...


class Misses:
    """See the module. Nothing here raises; `now` counts seconds."""

    def __init__(self, copies: Copies, now: Callable[[], float]) -> None:
        self._copies = copies
        self._now = now
        self._left = BURST
        self._at = now()
        self._rest_until = self._at
        self._asked: OrderedDict[Key, float] = OrderedDict()
        self._under_way: dict[Key, asyncio.Task[bool]] = {}
        self.looked = 0
        """Look-ups made."""
        self.refused = 0
        """Not made: too many."""

    async def sid(self, sid: str) -> None:
        """Look for what a SID names."""
        kind = BY_SID.get(sid[:2])
        if kind is not None and not await self.look(kind, "sid", sid) and kind is Account:
            await self.look(Account, "test_account_sid", sid)

    async def number(self, address: str) -> None:
        """Look for a number or short code."""
        kind, column = (PhoneNumber, "phone_number") if address.startswith("+") else (ShortCode, "short_code")
        await self.look(kind, column, address)

    async def senders(self, service_sid: str) -> None:
        """Look for the senders of a service."""
        await self.look(ServiceSender, "service_sid", service_sid)

    async def look(self, kind: type[Record], column: str, value: str) -> bool:
        """Look for records where a column has a value; whether some were read now."""
        key = kind.TABLE, column, value
        task = self._under_way.get(key)
        if task is None:
            if not self._may(key):
                return False
            task = self._under_way[key] = asyncio.get_running_loop().create_task(self._read(key, kind))
            task.add_done_callback(lambda done: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    def _may(self, key: Key) -> bool:
        now = self._now()
        if now < self._rest_until or now < self._asked.get(key, now):
            return False
        self._left = min(BURST, self._left + (now - self._at) * LOOKS_PER_S)
        self._at = now
        if self._left < 1.0:
            self.refused += 1
            return False
        self._left -= 1.0
        self.looked += 1
        return True

    async def _read(self, key: Key, kind: type[Record]) -> bool:
        try:
            async with asyncio.timeout(LOOK_S):
                found = await self._copies.read(kind, {key[1]: key[2]})
        except (StoreUnavailable, TimeoutError) as error:
            self._rest_until = self._now() + REST_S
            log.warning("nothing is looked for in the database for %g s, it does not answer: %s", REST_S, error)
            return False
        self._asked.pop(key, None)
        self._asked[key] = self._now() + AGAIN_S
        if len(self._asked) > MAX_KEYS:
            self._asked.popitem(last=False)
        return found

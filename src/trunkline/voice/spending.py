"""Fraud limits: what an account may spend on calls in an hour and a day, and how often it may call high-risk numbers.

Spent is the price of calls that have ended, and the begun minutes of those that are up, at their trunk's rate. Amounts
of trunks with other currencies are added as they are. It is counted in this node and kept in the `MemoryStore`, so that
it outlives the process. Nothing is done, and nothing kept, where no limit is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.model.call import Call, Direction
from trunkline.model.dialing import LOW
from trunkline.voice.denials import Denial, blocked
from trunkline.voice.emergency import is_bare

if TYPE_CHECKING:
    from trunkline.accounts.alerts import Alerts
    from trunkline.model.clock import Clock
    from trunkline.settings import Trunk, Voice
    from trunkline.storage.memory import MemoryStore
    from trunkline.voice.live import LiveCall

PREFIX: Final = "spend/"
"""Keys of the `MemoryStore`: `spend/<account SID>`."""
BUCKET_MS: Final = 5 * 60_000
"""Amounts are added up by so long; the oldest of a window counts whole."""
HOUR, DAY = 12, 288
"""Buckets."""
TTL_MS: Final = (DAY + 1) * BUCKET_MS
MAX_ACCOUNTS: Final = 100_000
"""Accounts whose spending is remembered; the first leave first."""
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
TOLD_MS: Final = 600_000
"""An account's limit is told of, to it and to the operator, once in so long."""
CUT_LOOK_S: Final = 5.0
SPEND_HOUR, SPEND_DAY, HIGH_RISK = "spend-hour", "spend-day", "high-risk-calls"
ALERT: Final = 13225

log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[int, float]).decode


class Spending:
    """See the module. `rate` gives a trunk by its name, `live` are the calls of this node; `counters` what was refused
    or cut, by the limit."""

    def __init__(
        self,
        voice: Voice,
        memory: MemoryStore,
        alerts: Alerts,
        clock: Clock,
        live: Mapping[str, LiveCall],
        trunk: Callable[[str], Trunk | None],
    ) -> None:
        self._per_hour = float(voice.spend_per_hour)
        self._per_day = float(voice.spend_per_day)
        self._high_risk = voice.high_risk_calls_per_hour
        self._cut = voice.cut_on_limit
        self._memory = memory
        self._alerts = alerts
        self._clock = clock
        self._live = live
        self._trunk = trunk
        self._spent: dict[str, dict[int, float]] = {}
        self._risky: dict[str, deque[int]] = {}
        self._told: dict[tuple[str, str], int] = {}
        self.counters: dict[str, int] = {}

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self._per_hour or self._per_day or self._high_risk)

    # -- asking ----------------------------------------------------------------------------------------------

    def denial(self, account_sid: str, risk: str) -> Denial | None:
        """Why an account may not place a call just now."""
        over = self.over(account_sid)
        if not over and self._high_risk and risk != LOW and self._too_risky(account_sid):
            over = HIGH_RISK
        if not over:
            return None
        self._tell(account_sid, over)
        return blocked(f"the account's limit is reached: {over}")

    def over(self, account_sid: str) -> str:
        """The spending limit that an account has reached; empty: none."""
        if not self._per_hour and not self._per_day:
            return ""
        running = self._running(account_sid)
        if self._per_hour and running + self.spent(account_sid, HOUR) >= self._per_hour:
            return SPEND_HOUR
        if self._per_day and running + self.spent(account_sid, DAY) >= self._per_day:
            return SPEND_DAY
        return ""

    def spent(self, account_sid: str, buckets: int) -> float:
        """What its calls that ended in the last so many buckets cost."""
        found = self._spent.get(account_sid)
        if found is None:
            return 0.0
        now = self._clock.now_ms() // BUCKET_MS
        return sum(amount for bucket, amount in found.items() if bucket >= now - buckets)

    def _running(self, account_sid: str) -> float:
        now, total = self._clock.now_ms(), 0.0
        for call in self._live.values():
            record = call.record
            if record.account_sid != account_sid or not call.is_up or record.direction is Direction.INBOUND:
                continue
            trunk = self._trunk(record.trunk)
            if trunk is not None:
                total += float(trunk.price) * ((now - record.answered_ms) // MINUTE_MS + 1)
        return total

    def _too_risky(self, account_sid: str) -> bool:
        found = self._risky.get(account_sid)
        if found is None:
            return False
        since = self._clock.now_ms() - HOUR_MS
        while found and found[0] < since:
            found.popleft()
        return len(found) >= self._high_risk

    # -- telling ---------------------------------------------------------------------------------------------

    def placed(self, account_sid: str, risk: str) -> None:
        """An account calls a number."""
        if self._high_risk and risk != LOW:
            if account_sid not in self._risky and len(self._risky) >= MAX_ACCOUNTS:
                del self._risky[next(iter(self._risky))]
            self._risky.setdefault(account_sid, deque(maxlen=self._high_risk)).append(self._clock.now_ms())

    def ended(self, call: Call) -> None:
        """A call has its price."""
        if not call.price or not (self._per_hour or self._per_day):
            return
        try:
            amount = abs(float(Decimal(call.price)))
        except InvalidOperation:
            return
        if not amount:
            return
        if call.account_sid not in self._spent and len(self._spent) >= MAX_ACCOUNTS:
            del self._spent[next(iter(self._spent))]
        found = self._spent.setdefault(call.account_sid, {})
        now = self._clock.now_ms() // BUCKET_MS
        found[now] = found.get(now, 0.0) + amount
        for bucket in [one for one in found if one < now - DAY]:
            del found[bucket]
        self._memory.post(PREFIX + call.account_sid, _encode(found), TTL_MS)

    def _tell(self, account_sid: str, limit: str) -> None:
        self.counters[limit] = self.counters.get(limit, 0) + 1
        now = self._clock.now_ms()
        if self._told.get((account_sid, limit), -TOLD_MS) > now - TOLD_MS:
            return
        if len(self._told) >= MAX_ACCOUNTS:
            self._told.clear()
        self._told[account_sid, limit] = now
        log.warning("account %s has reached its limit of calls: %s", account_sid, limit)
        text = f"calls are refused: the account has reached the operator's limit ({limit})"
        self._alerts.raise_(account_sid, ALERT, resource_sid=account_sid, text=text)

    # -- life ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up what a process before this one counted."""
        for key, value in await self._memory.scan(PREFIX):
            try:
                self._spent[key.removeprefix(PREFIX)] = _decode(value)
            except msgspec.MsgspecError:
                self._memory.post(key, None)

    def cut(self) -> None:
        """End the calls of accounts that are over their spending limit."""
        accounts = {call.record.account_sid for call in self._live.values() if call.is_up}
        over = {account for account in accounts if self.over(account)}
        for call in list(self._live.values()) if over else ():
            record = call.record
            if is_bare(record.to):
                continue  # an emergency call
            if record.account_sid in over and record.trunk and record.direction is not Direction.INBOUND:
                self._tell(record.account_sid, self.over(record.account_sid) or SPEND_HOUR)
                call.hangup("spend-limit", 503)

    async def run(self) -> None:
        """Cut what is to be cut, until cancelled."""
        while self._cut and (self._per_hour or self._per_day):
            await asyncio.sleep(CUT_LOOK_S)
            self.cut()

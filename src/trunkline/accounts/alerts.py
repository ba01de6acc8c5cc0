"""Monitor alerts: what went wrong with a customer's webhooks and messages, for the customer to read.

Raising one never waits and never fails its caller. An account has a budget of alerts (a token bucket), so that an
error storm cannot fill the disk: what goes beyond is counted, and one summary tells how many were dropped.
Source: spec `monitor.v1.alert`.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from trunkline.model import sid as sids
from trunkline.model.clock import Clock
from trunkline.model.errors import describe
from trunkline.model.numbers import Alert
from trunkline.model.sid import new_sid
from trunkline.storage.database import Database

BURST = 100
"""Alerts an account may raise at once."""
REFILL_S = 30.0
"""Seconds after which one more may follow."""
SUMMARY_S = 600.0
"""Seconds from the first drop to the summary of all drops since."""
MAX_WRITES = 1000
"""Alerts that may wait for their commit, over all accounts; more are dropped."""
MAX_BODY_CHARS = 4096
"""Kept of a request's or response's body."""
MAX_FIELD_CHARS = 2048
"""Kept of a URL, of headers, of a text."""
RETENTION_MS = 30 * 24 * 3600 * 1000
"""Alerts are kept for 30 days, as Twilio keeps them."""
SWEEP_PAGE = 500
"""Old alerts deleted in one transaction."""
SUMMARY_CODE = "20429"
"""Too Many Requests: stands in a summary, which is about many codes."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Budget:
    """One account's bucket."""

    tokens: float
    at: float
    dropped: int = 0
    codes: dict[str, int] = field(default_factory=dict)


class Alerts:
    """See the module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._budgets: dict[str, _Budget] = {}
        self._writes: set[asyncio.Future[Any]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.raised = 0
        self.dropped = 0

    def raise_(
        self,
        account_sid: str,
        error_code: int,
        *,
        resource_sid: str = "",
        service_sid: str = "",
        request_method: str = "",
        request_url: str = "",
        request_variables: str = "",
        request_headers: str = "",
        response_body: str = "",
        response_headers: str = "",
        text: str = "",
    ) -> str:
        """Write an alert; returns its SID, or an empty string when the account's budget is used up."""
        if not self._take(account_sid, str(error_code)):
            return ""
        entry = describe(error_code)
        alert = self._alert(account_sid, str(error_code), entry.log_level, text or entry.message)
        alert.resource_sid = resource_sid
        alert.service_sid = service_sid
        alert.request_method = request_method
        alert.request_url = request_url[:MAX_FIELD_CHARS]
        alert.request_variables = request_variables[:MAX_BODY_CHARS]
        alert.request_headers = request_headers[:MAX_FIELD_CHARS]
        alert.response_body = response_body[:MAX_BODY_CHARS]
        alert.response_headers = response_headers[:MAX_FIELD_CHARS]
        self._write(alert)
        return alert.sid

    def _alert(self, account_sid: str, code: str, level: str, text: str) -> Alert:
        now = self._clock.now_ms()
        return Alert(
            sid=new_sid(sids.NOTIFICATION, now),
            account_sid=account_sid,
            error_code=code,
            log_level=level,
            alert_text=text[:MAX_FIELD_CHARS],
            created_ms=now,
            updated_ms=now,
        )

    def _take(self, account_sid: str, code: str) -> bool:
        """Whether the account may raise one more; counts the drop if not."""
        now = self._clock.monotonic()
        budget = self._budgets.get(account_sid)
        if budget is None:
            budget = self._budgets[account_sid] = _Budget(BURST, now)
        budget.tokens = min(BURST, budget.tokens + (now - budget.at) / REFILL_S)
        budget.at = now
        if budget.tokens >= 1 and len(self._writes) < MAX_WRITES:
            budget.tokens -= 1
            return True
        self.dropped += 1
        budget.dropped += 1
        budget.codes[code] = budget.codes.get(code, 0) + 1
        if account_sid not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[account_sid] = loop.call_later(SUMMARY_S, self.summarise, account_sid)
        return False

    def summarise(self, account_sid: str) -> None:
        """Write what was dropped since the last summary; nothing when nothing was."""
        timer = self._timers.pop(account_sid, None)
        if timer is not None:
            timer.cancel()
        budget = self._budgets.get(account_sid)
        if budget is None or not budget.dropped:
            return
        codes = ", ".join(f"{code} ({count})" for code, count in sorted(budget.codes.items(), key=_most_first))
        text = f"{budget.dropped} more alerts were not kept, too many came at once: {codes}"
        budget.dropped = 0
        budget.codes.clear()
        self._write(self._alert(account_sid, SUMMARY_CODE, "warning", text))

    def _write(self, alert: Alert) -> None:
        written = asyncio.ensure_future(self._database.insert(alert))
        self._writes.add(written)
        written.add_done_callback(self._written)

    def _written(self, written: "asyncio.Future[Any]") -> None:
        self._writes.discard(written)
        if written.cancelled() or written.exception() is None:
            self.raised += 1
        else:
            log.error("an alert was not kept: %s", written.exception())

    async def sweep(self) -> int:
        """Delete alerts past their retention and forget full budgets; returns how many alerts were deleted."""
        now = self._clock.monotonic()
        for account_sid, budget in list(self._budgets.items()):
            if not budget.dropped and budget.tokens + (now - budget.at) / REFILL_S >= BURST:
                del self._budgets[account_sid]
        deleted = 0
        where = {"created_ms__lt": self._clock.now_ms() - RETENTION_MS}
        while old := await self._database.find(Alert, where, order="created_ms", limit=SWEEP_PAGE):
            await self._database.delete(*old)
            deleted += len(old)
        return deleted

    async def close(self) -> None:
        """Write the summaries that are due and wait for all alerts to be kept."""
        for account_sid in list(self._timers):
            self.summarise(account_sid)
        if self._writes:
            await asyncio.wait(self._writes)


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]

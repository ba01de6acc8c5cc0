"""Usage triggers: once a minute, compare what was used with what each trigger waits for; the delivery of what fires.

A recurring trigger fires once in each of its days, months or years (UTC), another once for ever. The callback is owed
before the trigger is marked as fired: a crash in between owes it again, with the same `IdempotencyToken`, by which the
customer (and nobody else) can tell.
Source: Twilio's UsageTrigger documentation; spec `api.v2010.account.usage.usage_trigger`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from email.utils import formatdate
from typing import Any

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import CALLBACK_WARNING, PASSING, host_of, idempotency_token
from trunkline.accounts.directory import Directory
from trunkline.messaging.usage import Amount, Usage, day_ms, day_of
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import UsageTrigger
from trunkline.postflight.worker_client import WorkerFailed
from trunkline.storage.database import Conflict, Database
from trunkline.storage.queue import Owed, Queue
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.webhooks.delivery import Result
from trunkline.webhooks.failures import HostRefused, InvalidUrl
from trunkline.webhooks.fetch import Fetcher, FetchRequest, Outcome

KIND = "usage-trigger"
"""Of the owed callbacks."""
INTERVAL_S = 60.0
"""Between evaluations, as at Twilio."""
PAGE = 500
"""Triggers read at once."""
MARK_TRIES = 5
"""Tries to mark a trigger as fired while others change it."""
BEGINNING = date(1970, 1, 1)
PERMANENT = frozenset({InvalidUrl.kind, HostRefused.kind})
"""Failures that another attempt does not mend."""

log = logging.getLogger(__name__)


class TriggerRequest(msgspec.Struct):
    """What is kept of a fire in `Owed.request`."""

    url: str
    method: str
    params: list[tuple[str, str]]
    token: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(TriggerRequest).decode


def period_start(recurring: str, today: date) -> date:
    """The first day of what a trigger counts."""
    if recurring == "daily":
        return today
    if recurring == "monthly":
        return today.replace(day=1)
    return today.replace(month=1, day=1) if recurring == "yearly" else BEGINNING


def record_uri(trigger: UsageTrigger) -> str:
    """Where the usage that the trigger watches can be read."""
    return f"/2010-04-01/Accounts/{trigger.account_sid}/Usage/Records.json?Category={trigger.usage_category}"


async def current_value(usage: Usage, account: Account, trigger: UsageTrigger, today: date) -> Decimal:
    """What has been used in the trigger's period, as the trigger counts it; subaccounts included."""
    accounts = await usage.family(account)
    start = period_start(trigger.recurring, today)
    totals = await usage.totals(accounts, start, today, "all", account.price_unit)
    amount = totals.get("", {}).get(trigger.usage_category, Amount())
    if trigger.trigger_by == "price" or trigger.usage_category == "totalprice":
        return amount.price
    return Decimal(amount.count if trigger.trigger_by == "count" else amount.usage)


def fired(trigger: UsageTrigger, value: Decimal, now_ms: int) -> Owed:
    """The callback that a fire owes."""
    start = period_start(trigger.recurring, day_of(now_ms))
    token = f"{trigger.account_sid}-FIRES-{trigger.sid}-{start.isoformat() if trigger.recurring else 'alltime'}"
    params = [
        ("AccountSid", trigger.account_sid),
        ("UsageTriggerSid", trigger.sid),
        ("DateFired", formatdate(now_ms / 1000, usegmt=True).replace("GMT", "+0000")),
        ("Recurring", trigger.recurring),
        ("UsageCategory", trigger.usage_category),
        ("TriggerBy", trigger.trigger_by),
        ("TriggerValue", trigger.trigger_value),
        ("CurrentValue", format(value, "f")),
        ("UsageRecordUri", record_uri(trigger)),
        ("IdempotencyToken", token),
    ]
    request = TriggerRequest(trigger.callback_url, trigger.callback_method, params, token)
    return Owed(
        sid=trigger.sid,
        account=trigger.account_sid,
        kind=KIND,
        host=host_of(trigger.callback_url),
        request=_encode(request),
    )


def _is_spent(trigger: UsageTrigger, now_ms: int) -> bool:
    """Whether it has fired in its period."""
    return bool(trigger.fired_ms) and trigger.fired_ms >= day_ms(period_start(trigger.recurring, day_of(now_ms)))


class UsageTriggers:
    """The loop. `push` is told of what is owed (`Delivery.push`)."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        usage: Usage,
        directory: Directory,
        clock: Clock,
        push: Callable[[Sequence[Owed]], None],
    ) -> None:
        self._database = database
        self._queue = queue
        self._usage = usage
        self._directory = directory
        self._clock = clock
        self._push = push
        self.is_ours: Callable[[str], bool] = lambda sid: True
        """Whether a trigger is this node's to look at, by its SID."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Evaluate every INTERVAL_S until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Begin no other evaluation."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.evaluate()
            except Exception:
                log.exception("usage triggers could not be evaluated; they are in a minute")

    async def evaluate(self) -> int:
        """Look at every trigger once; returns how many fired. One that cannot be looked at does not stop the rest."""
        count = 0
        after = ""
        while page := await self._database.find(UsageTrigger, after=after, limit=PAGE):
            for trigger in filter(lambda one: self.is_ours(one.sid), page):
                try:
                    count += await self._look_at(trigger)
                except (StoreUnavailable, WorkerFailed) as error:
                    log.warning("usage trigger %s could not be evaluated; it is in a minute: %s", trigger.sid, error)
                except Exception:
                    log.exception("usage trigger %s cannot be evaluated", trigger.sid)
            after = page[-1].sid
        return count

    async def _look_at(self, trigger: UsageTrigger) -> bool:
        """Whether it fired just now. Next: trunkline.messaging.usage_triggers.UsageTriggerHandler.begin"""
        account = self._directory.account(trigger.account_sid)
        if account is None or account.status == "closed" or (trigger.fired_ms and not trigger.recurring):
            return False
        now_ms = self._clock.now_ms()
        value = await current_value(self._usage, account, trigger, day_of(now_ms))
        fires = value >= Decimal(trigger.trigger_value) and not _is_spent(trigger, now_ms)
        if fires:
            owed = [fired(trigger, value, now_ms)]
            await self._queue.owe(owed)
            self._push(owed)
        if fires or Decimal(trigger.current_value) != value:
            await self._note(trigger, format(value, "f"), now_ms if fires else 0)
        return fires

    async def _note(self, trigger: UsageTrigger, value: str, fired_ms: int) -> None:
        """Write down what was seen, whatever else is changed at the same time."""
        current: UsageTrigger | None = trigger
        for _ in range(MARK_TRIES):
            if current is None:
                return
            current.current_value = value
            current.fired_ms = fired_ms or current.fired_ms
            try:
                await self._database.update(current)
            except Conflict:
                current = await self._database.get(UsageTrigger, trigger.sid)
            else:
                return


class UsageTriggerHandler:
    """The delivery of fires: a signed request by the trigger's method. Kind: KIND."""

    def __init__(self, fetcher: Fetcher, account_of: Callable[[str], Account | None], alerts: Alerts) -> None:
        self._fetcher = fetcher
        self._account_of = account_of
        self._alerts = alerts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """Make one attempt. Next: trunkline.webhooks.delivery.Delivery.settled"""
        task = self._loop.create_task(self._attempt(owed, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def exhausted(self, owed: Owed, result: Result) -> None:
        """Given up: an alert."""
        text = f"usage trigger callback given up after {owed.tries} attempts: {result.error}"
        self._alerts.raise_(owed.account, result.error_code or CALLBACK_WARNING, resource_sid=owed.sid, text=text)

    async def _attempt(self, owed: Owed, done: Callable[[Result], None]) -> None:
        try:
            result = await self._result(owed)
        except Exception:
            log.exception("the callback of usage trigger %s could not be made; it is made again", owed.sid)
            result = Result([], False, retry=True, error="internal failure")
        done(result)

    async def _result(self, owed: Owed) -> Result:
        try:
            request = _decode(owed.request)
        except msgspec.MsgspecError:
            return Result([], False, error="the request is gone")
        account = self._account_of(owed.account)
        if account is None:
            return Result([], False, error="the account is gone")
        outcome = await self._fetcher.once(
            FetchRequest(
                url=request.url,
                secret=account.auth_token,
                method=request.method,
                params=request.params,
                idempotency_token=idempotency_token(owed.sid, request.token),
                verify_tls=account.verify_tls,
                document=False,
            )
        )
        return Result(
            [_encode(attempt) for attempt in outcome.attempts],
            delivered=outcome.error_code == 0,
            retry=_may_retry(outcome),
            error_code=outcome.error_code,
            error=outcome.error,
        )


def _may_retry(outcome: Outcome) -> bool:
    """Everything but what the URL or the answer rules out for good."""
    if outcome.answer is None:
        return outcome.attempts[-1].failure not in PERMANENT
    status = outcome.answer.status
    return status >= 500 or status in PASSING

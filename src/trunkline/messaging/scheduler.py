"""Scheduled messages: they wait in the `Database`, not in flight, until their SendAt has come.

A record's status says what is meant to happen to it, and is set by compare-and-set before it happens: `scheduled`, then
`sending` or `canceled`. The effect (a flight with the message's own SID) can happen once only, and the record is
deleted after it; so a crash at any point is made good by doing the same again. So is a failure, AGAIN_S later: what
cannot be reached holds up nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from trunkline.accounts.directory import Directory
from trunkline.inflight.store import Inflight
from trunkline.messaging.outbound import NewMessage, Outbound, status_callback
from trunkline.messaging.reader import Reader
from trunkline.messaging.services import choose_sender, fallback_sender
from trunkline.model import message as codec
from trunkline.model.errors import ApiError, describe
from trunkline.model.message import Message, Status
from trunkline.model.numbers import ScheduledMessage
from trunkline.storage.database import Conflict, Database
from trunkline.storage.queue import Exists
from trunkline.storage.unavailable import StoreUnavailable

TICK_S = 1.0
"""How often it is looked for messages whose time has come."""
BATCH = 200
"""Messages taken on at once."""
MAX_DUE = 5 * BATCH
"""Messages of one page that is looked at for it: in a cluster most may be other nodes'."""
MORE_PAGES = 3
"""Looked at in one turn, beside the first, where that is full of other nodes' messages. The next turn goes on behind
them: what an owner who is away has left undone holds up nobody else's."""
AGAIN_S = 60.0
"""How often it is looked for messages that were begun, or canceled, and not ended: while their part of the queue could
not be reached, say, or by a node that had lost them just before."""
RETRY_S = 5.0
"""Wait after a failure of a store."""
TOO_LATE = 30409
"""Twilio's "message is not in a cancelable state"."""
QUEUE_FULL = 21611
QUEUE_OVERFLOW = 30001

log = logging.getLogger(__name__)


class Scheduler:
    """See the module."""

    def __init__(
        self, database: Database, inflight: Inflight, outbound: Outbound, directory: Directory, reader: Reader
    ) -> None:
        self._database = database
        self._inflight = inflight
        self._outbound = outbound
        self._directory = directory
        self._reader = reader
        self._task: asyncio.Task[None] | None = None
        self._recovered = False
        self._after = ""
        """Up to where the pages behind the first one have been looked at; empty: they begin anew."""
        self.is_ours: Callable[[str], bool] = lambda sid: True
        """Whether a message is this node's to send, by its SID."""
        self.sent = 0

    def start(self) -> None:
        """Send what comes due until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Take on nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        clock, looked = asyncio.get_running_loop().time, 0.0
        while True:
            try:
                if not self._recovered or clock() - looked >= AGAIN_S:
                    self._recovered, looked = True, clock()
                    await self.recover()
                full = await self.send_due() == BATCH
                await asyncio.sleep(0 if full else TICK_S)
            except Exception:
                log.exception("scheduled messages could not be taken on; they are tried again")
                self._recovered = False
                await asyncio.sleep(RETRY_S)

    def look_again(self) -> None:
        """Messages of another node are this one's now."""
        self._recovered = False

    async def recover(self) -> None:
        """Finish what was begun: by an earlier run, by another node, or by this one, which could not then."""
        for status, settle in ((Status.CANCELED, self._cancel), (Status.SENDING, self._send)):
            await self._each({"status": status.value}, settle)

    async def _each(self, where: dict[str, object], settle: Callable[[ScheduledMessage], Awaitable[None]]) -> None:
        after = ""
        while records := await self._database.find(ScheduledMessage, where, after=after, limit=BATCH):
            after = records[-1].sid
            await _all(_try(settle, record) for record in records if self.is_ours(record.sid))

    async def send_due(self) -> int:
        """Take on a batch of the messages whose time has come; returns how many were."""
        found = await self._due("")
        due = [record for record in found if self.is_ours(record.sid)]
        if len(found) == MAX_DUE and len(due) < BATCH:
            due += await self._due_behind(found[-1].sid)
        else:
            self._after = ""
        due = due[:BATCH]
        return sum(await _all(self._take_on(record) for record in due))

    async def _due(self, after: str) -> Sequence[ScheduledMessage]:
        where = {"status": Status.SCHEDULED.value, "send_at_ms__le": self._inflight.clock.now_ms()}
        return await self._database.find(ScheduledMessage, where, order="send_at_ms", after=after, limit=MAX_DUE)

    async def _due_behind(self, first: str) -> list[ScheduledMessage]:
        """Ours of the next few pages; from the `first` one's end if they begin anew."""
        ours: list[ScheduledMessage] = []
        for _ in range(MORE_PAGES):
            found = await self._due(self._after or first)
            ours += [record for record in found if self.is_ours(record.sid)]
            others = [record.sid for record in found if not self.is_ours(record.sid)]  # they stay where they are
            self._after = (others or [found[-1].sid])[-1] if len(found) == MAX_DUE else ""
            if not self._after or len(ours) >= BATCH:
                break
        return ours

    async def _take_on(self, record: ScheduledMessage) -> bool:
        """Whether it was. Raises what the database raises: all records are in the same one."""
        record.status = Status.SENDING.value
        try:
            await self._database.update(record)
        except Conflict:
            return True  # canceled or deleted just now
        return await _try(self._send, record)

    # -- send ------------------------------------------------------------------------------------------------

    async def _send(self, record: ScheduledMessage) -> None:
        """Hand the message to the outbound line. Next: trunkline.messaging.outbound.Outbound.accept"""
        message = codec.decode(record.record)
        if await self._reader.get(message.account_sid, message.sid) is None:
            try:
                _, written = self._outbound.accept(await self._new(message))
                await written
                self.sent += 1
            except Exists:
                pass
            except ApiError as refused:
                code = refused.code or 0
                await self._fail(message, QUEUE_OVERFLOW if code == QUEUE_FULL else code)
        await self._database.delete(record)

    async def _new(self, message: Message) -> NewMessage:
        """The message as new; a service chooses the sender only now. Raises ApiError."""
        new = NewMessage(
            account_sid=message.account_sid,
            from_=message.from_,
            to=message.to,
            body=message.body,
            messaging_service_sid=message.messaging_service_sid,
            status_callback=message.status_callback,
            application_sid=message.application_sid,
            media=message.media,
            validity_s=(message.valid_until_ms - message.created_ms) // 1000,
            smart_encoded=message.smart_encoded,
            fallback_from=message.fallback_from,
            token=message.token,
            traceparent=message.traceparent,
            sid=message.sid,
            created_ms=message.created_ms,
            announce=True,
            extra=message.extra,
        )
        if new.from_:
            return new
        service = self._directory.service(message.messaging_service_sid)
        if service is None or service.account_sid != message.account_sid:
            raise ApiError.of(21701)
        chosen = await choose_sender(self._directory, self._database, service, message.to)
        if chosen is None:
            raise ApiError.of(21703 if self._directory.senders(service.sid) else 21704)
        new.from_ = chosen.address
        second = fallback_sender(service, self._directory.senders(service.sid), chosen.address, message.to)
        new.fallback_from = second.address if second else new.fallback_from
        return new

    async def _fail(self, message: Message, code: int) -> None:
        """It was refused at its time: a failed message like any other."""
        message.error_code, message.error_message = code, describe(code).message
        await self._land(message, Status.FAILED)

    async def _land(self, message: Message, status: Status) -> None:
        """Make a message that ends without being sent part of the record."""
        now = self._inflight.clock.now_ms()
        message.updated_ms = now
        owed = [status_callback(message, status, 0)] if message.status_callback else []
        _, written = self._inflight.accept(message, status, land_ms=now, owed=owed)
        try:
            await written
        except Exists:
            return

    # -- cancel ----------------------------------------------------------------------------------------------

    async def cancel(self, record: ScheduledMessage) -> None:
        """Stop a message that has not gone out: it becomes a canceled one. Raises 30409 when it is too late."""
        record.status = Status.CANCELED.value
        try:
            await self._database.update(record)
        except Conflict:
            raise ApiError.of(TOO_LATE) from None
        await self._cancel(record)

    async def _cancel(self, record: ScheduledMessage) -> None:
        message = codec.decode(record.record)
        if await self._reader.get(message.account_sid, message.sid) is None:
            await self._land(message, Status.CANCELED)
        await self._database.delete(record)


async def _try(step: Callable[[ScheduledMessage], Awaitable[None]], record: ScheduledMessage) -> bool:
    """Whether it could be done. What could not is looked at again, as its status says what is meant to happen."""
    try:
        await step(record)
    except StoreUnavailable as error:
        log.warning("scheduled message %s has to wait: %s", record.sid, error)
    except Exception:
        log.exception("scheduled message %s could not be taken on; it is tried again", record.sid)
    else:
        return True
    return False


async def _all(work: Iterable[Awaitable[bool]]) -> list[bool]:
    """Do it all at once (the store commits it together); the first failure is raised after the others have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, bool)]

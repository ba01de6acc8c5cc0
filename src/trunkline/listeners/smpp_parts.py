"""Long messages that SMPP clients submit in parts: each part is durable before it is answered, and gets an id of its
own; when the last one comes they go on as one message, whose receipts name every part's id.

Theory. A client may wait for the answer to one part before it sends the next, so an answer cannot wait for the whole.
The SID is chosen with the first part; part n is answered with `SID-n`. Parts lie in the queue under the account's lane
name, which no connector can have. The last part is answered when the message is accepted; then the stored ones are
dropped. What is not complete within `messaging.part_window_s` is not sent: its parts get receipts that say EXPIRED.
"""

import asyncio
import logging
from asyncio import Future
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any, Final

import msgspec
import orjson

from trunkline.inflight.store import Inflight
from trunkline.messaging import smpp_clients
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.messaging.reader import Reader
from trunkline.messaging.smpp_clients import Wish
from trunkline.model.errors import ApiError
from trunkline.model.octets import fitted
from trunkline.model.sid import MESSAGE_SMS, new_sid
from trunkline.settings import Messaging
from trunkline.sms.udh import Concat
from trunkline.storage.queue import Exists, Owed, Part, Queue

MAX_GROUPS: Final = 10_000
"""Incomplete messages of all accounts together."""
MAX_GROUPS_OF_ACCOUNT: Final = 1000
MAX_FINISHED: Final = 1000
"""Complete messages remembered, so that a part submitted once more gets its answer again."""
INCOMPLETE: Final = 30036
"""Twilio's "validity period expired", which is what becomes of parts without their siblings."""

Key = tuple[str, str, str, int, int, int]

log = logging.getLogger(__name__)


class PartSubmit(msgspec.Struct, frozen=True):
    """One part, checked; of its text the ends may be half a surrogate pair."""

    account: str
    from_: str
    to: str
    concat: Concat
    text: str
    registered: int
    validity_s: int

    @property
    def key(self) -> Key:
        concat = self.concat
        return self.account, self.from_, self.to, concat.reference, concat.total, concat.width


class Stored(msgspec.Struct):
    """A part as the queue keeps it; the text in UTF-16."""

    key: Key
    sid: str
    number: int
    text: bytes
    registered: int
    validity_s: int
    began_ms: int


class Group:
    """What has come of one long message."""

    __slots__ = ("began_ms", "key", "registered", "sid", "texts", "validity_s", "written")

    def __init__(self, key: Key, sid: str, began_ms: int) -> None:
        self.key = key
        self.sid = sid
        self.began_ms = began_ms
        self.texts: dict[int, str] = {}
        self.registered = 0
        self.validity_s = 0
        self.written: Future[Any] | None = None
        """The accept of the whole message, while it is under way."""

    @property
    def account(self) -> str:
        return self.key[0]

    @property
    def place(self) -> tuple[str, str]:
        """Connector and key of its parts in the queue."""
        _, from_, to, reference, total, width = self.key
        return smpp_clients.lane(self.account), f"{from_}|{to}|{reference}|{total}|{width}|{self.sid}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Stored).decode


class Parts:
    """See the module. Used by one event loop."""

    def __init__(self, settings: Messaging, inflight: Inflight, outbound: Outbound, reader: Reader) -> None:
        self._window_ms = int(settings.part_window_s * 1000)
        self._max_segments = settings.max_segments
        self._max_stored = settings.part_count
        self._inflight = inflight
        self._queue = inflight.queue
        self._clock = inflight.clock
        self._outbound = outbound
        self._reader = reader
        self._groups: dict[Key, Group] = {}
        self._of_account: dict[str, int] = {}
        self._finished: OrderedDict[Key, Group] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def receive(self, part: PartSubmit) -> tuple[str, Awaitable[Any]]:
        """Take a part: the id to answer with, once the awaitable is done.

        Raises ApiError when the completed message is refused (the part may be submitted again), 21617 for too many
        parts, 21611 when too much is incomplete.
        """
        concat, key = part.concat, part.key
        if concat.total > self._max_segments:
            raise ApiError.of(21617)
        again = self._finished.get(key)
        if again is not None and again.texts.get(concat.sequence) == part.text and self._fresh(again):
            return f"{again.sid}-{concat.sequence}", self._done()
        group = self._groups.get(key)
        if group is not None and group.texts.get(concat.sequence, part.text) != part.text:
            # The reference is used again: what was held will never be complete.
            self._drop(group)
            asyncio.get_running_loop().create_task(self._expire(group)).add_done_callback(_log_failure)
            group = None
        if group is None:
            group = self._begin(key)
        group.registered |= part.registered
        group.validity_s = part.validity_s or group.validity_s
        if group.written is not None:
            return f"{group.sid}-{concat.sequence}", group.written
        have = {**group.texts, concat.sequence: part.text}
        if len(have) == concat.total:
            return f"{group.sid}-{concat.sequence}", self._complete(group, have)
        group.texts = have
        return f"{group.sid}-{concat.sequence}", self._queue.keep_part(self._stored(group, part))

    def _begin(self, key: Key) -> Group:
        account = key[0]
        if len(self._groups) >= MAX_GROUPS or self._of_account.get(account, 0) >= MAX_GROUPS_OF_ACCOUNT:
            raise ApiError.of(21611, from_=key[1])
        now = self._clock.now_ms()
        return self._add(Group(key, new_sid(MESSAGE_SMS, now), now))

    def _add(self, group: Group) -> Group:
        self._groups[group.key] = group
        self._of_account[group.account] = self._of_account.get(group.account, 0) + 1
        return group

    def _drop(self, group: Group) -> None:
        if self._groups.pop(group.key, None) is not None:
            left = self._of_account[group.account] - 1
            if left:
                self._of_account[group.account] = left
            else:
                del self._of_account[group.account]

    def _stored(self, group: Group, part: PartSubmit) -> Part:
        connector, key = group.place
        number = part.concat.sequence
        body = Stored(
            key=group.key,
            sid=group.sid,
            number=number,
            text=part.text.encode("utf-16-be", "surrogatepass"),
            registered=part.registered,
            validity_s=part.validity_s,
            began_ms=group.began_ms,
        )
        return Part(connector=connector, key=key, number=number, at_ms=self._clock.now_ms(), body=_encode(body))

    # -- the whole --------------------------------------------------------------------------------------------

    def _complete(self, group: Group, texts: dict[int, str]) -> Awaitable[Any]:
        """Accept the message; the group stays until that is durable."""
        _, from_, to, _, total, _ = group.key
        body = "".join(texts[number] for number in sorted(texts))
        _, written = self._outbound.accept(
            NewMessage(
                account_sid=group.account,
                from_=from_,
                to=to,
                body=body.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace"),
                validity_s=group.validity_s,
                status_callback=smpp_clients.callback(group.account, Wish(group.registered, total)),
                sid=group.sid,
            )
        )
        group.written = asyncio.ensure_future(written)
        group.written.add_done_callback(lambda done: self._accepted(group, texts, done))
        return group.written

    def _accepted(self, group: Group, texts: dict[int, str], done: "Future[Any]") -> None:
        group.written = None
        if done.cancelled() or (done.exception() is not None and not isinstance(done.exception(), Exists)):
            return
        self._drop(group)
        group.texts = texts
        self._finished[group.key] = group
        if len(self._finished) > MAX_FINISHED:
            self._finished.popitem(last=False)
        asyncio.ensure_future(self._queue.drop_parts([group.place])).add_done_callback(_log_failure)

    def _fresh(self, group: Group) -> bool:
        return self._clock.now_ms() - group.began_ms <= self._window_ms

    def _done(self) -> "Future[None]":
        future: Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    # -- time -------------------------------------------------------------------------------------------------

    async def restore(self, queue: Queue | None = None) -> None:
        """Take up what an earlier run stored (in this partition of the queue)."""
        queue = queue or self._queue
        far = self._clock.now_ms() + self._window_ms
        for connector, key in await queue.stale_parts(far, self._max_stored):
            if not connector.startswith(smpp_clients.SCHEME):
                continue
            group: Group | None = None
            for stored in [_decode(part.body) for part in await queue.parts(connector, key)]:
                if group is None:
                    group = Group(stored.key, stored.sid, stored.began_ms)
                group.texts[stored.number] = stored.text.decode("utf-16-be", "surrogatepass")
                group.registered |= stored.registered
                group.validity_s = stored.validity_s or group.validity_s
            if group is not None and group.key not in self._groups:
                self._add(group)
            elif group is not None:
                await self._expire(group)

    async def sweep(self) -> None:
        """Give up what is older than the window."""
        over = [group for group in self._groups.values() if not self._fresh(group)]
        for group in over:
            if self._groups.get(group.key) is group:
                self._drop(group)
                await self._expire(group)

    async def _expire(self, group: Group) -> None:
        """Tell the client that its parts will not be sent, unless they were (a crash came before they were dropped)."""
        if await self._reader.get(group.account, group.sid) is None:
            _, from_, to, *_ = group.key
            owed = []
            for number in sorted(group.texts):
                wish = Wish(group.registered, 0, f"{group.sid}-{number}")
                callback = smpp_clients.callback(group.account, wish)
                if callback and smpp_clients.wants(callback, "failed"):
                    params = [
                        ("MessageSid", group.sid), ("MessageStatus", "failed"), ("To", to), ("From", from_),
                        ("ErrorCode", str(INCOMPLETE)),
                    ]  # fmt: skip
                    request = {"url": callback, "params": params, "token": f"{group.sid}-{number}"}
                    owed.append(
                        Owed(
                            sid=group.sid,
                            account=group.account,
                            kind=smpp_clients.RECEIPT,
                            host=smpp_clients.lane(group.account),
                            seq=number,
                            request=fitted(orjson.dumps(request)),
                        )
                    )
            if owed:
                await self._queue.owe(owed)
                self._inflight.owed(owed)
        await self._queue.drop_parts([group.place])


def _log_failure(future: "Future[Any]") -> None:
    if not future.cancelled() and future.exception() is not None:
        log.error("parts submitted over SMPP were not settled: %s", future.exception())

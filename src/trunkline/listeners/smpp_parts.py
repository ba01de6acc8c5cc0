"""Long messages that SMPP clients submit in parts: each part is durable before it is answered, and gets an id of its
own; when the last one comes they go on as one message, whose receipts name every part's id.

Theory. A client may wait for the answer to one part before it sends the next, so an answer cannot wait for the whole.
The SID is chosen with the first part; part n is answered with `SID-n`. Parts lie in the queue under the account's lane
name, which no connector can have. The last part is answered when the message is accepted; then the stored ones are
dropped. What is not complete within `messaging.part_window_s` is not sent: its parts get receipts that say EXPIRED.

A part that equals one of a message just sent is answered with that one's id, for its answer may have got lost. It may
also be the beginning of another message: clients use references again, and messages to one recipient have parts in
common. So it is kept all the same, as durably as the others. If a part follows that differs, a new message begins with
it and with the kept ones before it (those behind it were repetitions: a client submits parts in their order); its
receipts name ids of its own. If none differs within the window, what was kept is dropped.
"""

import asyncio
import hashlib
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
"""Complete messages remembered, so that a part submitted once more gets its answer again; and of those, ones with
parts that were."""
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
    again: str = ""
    """SID of the finished message that it seems to repeat."""
    known: dict[int, str] = {}
    """Of that message: digests of its parts."""


class Group:
    """What has come of one long message."""

    __slots__ = ("again", "began_ms", "digests", "key", "registered", "sid", "texts", "validity_s", "written")

    def __init__(self, key: Key, sid: str, began_ms: int) -> None:
        self.key = key
        self.sid = sid
        self.began_ms = began_ms
        self.texts: dict[int, str] = {}
        self.registered = 0
        self.validity_s = 0
        self.written: Future[Any] | None = None
        """The accept of the whole message, while it is under way."""
        self.digests: dict[int, str] = {}
        """Of its parts, once it is finished."""
        self.again: Group | None = None
        """The finished message that these parts seem to repeat."""

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
        self._repeated: OrderedDict[Key, Group] = OrderedDict()
        """Parts that were answered as repetitions."""

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
        answer = self._repetition(part)
        if answer is not None:
            return answer
        group = self._groups.get(key)
        if group is not None and group.texts.get(concat.sequence, part.text) != part.text:
            # The reference is used again: what was held will never be complete.
            self._drop(group)
            asyncio.get_running_loop().create_task(self._expire(group)).add_done_callback(_log_failure)
            group = None
        taken: list[Awaitable[Any]] = []
        if group is None:
            group = self._begin(key)
            taken = self._take_repeated(group, concat.sequence)
        group.registered |= part.registered
        group.validity_s = part.validity_s or group.validity_s
        if group.written is not None:
            return f"{group.sid}-{concat.sequence}", group.written
        have = {**group.texts, concat.sequence: part.text}
        if len(have) == concat.total:
            return f"{group.sid}-{concat.sequence}", self._complete(group, have)
        group.texts = have
        kept = self._queue.keep_part(self._stored(group, part))
        return f"{group.sid}-{concat.sequence}", asyncio.gather(kept, *taken) if taken else kept

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
        return self._as_stored(group, part.concat.sequence, part.text, part.registered, part.validity_s)

    def _as_stored(self, group: Group, number: int, text: str, registered: int, validity_s: int) -> Part:
        connector, key = group.place
        body = Stored(
            key=group.key,
            sid=group.sid,
            number=number,
            text=_octets(text),
            registered=registered,
            validity_s=validity_s,
            began_ms=group.began_ms,
        )
        if group.again is not None:
            body.again, body.known = group.again.sid, group.again.digests
        return Part(connector=connector, key=key, number=number, at_ms=self._clock.now_ms(), body=_encode(body))

    # -- repetitions ------------------------------------------------------------------------------------------

    def _repetition(self, part: PartSubmit) -> tuple[str, Awaitable[Any]] | None:
        """The answer to a part that a finished message had; None: it is another message's."""
        key, number = part.key, part.concat.sequence
        kept = self._repeated.get(key)
        if kept is not None and not self._fresh(kept):
            self._forget([kept])
            kept = None
        finished = self._finished.get(key) if kept is None else kept.again
        if finished is None or finished.digests.get(number) != _digest(part.text):
            return None
        if kept is None and not self._fresh(finished):
            return None
        message_id = f"{finished.sid}-{number}"
        group = self._groups.get(key)
        if group is not None:  # another message is coming in
            return None if group.texts.get(number, part.text) == part.text else (message_id, self._done())
        if kept is None:
            if len(self._repeated) >= MAX_FINISHED:
                self._forget([next(iter(self._repeated.values()))])
            now = self._clock.now_ms()
            kept = self._repeated[key] = Group(key, new_sid(MESSAGE_SMS, now), now)
            kept.again = finished
        kept.texts[number] = part.text
        kept.registered |= part.registered
        kept.validity_s = part.validity_s or kept.validity_s
        return message_id, self._queue.keep_part(self._stored(kept, part))

    def _take_repeated(self, group: Group, number: int) -> list[Awaitable[Any]]:
        """A message begins, with its part `number`: those before it that were taken for repetitions are its own."""
        kept = self._repeated.pop(group.key, None)
        if kept is None:
            return []
        if self._fresh(kept):
            group.texts = {one: text for one, text in kept.texts.items() if one < number}
        if group.texts:
            group.registered, group.validity_s = kept.registered, kept.validity_s
        # Handed in before the part that begins the message: whoever finds that one in the queue finds them all.
        written = [
            self._queue.keep_part(self._as_stored(group, one, text, kept.registered, kept.validity_s))
            for one, text in group.texts.items()
        ]
        moved = asyncio.ensure_future(self._moved(kept, written))
        moved.add_done_callback(_log_failure)
        return [moved] if written else []

    async def _moved(self, kept: Group, written: list[Awaitable[None]]) -> None:
        await asyncio.gather(*written)
        await self._queue.drop_parts([kept.place])

    def _forget(self, groups: list[Group]) -> None:
        """They were repetitions."""
        for group in groups:
            del self._repeated[group.key]
        places = [group.place for group in groups]
        asyncio.ensure_future(self._queue.drop_parts(places)).add_done_callback(_log_failure)

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
        group.texts, group.digests = {}, {number: _digest(text) for number, text in texts.items()}
        self._finished.pop(group.key, None)
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
                    if stored.again:
                        group.again = Group(stored.key, stored.again, stored.began_ms)
                        group.again.digests = stored.known
                group.texts[stored.number] = stored.text.decode("utf-16-be", "surrogatepass")
                group.registered |= stored.registered
                group.validity_s = stored.validity_s or group.validity_s
            if group is not None and group.again is not None:
                await self._restore_repeated(group)
            elif group is not None and group.key not in self._groups:
                self._add(group)
            elif group is not None:
                await self._expire(group)

        moved = [group for group in self._repeated.values() if group.key in self._groups]
        if moved:
            self._forget(moved)

    async def _restore_repeated(self, group: Group) -> None:
        known = self._repeated.setdefault(group.key, group)
        known.texts |= group.texts
        if known.sid != group.sid:
            await self._queue.drop_parts([group.place])

    async def sweep(self) -> None:
        """Give up what is older than the window."""
        over = [group for group in self._groups.values() if not self._fresh(group)]
        for group in over:
            if self._groups.get(group.key) is group:
                self._drop(group)
                await self._expire(group)
        repeated = [group for group in self._repeated.values() if not self._fresh(group)]
        if repeated:
            self._forget(repeated)

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


def _octets(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _digest(text: str) -> str:
    return hashlib.sha256(_octets(text)).hexdigest()[:16]


def _log_failure(future: "Future[Any]") -> None:
    if not future.cancelled() and future.exception() is not None:
        log.error("parts submitted over SMPP were not settled: %s", future.exception())

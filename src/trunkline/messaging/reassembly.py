"""Long inbound messages: every part is durable before it is acknowledged, the whole is one commit.

The parts wait in the queue under a key that names the concatenation and when it began (references are used again), and
in memory (`sms.concat.Assembly`). When the last one comes, the message is inserted and its parts are dropped in one
commit, which leaves a marker (part number 0) for the time limit, so that a part that the carrier repeats after a crash
is known to belong to a finished message.

Such a part may also be the beginning of another message: references are used again, and messages of one sender have
parts in common. So it is kept in the queue all the same, its number counted from REPEATED. If a part follows that
differs, a new message begins with it and with the kept ones before it (those behind it were repetitions: parts mostly
come in their order); each of its parts says so in `joined`. While a message comes in, a part that it lacks is its own.
If none differs within the time limit, what was kept is dropped.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from trunkline.messaging.connectors.base import InboundPart
from trunkline.sms import concat
from trunkline.storage.queue import Part, Queue

MAX_PARTS = 255
"""Of one long message: TS 23.040 gives the count one octet."""
MAX_MARKERS = 10_000
"""Finished messages remembered at once."""
UCS2 = 0x08
_MARKER = 0
REPEATED = 256
"""Added to the numbers of parts that repeat those of a finished message."""

_encode = msgspec.json.Encoder().encode


class StoredPart(msgspec.Struct):
    """A part as the queue keeps it; the text is in UTF-16, so that a surrogate pair may be split between parts."""

    connector: str
    from_: str
    to: str
    reference: int
    total: int
    width: int
    number: int
    encoding: str
    text: bytes
    at_ms: int
    began_ms: int
    joined: int = 0
    """Parts with lower numbers that were kept as repetitions are of this message."""


class Marker(msgspec.Struct):
    """What is remembered of a finished message: its concatenation, and a digest of each part."""

    key: tuple[str, str, int, int, int]
    began_ms: int
    digests: dict[int, str]


class Repeated(msgspec.Struct):
    """Parts that seem to repeat those of a finished message."""

    began_ms: int
    """As in their key in the queue."""
    first_ms: int
    encoding: str
    parts: dict[int, concat.Part] = {}


class Whole(msgspec.Struct):
    """A message put together; `missing` parts never came."""

    connector: str
    from_: str
    to: str
    text: str
    encoding: str
    parts: int
    missing: int
    group: concat.Group
    key: str
    """Of its parts in the queue."""


_decode_part = msgspec.json.Decoder(StoredPart).decode
_decode_marker = msgspec.json.Decoder(Marker).decode


class Reassembly:
    """See the module. Pure bookkeeping: the caller writes to the queue."""

    def __init__(self, window_ms: int, max_parts: int) -> None:
        self._window_ms = window_ms
        self._assembly = concat.Assembly(time_limit_ms=window_ms, max_groups=max(1, max_parts // 2))
        self._began: dict[concat.Key, int] = {}
        self._last_began = 0
        self._encodings: dict[concat.Key, str] = {}
        self._markers: dict[concat.Key, Marker] = {}
        self._repeated: dict[concat.Key, Repeated] = {}
        self._joined: dict[concat.Key, int] = {}

    def __len__(self) -> int:
        return len(self._assembly)

    def receive(self, part: InboundPart, now_ms: int) -> tuple[concat.Verdict, Part | None, list[Whole]]:
        """Take a part: what it is, how to store it (None: nothing to store), and messages that are finished now."""
        mine = _concat_part(part, now_ms)
        if self._repeats(mine):
            if mine.key not in self._began:
                return "duplicate", self._keep_repeated(part, mine), []
            if self._assembly.contradicts(mine):
                return "duplicate", None, []
        self._join(mine)
        outcome = self._assembly.receive(mine)
        finished = [self._whole(group) for group in outcome.finished]
        if outcome.verdict == "complete":
            return "complete", None, finished
        if outcome.verdict == "duplicate" and mine.key not in self._began:
            return "duplicate", None, finished
        began = self._began.get(mine.key)
        if began is None:
            began = self._began[mine.key] = self._unique(now_ms)
        if part.encoding == "ucs2" or mine.key not in self._encodings:
            self._encodings[mine.key] = part.encoding
        return outcome.verdict, _stored(part, mine, began, self._joined.get(mine.key, 0)), finished

    def _unique(self, now_ms: int) -> int:
        """When a message began; so that the parts of a reference that is used again are stored apart."""
        self._last_began = max(now_ms, self._last_began + 1)
        return self._last_began

    def _repeats(self, part: concat.Part) -> bool:
        """Whether a finished message had this part."""
        marker = self._markers.get(part.key)
        fresh = marker is not None and part.received_ms - marker.began_ms <= self._window_ms
        if fresh and marker and marker.digests.get(part.sequence) == _digest(part):
            return True
        return self._assembly.came_before(part)

    def _keep_repeated(self, part: InboundPart, mine: concat.Part) -> Part:
        """What to store of a part that repeats a finished message's."""
        now = mine.received_ms
        kept = self._repeated.get(mine.key)
        if kept is None or now - kept.first_ms >= self._window_ms:
            if len(self._repeated) >= MAX_MARKERS:
                del self._repeated[next(iter(self._repeated))]
            kept = self._repeated[mine.key] = Repeated(self._unique(now), now, part.encoding)
        if part.encoding == "ucs2":
            kept.encoding = part.encoding
        kept.parts[mine.sequence] = mine
        stored = _stored(part, mine, kept.began_ms)
        stored.number += REPEATED
        return stored

    def _join(self, part: concat.Part) -> None:
        """If a message begins with this part: those before it that were taken for repetitions are its own."""
        kept = None if part.key in self._began else self._repeated.pop(part.key, None)
        if kept is None or part.received_ms - kept.first_ms >= self._window_ms:
            return
        before = {number: one for number, one in kept.parts.items() if number < part.sequence}
        if before:
            self._began[part.key], self._encodings[part.key] = kept.began_ms, kept.encoding
            self._joined[part.key] = part.sequence
            self._assembly.restore([concat.Group(part.key, kept.first_ms, before)])

    def due(self, now_ms: int) -> list[Whole]:
        """The messages whose time is over, as far as they came."""
        for key in [key for key, marker in self._markers.items() if now_ms - marker.began_ms > self._window_ms]:
            del self._markers[key]
        for key in [key for key, kept in self._repeated.items() if now_ms - kept.first_ms >= self._window_ms]:
            del self._repeated[key]
        return [self._whole(group) for group in self._assembly.due(now_ms)]

    def give_back(self, whole: Whole, last: int) -> None:
        """A finished message could not be stored: without its unacknowledged `last` part (0: all were acknowledged) it
        waits again."""
        group = whole.group
        parts = {number: part for number, part in group.parts.items() if number != last}
        if parts:
            self._began[group.key] = int(whole.key.rpartition("|")[2])
            self._encodings[group.key] = whole.encoding
            self._assembly.restore([concat.Group(group.key, group.first_ms, parts)])

    def marker(self, whole: Whole, now_ms: int) -> Part:
        """What to store with the message."""
        body = _encode(_marker(whole, now_ms))
        return Part(connector=whole.connector, key=whole.key, number=_MARKER, at_ms=now_ms, body=body)

    def finished(self, whole: Whole, now_ms: int) -> None:
        """The message is stored, with its marker."""
        if len(self._markers) >= MAX_MARKERS:
            del self._markers[next(iter(self._markers))]
        self._markers[whole.group.key] = _marker(whole, now_ms)

    def held(self) -> set[str]:
        """The keys in the queue of the messages whose parts are in memory."""
        return {_key(key[0].partition("|")[2], *key[1:], began) for key, began in self._began.items()}

    async def restore(self, queue: Queue, keys: Sequence[tuple[str, str]]) -> None:
        """Take up what an earlier run stored."""
        groups: list[concat.Group] = []
        for connector, key in keys:
            parts: dict[int, concat.Part] = {}
            repeated: dict[int, concat.Part] = {}
            began = joined = 0
            encoding = "gsm7"
            for stored in await queue.parts(connector, key):
                if stored.number == _MARKER:
                    self._restore_marker(_decode_marker(stored.body))
                    continue
                one = _decode_part(stored.body)
                mine = _concat_part(_inbound(one), one.at_ms)
                (parts if stored.number < REPEATED else repeated)[mine.sequence] = mine
                began, joined = one.began_ms, max(joined, one.joined)
                encoding = "ucs2" if one.encoding == "ucs2" else encoding
            if parts:
                parts = {number: one for number, one in repeated.items() if number < joined} | parts
                first = next(iter(parts.values()))
                self._began[first.key], self._encodings[first.key] = began, encoding
                self._joined[first.key] = joined
                groups.append(concat.Group(first.key, min(p.received_ms for p in parts.values()), parts))
            elif repeated:
                first = next(iter(repeated.values()))
                first_ms = min(p.received_ms for p in repeated.values())
                self._repeated[first.key] = Repeated(began, first_ms, encoding, repeated)
        for key_, marker in self._markers.items():
            if key_ in self._repeated:
                # What repeated an earlier message of the same reference is of no more use.
                kept = self._repeated[key_]
                kept.parts = {n: p for n, p in kept.parts.items() if marker.digests.get(n) == _digest(p)}
        self._assembly.restore(groups)

    def _restore_marker(self, marker: Marker) -> None:
        """The last message of a reference that is used again is the one that may be repeated."""
        known = self._markers.get(marker.key)
        if known is None or known.began_ms <= marker.began_ms:
            self._markers[marker.key] = marker

    def _whole(self, group: concat.Group) -> Whole:
        source, to, reference, total, width = group.key
        connector, _, from_ = source.partition("|")
        began = self._began.pop(group.key, group.first_ms)
        self._joined.pop(group.key, None)
        self._repeated.pop(group.key, None)  # they repeated an earlier one
        return Whole(
            connector=connector,
            from_=from_,
            to=to,
            text=concat.text_of(group, _text),
            encoding=self._encodings.pop(group.key, "gsm7"),
            parts=len(group.parts),
            missing=total - len(group.parts),
            group=group,
            key=_key(from_, to, reference, total, width, began),
        )


def _marker(whole: Whole, now_ms: int) -> Marker:
    digests = {number: _digest(part) for number, part in whole.group.parts.items()}
    return Marker(whole.group.key, now_ms, digests)


def _key(from_: str, to: str, reference: int, total: int, width: int, began_ms: int) -> str:
    return f"{from_}|{to}|{reference}|{total}|{width}|{began_ms}"


def _concat_part(part: InboundPart, now_ms: int) -> concat.Part:
    width: Literal[8, 16] = 16 if part.reference_width == 16 else 8
    return concat.Part(
        source=f"{part.connector}|{part.from_}",
        destination=part.to,
        reference=part.reference,
        total=part.total,
        sequence=part.part,
        width=width,
        data_coding=UCS2,
        payload=part.text.encode("utf-16-be", "surrogatepass"),
        received_ms=now_ms,
    )


def _stored(part: InboundPart, mine: concat.Part, began_ms: int, joined: int = 0) -> Part:
    body = StoredPart(
        connector=part.connector,
        from_=part.from_,
        to=part.to,
        reference=part.reference,
        total=part.total,
        width=mine.width,
        number=part.part,
        encoding=part.encoding,
        text=mine.payload,
        at_ms=mine.received_ms,
        began_ms=began_ms,
        joined=joined,
    )
    key = _key(part.from_, part.to, part.reference, part.total, mine.width, began_ms)
    return Part(connector=part.connector, key=key, number=part.part, at_ms=mine.received_ms, body=_encode(body))


def _inbound(stored: StoredPart) -> InboundPart:
    return InboundPart(
        connector=stored.connector,
        from_=stored.from_,
        to=stored.to,
        text=stored.text.decode("utf-16-be", "surrogatepass"),
        encoding=stored.encoding,
        part=stored.number,
        total=stored.total,
        reference=stored.reference,
        reference_width=stored.width,
    )


def _text(_: concat.Part, octets: bytes) -> str:
    return octets.decode("utf-16-be", "replace")


def _digest(part: concat.Part) -> str:
    return hashlib.sha256(part.payload).hexdigest()[:16]

"""Simulated phones on the loopback connector: they show what a phone would show, and answer as they are told.

    handsets = Handsets(loopback, clock)
    ada = handsets.handset("+15555550123")
    ada.replies("Yes, 7 pm")
    text = await ada.receives("Shall we meet?")
    await ada.send("+12025550142", "On my way")

Messages come in as segments and are put together again as on a phone. Any number that gets a message has a handset;
those nobody has asked for by name are forgotten, the longest unused first, when there are MAX_HANDSETS.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from trunkline.messaging.connectors.loopback import DELIVERED, FATES, Fate, LoopbackConnector, Segment
from trunkline.model.clock import Clock, SystemClock
from trunkline.sms import concat, gsm7

MAX_HANDSETS: Final = 1000
MAX_INBOX: Final = 100
"""Messages a handset keeps; the oldest leave first."""
MAX_WAITING: Final = 100
"""Tasks that wait for one handset's messages."""
RECEIVE_TIMEOUT_S: Final = 30.0
UNREACHABLE: Final = 30003
GSM7, UCS2 = 0, 8
"""data_coding (3GPP TS 23.038)."""

Reply = str | Callable[["Text"], str | None]


class Text(msgspec.Struct, frozen=True):
    """A message as the phone shows it."""

    id: int
    """1 for a handset's first message, and so on."""
    from_: str = msgspec.field(name="from")
    to: str
    body: str
    at_ms: int
    segments: int = 1
    media_urls: Sequence[str] = ()


class NotReceived(AssertionError):
    """The message did not come in time."""


class NotTaken(ConnectionError):
    """The platform did not keep what the handset sent."""


class Handset:
    """One phone. Made by `Handsets.handset`."""

    def __init__(self, number: str, network: "Handsets") -> None:
        self.number = number
        self.inbox: deque[Text] = deque(maxlen=MAX_INBOX)
        self.received = 0
        """Messages so far, those the inbox has dropped included."""
        self.failing = 0
        """Twilio's error code that messages to it end with (see loopback.FATES); 0: none."""
        self._network = network
        self._assembly = concat.Assembly(max_groups=MAX_INBOX, max_finished=MAX_INBOX)
        self._replies: deque[Reply] = deque()
        self._seen = 0
        self._waiting: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"Handset({self.number})"

    # -- scripting ------------------------------------------------------------------------------------------

    def replies(self, *replies: Reply) -> None:
        """Answer the next messages with these, one each; a function is given the `Text` and may return None."""
        self._replies.extend(replies)

    def fails(self, error_code: int) -> None:
        """Let messages to it end with this code (30003 to 30008); 0: let them arrive again. Raises ValueError."""
        if error_code and error_code not in FATES:
            raise ValueError(f"{error_code} is none of {', '.join(map(str, FATES))}")
        self.failing = error_code

    def off(self) -> None:
        """Switch it off: messages to it expire (30003)."""
        self.fails(UNREACHABLE)

    def on(self) -> None:
        """Switch it on again."""
        self.fails(0)

    async def send(self, to: str, text: str, media_urls: Sequence[str] = ()) -> None:
        """Send a message to one of the platform's numbers; returns once it is kept there. Raises NotTaken."""
        if not await self._network.connector.originate(self.number, to, text, media_urls):
            raise NotTaken(f"{self.number} could not send to {to}")

    async def receives(self, body: str | None = None, *, timeout_s: float = RECEIVE_TIMEOUT_S) -> Text:
        """Wait for a message (with exactly this text) that no earlier call has returned. Raises NotReceived."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    for text in list(self.inbox):
                        if text.id > self._seen and body in (None, text.body):
                            self._seen = text.id
                            return text
                    await self.changed()
        except TimeoutError:
            got = [text.body for text in self.inbox]
            raise NotReceived(f"{self.number} did not receive {body!r} within {timeout_s:g} s, but {got}") from None

    async def changed(self) -> None:
        """Wait for the next message, whatever it is."""
        if len(self._waiting) >= MAX_WAITING:
            raise NotReceived(f"{MAX_WAITING} tasks wait for {self.number} already")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    # -- from the network -----------------------------------------------------------------------------------

    def receive(self, segments: Sequence[Segment], now_ms: int) -> Fate:
        """What the network brings; shown once all parts are there."""
        if self.failing:
            return FATES[self.failing]
        for segment in segments:
            if segment.total == 1:
                self._show(segment.text, segment, 1, now_ms)
                continue
            part = concat.Part(
                source=segment.source,
                destination=segment.destination,
                reference=segment.reference,
                total=segment.total,
                sequence=segment.part,
                width=8,
                data_coding=GSM7 if segment.encoding == "gsm7" else UCS2,
                payload=segment.octets,
                received_ms=now_ms,
            )
            for group in self._assembly.receive(part).finished:
                self._show(concat.text_of(group, _decode), segments[0], len(group.parts), now_ms)
        return DELIVERED

    def _show(self, body: str, segment: Segment, count: int, now_ms: int) -> None:
        self.received += 1
        text = Text(self.received, segment.source, segment.destination, body, now_ms, count, segment.media_urls)
        self.inbox.append(text)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        if self._replies:
            reply = self._replies.popleft()
            answer = reply if isinstance(reply, str) else reply(text)
            if answer is not None:
                self._network.connector.originate(self.number, segment.source, answer)


class Handsets:
    """All phones of one loopback connector; it is their network once this is made."""

    def __init__(self, connector: LoopbackConnector, clock: Clock | None = None) -> None:
        self.connector = connector
        self._clock = clock or SystemClock()
        self._named: dict[str, Handset] = {}
        self._others: OrderedDict[str, Handset] = OrderedDict()
        connector.phones = self

    def handset(self, number: str) -> Handset:
        """The phone with this number, kept from now on. Raises OverflowError beyond MAX_HANDSETS."""
        found = self._named.get(number)
        if found is None:
            if len(self._named) >= MAX_HANDSETS:
                raise OverflowError(f"at most {MAX_HANDSETS} handsets")
            found = self._named[number] = self._other(number)
        return found

    def _other(self, number: str) -> Handset:
        """The unnamed handset, taken out of its place."""
        return self._others.pop(number) if number in self._others else Handset(number, self)

    def receive(self, segments: Sequence[Segment]) -> Fate:
        """See `loopback.Phones`."""
        number = segments[0].destination
        handset = self._named.get(number)
        if handset is None:
            handset = self._others[number] = self._other(number)
            if len(self._others) > MAX_HANDSETS:
                self._others.popitem(last=False)
        return handset.receive(segments, self._clock.now_ms())


def _decode(part: concat.Part, octets: bytes) -> str:
    return gsm7.decode(octets) if part.data_coding == GSM7 else octets.decode("utf-16-be", "replace")

"""Calls that are up while a fault comes, and what their peers heard of it."""

import asyncio
import io
import math
import struct
import time
import wave

import msgspec

from lab import outside
from lab.cluster import Lab
from lab.ledgers import CALL_FINAL, Webhooks
from lab.node import ABROAD, CALLED, SAID
from lab.phones import PORT, Leg, Phones

UP_S = 60.0
"""How long calls may take to be answered."""
SPREAD_S = 0.1
"""Between two calls."""
TOLD_S = 30.0
"""How long final callbacks are waited for after the last BYE."""
ALIVE_S = 2.0
"""A leg that hears something all the time, but nothing for so long, is dead."""
POLL_S = 0.1
PROMPT_S = 10
STALE = 1
"""Packets of a former owner that a leg may hear after those of the new one."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the calls; silences in seconds."""

    calls: int
    answered: int
    struck: int
    """Of those that were up when the fault came: on what it hit, as far as peers can tell, that is, re-INVITEd, ended,
    or silent for over a second."""
    survived: int
    """Calls that were up when the fault came and were still heard, or answered BYE, at the end."""
    up: int
    """Calls that were up when the fault came."""
    reinvited: int
    silence_p50: float
    silence_p95: float
    silence_max: float
    stuck: int
    """Calls whose final callback did not come."""
    wrong_final: int
    """Final callbacks other than `completed` of calls that were answered, contradictions, and ends that were told
    while the call was up."""
    stale: int
    """Most packets that one leg had from its former host after the new one had begun."""
    ends: dict[str, int]
    """Why those ended that ended before their time."""
    said: int = 0
    """Calls that were to hear what nobody had said before; those that never went on count as stuck."""
    said_longest_s: float = 0.0
    """Longest time until one of them went on."""
    trace: list[str] = []
    """What one of these said and heard."""

    def __str__(self) -> str:
        return (
            f"calls: {self.answered} of {self.calls} answered, {self.up} up, "
            f"{self.struck} struck, {self.survived} survived, {self.reinvited} re-INVITEd; "
            f"silence p50 {self.silence_p50} p95 {self.silence_p95} max {self.silence_max} s; stuck {self.stuck}, "
            f"wrong {self.wrong_final}, stale {self.stale}, ends {self.ends}"
            + (f"; {self.said} with new words, the last went on after {self.said_longest_s} s" if self.said else "")
        )


def prompt() -> bytes:
    """A tone as a WAV file, 8 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8000)
        samples = (int(8000 * math.sin(index * 2 * math.pi * 440 / 8000)) for index in range(8000 * PROMPT_S))
        audio.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return file.getvalue()


class Calls:
    """`async with`: phones and, after `begin`, calls of all kinds in turn."""

    def __init__(self, lab: Lab, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._edge = lab.plan.edge
        self._phones = Phones([outside.SIP_EDGE] if self._edge else [zone.node for zone in lab.nodes])
        self._nodes = len(lab.nodes)
        self._calls: list[Leg] = []

    async def __aenter__(self) -> "Calls":
        url = self._webhooks.url
        self._webhooks.prompt = await asyncio.to_thread(prompt)
        peer = f"{ABROAD}5550177" if self._edge else f"<Sip>sip:peer@{outside.PHONES}:{PORT}</Sip>"
        self._webhooks.documents = {
            CALLED["ivr"]: f'<Response><Gather timeout="600" numDigits="9"><Play loop="0">{url}/prompt.wav</Play>'
            "</Gather></Response>",
            CALLED["bridged"]: f"<Response><Dial>{peer}</Dial></Response>",
            CALLED["recorded"]: '<Response><Record maxLength="1200" timeout="600" playBeep="false"/></Response>',
        }
        await self._phones.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._phones.__aexit__()

    async def begin(self, count: int) -> None:
        """Place so many calls, and wait until they are answered."""
        kinds = list(CALLED)
        for index in range(count):
            kind = kinds[(index + index // len(kinds)) % len(kinds)]  # each kind at each node
            self._calls.append(self._phones.call(CALLED[kind], kind, speaks=kind != "ivr"))
            await asyncio.sleep(SPREAD_S)
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and not all(leg.answered or leg.ended for leg in self._calls):
            await asyncio.sleep(POLL_S)

    async def say(self, each: int) -> None:
        """Place so many calls at each node that hear what nobody has said before; they are up after that."""
        for _ in range(each * self._nodes):
            self._calls.append(self._phones.call(SAID, "ivr", speaks=False))
            await asyncio.sleep(SPREAD_S)

    async def end(self, struck: float) -> Heard | None:
        """Hang up, wait for the callbacks, and draw the verdict; `struck` is when the fault came."""
        if not self._calls:
            return None
        ended = time.monotonic()
        before = {leg.call_id: leg.ended for leg in self._phones.legs.values()}
        for leg in self._calls:
            self._phones.hang_up(leg)
        answered = sum(bool(leg.answered) for leg in self._calls)
        deadline = time.monotonic() + TOLD_S
        while time.monotonic() < deadline:
            if self._finals() >= answered and all(leg.hang_up_answered or leg.why != "ours" for leg in self._calls):
                break
            await asyncio.sleep(POLL_S)
        return verdict(list(self._phones.legs.values()), before, struck, ended, self._webhooks)

    def _finals(self) -> int:
        return sum(any(told.status in CALL_FINAL for told in all_) for all_ in self._webhooks.calls.values())


def longest(leg: Leg, struck: float, ended: float) -> float:
    """The longest silence from the fault on, one that lasts to the end included."""
    found = [length for began, length in leg.silences if began + length > struck]
    until = leg.ended if leg.ended and leg.why != "ours" else ended
    if leg.heard and until - leg.heard > ALIVE_S:
        found.append(until - leg.heard)
    return max(found, default=0.0)


def verdict(legs: list[Leg], before: dict[str, float], struck: float, ended: float, webhooks: Webhooks) -> Heard:
    """`before`: when each leg had ended before we hung up."""
    calls = [leg for leg in legs if leg.caller]
    up = [leg for leg in calls if leg.answered and leg.answered < struck and not 0 < before[leg.call_id] < struck]
    listening = [leg for leg in legs if leg.kind in ("ivr", "bridged", "callee") and leg.answered and leg.heard]
    mute = {leg.call_id for leg in listening if longest(leg, struck, ended) > ALIVE_S and ended - leg.heard > ALIVE_S}
    survived = [
        leg for leg in up
        if not before[leg.call_id] and leg.call_id not in mute and (leg.hang_up_answered or leg.why == "theirs")
    ]  # fmt: skip
    silences = sorted(
        length for leg in listening
        if (length := longest(leg, struck, ended)) and leg.call_id not in mute and not before[leg.call_id]
        and (leg.reinvites or len(leg.sources) > 1)
    )  # fmt: skip
    finals = [[t for t in all_ if t.status in CALL_FINAL] for all_ in webhooks.calls.values()]
    early = sum(t.at < ended - 1 for found in finals for t in found) - sum(bool(before[leg.call_id]) for leg in calls)
    ends: dict[str, int] = {}
    for leg in up:
        if before[leg.call_id]:
            ends[leg.why] = ends.get(leg.why, 0) + 1
    return Heard(
        calls=len(calls),
        answered=sum(bool(leg.answered) for leg in calls),
        up=len(up),
        struck=sum(
            bool(leg.reinvites or before[leg.call_id] or leg not in survived or longest(leg, struck, ended) > 1)
            for leg in up
        ),
        survived=len(survived),
        reinvited=sum(bool(leg.reinvites) for leg in up),
        silence_p50=_rank(silences, 0.5),
        silence_p95=_rank(silences, 0.95),
        silence_max=_rank(silences, 1.0),
        stuck=max(0, sum(bool(leg.answered) for leg in calls) - sum(map(bool, finals)))
        + len(webhooks.said.keys() - webhooks.went_on.keys()),
        wrong_final=sum(
            len({t.status for t in found}) > 1 or found[0].status != "completed" for found in finals if found
        )
        + max(0, early),
        stale=max((leg.stale for leg in legs), default=0),
        ends=ends,
        said=len(webhooks.said),
        said_longest_s=round(
            max((webhooks.went_on.get(sid, ended) - at for sid, at in webhooks.said.items()), default=0.0), 2
        ),
        trace=next((leg.trace for leg in up if before[leg.call_id]), [])
        or next(([*leg.trace, f"{leg.kind}: {leg.sources}"] for leg in legs if leg.stale > STALE), []),
    )


def _rank(ordered: list[float], share: float) -> float:
    """Nearest rank; 0 without values."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) if ordered else 0.0

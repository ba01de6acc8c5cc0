"""The loopback connector: the contract, then its endings, parts, repetitions and bounds."""

import asyncio
from typing import Any

import pytest

from tests.messaging.connectors.contract import (
    OUR_NUMBER,
    WINDOW,
    ConnectorContract,
    MemorySink,
    Outcomes,
    message,
)
from trunkline.messaging.connectors.base import Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.connectors.loopback import ENDINGS, FATES, FIRST_RETRY_S, MAX_TRIES, LoopbackConnector
from trunkline.messaging.connectors.table import Context, make
from trunkline.messaging.receipts import FINAL
from trunkline.model.errors import describe
from trunkline.model.message import MediaItem
from trunkline.settings import Loopback
from trunkline.testing.clock import ManualClock

PHONE = "+15555550123"
DELAY_S = 0.5


class LoopbackRig:
    features = frozenset({"refuse"})
    to = PHONE

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.sink = MemorySink()
        given = {"name": "loop", "window": WINDOW, "delay_s": DELAY_S, **settings}
        context = Context(clock=self.clock, timers=self.clock, owns=lambda number: number == OUR_NUMBER)
        self.connector = make(Loopback(**given), context)
        assert isinstance(self.connector, LoopbackConnector)
        self.wakes: list[None] = []

    def start(self) -> None:
        self.connector.start(self.sink, lambda: self.wakes.append(None))

    def treat(self, how: str) -> None:
        self.to = "+15559921614"

    def release(self) -> None:
        raise AssertionError("this carrier holds nothing")

    async def receipt(self, carrier_id: str) -> bool:
        """Time passes; a receipt that was not acknowledged stays on the air."""
        self.clock.advance(DELAY_S if not self.sink.receipts else FIRST_RETRY_S)
        await self.sink.heard(lambda: any(r.carrier_id == carrier_id for r in self.sink.receipts))
        while self.sink.held:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "0 on the air" in self.connector.health()[1]

    async def inbound(self, text: str) -> bool:
        kept = self.connector.originate(PHONE, OUR_NUMBER, text)
        for _ in range(MAX_TRIES):
            await asyncio.sleep(0)
            self.clock.advance(FIRST_RETRY_S * 2**MAX_TRIES)
        return await kept


@pytest.fixture
async def rig():
    return LoopbackRig()


@pytest.fixture
async def rig_of():
    made = []

    def start(**settings: Any) -> LoopbackRig:
        rig = LoopbackRig(**settings)
        rig.start()
        made.append(rig)
        return rig

    yield start
    for rig in made:
        await rig.connector.stop(0.1)


async def submit(rig: LoopbackRig, to: str, body: str = "Hello", **changes: Any):
    outcomes = Outcomes()
    text = message(to, body)
    for name, value in changes.items():
        setattr(text, name, value)
    rig.connector.submit(Submission(text, OUR_NUMBER, outcomes.done))
    return (await outcomes.first())[0]


class TestContract(ConnectorContract):
    pass


async def test_a_receipt_comes_after_the_delay(rig_of):
    rig = rig_of()
    outcome = await submit(rig, PHONE)
    rig.clock.advance(DELAY_S - 0.01)
    assert not rig.sink.receipts
    rig.clock.advance(0.01)
    (receipt,) = rig.sink.receipts
    assert receipt.carrier_id == outcome.ids[0]
    assert receipt.done_date == "2601010000"


async def test_no_receipts_where_none_are_configured(rig_of):
    rig = rig_of(receipts=False)
    await submit(rig, PHONE)
    rig.clock.advance(60)
    assert not rig.sink.receipts
    assert "0 on the air" in rig.connector.health()[1]


async def test_long_messages_have_an_id_and_a_receipt_for_each_segment(rig_of):
    rig = rig_of()
    outcome = await submit(rig, PHONE, "x" * 307)
    assert len(set(outcome.ids)) == 3
    rig.clock.advance(DELAY_S)
    assert [receipt.carrier_id for receipt in rig.sink.receipts] == list(outcome.ids)


async def test_a_message_to_our_own_number_comes_in_part_by_part(rig_of):
    rig = rig_of()
    text = "[" * 77 + "€uro" * 40
    await submit(rig, OUR_NUMBER, text, media=[MediaItem(sid="ME1", content_type="a/b", url="https://x/1")])
    rig.clock.advance(DELAY_S)
    parts = rig.sink.parts
    assert len(parts) == 3
    assert [(part.part, part.total) for part in parts] == [(1, 3), (2, 3), (3, 3)]
    assert len({part.reference for part in parts}) == 1
    assert parts[0].reference >= 0
    assert "".join(part.text for part in parts) == text
    assert {part.encoding for part in parts} == {"gsm7"}
    assert [list(part.media_urls) for part in parts] == [["https://x/1"], [], []]
    assert len({part.carrier_id for part in parts}) == 3
    assert len(rig.sink.receipts) == 3


async def test_our_own_number_does_not_answer_when_told_so(rig_of):
    rig = rig_of(reply=False)
    await submit(rig, OUR_NUMBER)
    rig.clock.advance(DELAY_S)
    assert not rig.sink.parts
    assert len(rig.sink.receipts) == 1


async def test_the_receipt_waits_until_the_message_has_come_in(rig_of):
    rig = rig_of()
    rig.sink.mode = "hold"
    await submit(rig, OUR_NUMBER)
    rig.clock.advance(DELAY_S)
    assert len(rig.sink.parts) == 1
    assert not rig.sink.receipts
    rig.sink.mode = "keep"
    rig.sink.commit()
    await rig.sink.heard(lambda: bool(rig.sink.receipts))
    assert rig.sink.receipts[0].state == "delivered"


async def test_only_the_parts_that_were_not_kept_come_again_and_then_it_gives_up(rig_of):
    rig = rig_of()
    kept = rig.sink.inbound

    def all_but_the_second(part):
        rig.sink.mode = "fail" if part.part == 2 else "keep"
        return kept(part)

    rig.sink.inbound = all_but_the_second
    await submit(rig, OUR_NUMBER, "x" * 200)
    rig.clock.advance(DELAY_S)
    assert [part.part for part in rig.sink.parts] == [1, 2]
    rig.clock.advance(FIRST_RETRY_S)
    assert [part.part for part in rig.sink.parts] == [1, 2, 2]
    assert rig.sink.parts[1].carrier_id == rig.sink.parts[2].carrier_id
    rig.sink.mode = "keep"
    rig.clock.advance(FIRST_RETRY_S * 2 ** (MAX_TRIES + 1))
    assert len(rig.sink.parts) == 1 + MAX_TRIES
    assert rig.sink.receipts[0].state == "expired"


@pytest.mark.parametrize("ending", sorted(ENDINGS))
async def test_endings(rig_of, ending):
    rig = rig_of()
    outcome = await submit(rig, "+1555" + ending)
    expected = ENDINGS[ending]
    if isinstance(expected, Rejected | Unavailable):
        assert outcome == expected
        return
    assert isinstance(outcome, Submitted)
    rig.clock.advance(DELAY_S)
    assert [receipt.state for receipt in rig.sink.receipts] == ([expected.state] if expected.state else [])
    assert "0 on the air" in rig.connector.health()[1]


@pytest.mark.parametrize(("code", "fate"), FATES.items())
def test_fates_lead_to_their_code(code, fate):
    assert fate.state in FINAL
    assert fate.error_code == code
    assert describe(code).message != "Unknown error" or code == 30008


async def test_the_air_is_bounded(rig_of):
    rig = rig_of(max_waiting=3, window=10)
    for _ in range(3):
        assert isinstance(await submit(rig, PHONE), Submitted)
    assert rig.connector.capacity() == 0
    outcome = await submit(rig, PHONE)
    assert isinstance(outcome, Unavailable)
    assert not outcome.burns_attempt
    rig.wakes.clear()
    rig.clock.advance(DELAY_S)
    assert rig.wakes
    assert rig.connector.capacity() == 3


async def test_pacing_counts_segments(rig_of):
    rig = rig_of(mps=10, window=100)
    assert rig.connector.capacity() == 1
    await submit(rig, PHONE, "x" * 460)
    rig.wakes.clear()
    assert rig.connector.capacity() == 0
    rig.clock.advance(0.39)
    assert rig.connector.capacity() == 0
    rig.clock.advance(0.02)
    assert rig.wakes
    assert rig.connector.capacity() == 1


async def test_stop_lets_everything_land(rig_of):
    rig = rig_of(delay_s=3600)
    await submit(rig, PHONE)
    await submit(rig, OUR_NUMBER)
    await rig.connector.stop(1)
    assert len(rig.sink.parts) == 1
    assert len(rig.sink.receipts) == 2

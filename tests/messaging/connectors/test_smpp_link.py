"""One bind: refusals, pacing, messages of several parts."""

import asyncio

import pytest

from tests.messaging.connectors.smpp_rig import LONG
from trunkline.messaging.connectors.base import Rejected, Submitted, Unavailable
from trunkline.model.message import MediaItem
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.sms import udh

# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "elsewhere"),
    [
        (c.ESME_RINVDSTADR, 30005, False),
        (c.ESME_RINVSRCADR, 30024, True),
        (c.ESME_RINVMSGLEN, 30019, False),
        (c.ESME_RX_R_APPN, 30007, False),
        (c.ESME_RDELIVERYFAILURE, 30003, False),
        (0x15, 30008, True),
    ],
)
async def test_refusals(rig_of, smsc, status, code, elsewhere):
    rig = await rig_of()
    smsc.answer = lambda pdu: status
    outcome = await rig.outcome()
    assert outcome == Rejected(code, c.status_name(status), elsewhere)


@pytest.mark.parametrize("status", [c.ESME_RSYSERR, c.ESME_RSUBMITFAIL, 0x4FF, 0x3333])
async def test_trouble_is_another_attempt(rig_of, smsc, status):
    rig = await rig_of()
    smsc.answer = lambda pdu: status
    outcome = await rig.outcome()
    assert isinstance(outcome, Unavailable)
    assert outcome.burns_attempt
    assert not outcome.in_doubt
    assert outcome.reason == c.status_name(status)


async def test_own_meanings_of_statuses(rig_of, smsc):
    rig = await rig_of(
        statuses={"0x0400": "final", "8": "final", "0x0B": "retry"},
        errors={"0x0400": 30006, "0x0402": 30007, "0x0B": 30004},
    )
    seen = {}
    for status in (0x400, 0x402, 0x08, 0x0B):
        smsc.answer = lambda pdu, status=status: status
        seen[status] = await rig.outcome()
    assert seen[0x400] == Rejected(30006, "0x00000400")
    assert seen[0x402] == Rejected(30007, "0x00000402"), "an error code of its own makes it final"
    assert seen[0x08] == Rejected(30008, "ESME_RSYSERR")
    assert isinstance(seen[0x0B], Unavailable)


async def test_media_goes_by_another_route(rig_of):
    rig = await rig_of()
    outcome = await rig.outcome(media=[MediaItem(sid="ME1", content_type="image/png")])
    assert isinstance(outcome, Rejected)
    assert outcome.try_elsewhere


async def test_an_impossible_sender_is_refused_here(rig_of, smsc):
    rig = await rig_of()
    outcome = await rig.outcome(sender="far too long a name")
    assert isinstance(outcome, Rejected)
    assert outcome.try_elsewhere
    assert not smsc.seen


# -- pacing -----------------------------------------------------------------------------------------------------


async def test_a_throttled_message_goes_again_in_its_place(rig_of, smsc):
    rig = await rig_of(window=4)
    refused: list[bytes] = []

    def answer(pdu: p.SubmitSm) -> int:
        if len(refused) < 2:
            refused.append(pdu.message)
            return c.ESME_RTHROTTLED
        return 0

    smsc.answer = answer
    outcomes = [rig.submit(f"message {number}") for number in range(5)]
    for each in outcomes:
        assert isinstance((await each.first())[0], Submitted)
    order = [pdu.message for pdu in smsc.taken]
    assert sorted(order) == [f"message {n}".encode() for n in range(5)]
    assert order.index(b"message 0") < order.index(b"message 1") < order.index(b"message 4")
    assert "paced" in rig.connector.health()[1]


async def test_long_throttling_hands_messages_back(rig_of, smsc):
    rig = await rig_of(window=4)
    smsc.answer = lambda pdu: c.ESME_RMSGQFUL
    outcomes = [rig.submit() for _ in range(5)]
    results = [(await each.first())[0] for each in outcomes]
    assert all(isinstance(result, Unavailable) for result in results)
    assert not any(result.burns_attempt or result.in_doubt for result in results)
    assert rig.connector.capacity() <= 1


async def test_the_carriers_limit_is_kept(rig_of, smsc):
    rig = await rig_of(mps=50, window=100)
    loop = asyncio.get_running_loop()
    assert rig.connector.capacity() == 5
    began, sent = loop.time(), 0
    pending = []
    while sent < 20:
        for _ in range(rig.connector.capacity()):
            pending.append(rig.submit())
            sent += 1
        await asyncio.sleep(0.002)
    for each in pending:
        await each.first()
    took = loop.time() - began
    assert took >= (sent - 5) / 50, "20 segments at 50 a second, a tenth of a second ahead"


# -- parts of a message -----------------------------------------------------------------------------------------


async def test_a_refused_part_ends_the_message(rig_of, smsc):
    rig = await rig_of()
    smsc.answer = lambda pdu: c.ESME_RINVSRCADR if udh.parse(pdu.message)[0].concat.sequence == 2 else 0
    outcomes = rig.submit(LONG * 3)
    (outcome,) = await outcomes.first()
    assert outcome == Rejected(30024, "ESME_RINVSRCADR"), "a part is with this carrier: no other can complete it"
    await asyncio.sleep(0.02)
    assert len(smsc.seen) < 6, "the remaining parts are not sent"
    assert len(outcomes.all) == 1


async def test_trouble_with_a_part_repeats_the_message(rig_of, smsc):
    rig = await rig_of()
    smsc.answer = lambda pdu: c.ESME_RSYSERR if udh.parse(pdu.message)[0].concat.sequence == 2 else 0
    outcome = await rig.outcome(LONG)
    assert outcome == Unavailable("ESME_RSYSERR", sent_segments=1)


async def test_a_lost_part_leaves_the_message_in_doubt(rig_of, smsc):
    rig = await rig_of(response_timeout_s=0.1)
    smsc.answer = lambda pdu: None if udh.parse(pdu.message)[0].concat.sequence == 2 else 0
    outcome = await rig.outcome(LONG)
    assert isinstance(outcome, Unavailable)
    assert outcome.in_doubt
    assert outcome.sent_segments == 1


async def test_parts_keep_within_the_window(rig_of, smsc):
    rig = await rig_of(window=2)
    smsc.answer = lambda pdu: None
    outcomes = rig.submit("y" * 1500)
    await smsc.until(lambda: len(smsc.held) == 2)
    assert rig.connector.capacity() == 0
    while not outcomes.all:
        smsc.release()
        await asyncio.sleep(0.001)
    assert len(outcomes.all[0].ids) == 10


async def test_a_throttled_part_is_sent_again(rig_of, smsc):
    rig = await rig_of()
    refused: list[int] = []

    def answer(pdu: p.SubmitSm) -> int:
        sequence = udh.parse(pdu.message)[0].concat.sequence
        if sequence == 2 and not refused:
            refused.append(sequence)
            return c.ESME_RTHROTTLED
        return 0

    smsc.answer = answer
    outcome = await rig.outcome("y" * 400)
    assert isinstance(outcome, Submitted)
    assert len(set(outcome.ids)) == 3

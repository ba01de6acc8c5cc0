"""Long messages that clients submit in parts."""

import asyncio

import pytest

from tests.listeners.helpers import carrier, delivered, message_of, no_parts, part
from tests.messaging.world import eventually
from trunkline.listeners import smpp_parts
from trunkline.smpp import constants as c
from trunkline.smpp import receipt
from trunkline.smpp.long_message import sar_tlvs

# -- long messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["udh", "udh16", "sar"])
async def test_parts_become_one_message(node, how):
    esme = await node.bind()
    ids = []
    for number in (2, 1, 3):
        text = f"part {number}; ".encode()
        fields = {
            "udh": part(number, 3, text),
            "udh16": part(number, 3, text, 999, 16),
            "sar": {"message": text, "tlvs": sar_tlvs(7, 3, number)},
        }[how]
        response = await esme.submit(**fields)
        assert response.status == 0
        ids.append(response.message_id)
    sid = ids[0].partition("-")[0]
    assert ids == [f"{sid}-2", f"{sid}-1", f"{sid}-3"]
    message = await message_of(node, sid)
    assert message.body == "part 1; part 2; part 3; "
    await delivered(node, message)
    receipts = [receipt.parse(pdu) for pdu in await esme.until(3)]
    assert sorted(one.message_id for one in receipts) == sorted(ids)
    assert {one.state for one in receipts} == {"delivered"}
    assert len(carrier(node).taken) == 1


async def test_a_surrogate_pair_split_between_parts(node):
    esme = await node.bind()
    halves = "😀".encode("utf-16-be")
    first = await esme.submit(data_coding=8, **part(1, 2, b"\0A" + halves[:2]))
    await esme.submit(data_coding=8, **part(2, 2, halves[2:] + b"\0B"))
    assert (await message_of(node, first.message_id.partition("-")[0])).body == "A😀B"


async def test_a_part_submitted_again_gets_its_answer_again(node):
    esme = await node.bind()
    ids = [(await esme.submit(**part(number, 2, b"x%d" % number))).message_id for number in (1, 1, 2, 2, 1)]
    assert len(set(ids)) == 2
    await eventually(lambda: carrier(node).taken)
    assert len(carrier(node).taken) == 1


async def test_a_reference_used_again_begins_anew(node):
    esme = await node.bind()
    first = await esme.submit(**part(1, 2, b"old"))
    second = await esme.submit(**part(1, 2, b"new "))
    third = await esme.submit(**part(2, 2, b"text"))
    assert first.message_id.partition("-")[0] != second.message_id.partition("-")[0]
    assert (await message_of(node, third.message_id.partition("-")[0])).body == "new text"
    (given_up,) = await esme.until(1)
    parsed = receipt.parse(given_up)
    assert (parsed.message_id, parsed.state) == (first.message_id, "expired")


async def test_parts_outlive_a_restart(node):
    esme = await node.bind()
    first = await esme.submit(**part(1, 2, b"before "))
    await node.restart()
    esme = await node.bind()
    second = await esme.submit(**part(2, 2, b"after"))
    assert first.message_id.partition("-")[0] == second.message_id.partition("-")[0]
    assert (await message_of(node, second.message_id.partition("-")[0])).body == "before after"
    await eventually(lambda: no_parts(node))


async def test_parts_without_their_siblings_expire(node):
    esme = await node.bind()
    first = await esme.submit(**part(1, 2, b"alone"))
    node.world.clock.offset_ms += 301_000
    await node.server._parts.sweep()
    (pdu,) = await esme.until(1)
    parsed = receipt.parse(pdu)
    assert (parsed.message_id, parsed.state, parsed.error) == (first.message_id, "expired", "036")
    await eventually(lambda: no_parts(node))
    assert len(node.server._parts) == 0


async def test_parts_of_a_message_that_was_sent_do_not_expire(node, monkeypatch):
    """A crash between the accept and the drop of the parts leaves them behind."""
    esme = await node.bind()
    drop = node.world.queue.drop_parts
    monkeypatch.setattr(node.world.queue, "drop_parts", lambda keys: asyncio.sleep(0))
    for number in (1, 2):
        await esme.submit(registered_delivery=2, **part(number, 2, b"x"))
    monkeypatch.setattr(node.world.queue, "drop_parts", drop)
    await node.restart()
    esme = await node.bind()
    node.world.clock.offset_ms += 301_000
    await node.server._parts.sweep()
    await esme.submit()  # an exchange after it
    assert esme.got == []
    await eventually(lambda: no_parts(node))


async def test_incomplete_messages_are_bounded(node, monkeypatch):
    monkeypatch.setattr(smpp_parts, "MAX_GROUPS_OF_ACCOUNT", 2)
    esme = await node.bind()
    statuses = [(await esme.submit(**part(1, 2, b"x", reference))).status for reference in range(3)]
    assert statuses == [0, 0, c.ESME_RTHROTTLED]
    assert (await esme.submit(**part(2, 2, b"y", 0))).status == 0
    assert (await esme.submit(**part(1, 2, b"x", 3))).status == 0


# -- repetition, or another message with a part in common ---------------------------------------------------------


async def submitted(esme, *texts, total=2):
    """Submits numbered parts; the ids of the answers."""
    responses = [await esme.submit(**part(number, total, text)) for number, text in texts]
    assert {response.status for response in responses} == {0}
    return [response.message_id for response in responses]


async def sent(node, count):
    await eventually(lambda: len(carrier(node).taken) >= count)
    return [message.body for message in carrier(node).taken]


@pytest.mark.parametrize("restart", [False, True])
async def test_another_message_with_the_same_first_part(node, restart):
    esme = await node.bind()
    first = await submitted(esme, (1, b"Dear all, "), (2, b"the first"))
    (again,) = await submitted(esme, (1, b"Dear all, "))
    assert again == first[0]
    if restart:
        await node.restart()
        esme = await node.bind()
    (other,) = await submitted(esme, (2, b"the second"))
    assert other[:34] != first[0][:34]
    assert await sent(node, 2) == ["Dear all, the first", "Dear all, the second"]
    await eventually(lambda: no_parts(node))
    assert len(node.server._parts) == 0


@pytest.mark.parametrize("restart", [False, True])
async def test_what_two_messages_have_in_common_is_kept_with_the_rest(node, restart):
    esme = await node.bind()
    await submitted(esme, (1, b"a"), (2, b"b"), (3, b"c"), (4, b"d"), total=4)
    await submitted(esme, (1, b"a"), (2, b"b"), (3, b"C"), total=4)
    if restart:
        await node.restart()
        esme = await node.bind()
    await submitted(esme, (4, b"d"), total=4)
    assert await sent(node, 2) == ["abcd", "abCd"]
    await eventually(lambda: no_parts(node))


async def test_another_message_with_the_same_last_part(node):
    esme = await node.bind()
    await submitted(esme, (1, b"code 1; "), (2, b"thanks"))
    await submitted(esme, (1, b"code 2; "), (2, b"thanks"))
    assert await sent(node, 2) == ["code 1; thanks", "code 2; thanks"]


async def test_a_repeated_part_does_not_get_into_a_message_that_begins_before_it(node):
    esme = await node.bind()
    await submitted(esme, (1, b"old "), (2, b"text"), (2, b"text"), (1, b"new "), (2, b"words"))
    assert await sent(node, 2) == ["old text", "new words"]
    await eventually(lambda: no_parts(node))


async def test_repetitions_are_dropped_in_silence(node):
    esme = await node.bind()
    await submitted(esme, *[(1, b"x"), (2, b"y")] * 3)
    assert not await no_parts(node)
    node.world.clock.offset_ms += 301_000
    await node.server._parts.sweep()
    await eventually(lambda: no_parts(node))
    await esme.submit()  # an exchange after it
    assert esme.got == []
    assert await sent(node, 2) == ["xy", "hello"]


async def test_kept_repetitions_are_bounded(node, monkeypatch):
    monkeypatch.setattr(smpp_parts, "MAX_FINISHED", 2)
    esme = await node.bind()
    for reference in range(4):
        for number in (1, 2, 1):
            await esme.submit(**part(number, 2, b"x", reference))
    assert len(node.server._parts._repeated) == 2

    async def left():
        return len(await node.world.queue.stale_parts(node.world.clock.now_ms() + 10_000_000, 10)) == 2

    await eventually(left)

"""What clients submit over SMPP becomes messages, or a status that says why not."""

import asyncio

import msgspec
import pytest

from tests.listeners.helpers import carrier, delivered, message_of, no_parts, part
from tests.messaging.world import AC, OURS, THEM, eventually
from trunkline.model.errors import ApiError
from trunkline.model.numbers import OptOut
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import receipt
from trunkline.smpp.times import absolute

# -- submits ------------------------------------------------------------------------------------------------------


async def test_a_submit_is_a_message(node):
    esme = await node.bind()
    response = await esme.submit("Hi @ you")
    assert response.status == 0
    message = await message_of(node, response.message_id)
    assert (message.from_, message.to, message.direction) == (OURS, THEM, "outbound-api")
    assert message.body == "Hi ¡ you", "data_coding 0 is the GSM alphabet"
    await node.world.until(message, "sent")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"data_coding": 8, "message": "日本😀".encode("utf-16-be")}, "日本😀"),
        ({"data_coding": 3, "message": b"na\xefve"}, "naïve"),
        ({"data_coding": 0, "message": b"\x1b\x65 5"}, "€ 5"),
        ({"message": b"", "tlvs": ((c.TAG_MESSAGE_PAYLOAD, b"x" * 1000),)}, "x" * 1000),
    ],
)
async def test_texts(node, fields, body):
    esme = await node.bind()
    response = await esme.submit(**fields)
    assert (await message_of(node, response.message_id)).body == body


async def test_data_sm(node):
    esme = await node.bind()
    response = await esme.ask(
        p.DataSm(source_ton=5, source="Shop", destination="14155550199", tlvs=((c.TAG_MESSAGE_PAYLOAD, b"by data-sm"),))
    )
    assert type(response) is p.DataSmResp
    message = await message_of(node, response.message_id)
    assert (message.from_, message.body) == ("Shop", "by data-sm")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"destination": "123"}, c.ESME_RINVDSTADR),
        ({"destination": ""}, c.ESME_RINVDSTADR),
        ({"destination": "12025550100"}, c.ESME_RINVDSTADR),
        ({"source": "12025550999"}, c.ESME_RINVSRCADR),
        ({"source": "", "source_ton": 0}, c.ESME_RINVSRCADR),
        ({"source": "waytoolongname", "source_ton": 5}, c.ESME_RINVSRCADR),
        ({"message": b""}, c.ESME_RINVMSGLEN),
        ({"message": b"", "tlvs": ((c.TAG_MESSAGE_PAYLOAD, b"x" * 1601),)}, c.ESME_RINVMSGLEN),
        ({"schedule_delivery_time": "000001000000000R"}, 0x61),
        ({"validity_period": "nonsense"}, 0x62),
        ({"validity_period": "000101000000000+"}, 0x62),
        ({"default_message_id": 3}, 0x63),
        (part(1, 25, b"too many parts"), c.ESME_RINVMSGLEN),
    ],
)
async def test_refused_submits(node, fields, status):
    esme = await node.bind()
    assert (await esme.submit(**fields)).status == status
    assert carrier(node).taken == []


async def test_an_opted_out_recipient(node):
    scope = f"{AC}/{OURS}"
    await node.world.database.put(OptOut(sid=f"{scope}:{THEM}", account_sid=AC, scope=scope, recipient=THEM))
    esme = await node.bind()
    assert (await esme.submit()).status == c.ESME_RINVDSTADR


async def test_a_full_queue_throttles(make_node):
    node = await make_node(messaging={"queue_s": 2, "long_code_mps": 1})
    carrier(node).down = True
    esme = await node.bind()
    statuses = [(await esme.submit()).status for _ in range(4)]
    assert statuses == [0, 0, c.ESME_RTHROTTLED, c.ESME_RTHROTTLED]


async def test_validity(node):
    carrier(node).down = True
    esme = await node.bind()
    now = node.world.clock.now_ms()
    for text in ("000000010000000R", absolute(now + 3_600_000)):
        message = await message_of(node, (await esme.submit(validity_period=text)).message_id)
        assert abs(message.valid_until_ms - now - 3_600_000) < 5000


async def test_the_answer_waits_for_the_commit(node, monkeypatch):
    esme = await node.bind()
    commit = asyncio.get_running_loop().create_future()
    accept = node.world.outbound.accept

    def held(new, complete=None):
        message, written = accept(new, complete)

        async def both():
            await written
            await commit

        return message, both()

    monkeypatch.setattr(node.world.outbound, "accept", held)
    response = esme.connection.request(p.SubmitSm(source="Shop", source_ton=5, destination="14155550199", message=b"x"))
    await eventually(lambda: carrier(node).taken)
    assert not response.done()
    commit.set_result(None)
    assert (await asyncio.wait_for(response, 60)).pdu.status == 0


async def test_what_could_not_be_stored_is_not_accepted(node, monkeypatch):
    esme = await node.bind()

    def broken(new, complete=None):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("disk full"))
        return msgspec.structs.replace(new, sid="SM" + "0" * 32), future

    monkeypatch.setattr(node.world.outbound, "accept", broken)
    assert (await esme.submit()).status == c.ESME_RSYSERR
    monkeypatch.setattr(
        node.world.outbound, "accept", lambda new, complete=None: (_ for _ in ()).throw(ApiError.of(20503))
    )
    assert (await esme.submit()).status == c.ESME_RMSGQFUL


async def test_a_flood_is_throttled(make_node, monkeypatch):
    node = await make_node(window=5)
    never = asyncio.get_running_loop().create_future()
    accept = node.world.outbound.accept
    monkeypatch.setattr(node.world.outbound, "accept", lambda new, complete=None: (accept(new)[0], never))
    esme = await node.bind(window=100)
    pdu = p.SubmitSm(source="Shop", source_ton=5, destination="14155550199", message=b"x")
    answers = [esme.connection.request(pdu) for _ in range(12)]
    await eventually(lambda: sum(answer.done() for answer in answers) == 7)
    assert {answer.result().pdu.status for answer in answers if answer.done()} == {c.ESME_RTHROTTLED}
    never.set_result(None)
    assert sorted([(await answer).pdu.status for answer in answers]) == [0] * 5 + [c.ESME_RTHROTTLED] * 7


async def test_submit_multi(node):
    esme = await node.bind()
    response = await esme.ask(
        p.SubmitMulti(
            source_ton=1, source="12025550100", registered_delivery=1, message=b"to all",
            destinations=(
                p.Address(1, 1, "123"), p.Address(1, 1, "14155550199"), "list", p.Address(1, 1, "14155550198"),
            ),
        )
    )  # fmt: skip
    assert response.status == 0
    assert sorted((address.address, status) for address, status in response.unsuccessful) == [
        ("123", c.ESME_RINVDSTADR),
        ("list", 0x34),
    ]
    await eventually(lambda: len(carrier(node).taken) == 2)
    assert (await message_of(node, response.message_id)).to == THEM
    for message in list(carrier(node).taken):
        await delivered(node, message)
    receipts = [receipt.parse(pdu).message_id for pdu in await esme.until(2)]
    assert receipts == [response.message_id] * 2
    assert {pdu.source for pdu in esme.got} == {"14155550199", "14155550198"}


async def test_replace_and_unknown_requests(node):
    esme = await node.bind()
    response = await esme.submit()
    answer = await esme.ask(p.ReplaceSm(message_id=response.message_id, message=b"other"))
    assert answer.status == c.ESME_RREPLACEFAIL


async def test_without_room_nothing_new_is_taken_not_even_parts(node):
    esme = await node.bind()
    node.world.outbound.refuse = "disk"
    assert (await esme.submit()).status == c.ESME_RMSGQFUL
    assert (await esme.submit(**part(1, 2, b"first"))).status == c.ESME_RMSGQFUL
    assert await no_parts(node)
    node.world.outbound.refuse = ""
    assert (await esme.submit()).status == 0

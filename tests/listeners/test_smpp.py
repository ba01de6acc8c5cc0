"""The SMPP server: binds, submits, parts, receipts and received messages over the real queue and our own client."""

import asyncio

import msgspec
import pytest

from tests.listeners.conftest import PASSWORD, SYSTEM_ID, Esme
from tests.messaging.connectors.test_smpp import certificate
from tests.messaging.world import AC, OURS, THEM, eventually
from trunkline.listeners import smpp, smpp_parts
from trunkline.messaging.connectors.base import InboundPart, Receipt, Rejected
from trunkline.model.account import Account
from trunkline.model.errors import ApiError
from trunkline.model.numbers import OptOut, PhoneNumber
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import receipt, transport
from trunkline.smpp.errors import ConnectError
from trunkline.smpp.long_message import sar_tlvs
from trunkline.smpp.times import absolute
from trunkline.sms import udh


def part(number, total, text, reference=7, width=8):
    """Fields of a submit_sm with one part of a long message."""
    return {"esm_class": c.ESM_UDHI, "message": udh.concat_header(reference, total, number, width) + text}


def carrier(node):
    return node.world.carriers["carrier"]


async def delivered(node, message, state="delivered", error=""):
    """The carrier's receipts for every segment."""
    stored = await node.world.until(message, "sent")
    for segment in stored.segments:
        await node.world.receipts.apply(
            Receipt(connector="carrier", carrier_id=segment.id, state=state, error=error, done_date="2401021504")
        )


async def no_parts(node):
    return await node.world.queue.stale_parts(node.world.clock.now_ms() + 10_000_000, 10) == []


async def message_of(node, sid):
    return await node.world.reader.get(AC, sid)


# -- binds --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(smpp, "FAILED_BIND_DELAY_S", 0.01)


@pytest.mark.parametrize("kind", [p.BindTransceiver, p.BindTransmitter, p.BindReceiver])
async def test_bind(node, kind):
    esme = await node.bind(kind)
    assert esme.connection.bound
    assert node.server.bound_clients == 1
    esme.connection.close()
    assert await esme.connection.closed == "unbound"
    await eventually(lambda: node.server.bound_clients == 0)


@pytest.mark.parametrize(
    ("account", "system_id", "password", "status"),
    [
        ({}, SYSTEM_ID, "wrong", c.ESME_RINVPASWD),
        ({}, "nobody", PASSWORD, c.ESME_RINVPASWD),
        ({}, "", "", c.ESME_RINVPASWD),
        ({"smpp_password": ""}, SYSTEM_ID, "", c.ESME_RINVPASWD),
        ({"status": "suspended"}, SYSTEM_ID, PASSWORD, c.ESME_RBINDFAIL),
        ({"status": "closed"}, SYSTEM_ID, PASSWORD, c.ESME_RBINDFAIL),
    ],
)
async def test_bind_refused(make_node, quick, account, system_id, password, status):
    node = await make_node(account)
    with pytest.raises(ConnectError) as refused:
        await node.bind(system_id=system_id, password=password)
    assert refused.value.status == status
    assert node.server.bound_clients == 0


async def test_wrong_passwords_are_answered_late_and_few(node, monkeypatch):
    monkeypatch.setattr(smpp, "FAILED_BIND_DELAY_S", 0.05)
    monkeypatch.setattr(smpp, "MAX_FAILED_BINDS", 2)
    began = asyncio.get_running_loop().time()
    for _ in range(2):
        with pytest.raises(ConnectError) as refused:
            await node.bind(password="guess")
        assert refused.value.status == c.ESME_RINVPASWD
    assert asyncio.get_running_loop().time() - began >= 0.1
    with pytest.raises(ConnectError) as cut:
        await node.bind()
    assert cut.value.status is None, "not even the right one is heard now"
    node.world.clock.offset_ms += 61_000
    assert (await node.bind()).connection.bound


async def test_as_many_binds_as_the_account_may_have(make_node):
    node = await make_node({"smpp_max_binds": 2})
    first = await node.bind()
    await node.bind(p.BindReceiver)
    with pytest.raises(ConnectError) as refused:
        await node.bind()
    assert refused.value.status == c.ESME_RALYBND
    first.connection.close()
    await first.connection.closed
    await eventually(lambda: node.server.bound_clients == 1)
    await node.bind()


async def test_a_connection_that_does_not_bind_is_dropped(make_node):
    node = await make_node(bind_timeout_s=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()


async def test_a_suspended_account_is_unbound(node):
    esme = await node.bind()
    account = await node.world.database.get(Account, AC)
    account.status = "suspended"
    await node.world.database.update(account)
    assert (await esme.submit()).status == c.ESME_RSUBMITFAIL
    await asyncio.wait_for(esme.connection.closed, 5)


async def test_a_new_password_unbinds(node):
    esme = await node.bind()
    node.server.check()
    assert esme.connection.bound
    account = await node.world.database.get(Account, AC)
    account.smpp_password = "another"
    await node.world.database.update(account)
    node.server.check()
    await asyncio.wait_for(esme.connection.closed, 5)


async def test_tls(make_node, tmp_path):
    import ssl

    _, chain = certificate(tmp_path)
    node = await make_node(tls_cert=chain, tls_key=str(tmp_path / "key.pem"))
    trusting = ssl.create_default_context(cafile=chain)
    esme = await node.bind(ssl=trusting, server_hostname="localhost")
    assert (await esme.submit()).status == 0
    esme.connection.close()
    await esme.connection.closed


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
    assert (await asyncio.wait_for(response, 5)).pdu.status == 0


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
    assert (await esme.submit()).status in (c.ESME_RSYSERR, c.ESME_RSUBMITFAIL)


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


# -- receipts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "state", "wanted"),
    [
        (1, "delivered", ["DELIVRD"]),
        (1, "undeliverable", ["UNDELIV"]),
        (2, "delivered", []),
        (2, "undeliverable", ["UNDELIV"]),
        (3, "delivered", ["DELIVRD"]),
        (3, "undeliverable", []),
        (0, "delivered", []),
        (0x11, "delivered", ["ENROUTE", "DELIVRD"]),
    ],
)
async def test_receipts_as_asked_for(node, registered, state, wanted):
    esme = await node.bind()
    response = await esme.submit(registered_delivery=registered)
    message = await message_of(node, response.message_id)
    await delivered(node, message, state, "001")
    marker = await esme.submit("marker", registered_delivery=1)
    await delivered(node, await message_of(node, marker.message_id))
    got = [receipt.parse(pdu) for pdu in await esme.until(len(wanted) + 1)]
    mine = [one for one in got if one.message_id == response.message_id]
    assert [one.raw_state for one in mine] == wanted
    for one in mine:
        assert one.intermediate == (one.raw_state == "ENROUTE")
        if not one.intermediate:
            assert one.done_date == "2401021504"


async def test_a_receipt_goes_from_the_recipient_to_the_sender(node):
    esme = await node.bind()
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    (pdu,) = await esme.until(1)
    assert (pdu.source_ton, pdu.source, pdu.destination_ton, pdu.destination) == (1, THEM[1:], 1, OURS[1:])
    assert p.tlv(pdu.tlvs, c.TAG_RECEIPTED_MESSAGE_ID) == response.message_id.encode() + b"\0"
    assert p.tlv_int(pdu.tlvs, c.TAG_MESSAGE_STATE) == 2


async def test_a_message_that_fails_is_told(node):
    carrier(node).answer = lambda submission: Rejected(30005, "ESME_RINVDSTADR")
    esme = await node.bind()
    response = await esme.submit(registered_delivery=2)
    (pdu,) = await esme.until(1)
    parsed = receipt.parse(pdu)
    assert (parsed.message_id, parsed.raw_state, parsed.error) == (response.message_id, "REJECTD", "005")


async def test_receipts_wait_for_a_receiver(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await asyncio.sleep(0.02)
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert (owed.state, owed.tries) == ("owed", 0), "nobody to deliver to burns no attempt"
    receiver = await node.bind(p.BindReceiver)
    (pdu,) = await receiver.until(1)
    assert receipt.parse(pdu).message_id == response.message_id
    assert transmitter.got == []


async def test_receipts_outlive_a_restart(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await node.restart()
    receiver = await node.bind(p.BindReceiver)
    (pdu,) = await receiver.until(1)
    assert receipt.parse(pdu).message_id == response.message_id


async def test_a_refused_receipt_comes_again(node):
    esme = await node.bind()
    esme.status = c.ESME_RX_T_APPN
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.until(2)
    esme.status = 0
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_receipt_refused_for_good_is_given_up_and_told(node):
    esme = await node.bind()
    esme.status = c.ESME_RX_P_APPN
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await eventually(lambda: node.delivery.exhausted == 1)
    assert await node.world.alert_codes() == [15003]


async def test_an_unanswered_receipt_comes_again(make_node):
    node = await make_node(response_timeout_s=0.05)

    class Mute(Esme):
        def on_request(self, connection, sequence, pdu):
            self.got.append(pdu)
            if len(self.got) > 1:
                connection.respond(sequence, 0)
            self._changed.set()

    esme = Mute()
    esme.connection = await transport.connect(
        "127.0.0.1", node.server.port, p.BindTransceiver(system_id=SYSTEM_ID, password=PASSWORD), esme
    )
    node.esmes.append(esme)
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.until(2)
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_receipt_lost_with_its_connection_goes_to_the_next(node):
    class Cut(Esme):
        def on_request(self, connection, sequence, pdu):
            connection.abort("cut")

    esme = Cut()
    esme.connection = await transport.connect(
        "127.0.0.1", node.server.port, p.BindTransceiver(system_id=SYSTEM_ID, password=PASSWORD), esme
    )
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.connection.closed
    second = await node.bind()
    (pdu,) = await second.until(1)
    assert receipt.parse(pdu).message_id == response.message_id


async def test_what_nobody_fetches_is_given_up_in_time(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await node.server.expire()
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert owed.state == "owed"
    node.world.clock.offset_ms += 86_401_000
    await node.server.expire()
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert owed.state == "exhausted"
    assert await node.world.alert_codes() == [15003]


# -- received messages --------------------------------------------------------------------------------------------


async def receive(node, text, **fields):
    await node.world.inbound.receive(
        InboundPart(**({"connector": "carrier", "from_": THEM, "to": OURS, "text": text} | fields))
    )


@pytest.mark.parametrize("text", ["Hello @ home", "日本 😀", "z" * 400, "日" * 200])
async def test_received_messages(node, text):
    esme = await node.bind()
    await receive(node, text)
    pdus = await esme.until({"z" * 400: 3, "日" * 200: 3}.get(text, 1))
    (pdu, *_) = pdus
    assert (pdu.source_ton, pdu.source, pdu.destination) == (1, THEM[1:], OURS[1:])
    bodies = [udh.parse(each.message)[1] if each.esm_class & c.ESM_UDHI else each.message for each in pdus]
    if pdu.data_coding == 8:
        assert b"".join(bodies).decode("utf-16-be") == text
    else:
        assert b"".join(bodies).replace(b"\0", b"@").decode() == text
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_number_with_a_webhook_keeps_it(node):
    number = (await node.world.database.find(PhoneNumber))[0]
    number.sms_url = "http://127.0.0.1:1/sms"
    await node.world.database.update(number)
    esme = await node.bind()
    await receive(node, "for the webhook")
    await eventually(lambda: node.delivery.exhausted == 1)  # no handler of webhooks here
    assert esme.got == []


async def test_received_messages_wait_for_a_client(node):
    await receive(node, "early")
    await asyncio.sleep(0.02)
    esme = await node.bind()
    (pdu,) = await esme.until(1)
    assert pdu.message == b"early"


# -- questions ----------------------------------------------------------------------------------------------------


async def test_query(node):
    carrier(node).down = True
    esme = await node.bind()
    response = await esme.submit()
    answer = await esme.ask(p.QuerySm(message_id=response.message_id))
    assert (answer.status, answer.message_id, answer.message_state, answer.final_date) == (
        0,
        response.message_id,
        1,
        "",
    )
    carrier(node).down = False
    node.world.dispatcher.wake("carrier")
    await delivered(node, await message_of(node, response.message_id), "undeliverable", "1")
    answer = await esme.ask(p.QuerySm(message_id=response.message_id))
    assert (answer.message_state, answer.error_code) == (5, 5)
    assert len(answer.final_date) == 16
    for unknown in ("SM" + "0" * 32, "", "what?", response.message_id.upper()):
        assert (await esme.ask(p.QuerySm(message_id=unknown))).status == c.ESME_RINVMSGID


async def test_cancel(node):
    carrier(node).down = True
    esme = await node.bind()
    response = await esme.submit()
    assert (await esme.ask(p.CancelSm(message_id=response.message_id))).status == 0
    (pdu,) = await esme.until(1)
    assert receipt.parse(pdu).raw_state == "DELETED"
    assert (await esme.ask(p.CancelSm(message_id=response.message_id))).status == c.ESME_RCANCELFAIL
    assert (await esme.ask(p.CancelSm(message_id="SM" + "0" * 32))).status == c.ESME_RINVMSGID
    assert (await esme.ask(p.CancelSm(source="1", destination="2"))).status == c.ESME_RCANCELFAIL


async def test_another_accounts_message_is_not_shown(node):
    other = "AC" + "b" * 32
    await node.world.database.insert(
        Account(sid=other, account_sid=other, owner_account_sid=other, smpp_system_id="other", smpp_password="x")
    )
    carrier(node).down = True
    mine = await node.bind()
    response = await mine.submit()
    theirs = await node.bind(system_id="other", password="x")
    assert (await theirs.ask(p.QuerySm(message_id=response.message_id))).status == c.ESME_RINVMSGID
    assert (await theirs.ask(p.CancelSm(message_id=response.message_id))).status == c.ESME_RINVMSGID
    assert (await theirs.submit()).status == c.ESME_RINVSRCADR, "the number is another account's"


async def test_a_stop_answers_first_and_unbinds(node):
    esme = await node.bind()
    response = esme.connection.request(p.SubmitSm(source="Shop", source_ton=5, destination="14155550199", message=b"x"))
    await eventually(lambda: carrier(node).taken)
    await node.server.stop(5)
    assert (await response).pdu.status == 0
    assert await esme.connection.closed == "unbound"

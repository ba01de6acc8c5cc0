"""The `smpp` connector: the contract, then its binds, what is in doubt, and what the SMSC delivers."""

import asyncio

import pytest

from tests.messaging.connectors.contract import (
    OUR_NUMBER,
    WINDOW,
    ConnectorContract,
    soon,
)
from tests.messaging.connectors.smpp_rig import PHONE, SmppRig, certificate
from tests.messaging.connectors.smsc import Smsc
from trunkline.messaging.connectors.base import Submitted, Unavailable
from trunkline.messaging.connectors.table import Context, make
from trunkline.settings import Smpp
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.long_message import sar_tlvs
from trunkline.sms import udh


@pytest.fixture
async def rig(smsc):
    return SmppRig(smsc)


class TestContract(ConnectorContract):
    """What every connector promises."""


# -- binds ------------------------------------------------------------------------------------------------------


async def test_the_bind_says_who_we_are(rig_of, smsc):
    await rig_of(
        system_id="me",
        password="pw",
        system_type="VMA",
        version="5.0",
        address_range="^1",
        address_ton=1,
        address_npi=1,
    )
    (bind,) = smsc.binds
    assert type(bind) is p.BindTransceiver
    assert (bind.system_id, bind.password, bind.system_type) == ("me", "pw", "VMA")
    assert (bind.interface_version, bind.address_range, bind.addr_ton, bind.addr_npi) == (0x50, "^1", 1, 1)


async def test_pairs_of_binds(rig_of, smsc):
    rig = await rig_of(bind="tx+rx", binds=2)
    await smsc.until(lambda: len(smsc.bound) == 4)
    kinds = sorted(type(bind).__name__ for bind in smsc.binds)
    assert kinds == ["BindReceiver", "BindReceiver", "BindTransmitter", "BindTransmitter"]
    outcome = await rig.outcome()
    assert isinstance(outcome, Submitted)
    assert await smsc.receipt(outcome.ids[0]) == 0, "receipts come in on the receiver"
    assert rig.sink.receipts[0].carrier_id == outcome.ids[0]


async def test_the_least_loaded_bind_takes_the_message(rig_of, smsc):
    rig = await rig_of(binds=2)
    await smsc.until(lambda: len(smsc.bound) == 2)
    await asyncio.sleep(0.01)
    assert rig.connector.capacity() == 2 * WINDOW
    smsc.answer = lambda pdu: None
    for _ in range(2 * WINDOW):
        rig.submit()
    await smsc.until(lambda: len(smsc.held) == 2 * WINDOW)
    connections = [connection for connection, _ in smsc.held]
    assert {connections.count(one) for one in connections} == {WINDOW}


async def test_it_binds_again_after_a_drop(rig_of, smsc):
    rig = await rig_of()
    smsc.drop()
    await smsc.until(lambda: len(smsc.binds) == 2)
    await rig.up()
    assert isinstance(await rig.outcome(), Submitted)


async def test_a_refused_bind_is_tried_again_and_told(smsc):
    smsc.bind_status = c.ESME_RINVPASWD
    rig = SmppRig(smsc)
    rig.connector.start(rig.sink, lambda: None)
    await smsc.until(lambda: len(smsc.binds) >= 3)
    healthy, line = rig.connector.health()
    assert not healthy
    assert "ESME_RINVPASWD" in line
    smsc.bind_status = 0
    await rig.up()
    assert rig.connector.health()[0]
    await rig.connector.stop(0.05)


async def test_a_bind_the_smsc_has_lost_is_made_anew(rig_of, smsc):
    rig = await rig_of()
    smsc.answer = lambda pdu: c.ESME_RINVBNDSTS
    assert isinstance(await rig.outcome(), Unavailable)
    smsc.answer = lambda pdu: 0
    await smsc.until(lambda: len(smsc.binds) == 2)
    await rig.up()
    assert isinstance(await rig.outcome(), Submitted)


async def test_tls_checks_the_certificate(smsc, tmp_path):
    context, authority = certificate(tmp_path)
    secure = await Smsc().start(context)
    good = SmppRig(secure, tls=True, tls_ca=authority, host="localhost")
    bad = SmppRig(secure, tls=True, host="localhost")
    unchecked = SmppRig(secure, tls=True, tls_verify=False)
    await good.start()
    await unchecked.start()
    assert isinstance(await good.outcome(), Submitted)
    assert isinstance(await unchecked.outcome(), Submitted)
    bad.connector.start(bad.sink, lambda: None)
    async with asyncio.timeout(60):
        while "CERTIFICATE_VERIFY_FAILED" not in bad.connector.health()[1]:
            await asyncio.sleep(0.005)
    for rig in (good, bad, unchecked):
        await rig.connector.stop(0.05)
    await secure.stop()


@pytest.mark.parametrize(
    "settings", [{"statuses": {"x": "final"}}, {"errors": {"0": 30003}}, {"tls": True, "tls_ca": "/nonexistent"}]
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match=r"status|tls_ca"):
        make(Smpp(name="c", host="h", system_id="s", **settings), Context())


# -- doubt ------------------------------------------------------------------------------------------------------


async def test_a_lost_connection_leaves_doubt_only_about_what_was_sent(rig_of, smsc):
    rig = await rig_of(window=4)
    smsc.answer = lambda pdu: None
    outcomes = [rig.submit() for _ in range(5)]
    assert rig.connector.capacity() == 0
    await smsc.until(lambda: len(smsc.held) == 4)
    smsc.bind_status = c.ESME_RBINDFAIL
    smsc.drop()
    results = [(await each.first())[0] for each in outcomes]
    assert [result.in_doubt for result in results] == [True] * 4 + [False]
    assert not results[4].burns_attempt


async def test_what_waits_moves_to_another_bind(rig_of, smsc):
    rig = await rig_of(window=4, binds=2)
    await smsc.until(lambda: len(smsc.bound) == 2)
    await asyncio.sleep(0.01)
    smsc.answer = lambda pdu: None
    outcomes = [rig.submit() for _ in range(10)]
    await smsc.until(lambda: len(smsc.held) == 8)
    smsc.answer = lambda pdu: 0
    victim = smsc.held[0][0]
    lost = [pair for pair in smsc.held if pair[0] is victim]
    smsc.held = [pair for pair in smsc.held if pair[0] is not victim]
    victim.abort("dropped")
    smsc.release()
    results = [(await each.first())[0] for each in outcomes]
    assert sum(isinstance(result, Submitted) for result in results) == 10 - len(lost)
    assert sum(isinstance(result, Unavailable) and result.in_doubt for result in results) == len(lost)


async def test_no_answer_in_time_is_in_doubt(rig_of, smsc):
    rig = await rig_of(response_timeout_s=0.05)
    smsc.answer = lambda pdu: None
    outcomes = rig.submit()
    (outcome,) = await outcomes.first()
    assert isinstance(outcome, Unavailable)
    assert outcome.in_doubt
    smsc.release()  # the late answer changes nothing any more
    smsc.answer = lambda pdu: 0
    await rig.up()  # it has said something
    assert isinstance(await rig.outcome(), Submitted)
    assert len(outcomes.all) == 1


async def test_what_waits_behind_a_silence_goes_back_and_nothing_more_is_taken(rig_of, smsc):
    rig = await rig_of(window=4, response_timeout_s=0.1)
    (theirs,) = smsc.bound
    theirs._transport.pause_reading()
    outcomes = [rig.submit() for _ in range(5)]
    results = [(await each.first())[0] for each in outcomes]
    assert [(result.in_doubt, result.burns_attempt) for result in results] == [(True, True)] * 4 + [(False, False)]
    assert rig.connector.capacity() == 0
    assert rig.connector.health() == (False, "0 of 1 binds up, 0 under way; trx1: silent")
    rig.wakes.clear()
    theirs._transport.resume_reading()
    await rig.up()
    assert rig.wakes
    assert isinstance(await rig.outcome(), Submitted)


# -- what the SMSC delivers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("submit_id", "receipt_id", "in_response", "in_receipt"),
    [
        ("text", "text", "AbC", "AbC"),
        ("decimal", "decimal", "0000123", "123"),
        ("hex", "decimal", "7B", "123"),
        ("decimal", "hex", "123", "0000007b"),
        ("hex", "hex", "00AB", "ab"),
    ],
)
async def test_ids_meet(rig_of, smsc, submit_id, receipt_id, in_response, in_receipt):
    rig = await rig_of(submit_id=submit_id, receipt_id=receipt_id)
    smsc.write_id = lambda number: in_response
    outcome = await rig.outcome()
    await smsc.receipt(in_receipt)
    assert rig.sink.receipts[0].carrier_id == outcome.ids[0]


@pytest.mark.parametrize(
    ("stat", "err", "state", "error", "code"),
    [
        ("DELIVRD", "000", "delivered", "", 0),
        ("UNDELIV", "000", "undeliverable", "000", 0),
        ("UNDELIV", "017", "undeliverable", "017", 30008),
        ("UNDELIV", "027", "undeliverable", "027", 30003),
        ("EXPIRED", "099", "expired", "099", 0),
        ("REJECTD", "", "rejected", "", 0),
        ("ACCEPTD", "000", "accepted", "000", 0),
        ("WEIRD", "000", "unknown", "000", 0),
    ],
)
async def test_receipt_states(rig_of, smsc, stat, err, state, error, code):
    rig = await rig_of(receipt_errors={"027": 30003})
    assert await smsc.receipt("1", stat, err) == 0
    (receipt,) = rig.sink.receipts
    assert (receipt.state, receipt.error, receipt.error_code) == (state, error, code)
    assert receipt.done_date == "2401011201"


async def test_receipts_by_tlv_alone(rig_of, smsc):
    tlvs = (
        (c.TAG_RECEIPTED_MESSAGE_ID, b"77\0"),
        (c.TAG_MESSAGE_STATE, b"\x05"),
        (c.TAG_NETWORK_ERROR_CODE, b"\3\0\x11"),
    )
    rig = await rig_of()
    assert await smsc.deliver(p.DataSm(esm_class=4, source="1", destination="2", tlvs=tlvs)) == 0
    assert await smsc.deliver(p.DeliverSm(esm_class=0, source="1", destination="2", tlvs=tlvs)) == 0
    assert [(r.carrier_id, r.state, r.error) for r in rig.sink.receipts] == [("77", "undeliverable", "017")] * 2


async def test_a_text_that_looks_like_a_receipt_is_a_message(rig_of, smsc):
    rig = await rig_of()
    await smsc.message("id:1 sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:")
    assert not rig.sink.receipts
    assert rig.sink.parts


async def test_intermediate_notifications_are_never_final(rig_of, smsc):
    rig = await rig_of()
    await smsc.deliver(p.DeliverSm(esm_class=0x20, source="1", destination="2", message=b"id:5 stat:UNDELIV err:001"))
    assert rig.sink.receipts[0].state == "enroute"


async def test_a_receipt_for_nothing_is_acknowledged(rig_of, smsc):
    rig = await rig_of()
    assert await smsc.deliver(p.DeliverSm(esm_class=4, source="1", destination="2", message=b"\xff\x00")) == 0
    assert not rig.sink.receipts


@pytest.mark.parametrize(
    ("settings", "fields", "text", "encoding"),
    [
        ({}, {"data_coding": 0, "message": b"Hi \x00\x1b\x65"}, "Hi @€", "gsm7"),
        ({}, {"data_coding": 8, "message": "日本".encode("utf-16-be") + b"\0"}, "日本", "ucs2"),
        ({}, {"data_coding": 3, "message": b"na\xefve"}, "naïve", "ucs2"),
        ({"default_alphabet": "latin1"}, {"data_coding": 0, "message": b"caf\xe9"}, "café", "gsm7"),
        (
            {"default_alphabet": "gsm7-packed"},
            {"data_coding": 0, "message": bytes.fromhex("e8329bfd06")},
            "hello",
            "gsm7",
        ),
        ({}, {"data_coding": 4, "message": b"8-bit"}, "8-bit", "gsm7"),
        ({}, {"data_coding": 0, "message": b"", "tlvs": ((c.TAG_MESSAGE_PAYLOAD, b"long one"),)}, "long one", "gsm7"),
    ],
)
async def test_inbound_text(rig_of, smsc, settings, fields, text, encoding):
    rig = await rig_of(**settings)
    assert await smsc.message("", **fields) == 0
    (part,) = rig.sink.parts
    assert (part.text, part.encoding, part.from_, part.to) == (text, encoding, PHONE, OUR_NUMBER)
    assert (part.part, part.total, part.reference) == (1, 1, -1)


async def test_inbound_parts(rig_of, smsc):
    rig = await rig_of()
    halves = "😀".encode("utf-16-be")
    for number, half in ((1, halves[:2]), (2, halves[2:])):
        body = udh.concat_header(7, 2, number, 16) + half
        await smsc.message("", esm_class=c.ESM_UDHI, message=body)
        await smsc.message("", data_coding=0, message=b"x", tlvs=sar_tlvs(300, 2, number))
    told = [(part.reference, part.total, part.part, part.reference_width) for part in rig.sink.parts]
    assert told == [(7, 2, 1, 16), (300, 2, 1, 16), (7, 2, 2, 16), (300, 2, 2, 16)]
    joined = (rig.sink.parts[0].text + rig.sink.parts[2].text).encode("utf-16-be", "surrogatepass")
    assert joined.decode("utf-16-be") == "😀"


async def test_national_senders(rig_of, smsc):
    rig = await rig_of(number_country="GB")
    deliver = {"destination_ton": 3, "destination": "60777", "message": b"x"}
    await smsc.deliver(p.DeliverSm(source_ton=2, source_npi=1, source="07700900123", **deliver))
    await smsc.deliver(p.DeliverSm(source_ton=1, source_npi=1, source="33612345678", **deliver))
    await smsc.deliver(p.DeliverSm(source_ton=5, source="Bank", **deliver))
    assert [part.from_ for part in rig.sink.parts] == ["+447700900123", "+33612345678", "Bank"]
    assert {part.to for part in rig.sink.parts} == {"60777"}


async def test_what_cannot_be_committed_in_time_is_bounded(rig_of, smsc, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.connectors.smpp.MAX_UNACKNOWLEDGED", 3)
    rig = await rig_of()
    rig.sink.mode = "hold"
    waiting = [asyncio.ensure_future(smsc.message(f"m{number}")) for number in range(4)]
    done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [c.ESME_RX_T_APPN]
    rig.sink.commit()
    assert sorted([await soon(task) for task in waiting]) == [0, 0, 0, c.ESME_RX_T_APPN]

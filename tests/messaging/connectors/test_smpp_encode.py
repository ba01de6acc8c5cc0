"""How the SMPP connector writes messages, as each carrier wants them."""

import time

import pytest

from tests.messaging.connectors.contract import (
    OUR_NUMBER,
)
from tests.messaging.connectors.smpp_rig import LONG, PHONE
from trunkline.messaging.connectors.base import Submitted
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.long_message import sar_of
from trunkline.sms import gsm7, udh

# -- encodings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text", "coding", "octets"),
    [
        ({}, "Hi @ €", 0, b"Hi \x00 \x1b\x65"),
        ({}, "日本", 8, "日本".encode("utf-16-be")),
        ({"default_alphabet": "latin1"}, "é@", 0, b"\xe9@"),
        ({"default_alphabet": "latin1"}, "€", 8, "€".encode("utf-16-be")),
        ({"default_alphabet": "ascii"}, "{@}", 0, b"{@}"),
        ({"default_alphabet": "gsm7-packed"}, "hello", 0, bytes.fromhex("e8329bfd06")),
        ({"latin1": True}, "naïve", 3, "naïve".encode("latin-1")),
        ({"latin1": True}, "日本", 8, "日本".encode("utf-16-be")),
        ({"latin1": False}, "naïve", 8, "naïve".encode("utf-16-be")),
    ],
)
async def test_text(rig_of, smsc, settings, text, coding, octets):
    rig = await rig_of(**settings)
    assert isinstance(await rig.outcome(text), Submitted)
    assert (smsc.taken[0].data_coding, smsc.taken[0].message) == (coding, octets)


async def test_long_messages_with_user_data_headers(rig_of, smsc):
    rig = await rig_of()
    outcome = await rig.outcome(LONG)
    assert isinstance(outcome, Submitted)
    assert outcome.ids == ["id-1", "id-2"]
    parts = [udh.parse(pdu.message) for pdu in smsc.taken]
    assert all(pdu.esm_class == c.ESM_UDHI for pdu in smsc.taken)
    assert b"".join(body for _, body in parts).decode() == LONG
    concats = [header.concat for header, _ in parts]
    assert [(concat.sequence, concat.total, concat.width) for concat in concats] == [(1, 2, 8), (2, 2, 8)]
    assert concats[0].reference == concats[1].reference


async def test_a_message_sent_again_keeps_its_reference(rig_of, smsc):
    rig = await rig_of(reference_width=16)
    sid = "SM" + "0" * 28 + "beef"
    await rig.outcome(LONG, sid=sid)
    await rig.outcome(LONG, sid=sid)
    references = [udh.parse(pdu.message)[0].concat.reference for pdu in smsc.taken]
    assert references == [0xBEEF] * 4


async def test_long_messages_with_sar(rig_of, smsc):
    rig = await rig_of(long_messages="sar")
    assert len((await rig.outcome(LONG)).ids) == 2
    assert [sar_of(pdu.tlvs)[1:] for pdu in smsc.taken] == [(2, 1), (2, 2)]
    assert b"".join(pdu.message for pdu in smsc.taken).decode() == LONG
    assert not any(pdu.esm_class for pdu in smsc.taken)


@pytest.mark.parametrize("alphabet", ["gsm7", "gsm7-packed", "latin1"])
async def test_long_messages_as_payload(rig_of, smsc, alphabet):
    rig = await rig_of(long_messages="payload", default_alphabet=alphabet)
    assert (await rig.outcome(LONG)).ids == ["id-1"]
    (pdu,) = smsc.taken
    assert pdu.message == b""
    payload = p.tlv(pdu.tlvs, c.TAG_MESSAGE_PAYLOAD)
    assert (gsm7.unpack(payload, 300) if alphabet == "gsm7-packed" else payload).decode() == LONG


async def test_long_latin1_is_split_by_octets(rig_of, smsc):
    rig = await rig_of(latin1=True)
    text = "naïve " * 40
    assert len((await rig.outcome(text)).ids) == 2
    assert b"".join(udh.parse(pdu.message)[1] for pdu in smsc.taken).decode("latin-1") == text
    assert max(len(pdu.message) for pdu in smsc.taken) == 140


async def test_addresses(rig_of, smsc):
    rig = await rig_of()
    for sender in (OUR_NUMBER, "12345", "Acme"):
        await rig.outcome(sender=sender)
    sources = [(pdu.source_ton, pdu.source_npi, pdu.source) for pdu in smsc.taken]
    assert sources == [(1, 1, "12025550142"), (3, 0, "12345"), (5, 0, "Acme")]
    assert {(pdu.destination_ton, pdu.destination_npi, pdu.destination) for pdu in smsc.taken} == {
        (1, 1, "15555550123")
    }


async def test_addresses_as_the_carrier_wants_them(rig_of, smsc):
    rig = await rig_of(source_ton=2, source_npi=8, destination_ton=0, destination_npi=0, plus=True, service_type="CMT")
    await rig.outcome()
    (pdu,) = smsc.taken
    assert (pdu.source_ton, pdu.source_npi, pdu.source) == (2, 8, OUR_NUMBER)
    assert (pdu.destination_ton, pdu.destination_npi, pdu.destination) == (0, 0, PHONE)
    assert pdu.service_type == "CMT"


@pytest.mark.parametrize(
    ("settings", "valid_until_ms", "wanted"),
    [
        ({}, 1_900_000_000_500, "300317174640000+"),
        ({"validity": "none"}, 1_900_000_000_000, ""),
        ({}, 0, ""),
    ],
)
async def test_validity(rig_of, smsc, settings, valid_until_ms, wanted):
    rig = await rig_of(**settings)
    await rig.outcome(valid_until_ms=valid_until_ms)
    assert smsc.taken[0].validity_period == wanted


async def test_relative_validity(rig_of, smsc):
    rig = await rig_of(validity="relative")
    await rig.outcome(valid_until_ms=int(time.time() * 1000) + 3_600_500)
    assert smsc.taken[0].validity_period == "000000010000000R"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, 1),
        ({"registered_delivery": "failure"}, 2),
        ({"registered_delivery": "final+intermediate"}, 0x11),
        ({"registered_delivery": "none"}, 0),
        ({"receipts": False}, 0),
    ],
)
async def test_receipts_asked_for(rig_of, smsc, settings, wanted):
    rig = await rig_of(**settings)
    await rig.outcome()
    assert smsc.taken[0].registered_delivery == wanted

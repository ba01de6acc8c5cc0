"""The `smpp` connector: the contract, then binds, windows, pacing, encodings, doubt and what the SMSC delivers."""

import asyncio
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.messaging.connectors.contract import (
    OUR_NUMBER,
    WINDOW,
    ConnectorContract,
    MemorySink,
    Outcomes,
    message,
    soon,
)
from tests.messaging.connectors.smsc import MO_ID, Smsc
from trunkline.messaging.connectors.base import Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.messaging.connectors.table import Context, make
from trunkline.model.message import MediaItem
from trunkline.settings import Smpp
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.long_message import sar_of, sar_tlvs
from trunkline.sms import gsm7, udh

PHONE = "+15555550123"
LONG = "Long message number one. " * 12  # 300 septets: two segments


class SmppRig:
    features = frozenset({"refuse", "busy", "lose", "hold", "down"})
    to = PHONE

    def __init__(self, smsc: Smsc, **settings: Any) -> None:
        self.smsc = smsc
        self.sink = MemorySink()
        given = {
            "name": "carrier",
            "host": "127.0.0.1",
            "port": smsc.port,
            "system_id": "trunk",
            "password": "secret",
            "window": WINDOW,
            "reconnect_first_s": 0.02,
            "reconnect_longest_s": 0.1,
            **settings,
        }
        made = make(Smpp(**given), Context())
        assert isinstance(made, SmppConnector)
        self.connector = made
        self.wakes: list[None] = []

    async def start(self) -> "SmppRig":
        self.connector.start(self.sink, lambda: self.wakes.append(None))
        await self.up()
        return self

    async def up(self) -> None:
        async with asyncio.timeout(5):
            while not self.connector.capacity():
                await asyncio.sleep(0.001)

    def treat(self, how: str) -> None:
        smsc = self.smsc
        if how == "refuse":
            smsc.answer = lambda pdu: c.ESME_RINVDSTADR
        elif how == "busy":
            smsc.answer = lambda pdu: c.ESME_RTHROTTLED
        elif how == "hold":
            smsc.answer = lambda pdu: None
        elif how == "lose":
            smsc.lose = True
        elif how == "down":
            smsc.bind_status = c.ESME_RBINDFAIL
            for link in self.connector._links:
                assert link.connection is not None
                link.connection.abort("network gone")

    async def reached(self) -> None:
        await self.smsc.until(lambda: self.smsc.seen)

    def release(self) -> None:
        self.smsc.answer = lambda pdu: 0
        asyncio.ensure_future(self._release())

    async def _release(self) -> None:
        await self.smsc.until(lambda: self.smsc.held)
        self.smsc.release()

    async def receipt(self, carrier_id: str) -> bool:
        return await self.smsc.receipt(carrier_id) == 0

    async def inbound(self, text: str) -> bool:
        return await self.smsc.message(text, tlvs=(MO_ID,)) == 0

    def submit(self, body: str = "Hello", *, sender: str = OUR_NUMBER, **fields: Any) -> Outcomes:
        outcomes = Outcomes()
        record = message(self.to, body)
        for name, value in fields.items():
            setattr(record, name, value)
        self.connector.submit(Submission(record, sender, outcomes.done))
        return outcomes

    async def outcome(self, body: str = "Hello", **fields: Any) -> Any:
        return (await self.submit(body, **fields).first())[0]


@pytest.fixture
async def smsc():
    smsc = await Smsc().start()
    yield smsc
    await smsc.stop()


@pytest.fixture
async def rig(smsc):
    return SmppRig(smsc)


@pytest.fixture
async def rig_of(smsc):
    made: list[SmppRig] = []

    async def start(**settings: Any) -> SmppRig:
        made.append(SmppRig(smsc, **settings))
        return await made[-1].start()

    yield start
    for rig in made:
        await rig.connector.stop(0.05)


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


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context with a certificate of its own for localhost, and the file to trust it by."""
    key, chain = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, chain


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
    async with asyncio.timeout(5):
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
    assert isinstance(await rig.outcome(), Submitted)
    assert len(outcomes.all) == 1


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

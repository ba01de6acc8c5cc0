import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smpp import strategies
from trunkline.smpp import constants as c
from trunkline.smpp import long_message
from trunkline.smpp.pdu import SubmitSm, Tlv, tlv

BASE = SubmitSm(source="12345", destination="15550002", esm_class=0x80, tlvs=((0x1400, b"x"),))
BODIES = [b"first", b"second"]
SAR_TAGS = {c.TAG_SAR_MSG_REF_NUM, c.TAG_SAR_TOTAL_SEGMENTS, c.TAG_SAR_SEGMENT_SEQNUM}


def test_udh() -> None:
    headers = [b"\x05\x00\x03\x07\x02\x01", b"\x05\x00\x03\x07\x02\x02"]
    pdus = long_message.submits(BASE, BODIES, mode="udh", headers=headers)
    assert [pdu.message for pdu in pdus] == [headers[0] + b"first", headers[1] + b"second"]
    assert {pdu.esm_class for pdu in pdus} == {0xC0}
    assert all(pdu.tlvs == BASE.tlvs for pdu in pdus)


def test_sar() -> None:
    pdus = long_message.submits(BASE, BODIES, mode="sar", reference=0x12345)
    assert [pdu.message for pdu in pdus] == BODIES
    assert {pdu.esm_class for pdu in pdus} == {0x80}
    assert [long_message.sar_of(pdu.tlvs) for pdu in pdus] == [(0x2345, 2, 1), (0x2345, 2, 2)]
    assert tlv(pdus[0].tlvs, 0x1400) == b"x"


def test_message_payload() -> None:
    (pdu,) = long_message.submits(BASE, [b"x" * 153, b"y" * 153], mode="payload")
    assert pdu.message == b""
    assert pdu.payload == b"x" * 153 + b"y" * 153
    assert pdu.esm_class == 0x80
    assert not SAR_TAGS & {tag for tag, _ in pdu.tlvs}


@pytest.mark.parametrize("mode", ["udh", "sar", "payload"])
def test_a_single_body_needs_nothing_of_it(mode: long_message.LongMode) -> None:
    (pdu,) = long_message.submits(BASE, [b"hello"], mode=mode, reference=1)
    assert (pdu.message, pdu.esm_class, pdu.tlvs) == (b"hello", 0x80, BASE.tlvs)


def test_a_single_body_may_have_a_header() -> None:
    (pdu,) = long_message.submits(BASE, [b"hello"], mode="udh", headers=[b"\x03\x24\x01\x01"])
    assert (pdu.message, pdu.esm_class) == (b"\x03\x24\x01\x01hello", 0xC0)


def test_headers_must_match_the_bodies() -> None:
    with pytest.raises(ValueError, match="headers"):
        long_message.submits(BASE, BODIES, mode="udh")
    with pytest.raises(ValueError, match="argument"):
        long_message.submits(BASE, BODIES, mode="udh", headers=[b"\x00"])


@given(st.binary(max_size=400))
def test_the_payload_comes_out_as_it_went_in(payload: bytes) -> None:
    pdu = long_message.with_payload(BASE, payload)
    assert pdu.payload == payload
    assert len(pdu.message) <= 254


@pytest.mark.parametrize(("total", "sequence"), [(0, 0), (2, 0), (2, 3)])
def test_impossible_sar_numbers_are_ignored(total: int, sequence: int) -> None:
    assert long_message.sar_of(long_message.sar_tlvs(1, total, sequence)) is None


@given(strategies.tlvs)
def test_any_tlvs_are_taken(tlvs: tuple[Tlv, ...]) -> None:
    found = long_message.sar_of(tlvs)
    assert found is None or {tag for tag, _ in tlvs} >= SAR_TAGS

import pytest
import smpp34
from hypothesis import given
from hypothesis import strategies as st

from tests.smpp import strategies
from trunkline.smpp import codec
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import DecodeError, EncodeError, UnknownCommandError

SUBMIT = p.SubmitSm(
    service_type="CMT",
    source_ton=5,
    source="Trunkline",
    destination="15550002",
    esm_class=0x40,
    registered_delivery=1,
    data_coding=8,
    validity_period="000001000000000R",
    message=b"\x05\x00\x03\x01\x02\x01hi",
    tlvs=((c.TAG_USER_MESSAGE_REFERENCE, b"\x00\x07"), (0x1400, b"vendor")),
)


def decode(data: bytes) -> p.Pdu:
    length, command_id, status, _ = codec.HEADER.unpack_from(data)
    return codec.decode(command_id, status, data, 16, length)


@given(strategies.any_pdu, st.integers(0, c.MAX_SEQUENCE))
def test_every_pdu_round_trips(pdu: p.Pdu, sequence: int) -> None:
    data = codec.encode(pdu, sequence)
    assert codec.HEADER.unpack_from(data) == (len(data), pdu.command_id, 0, sequence)
    assert decode(data) == pdu


def test_the_tables_cover_every_pdu() -> None:
    defined = {k for k in vars(p).values() if isinstance(k, type) and issubclass(k, p.Pdu) and k.command_id}
    assert defined == set(codec.PDUS)


FIELDS = {
    "service_type": "service_type",
    "source_ton": "source_addr_ton",
    "source_npi": "source_addr_npi",
    "source": "source_addr",
    "destination_ton": "dest_addr_ton",
    "destination_npi": "dest_addr_npi",
    "destination": "destination_addr",
    "esm_class": "esm_class",
    "protocol_id": "protocol_id",
    "priority": "priority_flag",
    "schedule_delivery_time": "schedule_delivery_time",
    "validity_period": "validity_period",
    "registered_delivery": "registered_delivery",
    "replace_if_present": "replace_if_present_flag",
    "data_coding": "data_coding",
    "default_message_id": "sm_default_msg_id",
    "message": "short_message",
}
ascii_submit = strategies.submit_sm.filter(
    lambda s: (
        all(v.isascii() for v in (s.service_type, s.source, s.destination))  # type: ignore[attr-defined]
        and not s.schedule_delivery_time  # type: ignore[attr-defined]
        and not s.validity_period
    )  # type: ignore[attr-defined]
)


@given(st.data(), strategies.submit_sm)
def test_submit_sm_agrees_with_smpp34(data: st.DataObject, pdu: p.SubmitSm) -> None:
    plain = {
        name: data.draw(st.from_regex(r"[0-9A-Za-z+]{0,5}", fullmatch=True))
        for name in ("service_type", "source", "destination")
    }
    times = {"schedule_delivery_time": "", "validity_period": "000001000000000R"}
    pdu = p.SubmitSm(**{f: getattr(pdu, f) for f in pdu.__struct_fields__} | plain | times)
    theirs = smpp34.SubmitSm(
        pdu.source,
        pdu.destination,
        pdu.message,
        **{FIELDS[n]: getattr(pdu, n) for n in FIELDS if n not in ("source", "destination", "message")},
        tlvs=[smpp34.Tlv(tag, value) for tag, value in pdu.tlvs],
        sequence_number=77,
    )
    ours = codec.encode(pdu, 77)
    assert ours == theirs.encode()
    back = smpp34.decode(ours)
    assert {n: getattr(pdu, n) for n in FIELDS} == {n: getattr(back, FIELDS[n]) for n in FIELDS}
    assert decode(theirs.encode()) == pdu


@given(st.sampled_from(sorted({k.command_id for k in codec.PDUS})), st.integers(0, 2), st.binary(max_size=120))
def test_any_body_decodes_or_raises_a_typed_error(command_id: int, status: int, body: bytes) -> None:
    try:
        pdu = codec.decode(command_id, status, body, 0, len(body))
    except DecodeError as error:
        outcome = error.status
    else:
        outcome = 0
        assert pdu.command_id == command_id
    # an error response is always understood
    assert not (outcome and status and command_id & c.RESPONSE)


@given(strategies.any_pdu, st.data())
def test_a_body_cut_short_never_reads_into_the_next_pdu(pdu: p.Pdu, data: st.DataObject) -> None:
    whole = codec.encode(pdu, 1)
    cut = data.draw(st.integers(16, len(whole)))
    outcomes = []
    for behind in (b"", b"\x00" * 40, b"\x01" * 300):
        buffer = whole[:cut] + behind
        try:
            outcomes.append(codec.decode(pdu.command_id, 0, buffer, 16, cut))
        except DecodeError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(strategies.submit_sm, st.integers(0, 100))
def test_the_offset_in_the_buffer_does_not_matter(pdu: p.Pdu, offset: int) -> None:
    data = codec.encode(pdu, 1)
    shifted = b"\xaa" * offset + data + b"\xbb" * 7
    assert codec.decode(c.SUBMIT_SM, 0, shifted, offset + 16, offset + len(data)) == pdu


def test_known_octets() -> None:
    assert codec.encode(p.SubmitSmResp(message_id="A1"), 7) == bytes.fromhex("00000013800000040000000000000007413100")
    assert codec.encode(p.EnquireLink(), 1) == bytes.fromhex("00000010000000150000000000000001")
    assert codec.encode(p.BindTransceiver(system_id="id", password="pw"), 2) == (
        bytes.fromhex("0000001B000000090000000000000002") + b"id\0pw\0\0\x34\0\0\0"
    )


@pytest.mark.parametrize(
    "kind", [p.SubmitSmResp, p.DataSmResp, p.BindTransceiverResp, p.QuerySmResp, p.SubmitMultiResp]
)
def test_error_responses_may_lack_their_body(kind: type[p.Response]) -> None:
    assert codec.decode(kind.command_id, 0x58, b"", 0, 0) == kind(status=0x58)
    assert len(codec.encode(kind(status=0x58), 1)) == 16


def test_error_responses_with_a_strange_body_keep_their_status() -> None:
    for body in (b"\0", b"junk", b"x" * 80, b"id\0\x12"):
        decoded = codec.decode(c.SUBMIT_SM_RESP, 0x45, body, 0, len(body))
        assert isinstance(decoded, p.SubmitSmResp)
        assert decoded.status == 0x45


def test_a_message_id_may_lack_its_nul() -> None:
    assert codec.decode(c.SUBMIT_SM_RESP, 0, b"abc123", 0, 6) == p.SubmitSmResp(message_id="abc123")
    with pytest.raises(DecodeError):
        codec.decode(c.SUBMIT_SM_RESP, 0, b"x" * 65, 0, 65)


def test_trailing_zero_octets_are_forgiven_others_are_not() -> None:
    body = codec.encode(SUBMIT, 1)[16:]
    assert codec.decode(c.SUBMIT_SM, 0, body + b"\0", 0, len(body) + 1) == SUBMIT
    with pytest.raises(DecodeError) as caught:
        codec.decode(c.SUBMIT_SM, 0, body + b"\1", 0, len(body) + 1)
    assert caught.value.status == c.ESME_RINVOPTPARSTREAM


def test_unknown_tlvs_are_kept_and_their_number_is_bounded() -> None:
    assert decode(codec.encode(SUBMIT, 1)).tlvs[1] == (0x1400, b"vendor")  # type: ignore[attr-defined]
    many = p.SubmitSm(destination="1", tlvs=((1, b""),) * (c.MAX_TLVS + 1))
    with pytest.raises(DecodeError):
        decode(codec.encode(many, 1))


def test_unknown_commands() -> None:
    with pytest.raises(UnknownCommandError):
        codec.decode(0x77, 0, b"", 0, 0)


@pytest.mark.parametrize(
    "pdu",
    [
        p.SubmitSm(destination="1" * 21),
        p.SubmitSm(destination="1\x002"),
        p.SubmitSm(destination="ж"),
        p.SubmitSm(destination="1", message=b"x" * 255),
        p.SubmitSm(destination="1", message=b"x" * 300),
        p.SubmitSm(destination="1", data_coding=256),
        p.SubmitSm(destination="1", esm_class=-1),
        p.SubmitSm(destination="1", validity_period="0" * 17),
        p.SubmitSm(destination="1", tlvs=((0x424, b"x" * 65536),)),
        p.SubmitSm(destination="1", tlvs=((0x424, b"x" * 65000), (0x1400, b"x" * 6000))),
        p.SubmitSmResp(message_id="x" * 65),
        p.DataSm(data_coding=300),
        p.ReplaceSm(message=b"x" * 255),
        p.SubmitMulti(destinations=("x",) * 256),
        p.QuerySm(message_id="\x00"),
    ],
)
def test_what_does_not_fit_is_not_sent(pdu: p.Pdu) -> None:
    with pytest.raises(EncodeError):
        codec.encode(pdu, 1)


def test_payload_prefers_short_message_over_message_payload() -> None:
    long = p.SubmitSm(destination="1", tlvs=((c.TAG_MESSAGE_PAYLOAD, b"long"),))
    assert long.payload == b"long"
    assert p.SubmitSm(destination="1", message=b"short", tlvs=long.tlvs).payload == b"short"
    assert p.DataSm(tlvs=long.tlvs).payload == b"long"
    assert p.DataSm().payload == b""


def test_interface_version_of_a_bind_response() -> None:
    assert p.BindTransceiverResp(tlvs=((c.TAG_SC_INTERFACE_VERSION, b"\x50"),)).interface_version == 0x50
    assert p.BindTransceiverResp().interface_version is None


def test_tlv_access() -> None:
    tlvs = ((1, b"\x01\x02"), (2, b""))
    assert p.tlv_int(tlvs, 1) == 0x102
    assert p.tlv_int(tlvs, 2) is None
    assert p.tlv(tlvs, 2) == b""
    assert p.tlv(tlvs, 3) is None


def test_status_names() -> None:
    assert c.status_name(0x58) == "ESME_RTHROTTLED"
    assert c.status_name(0x410) == "0x00000410"

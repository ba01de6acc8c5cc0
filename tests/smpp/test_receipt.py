from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.smpp import constants as c
from trunkline.smpp import receipt
from trunkline.smpp.pdu import DataSm, DeliverSm, Tlv
from trunkline.smpp.receipt import ReceiptState, UnknownDialectError

STANDARD = (
    b"id:0123456789 sub:001 dlvrd:001 submit date:2311142213 done date:2311142214 stat:DELIVRD err:000 text:Hello wor"
)


def pdu(message: bytes = b"", *tlvs: Tlv, esm_class: int = 0x04, data_coding: int = 0) -> DeliverSm:
    return DeliverSm(message=message, tlvs=tlvs, esm_class=esm_class, data_coding=data_coding)


def parsed(*args: bytes | Tlv, **kwargs: int) -> receipt.Receipt:
    found = receipt.parse(pdu(*args, **kwargs))  # type: ignore[arg-type]
    assert found is not None
    return found


def ms(*args: int) -> int:
    return int(datetime(*args, tzinfo=UTC).timestamp()) * 1000  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("esm_class", "is_one"),
    [(0x00, False), (0x04, True), (0x20, True), (0x44, True), (0x84, True), (0x07, True), (0x40, False), (0x08, False),
     (0x10, False), (0x18, False)],
)  # fmt: skip
def test_only_the_type_bits_decide(esm_class: int, is_one: bool) -> None:
    assert receipt.is_receipt(esm_class) is is_one
    found = receipt.parse(pdu(b"\x00" + STANDARD if esm_class & 0x40 else STANDARD, esm_class=esm_class))
    assert (found is not None) is is_one
    if found is not None:
        assert found.message_id == "0123456789"
        assert found.intermediate is (esm_class == 0x20)


def test_appendix_b() -> None:
    found = parsed(STANDARD)
    assert (found.submit_ms, found.done_ms) == (ms(2023, 11, 14, 22, 13), ms(2023, 11, 14, 22, 14))
    assert found == receipt.Receipt(
        message_id="0123456789",
        state=ReceiptState.DELIVERED,
        intermediate=False,
        error="000",
        error_code=0,
        submit_date="2311142213",
        done_date="2311142214",
        text="Hello wor",
        raw_state="DELIVRD",
    )


@pytest.mark.parametrize(
    ("text", "message_id", "state", "error"),
    [
        (b"id:7 stat:UNDELIV err:021", "7", ReceiptState.UNDELIVERABLE, "021"),
        (b"ID:ABC SUB:001 DLVRD:000 SUBMIT DATE:2311142213 DONE DATE:2311142213 STAT:Expired ERR:0A1 TEXT:", "ABC",
         ReceiptState.EXPIRED, "0A1"),
        (b"id: 55 sub:1 stat: REJECTD", "55", ReceiptState.REJECTED, ""),
        (b"id:1-2_3.4 submit_date:2311142213 done_date:2311142213 status:accepted error:5", "1-2_3.4",
         ReceiptState.ACCEPTED, "5"),
        (b"stat:DELIVRD id:9", "9", ReceiptState.DELIVERED, ""),
        (b"id:9,stat:DELETED,err:1", "9", ReceiptState.DELETED, "1"),
        (b"id:5 sub:001 dlvrd:001 submit date:2311142213 done date: stat:UNKNOWN err: text:x", "5",
         ReceiptState.UNKNOWN, ""),
        (b"id:5 stat:WEIRD err:000", "5", ReceiptState.UNKNOWN, "000"),
        (b"id:5 stat:2", "5", ReceiptState.DELIVERED, ""),
        (b"id:5 stat:ENROUTE text: id:6 stat:DELIVRD", "5", ReceiptState.ENROUTE, ""),
        (b"Thanks for your order", "", ReceiptState.UNKNOWN, ""),
        (b"", "", ReceiptState.UNKNOWN, ""),
    ],
)  # fmt: skip
def test_dialects_of_the_text(text: bytes, message_id: str, state: ReceiptState, error: str) -> None:
    found = parsed(text)
    assert (found.message_id, found.state, found.error) == (message_id, state, error)


def test_the_text_field_may_hold_anything() -> None:
    assert parsed(b"id:1 stat:DELIVRD text:id:2 stat:EXPIRED\n").text == "id:2 stat:EXPIRED\n"


@pytest.mark.parametrize(
    ("number", "state"),
    [(0, "enroute"), (1, "enroute"), (2, "delivered"), (3, "expired"), (4, "deleted"), (5, "undeliverable"),
     (6, "accepted"), (7, "unknown"), (8, "rejected"), (9, "skipped")],
)  # fmt: skip
def test_tlvs_alone(number: int, state: str) -> None:
    found = parsed(
        b"",
        (c.TAG_RECEIPTED_MESSAGE_ID, b"1a2b\0"),
        (c.TAG_MESSAGE_STATE, bytes((number,))),
        (c.TAG_NETWORK_ERROR_CODE, b"\x03\x01\x02"),
    )
    assert (found.message_id, found.state, found.error_code, found.error) == ("1a2b", state, 0x102, "258")


def test_tlvs_win_over_the_text_and_the_text_fills_gaps() -> None:
    found = parsed(STANDARD, (c.TAG_RECEIPTED_MESSAGE_ID, b"FF"), (c.TAG_MESSAGE_STATE, b"\x05"))
    assert (found.message_id, found.state, found.error) == ("FF", ReceiptState.UNDELIVERABLE, "000")
    found = parsed(STANDARD, (c.TAG_RECEIPTED_MESSAGE_ID, b"\0"), (c.TAG_MESSAGE_STATE, b"\x63"))
    assert (found.message_id, found.state) == ("0123456789", ReceiptState.DELIVERED)


def test_text_in_message_payload_in_data_sm_and_in_ucs2() -> None:
    assert parsed(b"", (c.TAG_MESSAGE_PAYLOAD, STANDARD)).message_id == "0123456789"
    data_sm = DataSm(esm_class=4, tlvs=((c.TAG_MESSAGE_PAYLOAD, STANDARD),))
    assert receipt.parse(data_sm).message_id == "0123456789"  # type: ignore[union-attr]
    assert parsed(STANDARD.decode().encode("utf-16-be"), data_coding=8).state is ReceiptState.DELIVERED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2311142213", ms(2023, 11, 14, 22, 13)),
        ("231114221305", ms(2023, 11, 14, 22, 13, 5)),
        ("202311142213", ms(2023, 11, 14, 22, 13)),
        ("20231114221305", ms(2023, 11, 14, 22, 13, 5)),
        ("", None),
        ("231114", None),
        ("0000000000", None),
        ("2313142213", None),
        ("23-11-14", None),
    ],
)
def test_dates(text: str, expected: int | None) -> None:
    assert receipt.parse_date(text) == expected


@given(st.binary(max_size=400), st.integers(0, 255), st.integers(0, 255), st.lists(st.tuples(
    st.sampled_from([c.TAG_RECEIPTED_MESSAGE_ID, c.TAG_MESSAGE_STATE, c.TAG_NETWORK_ERROR_CODE, c.TAG_MESSAGE_PAYLOAD]),
    st.binary(max_size=80))))  # fmt: skip
def test_parsing_anything_never_raises(message: bytes, esm_class: int, coding: int, tlvs: list[Tlv]) -> None:
    found = receipt.parse(pdu(message, *tlvs, esm_class=esm_class, data_coding=coding))
    assert (found is not None) == receipt.is_receipt(esm_class)


_words = st.sampled_from(["id", "sub", "dlvrd", "submit date", "done date", "stat", "err", "text", ":", " ", "DELIVRD"])


@given(st.lists(_words | st.text("0123456789aF:= ", max_size=6), max_size=30))
def test_near_receipts_never_raise(words: list[str]) -> None:
    assert parsed("".join(words).encode()).state in ReceiptState


@pytest.mark.parametrize(
    ("message_id", "dialect", "expected"),
    [
        ("00Ab", "as_is", "00Ab"),
        ("00Ab", "lower", "00ab"),
        ("0012", "strip_zeros", "12"),
        ("000", "strip_zeros", "0"),
        ("", "strip_zeros", ""),
        ("FF", "hex_to_dec", "255"),
        ("0000ff", "hex_to_dec", "255"),
        ("255", "dec_to_hex", "ff"),
        ("0255", "dec_to_hex", "ff"),
        ("xyz", "hex_to_dec", "xyz"),
        ("ab", "dec_to_hex", "ab"),
        ("", "hex_to_dec", ""),
        ("-1", "dec_to_hex", "-1"),
        ("1_0", "dec_to_hex", "1_0"),
        ("9" * 65, "dec_to_hex", "9" * 65),
        ("00AB", "lower+strip_zeros", "ab"),
    ],
)
def test_message_id_dialects(message_id: str, dialect: str, expected: str) -> None:
    assert receipt.normalise_id(message_id, dialect) == expected


@given(st.integers(0, 1 << 128))
def test_hex_and_decimal_meet(number: int) -> None:
    assert receipt.normalise_id(f"{number:X}", "hex_to_dec") == str(number)
    assert receipt.normalise_id(str(number), "dec_to_hex") == f"{number:x}"


@given(st.text(max_size=80), st.sampled_from(sorted(receipt.DIALECTS)))
def test_any_id_is_normalised(message_id: str, dialect: str) -> None:
    assert isinstance(receipt.normalise_id(message_id, dialect), str)


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(UnknownDialectError):
        receipt.normaliser("octal")


def test_final() -> None:
    assert parsed(STANDARD).final
    assert not parsed(STANDARD, esm_class=0x20).final
    assert not parsed(b"id:1 stat:ACCEPTD").final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.rtp import rtcp
from trunkline.rtp.rtcp import Block, MalformedRtcp, Report, Sender, compound, parse


def test_reports_survive_the_wire() -> None:
    block = Block(7, 25, -3, 0x10005, 80, 0x12345678, 65536)
    sender = Sender(rtcp.ntp(1_700_000_000_000_000_000), 160, 10, 1600)
    data = compound(9, "a@b", sender=sender, blocks=(block,))
    assert len(data) % 4 == 0
    assert parse(data) == Report(9, sender, (block,), False)
    assert b"a@b" in data


def test_a_receiver_report_with_bye() -> None:
    data = compound(9, "", sender=None, bye=True)
    assert data[1] == rtcp.RR
    assert parse(data) == Report(9, None, (), True)


def test_round_trip_is_now_less_their_hold_less_our_report() -> None:
    sent = rtcp.ntp(1_700_000_000_000_000_000)
    now = rtcp.ntp(1_700_000_000_150_000_000)
    block = Block(1, last_sr=sent >> 16 & 0xFFFFFFFF, since_last_sr=65536 // 10)
    assert rtcp.round_trip_ms(block, now) == pytest.approx(50, abs=0.1)
    assert rtcp.round_trip_ms(Block(1), now) == 0
    assert rtcp.round_trip_ms(Block(1, last_sr=(now >> 16 & 0xFFFFFFFF) + 5), now) == 0


@pytest.mark.parametrize(
    "data", [b"", b"\x80\xc8\x00\x01", b"\x00" * 8, b"\x80\xc8\x00\xff" + bytes(8), b"\x80\x00" + bytes(6)]
)
def test_what_is_no_rtcp_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRtcp):
        parse(data)


def test_cut_off_blocks_are_left_out() -> None:
    assert parse(b"\x9f\xc9\x00\x01\x00\x00\x00\x07").blocks == ()


@given(st.binary(max_size=120))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        parse(b"\x81\xc8" + data)
    except MalformedRtcp:
        pass

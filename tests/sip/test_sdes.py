"""RFC 4568: crypto attributes."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sip import sdes
from trunkline.sip.sdes import Crypto, Srtp

KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
"""Of RFC 4568 section 9.2's example."""
SUITE = "AES_CM_128_HMAC_SHA1_80"


@pytest.mark.parametrize(
    "value",
    [
        f"1 {SUITE} inline:{KEY}",
        f"1 {SUITE} inline:{KEY}|2^20",
        f"1 {SUITE} inline:{KEY}|2^48",
        f"1 {SUITE} inline:{KEY}|1048576 WSH=60 -FUTURE=1",
        f"  1   {SUITE}  INLINE:{KEY} ",
    ],
)
def test_lines_that_can_be_done(value: str) -> None:
    assert sdes.parse(value) == Crypto(1, SUITE, KEY)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        f"1 {SUITE}",
        f"x {SUITE} inline:{KEY}",
        f"-1 {SUITE} inline:{KEY}",
        f"1234567890 {SUITE} inline:{KEY}",
        f"² {SUITE} inline:{KEY}",
        f"1 F8_128_HMAC_SHA1_80 inline:{KEY}",
        f"1 AEAD_AES_128_GCM inline:{KEY}",
        f"1 {SUITE} uri:{KEY}",
        f"1 {SUITE} {KEY}",
        f"1 {SUITE} inline:{KEY[:-4]}",
        f"1 {SUITE} inline:{KEY}AAAA",
        f"1 {SUITE} inline:{KEY[:-1]}!",
        f"1 {SUITE} inline:é{KEY[1:]}",
        f"1 {SUITE} inline:{KEY}|2^20|1:4",
        f"1 {SUITE} inline:{KEY}|1:4",
        f"1 {SUITE} inline:{KEY}|1:4;inline:{KEY}|2:4",
        f"1 {SUITE} inline:{KEY}|2^10",
        f"1 {SUITE} inline:{KEY}|2^999999999",
        f"1 {SUITE} inline:{KEY} KDR=1",
        f"1 {SUITE} inline:{KEY} UNENCRYPTED_SRTP",
        f"1 {SUITE} inline:{KEY} UNENCRYPTED_SRTCP",
        f"1 {SUITE} inline:{KEY} UNAUTHENTICATED_SRTP",
        f"1 {SUITE} inline:{KEY} FEC_ORDER=FEC_SRTP",
        f"1 {SUITE} inline:{KEY} WSH=60 KDR=1",
        f"1 {SUITE} inline:{KEY} " + "-A " * 200,
    ],
)
def test_lines_that_are_passed_over(value: str) -> None:
    assert sdes.parse(value) is None


def test_of_several_lines_those_that_we_know_stay_in_their_order() -> None:
    lines = [
        f"1 AEAD_AES_256_GCM inline:{KEY}",
        f"2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}",
        f"2 {SUITE} inline:{KEY}",
        f"7 {SUITE} inline:{KEY}",
    ]
    assert [(one.tag, one.suite) for one in sdes.usable(lines)] == [(2, "AES_CM_128_HMAC_SHA1_32"), (7, SUITE)]
    assert len(sdes.usable([f"{n} {SUITE} inline:{KEY}" for n in range(1, 500)])) == sdes.MAX_LINES


def test_an_offer_has_a_key_of_its_own_for_each_suite() -> None:
    keys = [sdes.make_key(random.Random(seed).randbytes(sdes.KEY_BYTES)) for seed in (1, 2)]
    lines = [sdes.line(one) for one in sdes.offered(keys)]
    assert lines == [f"a=crypto:{n + 1} {suite} inline:{keys[n]}" for n, suite in enumerate(sdes.SUITES)]
    assert [one.key for one in sdes.usable([text.removeprefix("a=crypto:") for text in lines])] == keys


def test_a_key_has_its_length() -> None:
    with pytest.raises(ValueError, match="29 octets"):
        sdes.make_key(bytes(29))


def test_keys_are_in_no_representation() -> None:
    for holder in (Srtp(suite=SUITE, ours=KEY, theirs=KEY), Crypto(1, SUITE, KEY)):
        assert KEY not in f"{holder!r} {holder} {[holder]}"
        assert SUITE in repr(holder)
    assert msgspec.json.decode(msgspec.json.encode(Srtp(suite=SUITE, ours=KEY, theirs="x")), type=Srtp).ours == KEY


@given(st.text(max_size=600))
def test_any_text_is_read_or_passed_over(text: str) -> None:
    for value in (text, f"1 {SUITE} inline:{text}", f"1 {SUITE} inline:{KEY}|{text}", f"1 {SUITE} inline:{KEY} {text}"):
        crypto = sdes.parse(value)
        if crypto is not None:
            again = sdes.parse(sdes.line(crypto).removeprefix("a=crypto:"))
            assert again == crypto

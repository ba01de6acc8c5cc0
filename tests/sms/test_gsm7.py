import gsmcodecs
import pytest
import smsutil
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import gsm7

GSM_CHARACTERS = "".join(
    c for code in range(0x2200) if code != 0x1B and smsutil.is_valid_gsm(c := chr(code)) and c not in "`\xa0"
)
EXTENSION = "^{}\\[~]|€\f"
gsm_text = st.text(alphabet=st.sampled_from(GSM_CHARACTERS), max_size=400)


def oracle(language: int = 0) -> gsmcodecs.Codec:
    codec = gsmcodecs.Codec(0, 0)
    codec._shiftEncode = gsmcodecs.GSMCHARMAPS[language]["singleShift"]["encode"]
    codec._shiftDecode = gsmcodecs.GSMCHARMAPS[language]["singleShift"]["decode"]
    return codec


@pytest.mark.parametrize("language", [0, 1, 2, 3])
def test_every_bmp_character_agrees_with_the_3gpp_tables(language: int) -> None:
    alphabet, expected = gsm7.LANGUAGES[language], oracle(language)
    for code in range(0x10000):
        character = chr(code)
        try:
            septets = expected.encode(character)[0]
        except UnicodeEncodeError:
            septets = None
        # ESC and ESC ESC are shown as a space, they are no encoding of one; U+001B is no character
        if character in " \x1b":
            continue
        assert (alphabet.encode(character) if alphabet.covers(character) else None) == septets, hex(code)


@pytest.mark.parametrize("language", [0, 1, 2, 3])
def test_every_septet_and_every_escaped_one_decodes_as_in_the_3gpp_tables(language: int) -> None:
    alphabet, expected = gsm7.LANGUAGES[language], oracle(language)
    for code in range(128):
        if code != gsm7.ESC:
            assert alphabet.decode(bytes((code,))) == expected.decode(bytes((code,)))[0]
        escaped = expected.decode(bytes((gsm7.ESC, code)), "ignore")[0]
        assert alphabet.decode(bytes((gsm7.ESC, code))) == (escaped or expected.decode(bytes((code,)))[0])


@given(gsm_text)
def test_text_round_trips_and_agrees_with_the_oracle(text: str) -> None:
    septets = gsm7.encode(text)
    assert septets == oracle().encode(text)[0]
    assert gsm7.decode(septets) == text
    assert gsm7.septets(text) == len(septets)
    assert gsm7.is_gsm7(text)


@pytest.mark.parametrize("character", EXTENSION)
def test_extension_characters_cost_two_septets(character: str) -> None:
    assert gsm7.septets(character) == 2
    assert gsm7.septets("@" + character + "a") == 4
    assert gsm7.encode(character)[0] == gsm7.ESC


@pytest.mark.parametrize("character", ["`", "ç", "\x00", "\x1b", "\t", "ж", "😀", "\ufffe", "\ufffd", "\x7f"])
def test_these_are_not_gsm(character: str) -> None:
    assert not gsm7.is_gsm7("abc" + character)
    assert gsm7.septets(character) is None
    assert gsm7.encode("a" + character + "[") == b"a?\x1b<"


def test_at_is_zero_and_capital_cedilla_is_gsm() -> None:
    assert gsm7.encode("@Ç") == b"\x00\x09"


def test_turkish_reaches_what_the_default_lacks() -> None:
    assert gsm7.LANGUAGES[1].encode("ığ[") == b"\x1bi\x1bg\x1b<"
    assert not gsm7.is_gsm7("ı")


@given(st.binary(max_size=300))
def test_decoding_any_octets_never_raises(octets: bytes) -> None:
    text = gsm7.decode(octets)
    assert len(text) <= len(octets)
    assert text.count("\ufffd") <= sum(octet > 127 for octet in octets)


def test_high_octets_and_odd_escapes() -> None:
    assert gsm7.decode(b"a\xe9b") == "a\ufffdb"
    assert gsm7.decode(b"a\x1b\x1bb") == "a b"
    assert gsm7.decode(b"a\x1bz") == "az"
    assert gsm7.decode(b"a\x1b") == "a"
    assert gsm7.decode(b"\x1b\xe9") == "\ufffd"


@given(st.binary(max_size=200).map(lambda b: bytes(o & 0x7F for o in b)), st.integers(0, 6))
def test_packing_round_trips(septets: bytes, fill: int) -> None:
    packed = gsm7.pack(septets, fill)
    assert len(packed) == (7 * len(septets) + fill + 7) // 8
    assert gsm7.unpack(packed, len(septets), fill) == septets


def test_packing_matches_the_well_known_example() -> None:
    assert gsm7.pack(gsm7.encode("hellohello")) == bytes.fromhex("E8329BFD4697D9EC37")
    assert gsm7.unpack(bytes.fromhex("E8329BFD4697D9EC37")) == b"hellohello"


def test_seven_septets_do_not_gain_an_at() -> None:
    assert gsm7.unpack(gsm7.pack(b"seventh")) == b"seventh"
    assert gsm7.unpack(gsm7.pack(b"eight..!")) == b"eight..!"


@given(st.binary(max_size=150), st.integers(0, 6), st.none() | st.integers(0, 200))
def test_unpacking_any_octets_never_raises(octets: bytes, fill: int, count: int | None) -> None:
    assert len(gsm7.unpack(octets, count, fill)) * 7 <= len(octets) * 8


@pytest.mark.parametrize(("header", "fill"), [(0, 0), (6, 1), (7, 0), (4, 3), (9, 5)])
def test_fill_bits_align_septets_after_the_header(header: int, fill: int) -> None:
    assert gsm7.fill_bits(header) == fill
    assert (header * 8 + fill) % 7 == 0


def test_a_lone_surrogate_is_not_gsm() -> None:
    assert gsm7.septets("a\ud800") is None

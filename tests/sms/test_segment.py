import pytest
import smsutil
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import gsm7
from trunkline.sms.segment import (
    TooManySegmentsError,
    count_segments,
    encoding_of,
    header_octets,
    plan,
    septet_limit,
    unit_limit,
)

any_text = st.text(max_size=600) | st.text(alphabet="abc@[€é", max_size=600) | st.text(alphabet="aж😀", max_size=600)


@pytest.mark.parametrize(
    ("concatenated", "width", "language", "septets", "units"),
    [
        (False, 8, 0, 160, 70),
        (True, 8, 0, 153, 67),
        (True, 16, 0, 152, 66),
        (False, 8, 1, 155, 68),
        (True, 8, 1, 149, 65),
    ],
)
def test_limits(concatenated: bool, width: int, language: int, septets: int, units: int) -> None:
    header = header_octets(concatenated, width, language)  # type: ignore[arg-type]
    assert (septet_limit(header), unit_limit(header)) == (septets, units)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", [0]),
        ("a" * 160, [160]),
        ("a" * 161, [153, 8]),
        ("a" * 306, [153, 153]),
        ("a" * 307, [153, 153, 1]),
        ("€" * 80, [160]),
        ("€" * 81, [152, 10]),
        ("a" * 152 + "[" + "a" * 10, [152, 12]),
        ("a" * 151 + "[" + "a" * 10, [153, 10]),
    ],
)
def test_gsm_segments(text: str, sizes: list[int]) -> None:
    result = plan(text)
    assert result.encoding == "gsm7"
    assert [len(s) for s in result.segments] == sizes
    assert (result.count, result.units) == (len(sizes), sum(sizes))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("ж" * 70, [70]),
        ("ж" * 71, [67, 4]),
        ("ж" * 135, [67, 67, 1]),
        ("😀" * 35, [70]),
        ("😀" * 36, [66, 6]),
        ("ж" + "😀" * 36, [67, 6]),
    ],
)
def test_ucs2_segments_count_utf16_code_units(text: str, units: list[int]) -> None:
    result = plan(text)
    assert result.encoding == "ucs2"
    assert [len(s) // 2 for s in result.segments] == units
    assert result.units == sum(units)


def test_16_bit_references_leave_less_room() -> None:
    assert [len(s) for s in plan("a" * 161, reference_width=16).segments] == [152, 9]
    assert [len(s) // 2 for s in plan("ж" * 71, reference_width=16).segments] == [66, 5]


def test_single_shift_language_keeps_turkish_in_gsm() -> None:
    single = plan("ı" * 10, language=1)
    assert (single.encoding, single.units, single.language) == ("gsm7", 20, 1)
    long = plan("ı" * 78, language=1)
    assert [len(s) for s in long.segments] == [148, 8]
    assert plan("abc", language=1).language == 0
    assert plan("ж", language=1).encoding == "ucs2"


@given(any_text, st.sampled_from([8, 16]))
def test_segments_decode_one_by_one_to_the_text(text: str, width: int) -> None:
    result = plan(text, reference_width=width)  # type: ignore[arg-type]
    decode = gsm7.decode if result.encoding == "gsm7" else lambda octets: octets.decode("utf-16-be")
    assert "".join(decode(s) for s in result.segments) == result.text == text
    limit = septet_limit(header_octets(result.count > 1, width))  # type: ignore[arg-type]
    units = unit_limit(header_octets(result.count > 1, width)) * 2  # type: ignore[arg-type]
    assert all(len(s) <= (limit if result.encoding == "gsm7" else units) for s in result.segments)


@given(any_text.filter(lambda t: not set(t) & set("`\xa0\x1b\x7f")))
def test_count_agrees_with_smsutil_where_that_does_not_split_pairs(text: str) -> None:
    # smsutil sizes UCS-2 in code points' octets, as we do, and keeps pairs whole
    assert count_segments(text) == max(1, len(smsutil.split(text).parts))


@given(st.text(alphabet=st.characters(), max_size=200))
def test_quick_count_equals_the_plan(text: str) -> None:
    assert count_segments(text) == plan(text).count
    assert encoding_of(text) == plan(text).encoding


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    result = plan("a\ud83dж\ude00")
    assert result.text == "a\ufffdж\ufffd"
    assert result.segments == ("a\ufffdж\ufffd".encode("utf-16-be"),)
    assert plan("\ud83d\ude00").text == "😀"
    assert plan("\ud800", encoding="gsm7").segments == (b"?",)


def test_forced_encodings() -> None:
    assert plan("ж[", encoding="gsm7").segments == (b"?\x1b<",)
    assert plan("ж[", encoding="gsm7").text == "?["
    assert plan("abc", encoding="ucs2").segments == ("abc".encode("utf-16-be"),)


def test_smart_encoding_brings_text_to_gsm() -> None:
    text = "\u201cWe\u2019ll see\u2026\u201d" + "a" * 80
    assert plan(text).encoding == "ucs2"
    smart = plan(text, smart_encoding=True)
    assert (smart.encoding, smart.count) == ("gsm7", 1)
    assert smart.text.startswith('"We\'ll see..."')
    assert count_segments(text, smart_encoding=True) == 1


def test_more_than_255_segments_are_refused() -> None:
    assert plan("a" * 153 * 255).count == 255
    with pytest.raises(TooManySegmentsError):
        plan("a" * (153 * 255 + 1))
    with pytest.raises(TooManySegmentsError):
        plan("ж" * (67 * 255 + 1))

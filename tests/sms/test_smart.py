import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import gsm7
from trunkline.sms.smart import TABLE, smart_encode

# Rows of Twilio's "List of characters replaced by Smart Encoding".
DOCUMENTED = [
    ("\u00ab", '"'), ("\u00bb", '"'), ("\u201c", '"'), ("\u201d", '"'), ("\uff02", '"'), ("\u2018", "'"),
    ("\u2019", "'"), ("\u02bb", "'"), ("\u02b9", "'"), ("\uff07", "'"), ("\u00b4", "'"), ("`", "'"),
    ("\u00bc", "1/4"), ("\u00bd", "1/2"), ("\u00be", "3/4"), ("\u2044", "/"), ("\uff3c", "\\"), ("\uff3f", "_"),
    ("\u2223", "|"), ("\u2013", "-"), ("\u2014", "-"), ("\u2010", "-"), ("\ufe6b", "@"), ("\uff01", "!"),
    ("\uff10", "0"), ("\uff19", "9"), ("\uff21", "A"), ("\uff3a", "Z"), ("\u1d00", "A"), ("\u1d22", "Z"),
    ("\u2026", "..."), ("\u203c", "!!"), ("\u00a0", " "), ("\u3000", " "), ("\u2003", " "), ("\u200b", ""),
    ("\ufeff", ""), ("\u2022", "-"), ("\uff5e", "~"), ("\u02c6", "^"), ("\u2774", "{"), ("\uff3d", "]"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), DOCUMENTED)
def test_documented_replacements(source: str, target: str) -> None:
    assert smart_encode(f"a{source}b") == f"a{target}b"


def test_every_replacement_is_gsm_and_every_source_is_not() -> None:
    for code, target in TABLE.items():
        assert gsm7.is_gsm7(target), hex(code)
        assert not gsm7.is_gsm7(chr(code)), hex(code)


def test_text_that_stays_unicode_keeps_its_characters() -> None:
    assert smart_encode("\u201chi\u201d \u2026 😀") == "\u201chi\u201d \u2026 😀"


def test_gsm_text_is_untouched() -> None:
    assert smart_encode("plain é [text]") == "plain é [text]"


@given(st.text())
def test_the_result_is_stable(text: str) -> None:
    once = smart_encode(text)
    assert smart_encode(once) == once
    assert once == text or gsm7.is_gsm7(once)

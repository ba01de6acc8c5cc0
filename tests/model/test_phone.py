"""Addresses: the light check against the full metadata, senders, and what the plan tells."""

import subprocess
import sys

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.model.phone import LineType, SenderKind


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+14155552671", "+14155552671"),
        ("+1 (415) 555-2671", "+14155552671"),
        ("4155552671", "+14155552671"),
        ("14155552671", "+14155552671"),
        (" 14155552671", "+14155552671"),  # the plus sign of an unencoded form
        ("4915112345678", "+4915112345678"),
        ("+15550001234", "+15550001234"),  # possible, though unassigned
        ("+1555", None),
        ("+999123456789", None),
        ("+0123456789", None),
        ("", None),
        ("+", None),
        ("+1415555267١", None),
        ("abc", None),
        ("1" * 1000, None),
        ("+14155552671\n", None),
        ("+1415555\x002671", None),
    ],
)
def test_to_e164(text: str, number: str | None) -> None:
    assert phone.to_e164(text) == number


@given(st.from_regex(r"\+[1-9][0-9]{4,15}", fullmatch=True))
def test_light_check_agrees_with_the_metadata(number: str) -> None:
    try:
        parsed = phonenumbers.parse(number)
        # A length possible only without its area code, or a national prefix that parsing drops, is no E.164.
        possible = phonenumbers.is_possible_number_with_reason(parsed) == phonenumbers.ValidationResult.IS_POSSIBLE
        unchanged = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) == number
    except phonenumbers.NumberParseException:
        possible, unchanged = False, True
    if unchanged:
        assert phone.is_e164(number) == (possible and len(number) <= 16 and len(number) >= 7)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_with_a_code(text: str) -> None:
    for parse, codes in ((phone.parse_to, {21211, 21910}), (phone.parse_from, {21212, 63007})):
        code = None
        try:
            parse(text)
        except ApiError as error:
            code = error.code
        assert code is None or code in codes
    phone.details(text)
    phone.country(text)
    phone.calling_code(text)


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("+15550000001", SenderKind.PHONE_NUMBER, "+15550000001"),
        ("(415) 555-2671", SenderKind.PHONE_NUMBER, "+14155552671"),
        ("12345", SenderKind.SHORT_CODE, "12345"),
        ("ACME", SenderKind.ALPHANUMERIC, "ACME"),
        ("A&B-C_D+1 2", SenderKind.ALPHANUMERIC, "A&B-C_D+1 2"),
        ("1234567890A", SenderKind.ALPHANUMERIC, "1234567890A"),
    ],
)
def test_senders(text: str, kind: SenderKind, address: str) -> None:
    assert phone.parse_from(text) == (kind, address)


@pytest.mark.parametrize("text", ["TwelveLetter", "Ümlaut", "1 2 3 4", "a/b", "12", "", "A\nB", "A\n", "+1555"])
def test_bad_senders(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        phone.parse_from(text)
    assert caught.value.code == 21212


def test_channels_are_refused_with_their_own_codes() -> None:
    assert phone.channel_of("whatsapp:+14155552671") == "whatsapp"
    with pytest.raises(ApiError) as to:
        phone.parse_to("whatsapp:+14155552671")
    with pytest.raises(ApiError) as from_:
        phone.parse_from("messenger:123")
    assert (to.value.code, from_.value.code) == (21910, 63007)


def test_bad_to() -> None:
    with pytest.raises(ApiError) as caught:
        phone.parse_to("+1555")
    assert (caught.value.code, caught.value.status) == (21211, 400)


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+14155552671", "US"),
        ("+14165552671", "CA"),
        ("+18765552671", "JM"),
        ("+447400123456", "GB"),
        ("+4915112345678", "DE"),
        ("+77012345678", "KZ"),
        ("+15550001234", "US"),
        ("+80012345678", None),
        ("nonsense", None),
    ],
)
def test_country(number: str, country: str | None) -> None:
    assert phone.country(number) == country
    assert phone.country(number) == country  # now from the prefix table


@given(st.from_regex(r"\+1[2-9][0-9]{9}", fullmatch=True))
def test_north_american_prefixes_settle_the_country(number: str) -> None:
    expected = phonenumbers.region_code_for_number(phonenumbers.parse(number)) or "US"
    assert phone.country(number) == expected


def test_details() -> None:
    details = phone.details("+447400123456")
    assert (details.valid, details.country, details.calling_code) == (True, "GB", "44")
    assert (details.national_format, details.line_type) == ("07400 123456", LineType.MOBILE)
    assert phone.national_format("+14155552671") == "(415) 555-2671"
    assert phone.line_type("+18005550100") is LineType.TOLL_FREE
    assert phone.is_valid("+14155552671")
    assert not phone.is_valid("+15550001234")
    assert phone.details("07400123456", "GB").phone_number == "+447400123456"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("+1415", "TOO_SHORT"),
        ("+141555526711111", "TOO_LONG"),
        ("+999123456789", "INVALID_COUNTRY_CODE"),
        ("hello", "NOT_A_NUMBER"),
        ("+15550001234", "INVALID_BUT_POSSIBLE"),
    ],
)
def test_validation_errors(text: str, error: str) -> None:
    details = phone.details(text)
    assert not details.valid
    assert details.validation_errors == (error,)


@pytest.mark.parametrize(
    ("from_", "to", "code"),
    [
        ("+15005550006", "+14155552671", None),
        ("+15005550001", "+14155552671", 21212),
        ("+15005550007", "+14155552671", 21606),
        ("+15005550008", "+14155552671", 21611),
        ("+14155550100", "+14155552671", 21606),
        ("+15005550006", "+15005550001", 21211),
        ("+15005550006", "+15005550002", 21612),
        ("+15005550006", "+15005550003", 21408),
        ("+15005550006", "+15005550004", 21610),
        ("+15005550006", "+15005550009", 21614),
        (None, "+15005550004", 21610),
    ],
)
def test_magic_message_numbers(from_: str | None, to: str, code: int | None) -> None:
    if code is None:
        phone.check_magic_message(from_, to)
        return
    with pytest.raises(ApiError) as caught:
        phone.check_magic_message(from_, to)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("number", "area_code", "code"),
    [
        ("+15005550000", None, 21422),
        ("+15005550001", None, 21421),
        ("+14155552671", None, 21422),
        (None, "533", 21452),
    ],
)
def test_magic_purchases(number: str | None, area_code: str | None, code: int) -> None:
    phone.check_magic_purchase("+15005550006", None)
    phone.check_magic_purchase(None, "500")
    with pytest.raises(ApiError) as caught:
        phone.check_magic_purchase(number, area_code)
    assert caught.value.code == code


def test_metadata_is_not_imported_until_a_number_comes() -> None:
    program = (
        "import sys; from trunkline.model import phone; phone.parse_from('ACME');"
        "assert 'phonenumbers' not in sys.modules;"
        "assert phone.is_e164('+14155552671'); assert 'phonenumbers' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

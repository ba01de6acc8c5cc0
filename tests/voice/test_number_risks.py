"""What numbers risk: the built-in list, and an operator's."""

import pytest

from trunkline.model.dialing import LOW, SPECIAL, TOLL_FRAUD
from trunkline.voice.number_risks import Risks, load


@pytest.mark.parametrize(
    ("number", "risk"),
    [
        ("+19005551234", SPECIAL), ("+14155550123", LOW), ("+18005551234", LOW), ("+15005550006", LOW),
        ("+37181234567", SPECIAL), ("+37122345678", LOW), ("+449098765432", SPECIAL), ("+447712345678", LOW),
        ("+447012345678", SPECIAL), ("+442079460000", LOW), ("+4990012345678", SPECIAL), ("+493012345678", LOW),
        ("+4915112345678", LOW), ("+33899123456", SPECIAL), ("+33612345678", LOW), ("+881612345678", TOLL_FRAUD),
        ("+5351234567", TOLL_FRAUD), ("+97912345678", TOLL_FRAUD), ("+3531520123456", SPECIAL), ("+35315201234", LOW),
        ("+5491112345678", LOW), ("+81312345678", LOW),
    ],
)  # fmt: skip
def test_the_built_in_list(number: str, risk: str) -> None:
    assert load().of(number) == risk


def test_no_ordinary_number_is_a_special_one() -> None:
    """The example numbers of every country's fixed and mobile lines, by libphonenumber."""
    import phonenumbers
    from phonenumbers import PhoneNumberType

    risks, wrong = load(), []
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind, special in ((PhoneNumberType.FIXED_LINE, False), (PhoneNumberType.MOBILE, False),
                              (PhoneNumberType.PREMIUM_RATE, True)):  # fmt: skip
            number = phonenumbers.example_number_for_type(region, kind)
            if number is None:
                continue
            text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
            if risks.of(text) == (LOW if special else SPECIAL):
                wrong.append((region, text))
    assert wrong == []


def test_an_operators_list(tmp_path) -> None:
    path = tmp_path / "risks.txt"
    path.write_text("# ours\n+49 tollfraud\n+4930 low # Berlin\n\n1900 special\n")
    risks = load(str(path))
    assert [risks.of(one) for one in ("+491711234567", "+493012345", "+19005551234", "+881612345678")] == [
        TOLL_FRAUD, LOW, SPECIAL, LOW,
    ]  # fmt: skip
    assert risks.special == ["+1900"]


@pytest.mark.parametrize(
    "line", ["+49", "+49 cheap", "abc special", "+49 special x", "+49 special 9 9", "+4\u0669 special"]
)
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Risks(["# head", line])

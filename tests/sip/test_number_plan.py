"""Numbers as carriers write them, in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sip.number_plan import NumberPlan

PLUS = NumberPlan()
GERMANY = NumberPlan(country="49")
US = NumberPlan(country="1", national="1", international="011")
SPAIN = NumberPlan(country="34", national="")
BERLIN, PARIS, BOSTON = "+4930123456", "+33142685300", "+16175550123"


@pytest.mark.parametrize(
    ("plan", "written", "number"),
    [
        (PLUS, "+4930123456", BERLIN),
        (PLUS, "004930123456", BERLIN),
        (PLUS, "49301234567", "+49301234567"),
        (PLUS, "030123456", ""),
        (GERMANY, "030123456", BERLIN),
        (GERMANY, "030-123 456", BERLIN),
        (GERMANY, "4930123456", BERLIN),
        (GERMANY, "0033142685300", PARIS),
        (GERMANY, "33142685300", PARIS),
        (GERMANY, "+33142685300", PARIS),
        (GERMANY, "+4930123456;npdi;rn=+4930999", BERLIN),
        (GERMANY, "030123456;phone-context=+49", BERLIN),
        (GERMANY, "110", ""),
        (US, "6175550123", BOSTON),
        (US, "16175550123", BOSTON),
        (US, "01133142685300", PARIS),
        (US, "+16175550123", BOSTON),
        (SPAIN, "912345678", "+34912345678"),
        (SPAIN, "34912345678", "+34912345678"),
        (NumberPlan(add="+"), "4930123456", BERLIN),
        (NumberPlan(strip=3), "777+4930123456", BERLIN),
        (NumberPlan(country="49", strip=1, add="0"), "930123456", BERLIN),
        (GERMANY, "", ""),
        (GERMANY, "alice", ""),
        (GERMANY, "anonymous", ""),
    ],
)
def test_called_numbers_come_in(plan: NumberPlan, written: str, number: str) -> None:
    assert plan.called_in(written) == number


def test_callers_numbers_are_neither_cut_nor_added_to() -> None:
    plan = NumberPlan(country="49", strip=3, add="00")
    assert plan.caller_in("030123456") == BERLIN


@pytest.mark.parametrize(
    ("plan", "number", "written"),
    [
        (NumberPlan(), BERLIN, "+4930123456"),
        (NumberPlan(called="e164"), BERLIN, "4930123456"),
        (NumberPlan(called="international"), BERLIN, "004930123456"),
        (NumberPlan(called="national", country="49"), BERLIN, "030123456"),
        (NumberPlan(called="national", country="49"), PARIS, "0033142685300"),
        (NumberPlan(called="national", country="1", national="1", international="011"), BOSTON, "16175550123"),
        (NumberPlan(called="national", country="1", national="", international="011"), BOSTON, "6175550123"),
        (NumberPlan(called="e164", called_add="9#"), BERLIN, "9#4930123456"),
        (NumberPlan(called="e164", called_strip=2, called_add="0"), BERLIN, "030123456"),
        (NumberPlan(called="e164"), "1001", "1001"),
    ],
)
def test_called_numbers_go_out(plan: NumberPlan, number: str, written: str) -> None:
    assert plan.called_out(number) == written


def test_callers_have_a_format_of_their_own() -> None:
    plan = NumberPlan(country="49", called="e164", caller="national", called_add="9")
    assert (plan.caller_out(BERLIN), plan.caller_out("alice")) == ("030123456", "alice")


@pytest.mark.parametrize("form", ["plus", "e164", "national", "international"])
@pytest.mark.parametrize("number", [BERLIN, PARIS, BOSTON])
def test_what_is_written_is_read_again(form: str, number: str) -> None:
    plan = NumberPlan(country="49", called=form)  # type: ignore[arg-type]
    assert plan.called_in(plan.called_out(number)) == number


@given(st.text(max_size=80), st.sampled_from([PLUS, GERMANY, US, SPAIN, NumberPlan(strip=2, add="+")]))
def test_nothing_raises(text: str, plan: NumberPlan) -> None:
    found = plan.called_in(text)
    assert not found or (found[0] == "+" and found[1:].isdigit() and 7 <= len(found[1:]) <= 15)
    plan.called_out(text)

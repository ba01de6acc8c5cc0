"""Lookups v1 and v2 with every SDK."""

import pytest

from tests.conformance.sdk import Sdk, SdkError


def test_v1(sdk: Sdk) -> None:
    found = sdk.lookups.v1.phone_numbers("+442079460000").fetch()
    assert (found.phone_number, found.country_code, found.national_format) == ("+442079460000", "GB", "020 7946 0000")
    assert (found.carrier, found.caller_name, found.add_ons) == (None, None, None)
    national = sdk.lookups.v1.phone_numbers("020 7946 0000").fetch(country_code="GB")
    assert national.phone_number == "+442079460000"
    carrier = sdk.lookups.v1.phone_numbers("+447400123456").fetch(type=["carrier", "caller-name"]).carrier
    assert carrier["type"] == "mobile"
    with pytest.raises(SdkError) as error:
        sdk.lookups.v1.phone_numbers("+1999").fetch()
    assert (error.value.status, error.value.code) == (404, 20404)


def test_v2(sdk: Sdk) -> None:
    found = sdk.lookups.v2.phone_numbers("+447400123456").fetch(fields="line_type_intelligence")
    assert (found.valid, found.country_code, found.calling_country_code) == (True, "GB", "44")
    assert found.line_type_intelligence["type"] == "mobile"
    assert found.validation_errors == []
    assert found.caller_name is None
    wrong = sdk.lookups.v2.phone_numbers("+4412").fetch()
    assert wrong.valid is False
    assert "TOO_SHORT" in wrong.validation_errors

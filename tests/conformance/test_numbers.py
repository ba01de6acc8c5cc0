"""Numbers, short codes and applications with every SDK."""

import pytest

from tests.conformance.sdk import Sdk, SdkError
from tests.conformance.site import FREE_AREA_CODE, Tenant


def test_search_buy_configure_release(sdk: Sdk, tenant: Tenant) -> None:
    offered = sdk.available_phone_numbers("US").local.list(area_code=FREE_AREA_CODE, sms_enabled=True, limit=3)
    assert len(offered) == 3
    choice = offered[-1]
    assert choice.phone_number.startswith(f"+1{FREE_AREA_CODE}")
    assert (choice.iso_country, choice.region, choice.beta) == ("US", "CA", False)
    assert {name.lower(): has for name, has in choice.capabilities.items()}["sms"] is True
    bought = sdk.incoming_phone_numbers.create(phone_number=choice.phone_number, sms_url="https://example.com/sms")
    assert (bought.phone_number, bought.account_sid) == (choice.phone_number, tenant.sid)
    assert bought.sid.startswith("PN")
    assert (bought.sms_url, bought.sms_method) == ("https://example.com/sms", "POST")
    left = sdk.available_phone_numbers("US").local.list(area_code=FREE_AREA_CODE, limit=100)
    assert choice.phone_number not in [one.phone_number for one in left]
    with pytest.raises(SdkError) as error:
        sdk.incoming_phone_numbers.create(phone_number=choice.phone_number)
    assert (error.value.status, error.value.code) == (400, 21422)
    changed = sdk.incoming_phone_numbers(bought.sid).update(friendly_name="Front desk", sms_method="GET", sms_url="")
    assert (changed.friendly_name, changed.sms_method, changed.sms_url) == ("Front desk", "GET", "")
    assert sdk.incoming_phone_numbers(bought.sid).fetch() == changed
    assert [one.sid for one in sdk.incoming_phone_numbers.list(friendly_name="Front desk")] == [bought.sid]
    assert len(sdk.incoming_phone_numbers.list()) == 3
    assert len(sdk.incoming_phone_numbers.pages(page_size=2)) == 2
    assert sdk.incoming_phone_numbers(bought.sid).delete() is True
    with pytest.raises(SdkError) as error:
        sdk.incoming_phone_numbers(bought.sid).fetch()
    assert error.value.code == 20404


def test_buy_by_area_code_and_by_type(sdk: Sdk) -> None:
    bought = sdk.incoming_phone_numbers.create(area_code=str(FREE_AREA_CODE))
    assert bought.phone_number.startswith(f"+1{FREE_AREA_CODE}")
    free = sdk.available_phone_numbers("US").toll_free.list(limit=1)[0]
    toll_free = sdk.incoming_phone_numbers.toll_free.create(phone_number=free.phone_number)
    assert [one.sid for one in sdk.incoming_phone_numbers.toll_free.list()] == [toll_free.sid]
    assert toll_free.sid not in [one.sid for one in sdk.incoming_phone_numbers.local.list()]
    for one in (bought, toll_free):
        assert sdk.incoming_phone_numbers(one.sid).delete() is True


def test_search_in_countries(sdk: Sdk) -> None:
    countries = {one.country_code: one for one in sdk.available_phone_numbers.list()}
    assert {"US", "GB"} <= set(countries)
    assert set(sdk.available_phone_numbers("GB").fetch().subresource_uris) >= {"mobile"}
    mobile = sdk.available_phone_numbers("GB").mobile.list(limit=20)
    assert mobile
    assert all(one.phone_number.startswith("+44") for one in mobile)
    assert sdk.available_phone_numbers("US").local.list(contains="99999") == []


def test_number_moves_to_a_subaccount(sdk: Sdk, tenant: Tenant) -> None:
    branch = sdk.api.v2010.accounts.create(friendly_name="Branch")
    number = sdk.incoming_phone_numbers.list(phone_number=tenant.numbers[0])[0]
    assert sdk.incoming_phone_numbers(number.sid).update(account_sid=branch.sid).account_sid == branch.sid
    assert [one.sid for one in sdk.api.v2010.accounts(branch.sid).incoming_phone_numbers.list()] == [number.sid]


def test_short_codes(sdk: Sdk, tenant: Tenant) -> None:
    codes = sdk.short_codes.list()
    assert [one.short_code for one in codes] == [tenant.short_code]
    assert sdk.short_codes.list(short_code="99999") == []
    sid = codes[0].sid
    changed = sdk.short_codes(sid).update(friendly_name="Votes", sms_url="https://example.com/votes")
    assert (changed.friendly_name, changed.sms_url) == ("Votes", "https://example.com/votes")
    assert sdk.short_codes(sid).fetch() == changed


def test_applications(sdk: Sdk, tenant: Tenant) -> None:
    made = sdk.applications.create(
        friendly_name="Shop", sms_url="https://example.com/sms", message_status_callback="https://example.com/status"
    )
    assert made.sid.startswith("AP")
    assert (made.friendly_name, made.sms_url, made.voice_caller_id_lookup) == ("Shop", "https://example.com/sms", False)
    assert [one.sid for one in sdk.applications.list(friendly_name="Shop")] == [made.sid]
    assert sdk.applications.list(friendly_name="Other") == []
    assert sdk.applications(made.sid).update(sms_method="GET").sms_method == "GET"
    number = sdk.incoming_phone_numbers.list(phone_number=tenant.numbers[0])[0]
    used = sdk.incoming_phone_numbers(number.sid).update(sms_application_sid=made.sid)
    assert used.sms_application_sid == made.sid
    assert sdk.applications(made.sid).delete() is True
    with pytest.raises(SdkError) as error:
        sdk.applications(made.sid).fetch()
    assert error.value.code == 20404

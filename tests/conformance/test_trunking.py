"""Customers' SIP trunks with every SDK."""

import pytest

from tests.conformance.sdk import Sdk, SdkError
from tests.conformance.site import Tenant


def test_a_trunk_with_all_that_belongs_to_it(sdk: Sdk, sdk_name: str, tenant: Tenant) -> None:
    name = f"pbx-{sdk_name}.pstn.twilio.com"
    made = sdk.trunking.v1.trunks.create(friendly_name="Office", domain_name=name)
    assert made.sid.startswith("TK")
    assert (made.domain_name, made.secure, made.transfer_mode) == (name, False, "disable-all")
    trunk = sdk.trunking.v1.trunks(made.sid)
    url = trunk.origination_urls.create(
        weight=10, priority=1, enabled=True, friendly_name="PBX", sip_url="sip:pbx.example.com"
    )
    assert (url.sip_url, url.priority, url.enabled) == ("sip:pbx.example.com", 1, True)
    assert trunk.origination_urls(url.sid).update(weight=20).weight == 20
    users = sdk.sip.credential_lists.create(friendly_name="Users")
    assert trunk.credentials_lists.create(credential_list_sid=users.sid).friendly_name == "Users"
    networks = sdk.sip.ip_access_control_lists.create(friendly_name="Office")
    assert trunk.ip_access_control_lists.create(ip_access_control_list_sid=networks.sid).trunk_sid == made.sid
    assert trunk.fetch().auth_type_set == ["IP_ACL", "CREDENTIAL_LIST"]
    number = sdk.incoming_phone_numbers.list(phone_number=tenant.numbers[0])[0]
    assert trunk.phone_numbers.create(phone_number_sid=number.sid).phone_number == tenant.numbers[0]
    assert sdk.incoming_phone_numbers(number.sid).fetch().trunk_sid == made.sid
    assert trunk.recordings().update(mode="record-from-answer").mode == "record-from-answer"
    assert trunk.recordings().fetch().trim == "do-not-trim"
    for collection, sids in (
        (trunk.origination_urls, [url.sid]),
        (trunk.credentials_lists, [users.sid]),
        (trunk.ip_access_control_lists, [networks.sid]),
        (trunk.phone_numbers, [number.sid]),
        (sdk.trunking.v1.trunks, [made.sid]),
    ):
        assert [one.sid for one in collection.list()] == sids
    with pytest.raises(SdkError) as error:
        trunk.delete()
    assert (error.value.status, error.value.code) == (400, 21247)
    assert trunk.phone_numbers(number.sid).delete() is True
    assert trunk.delete() is True
    assert sdk.trunking.v1.trunks.list() == []
    assert sdk.sip.credential_lists(users.sid).delete() is True


def test_what_is_wrong_is_refused_with_its_code(sdk: Sdk, sdk_name: str) -> None:
    trunks = sdk.trunking.v1.trunks
    made = trunks.create(domain_name=f"once-{sdk_name}.pstn.twilio.com")
    for refused, code in (
        (lambda: trunks.create(domain_name=made.domain_name), 21248),
        (lambda: trunks.create(domain_name="example.com"), 21245),
        (lambda: trunks.create(secure=True), 21245),
        (lambda: trunks(made.sid).credentials_lists.create(credential_list_sid="CL" + "0" * 32), 20404),
    ):
        with pytest.raises(SdkError) as error:
            refused()
        assert error.value.code == code

"""SIP domains, credential lists and access control lists with every SDK."""

import pytest

from tests.conformance.sdk import Sdk, SdkError

PASSWORD = "IWasAtSignal2018"


def test_a_domain_with_users_and_networks(sdk: Sdk, sdk_name: str) -> None:
    name = f"office-{sdk_name}.sip.twilio.com"
    domain = sdk.sip.domains.create(domain_name=name, sip_registration=True, voice_url="https://example.com/v")
    assert domain.sid.startswith("SD")
    assert (domain.domain_name, domain.sip_registration, domain.auth_type) == (name, True, "")
    users = sdk.sip.credential_lists.create(friendly_name="Users")
    alice = sdk.sip.credential_lists(users.sid).credentials.create(username="alice", password=PASSWORD)
    assert (alice.username, alice.credential_list_sid) == ("alice", users.sid)
    networks = sdk.sip.ip_access_control_lists.create(friendly_name="Office")
    addresses = sdk.sip.ip_access_control_lists(networks.sid).ip_addresses
    gateway = addresses.create(friendly_name="Gateway", ip_address="192.0.2.1", cidr_prefix_length=24)
    assert (gateway.ip_address, gateway.cidr_prefix_length) == ("192.0.2.1", 24)
    auth = sdk.sip.domains(domain.sid).auth
    calls = auth.calls.credential_list_mappings.create(credential_list_sid=users.sid)
    assert (calls.sid, calls.friendly_name) == (users.sid, "Users")
    auth.calls.ip_access_control_list_mappings.create(ip_access_control_list_sid=networks.sid)
    auth.registrations.credential_list_mappings.create(credential_list_sid=users.sid)
    assert sdk.sip.domains(domain.sid).fetch().auth_type == "IP_ACL,CREDENTIAL_LIST"
    older = sdk.sip.domains(domain.sid).credential_list_mappings.list()
    assert [(one.sid, one.domain_sid) for one in older] == [(users.sid, domain.sid)]
    assert [one.sid for one in auth.registrations.credential_list_mappings.list()] == [users.sid]
    with pytest.raises(SdkError) as error:
        sdk.sip.credential_lists(users.sid).delete()
    assert (error.value.status, error.value.code) == (400, 21241)
    with pytest.raises(SdkError) as error:
        sdk.sip.ip_access_control_lists(networks.sid).delete()
    assert error.value.code == 21236
    assert sdk.sip.domains(domain.sid).delete() is True
    assert sdk.sip.credential_lists(users.sid).delete() is True
    assert sdk.sip.ip_access_control_lists(networks.sid).delete() is True
    assert sdk.sip.domains.list() == sdk.sip.credential_lists.list() == sdk.sip.ip_access_control_lists.list() == []


def test_what_is_wrong_is_refused_with_its_code(sdk: Sdk, sdk_name: str) -> None:
    users = sdk.sip.credential_lists.create(friendly_name="Users")
    credentials = sdk.sip.credential_lists(users.sid).credentials
    credentials.create(username="alice", password=PASSWORD)
    domain = sdk.sip.domains.create(domain_name=f"twice-{sdk_name}.sip.twilio.com")
    for refused, code in (
        (lambda: sdk.sip.domains.create(domain_name="example.com"), 21232),
        (lambda: sdk.sip.domains.create(domain_name=domain.domain_name), 21232),
        (lambda: credentials.create(username="alice", password=PASSWORD), 21243),
        (lambda: credentials.create(username="bob", password="short"), 21243),
        (
            lambda: sdk.sip.domains(domain.sid).credential_list_mappings.create(credential_list_sid="CL" + "0" * 32),
            20404,
        ),
    ):
        with pytest.raises(SdkError) as error:
            refused()
        assert error.value.code == code


def test_lists_are_paged(sdk: Sdk) -> None:
    for i in range(3):
        sdk.sip.credential_lists.create(friendly_name=f"List {i}")
    assert len(sdk.sip.credential_lists.pages(page_size=2)) == 2
    renamed = sdk.sip.credential_lists(sdk.sip.credential_lists.list(limit=1)[0].sid).update(friendly_name="Renamed")
    assert renamed.friendly_name == "Renamed"

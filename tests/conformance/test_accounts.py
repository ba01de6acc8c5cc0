"""Accounts, subaccounts, API keys and signing keys with every SDK."""

import pytest

from tests.conformance.sdk import Login, Sdk, SdkError
from tests.conformance.site import Tenant


def test_own_account(sdk: Sdk, tenant: Tenant) -> None:
    account = sdk.api.v2010.accounts(tenant.sid).fetch()
    assert (account.sid, account.status, account.type) == (tenant.sid, "active", "Full")
    assert (account.owner_account_sid, account.auth_token) == (tenant.sid, tenant.account.auth_token)
    assert account.subresource_uris["messages"] == f"/2010-04-01/Accounts/{tenant.sid}/Messages.json"
    assert sdk.api.v2010.accounts(tenant.sid).update(friendly_name="Renamed").friendly_name == "Renamed"
    assert [one.sid for one in sdk.api.v2010.accounts.list()] == [tenant.sid]


def test_subaccount(sdk: Sdk, tenant: Tenant) -> None:
    made = sdk.api.v2010.accounts.create(friendly_name="Branch")
    assert (made.friendly_name, made.status, made.owner_account_sid) == ("Branch", "active", tenant.sid)
    assert [one.sid for one in sdk.api.v2010.accounts.list(friendly_name="Branch")] == [made.sid]
    branch = sdk.as_(Login(made.sid, made.auth_token))
    assert branch.api.v2010.accounts(made.sid).fetch().friendly_name == "Branch"
    with pytest.raises(SdkError) as error:
        branch.api.v2010.accounts(tenant.sid).fetch()
    assert error.value.status in (401, 403, 404)
    sent = branch.messages.create(to="+12125550100", from_="Branch", body="From a subaccount")
    assert sent.account_sid == made.sid
    parent = sdk.as_(Login(tenant.sid, tenant.account.auth_token, made.sid))
    assert [one.sid for one in parent.messages.list()] == [sent.sid]
    assert sdk.messages.list() == []
    assert sdk.api.v2010.accounts(made.sid).update(status="suspended").status == "suspended"
    with pytest.raises(SdkError) as error:
        branch.messages.create(to="+12125550100", from_="Branch", body="Suspended")
    assert (error.value.status, error.value.code) == (403, 20005)
    assert [one.sid for one in sdk.api.v2010.accounts.list(status="suspended")] == [made.sid]
    assert sdk.api.v2010.accounts(made.sid).update(status="active").status == "active"
    assert sdk.api.v2010.accounts(made.sid).update(status="closed").status == "closed"
    with pytest.raises(SdkError) as error:
        branch.messages.list()
    assert error.value.status == 401


def test_api_keys(sdk: Sdk, tenant: Tenant) -> None:
    made = sdk.new_keys.create(friendly_name="Worker")
    assert made.sid.startswith("SK")
    assert [(one.sid, one.friendly_name) for one in sdk.keys.list()] == [(made.sid, "Worker")]
    assert "secret" not in sdk.keys(made.sid).fetch()
    assert sdk.keys(made.sid).update(friendly_name="Other").friendly_name == "Other"
    worker = sdk.as_(Login(made.sid, made.secret, tenant.sid))
    sent = worker.messages.create(to="+12125550100", from_=tenant.numbers[0], body="By key")
    assert worker.messages(sent.sid).fetch().account_sid == tenant.sid
    with pytest.raises(SdkError) as error:
        worker.keys.list()
    assert (error.value.status, error.value.code) == (403, 20003)
    assert sdk.keys(made.sid).delete() is True
    with pytest.raises(SdkError) as error:
        worker.messages(sent.sid).fetch()
    assert (error.value.status, error.value.code) == (401, 20003)


def test_signing_keys(sdk: Sdk, tenant: Tenant) -> None:
    made = sdk.new_signing_keys.create(friendly_name="Signer")
    assert made.secret
    assert [one.sid for one in sdk.signing_keys.list()] == [made.sid]
    assert sdk.signing_keys(made.sid).fetch().friendly_name == "Signer"
    assert sdk.signing_keys(made.sid).update(friendly_name="Other").friendly_name == "Other"
    assert sdk.signing_keys(made.sid).delete() is True
    assert sdk.signing_keys.list() == []


def test_secondary_pages_of_keys(sdk: Sdk) -> None:
    sids = [sdk.new_keys.create(friendly_name=f"Key {index}").sid for index in range(3)][::-1]
    assert [[one.sid for one in page] for page in sdk.keys.pages(page_size=2)] == [sids[:2], sids[2:]]
    assert [one.sid for one in sdk.keys.stream(page_size=1)] == sids

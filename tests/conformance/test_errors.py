"""How errors reach the SDKs' exceptions: status, code and message; logins, test credentials, Idempotency-Key."""

import json

import pytest

from tests.conformance.sdk import Login, Sdk, SdkError
from tests.conformance.site import Tenant

PHONE = "+12125550190"

REFUSED = [
    ({"to": ""}, 400, 21604, "A 'To' phone number is required."),
    ({"to": "+1"}, 400, 21211, "The 'To' number +1 is not a valid phone number."),
    ({"from_": ""}, 400, 21603, "A 'From' phone number is required."),
    ({"from_": "+19999999999x"}, 400, 21212, None),
    (
        {"from_": "+12025550999"},
        400,
        21606,
        "The 'From' phone number +12025550999 is not a valid, message-capable Twilio phone number for this "
        "destination.",
    ),
    ({"body": ""}, 400, 21602, "Message body is required."),
    ({"body": "x" * 1601}, 400, 21617, "The concatenated message body exceeds the 1600 character limit"),
    ({"media_url": ["ftp://example.com/x.gif"]}, 400, 21620, None),
    ({"media_url": ["https://example.com/x.gif"] * 11}, 400, 21623, None),
    ({"messaging_service_sid": "MG" + "1" * 32}, 400, 21701, None),
    ({"application_sid": "AP" + "1" * 32}, 400, 21218, None),
]


@pytest.mark.parametrize(("change", "status", "code", "message"), REFUSED)
def test_refused_messages(
    sdk: Sdk, tenant: Tenant, change: dict[str, object], status: int, code: int, message: str | None
) -> None:
    with pytest.raises(SdkError) as error:
        sdk.messages.create(**{"to": PHONE, "from_": tenant.numbers[0], "body": "Hello", **change})
    assert (error.value.status, error.value.code) == (status, code)
    assert error.value.message
    assert message is None or error.value.message == message


def test_opted_out(sdk: Sdk, tenant: Tenant) -> None:
    """A message between two own numbers is received: the second number says STOP to the first."""
    sdk.messages.create(to=tenant.numbers[0], from_=tenant.numbers[1], body="STOP")

    def send() -> None:
        for _ in range(100):
            sdk.messages.create(to=tenant.numbers[1], from_=tenant.numbers[0], body="Hello")

    with pytest.raises(SdkError) as error:
        send()
    assert (error.value.status, error.value.code) == (400, 21610)
    assert error.value.message == "Attempt to send to unsubscribed recipient"


def test_not_found(sdk: Sdk, tenant: Tenant) -> None:
    sid = "SM" + "0" * 32
    path = f"/2010-04-01/Accounts/{tenant.sid}/Messages/{sid}.json"
    for call in (sdk.messages(sid).fetch, sdk.messages(sid).delete):
        with pytest.raises(SdkError) as error:
            call()
        assert (error.value.status, error.value.code) == (404, 20404)
        assert error.value.message == f"The requested resource {path} was not found"


def test_wrong_logins(sdk: Sdk, tenant: Tenant) -> None:
    for login in (
        Login(tenant.sid, "0" * 32),
        Login("AC" + "0" * 32, tenant.account.auth_token),
        Login("SK" + "0" * 32, "0" * 32, tenant.sid),
    ):
        with pytest.raises(SdkError) as error:
            sdk.as_(login).messages("SM" + "0" * 32).fetch()
        assert (error.value.status, error.value.code, error.value.message) == (401, 20003, "Authenticate")


def test_lists_fail_too(sdk: Sdk, tenant: Tenant) -> None:
    with pytest.raises(SdkError) as error:
        sdk.as_(Login(tenant.sid, "0" * 32)).messages.list()
    assert (error.value.status, error.value.code) == (401, 20003)


def test_other_accounts_are_out_of_reach(sdk: Sdk, site_tenant: Tenant, tenant: Tenant) -> None:
    made = sdk.messages.create(to=PHONE, from_=tenant.numbers[0], body="Mine")
    with pytest.raises(SdkError) as error:
        sdk.as_(site_tenant.login).messages(made.sid).fetch()
    assert error.value.code == 20404
    with pytest.raises(SdkError) as error:
        sdk.as_(Login(site_tenant.sid, site_tenant.account.auth_token, tenant.sid)).messages(made.sid).fetch()
    assert error.value.status == 401


def test_what_is_not_offered(sdk: Sdk) -> None:
    with pytest.raises(SdkError) as error:
        sdk.api.v2010.account.queues.create(friendly_name="Waiting")
    assert error.value.status == 501
    assert "does not offer" in str(error.value.message)


MAGIC = [
    ({"from_": "+15005550001"}, 21212),
    ({"from_": "+15005550007"}, 21606),
    ({"from_": "+15005550008"}, 21611),
    ({"to": "+15005550001"}, 21211),
    ({"to": "+15005550002"}, 21612),
    ({"to": "+15005550003"}, 21408),
    ({"to": "+15005550004"}, 21610),
    ({"to": "+15005550009"}, 21614),
]


@pytest.mark.parametrize(("change", "code"), MAGIC)
def test_magic_numbers(sdk: Sdk, tenant: Tenant, change: dict[str, str], code: int) -> None:
    with pytest.raises(SdkError) as error:
        sdk.as_(tenant.test_login).messages.create(**{"to": PHONE, "from_": "+15005550006", "body": "Hello", **change})
    assert error.value.code == code


def test_test_credentials(sdk: Sdk, tenant: Tenant) -> None:
    test = sdk.as_(tenant.test_login)
    made = test.messages.create(to=PHONE, from_="+15005550006", body="Hello")
    assert (made.status, made.account_sid) == ("queued", tenant.test_login.username)
    assert sdk.messages.list() == []
    bought = test.incoming_phone_numbers.create(phone_number="+15005550006")
    assert bought.phone_number == "+15005550006"
    for number, code in (("+15005550000", 21422), ("+15005550001", 21421)):
        with pytest.raises(SdkError) as error:
            test.incoming_phone_numbers.create(phone_number=number)
        assert error.value.code == code
    assert len(sdk.incoming_phone_numbers.list()) == 2
    with pytest.raises(SdkError) as error:
        test.messages(made.sid).fetch()
    assert (error.value.status, error.value.code) == (403, 20008)


def test_idempotency_key(sdk: Sdk, tenant: Tenant) -> None:
    keyed = sdk.with_headers(Idempotency_Key="order-1")
    first = keyed.messages.create(to=PHONE, from_=tenant.numbers[0], body="Once")
    assert keyed.messages.create(to=PHONE, from_=tenant.numbers[0], body="Once") == first
    with pytest.raises(SdkError) as error:
        keyed.messages.create(to=PHONE, from_=tenant.numbers[0], body="Different")
    assert error.value.status == 422
    assert [one.sid for one in sdk.messages.list()] == [first.sid]
    other = sdk.with_headers(Idempotency_Key="order-2").messages.create(to=PHONE, from_=tenant.numbers[0], body="Once")
    assert other.sid != first.sid


def test_raw_error_body(sdk: Sdk, tenant: Tenant) -> None:
    path = f"/2010-04-01/Accounts/{tenant.sid}/Messages/SM{'0' * 32}.json"
    answer = sdk.request("GET", "https://api.twilio.com" + path)
    assert answer.status == 404
    assert json.loads(answer.body) == {
        "code": 20404,
        "message": f"The requested resource {path} was not found",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }

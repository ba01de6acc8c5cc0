"""Messaging Services and their senders with every SDK."""

import pytest

from tests.conformance.sdk import Record, Sdk, SdkError
from tests.conformance.site import Tenant

PHONE = "+12125550110"


@pytest.fixture
def service(sdk: Sdk) -> Record:
    return sdk.messaging.v1.services.create(friendly_name="Shop")


def number_sid(sdk: Sdk, number: str) -> str:
    return str(sdk.incoming_phone_numbers.list(phone_number=number)[0].sid)


def test_service(sdk: Sdk, service: Record) -> None:
    services = sdk.messaging.v1.services
    assert service.sid.startswith("MG")
    assert (service.friendly_name, service.sticky_sender, service.validity_period) == ("Shop", True, 36000)
    changed = services(service.sid).update(
        friendly_name="Store", sticky_sender=False, validity_period=600, inbound_request_url="https://example.com/in"
    )
    assert (changed.friendly_name, changed.sticky_sender, changed.validity_period) == ("Store", False, 600)
    assert services(service.sid).fetch() == changed
    other = services.create(friendly_name="Second")
    assert [[one.sid for one in page] for page in services.pages(page_size=1)] == [[other.sid], [service.sid]]
    assert [one.sid for one in services.stream(page_size=1)] == [other.sid, service.sid]
    assert services(service.sid).delete() is True
    assert [one.sid for one in services.list()] == [other.sid]


def test_phone_numbers(sdk: Sdk, tenant: Tenant, service: Record) -> None:
    senders = sdk.messaging.v1.services(service.sid).phone_numbers
    made = senders.create(phone_number_sid=number_sid(sdk, tenant.numbers[0]))
    assert (made.phone_number, made.service_sid, made.country_code) == (tenant.numbers[0], service.sid, "US")
    assert set(made.capabilities) >= {"SMS"}
    assert senders(made.sid).fetch() == made
    assert [one.sid for one in senders.list()] == [made.sid]
    with pytest.raises(SdkError) as error:
        senders.create(phone_number_sid=made.sid)
    assert (error.value.status, error.value.code) == (409, 21710)
    other = sdk.messaging.v1.services.create(friendly_name="Other")
    with pytest.raises(SdkError) as error:
        sdk.messaging.v1.services(other.sid).phone_numbers.create(phone_number_sid=made.sid)
    assert (error.value.status, error.value.code) == (409, 21712)
    assert senders(made.sid).delete() is True
    assert senders.list() == []


def test_short_codes_and_alpha_senders(sdk: Sdk, service: Record) -> None:
    mine = sdk.messaging.v1.services(service.sid)
    short_code = mine.short_codes.create(short_code_sid=sdk.short_codes.list()[0].sid)
    assert [one.short_code for one in mine.short_codes.list()] == [short_code.short_code]
    assert mine.short_codes(short_code.sid).fetch() == short_code
    assert mine.short_codes(short_code.sid).delete() is True
    alpha = mine.alpha_senders.create(alpha_sender="Acme")
    assert alpha.sid.startswith("AI")
    assert [one.alpha_sender for one in mine.alpha_senders.list()] == ["Acme"]
    assert mine.alpha_senders(alpha.sid).fetch() == alpha
    assert mine.alpha_senders(alpha.sid).delete() is True
    bound = mine.destination_alpha_senders.create(alpha_sender="Acme", iso_country_code="GB")
    assert bound.iso_country_code == "GB"
    assert [one.sid for one in mine.destination_alpha_senders.list(iso_country_code="GB")] == [bound.sid]
    assert mine.destination_alpha_senders.list(iso_country_code="DE") == []
    assert mine.destination_alpha_senders(bound.sid).delete() is True


def test_send_through_a_service(sdk: Sdk, tenant: Tenant, service: Record) -> None:
    send = sdk.messages.create
    with pytest.raises(SdkError) as error:
        send(to=PHONE, messaging_service_sid=service.sid, body="No sender yet")
    assert (error.value.status, error.value.code) == (400, 21704)
    pool = sdk.messaging.v1.services(service.sid).phone_numbers
    for number in tenant.numbers:
        pool.create(phone_number_sid=number_sid(sdk, number))
    made = send(to=PHONE, messaging_service_sid=service.sid, body="One")
    assert (made.status, made.from_, made.messaging_service_sid) == ("accepted", None, service.sid)
    again = send(to=PHONE, messaging_service_sid=service.sid, body="Two")
    senders = {sdk.messages(one.sid).fetch().from_ for one in (made, again)}
    assert senders <= {*tenant.numbers, None}
    with pytest.raises(SdkError) as error:
        send(to=PHONE, messaging_service_sid="MG" + "0" * 32, body="Unknown service")
    assert error.value.code == 21701


def test_use_cases(sdk: Sdk) -> None:
    found = sdk.messaging.v1.usecases.fetch()
    assert {one["usecase"] for one in found.usecases} >= {"notifications", "marketing", "verification"}

"""Media, feedback, Messaging Services, sender pools, lookups and alerts have every field that Twilio specifies."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.conftest import World
from tests.api.spec_check import needs_contract, null_fields, problems
from tests.api.test_media import MediaWorld, media  # noqa: F401 - a fixture
from tests.api.test_messaging_services import FIELDS

pytestmark = needs_contract

Shown = list[tuple[str, str, dict[str, Any]]]
"""Product, schema, resource."""


async def _media(world: World, files: MediaWorld) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    message = await files.message(landed=True)
    one = await world.get(files.path(message, message.media[0].sid, ".json"))
    listed = await world.get(files.path(message, suffix=".json"))
    for resource in (one.json, *listed.json["media_list"]):
        yield "api_v2010", "api.v2010.account.message.media", resource
    made = await world.post(world.path(f"Messages/{message.sid}/Feedback.json"), {"Outcome": "confirmed"})
    yield "api_v2010", "api.v2010.account.message.message_feedback", made.json


async def _services(world: World) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    services = "/messaging/v1/Services"
    made = (await world.post(services, FIELDS | {"FriendlyName": "x"})).json
    for reply in (made, (await world.get(f"{services}/{made['sid']}")).json):
        yield "messaging_v1", "messaging.v1.service", reply
    yield "messaging_v1", "messaging.v1.service", (await world.get(services)).json["services"][0]
    yield "messaging_v1", "messaging.v1.usecase", (await world.get(services + "/Usecases")).json
    number = await world.stock("+12025550100", account_sid=world.owner.sid)
    code = await world.short_code("894546", country="US")
    added = {
        ("PhoneNumbers", "phone_number"): {"PhoneNumberSid": number.sid},
        ("ShortCodes", "short_code"): {"ShortCodeSid": code.sid},
        ("AlphaSenders", "alpha_sender"): {"AlphaSender": "Shop"},
        ("DestinationAlphaSenders", "destination_alpha_sender"): {"AlphaSender": "Shop", "IsoCountryCode": "FR"},
    }
    for (path, schema), fields in added.items():
        url = f"{services}/{made['sid']}/{path}"
        one = await world.post(url, fields)
        assert one.status == 201
        yield "messaging_v1", f"messaging.v1.service.{schema}", one.json
        yield "messaging_v1", f"messaging.v1.service.{schema}", (await world.get(f"{url}/{one.json['sid']}")).json


async def _lookups(world: World) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    query = "Type=carrier&Type=caller-name&AddOns=nomorobo_spamscore"
    found = await world.get(f"/lookups/v1/PhoneNumbers/+447400123456?{query}")
    yield "lookups_v1", "lookups.v1.phone_number", found.json
    fields = (
        "validation,caller_name,sim_swap,call_forwarding,line_status,line_type_intelligence,identity_match,"
        "reassigned_number,sms_pumping_risk,phone_number_quality_score,pre_fill"
    )
    found = await world.get(f"/lookups/v2/PhoneNumbers/+447400123456?Fields={fields}")
    yield "lookups_v2", "LookupResponse", found.json


async def _alerts(world: World) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    sid = world.services.alerts.raise_(
        world.owner.sid, 11200, resource_sid="SM" + "1" * 32, service_sid="MG" + "2" * 32, request_method="POST",
        request_url="https://example.com/sms", request_variables="a=b", request_headers="a: b", response_body="oops",
        response_headers="c: d",
    )  # fmt: skip
    await world.services.alerts.close()
    yield "monitor_v1", "monitor.v1.alert", (await world.get("/monitor/v1/Alerts")).json["alerts"][0]
    yield "monitor_v1", "monitor.v1.alert-instance", (await world.get(f"/monitor/v1/Alerts/{sid}")).json


@pytest.fixture
async def shown(world: World, media: MediaWorld) -> Shown:  # noqa: F811
    """Each resource as filled as it can be."""
    sources = (_media(world, media), _services(world), _lookups(world), _alerts(world))
    return [one for source in sources async for one in source]


async def test_every_field_is_there_and_filled(shown: Shown) -> None:
    assert len({schema for _, schema, _ in shown}) == 12
    found = [
        f"{schema}.{fault}" for product, schema, resource in shown for fault in problems(product, schema, resource)
    ]
    assert found == []


async def test_every_null_field_of_the_page_is_null(shown: Shown) -> None:
    for product, schema, resource in shown:
        for row in null_fields():
            if (row.product, row.schema) == (product, schema):
                assert resource[row.field] is None, row

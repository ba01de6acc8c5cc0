"""Accounts, keys, numbers, applications and usage have every operation and field that Twilio specifies."""

import asyncio
import re
from typing import Any

import pytest

from tests.api.conftest import World
from tests.api.harness import Reply
from tests.api.spec_check import document, needs_contract, null_fields, problems
from trunkline.api import resources
from trunkline.api.route import Route
from trunkline.model.numbers import UsageTrigger
from trunkline.model.sid import CALL, new_sid

PRODUCT = "api_v2010"
MODULES = (
    "accounts", "applications", "available_phone_numbers", "balance", "incoming_phone_numbers", "keys", "notifications",
    "short_codes", "signing_keys", "usage_records", "usage_triggers",
)  # fmt: skip
PAGING = {"first_page_uri", "next_page_uri", "previous_page_uri", "uri", "page", "page_size", "start", "end"}
UNPAGED = "available_phone_numbers"
AS_IN_THE_EXAMPLES = (
    re.compile(r"(latitude|longitude|price): '-?[0-9.]+' is no number"),
    re.compile(r"uri: '/2010-04-01/[^']+' is no uri"),
    re.compile(r"(request|sms|status|voice)_\w+: '' is no uri"),
)
"""Where the schemas say one thing and their own examples another: decimals are text, links are relative, URLs that
are not set may be empty."""
URL = "https://example.com/hook"
FORMS: dict[str, dict[str, str]] = {
    "applications": dict.fromkeys(
        (
            "VoiceUrl", "VoiceFallbackUrl", "StatusCallback", "SmsUrl", "SmsFallbackUrl", "SmsStatusCallback",
            "MessageStatusCallback",
        ),
        URL,
    ),
    "incoming_phone_numbers": {
        **dict.fromkeys(("SmsUrl", "SmsFallbackUrl", "VoiceUrl", "VoiceFallbackUrl", "StatusCallback"), URL),
        "AddressSid": "AD" + "1" * 32, "IdentitySid": "RI" + "1" * 32, "BundleSid": "BU" + "1" * 32,
        "EmergencyAddressSid": "AD" + "1" * 32,
    },
    "usage_triggers": {
        "CallbackUrl": URL, "TriggerValue": "5", "UsageCategory": "sms", "Recurring": "daily", "FriendlyName": "name",
    },
}  # fmt: skip

pytestmark = needs_contract


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = document(PRODUCT)["paths"][route.template + ".json"][route.method.lower()]
    return found


def answer_of(route: Route) -> tuple[int, str, str]:
    """Status, the list's key (empty: one resource) and the schema's name."""
    ((status, answer),) = operation(route)["responses"].items()
    schema = answer["content"]["application/json"]["schema"]
    key, reference = "", schema.get("$ref", "")
    for name, declared in schema.get("properties", {}).items():
        if declared["type"] == "array":
            key, reference = name, declared["items"]["$ref"]
    return int(status), key, reference.rpartition("/")[2]


class Stage:
    """One of each, as filled as it can be."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sids: dict[str, str] = {}

    async def build(self) -> None:
        world = self.world
        self.sids["accounts"] = (await world.subaccount()).sid
        for module, collection in (("keys", "Keys"), ("signing_keys", "SigningKeys"), ("applications", "Applications")):
            self.sids[module] = (await world.post(world.path(f"{collection}.json"), self.form(module))).json["sid"]
        await self._numbers()
        self.sids["short_codes"] = (await world.short_code("12345")).sid
        self.sids["notifications"] = world.services.alerts.raise_(
            world.owner.sid, 11200, request_method="POST", request_url=URL, request_variables="a=b", response_body="no",
            response_headers="c=d", resource_sid=new_sid(CALL),
        )  # fmt: skip
        await world.services.alerts.close()
        trigger = (await world.post(world.path("Usage/Triggers.json"), self.form("usage_triggers"))).json
        self.sids["usage_triggers"] = trigger["sid"]
        kept = await world.database.get(UsageTrigger, trigger["sid"])
        assert kept is not None
        kept.fired_ms = world.clock.ms
        await world.database.update(kept)

    async def _numbers(self) -> None:
        """Of each type one to keep, one to buy and one to look at."""
        types = ("local", "mobile", "tollfree", "national", "voip", "shared-cost", "machine-to-machine")
        about = {
            "locality": "Hilo", "region": "HI", "postal_code": "96720", "rate_center": "HILO", "lata": "834",
            "latitude": 19.72, "longitude": -155.09,
        }  # fmt: skip
        stocked = [
            self.world.stock(f"+1808925{use}00{at}", type=type_, **about)
            for at, type_ in enumerate(types)
            for use in "123"
        ]
        await asyncio.gather(*stocked)
        for at in range(3):
            form = self.form("incoming_phone_numbers") | {"PhoneNumber": f"+180892510{at:02d}"}
            bought = await self.world.post(self.world.path("IncomingPhoneNumbers.json"), form)
            self.sids["incoming_phone_numbers"] = bought.json["sid"]

    def form(self, module: str) -> dict[str, str]:
        form = {"FriendlyName": "name"} | FORMS.get(module, {})
        if module == "incoming_phone_numbers":
            form |= dict.fromkeys(("SmsApplicationSid", "VoiceApplicationSid"), self.sids["applications"])
        return form

    async def ask(self, module: str, route: Route) -> Reply:
        path = route.template.replace("{AccountSid}", self.world.owner.sid).replace("{CountryCode}", "US")
        path = path.replace("{Sid}", self.sids.get(module, "")) + ".json"
        if route.method != "POST":
            return await self.world.call(route.method, path)
        form = self.form(module)
        if module == "incoming_phone_numbers" and "{Sid}" not in route.template:
            type_ = ("Local", "Mobile", "TollFree", "IncomingPhoneNumbers").index(route.template.rpartition("/")[2])
            form["PhoneNumber"] = f"+180892520{type_:02d}"
        return await self.world.post(path, form)


@pytest.fixture
async def stage(world: World) -> Stage:
    stage = Stage(world)
    await stage.build()
    return stage


def routes(*methods: str) -> list[Any]:
    return [
        pytest.param(name, one, id=f"{one.method} {one.template.partition('{AccountSid}')[2] or one.template}")
        for name in MODULES
        for one in resources.RESOURCES[name]
        if one.method in methods
    ]


def test_no_operation_of_these_resources_is_lacking() -> None:
    ours = {(one.template, one.method) for name in MODULES for one in resources.RESOURCES[name]}
    roots = {re.sub(r"/\{(Sid|CountryCode)\}.*", "", template) for template, _ in ours}
    theirs = {
        (path.removesuffix(".json"), method.upper())
        for path, methods in document(PRODUCT)["paths"].items()
        for method in methods
        if method in ("get", "post", "delete")
        and re.sub(r"/\{(Sid|CountryCode)\}.*", "", path.removesuffix(".json")) in roots
    }
    assert ours == theirs


@pytest.mark.parametrize(("module", "route"), routes("GET", "POST"))
async def test_a_response_has_what_is_specified(stage: Stage, module: str, route: Route) -> None:
    status, key, schema = answer_of(route)
    reply = await stage.ask(module, route)
    assert reply.status == status, reply.body
    if key:
        assert set(reply.json) == ({"uri", key} if module == UNPAGED else PAGING | {key})
        assert reply.json[key], "there must be something to look at"
    for item in reply.json[key] if key else [reply.json]:
        found = problems(PRODUCT, schema, item)
        assert [one for one in found if not any(known.fullmatch(one) for known in AS_IN_THE_EXAMPLES)] == []
        null = {row.field for row in null_fields() if (row.product, row.schema) == (PRODUCT, schema)}
        assert {field for field in null if item[field] is not None} == set(), "null-fields.md says these are null"


@pytest.mark.parametrize(("module", "route"), routes("DELETE"))
async def test_a_deletion_answers_204_without_a_body(stage: Stage, module: str, route: Route) -> None:
    assert "204" in operation(route)["responses"]
    reply = await stage.ask(module, route)
    assert (reply.status, reply.body) == (204, b"")

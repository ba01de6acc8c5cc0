"""Calls, recordings, events and notifications of calls have every operation and field that Twilio specifies."""

import re
from typing import Any

import pytest

from tests.api.call_world import CallWorld
from tests.api.spec_check import document, needs_contract, null_fields, problems
from tests.api.test_spec_2010 import AS_IN_THE_EXAMPLES, PAGING, PRODUCT, answer_of
from trunkline.api import resources
from trunkline.api.route import Route
from trunkline.model.sid import new_sid

MODULES = ("call_events", "call_notifications", "call_recordings", "calls", "recordings")
HERE = re.compile(r"/Calls|/Recordings(/\{Sid\})?\.json$")
ELSEWHERE = re.compile(
    r"Streams|Siprec|Transcriptions|Payments|UserDefined|Conferences|/SIP/|AddOnResults|Usage", re.IGNORECASE
)
"""What calls have at Twilio and lack here: it answers 501."""
IN_QUOTES = re.compile(r"price: '-?[0-9.]+' is no number")

pytestmark = needs_contract


def shape(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path.removesuffix(".json"))


def test_no_operation_of_these_resources_is_lacking() -> None:
    ours = {(shape(one.template), one.method) for name in MODULES for one in resources.RESOURCES[name]}
    theirs = {
        (shape(path), method.upper())
        for path, operations in document(PRODUCT)["paths"].items()
        for method in operations
        if method in ("get", "post", "delete") and HERE.search(path) and not ELSEWHERE.search(path)
    }
    assert ours == theirs


def schema_of(route: Route) -> tuple[str, str, bool]:
    """The list's key (empty: one resource), the schema's name, and whether it is a list."""
    responses = document(PRODUCT)["paths"][route.template + ".json"][route.method.lower()]["responses"]
    good = {status: answer for status, answer in responses.items() if status in ("200", "201")}
    if len(good) == 1:
        _, key, schema = answer_of(route) if len(responses) == 1 else (0, "", _reference(good))
        return key, schema, bool(key)
    return "", _reference(good), False


def _reference(answers: dict[str, Any]) -> str:
    answer = next(iter(answers.values()))
    return str(answer["content"]["application/json"]["schema"]["$ref"]).rpartition("/")[2]


async def ask(calls: CallWorld, route: Route, call_sid: str, sids: dict[str, str]) -> Any:
    path = route.template.replace("{AccountSid}", calls.world.owner.sid).replace("{CallSid}", call_sid)
    path = path.replace("{Sid}", sids.get(route.template, "")) + ".json"
    if route.method == "GET":
        return await calls.world.get(path)
    form = {"Status": "paused", "Timeout": "60", "To": "+14155550123", "From": "+12025550142", "Twiml": "<Response/>"}
    if route.template.endswith("Calls/{Sid}"):
        form = {"Twiml": "<Response/>"}
    return await calls.world.post(path, form)


@pytest.mark.parametrize(
    ("module", "route"),
    [
        pytest.param(name, one, id=f"{one.method} {one.template.partition('{AccountSid}')[2]}")
        for name in MODULES
        for one in resources.RESOURCES[name]
        if one.method != "DELETE"
    ],
)
async def test_a_response_has_what_is_specified(calls: CallWorld, module: str, route: Route) -> None:
    live = route.method == "POST"
    if live:
        leg = await calls.up()
        call_sid = leg.record.sid
        started = await calls.world.post(calls.path(f"/{call_sid}/Recordings.json"))
        recording_sid = started.json["sid"]
    else:
        parent = new_sid("CA")
        call = await calls.landed(
            parent_sid=parent, phone_number_sid="PN" + "1" * 32, forwarded_from="+14155550177",
            answered_by="unknown", queue_time_ms=10,
        )  # fmt: skip
        call_sid = call.sid
        recording_sid = (await calls.recording(call_sid, b"RIFF", price="")).sid
    alert = await calls.alert(call_sid)
    base = "/2010-04-01/Accounts/{AccountSid}"
    sids = {
        f"{base}/Calls/{{Sid}}": call_sid,
        f"{base}/Recordings/{{Sid}}": recording_sid,
        f"{base}/Calls/{{CallSid}}/Recordings/{{Sid}}": recording_sid,
        f"{base}/Calls/{{CallSid}}/Notifications/{{Sid}}": alert.sid,
    }
    reply = await ask(calls, route, call_sid, sids)
    assert reply.status in (200, 201), reply.body
    key, schema, is_list = schema_of(route)
    if is_list:
        assert set(reply.json) == PAGING | {key}
    for item in reply.json[key] if is_list else [reply.json]:
        found = [one for one in problems(PRODUCT, schema, item) if not live or not one.endswith(": null")]
        known = (*AS_IN_THE_EXAMPLES, IN_QUOTES)
        assert [one for one in found if not any(pattern.fullmatch(one) for pattern in known)] == []
        null = {row.field for row in null_fields() if (row.product, row.schema) == (PRODUCT, schema)}
        assert {field for field in null if item[field] is not None} == set(), "null-fields.md says these are null"

"""Idempotency-Key: one effect for any number of equal requests."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.harness import CHILD, MESSAGES, PARENT, Harness, Reply
from trunkline.api import respond
from trunkline.api.idempotency import parse_key
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model.errors import ApiError
from trunkline.storage.secrets import Secrets

PATH = MESSAGES + ".json"
FIELDS = {"To": "+15551234567", "Body": "Grüße"}


class Counter:
    """Counts effects; `fail` is raised instead, `in_commit` completes the row with the resource."""

    def __init__(self) -> None:
        self.effects = 0
        self.tokens: list[str] = []
        self.fail: Exception | None = None
        self.in_commit = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.harness: Harness | None = None


async def create(request: Request, app: Counter) -> Response:
    app.tokens.append(request.token)
    if app.fail is not None:
        raise app.fail
    app.effects += 1
    if app.meanwhile is not None:
        await app.meanwhile()
    response = respond.json({"sid": f"SM{app.effects}"}, 201).with_header("X-Kept", "yes")
    if app.in_commit and request.idempotency is not None and app.harness is not None:
        app.harness.replays.store(request.idempotency.completed(response, "SM1", app.harness.clock.now_ms()))
    return response


def harness() -> tuple[Harness, Counter]:
    counter = Counter()
    routes = [
        Route("api", method, f"/2010-04-01/Accounts/{{AccountSid}}/{name}", create)
        for method in ("GET", "POST")
        for name in ("Messages", "Calls")
    ]
    counter.harness = Harness(routes, counter)
    return counter.harness, counter


async def send(api: Harness, key: str = "k1", fields: Any = FIELDS, path: str = PATH) -> Reply:
    return await api.post(path, fields, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("in_commit", [False, True])
async def test_replays_byte_for_byte(in_commit: bool) -> None:
    api, counter = harness()
    counter.in_commit = in_commit
    first = await send(api)
    second = await send(api)
    assert first.status == second.status == 201
    assert first.body == second.body
    assert "idempotency-replayed" not in first.headers
    assert (second.headers["idempotency-replayed"], second.headers["x-kept"]) == ("true", "yes")
    assert second.headers["content-type"] == "application/json"
    assert first.headers["twilio-request-id"] != second.headers["twilio-request-id"]
    assert counter.effects == 1
    assert api.replays.completions == (0 if in_commit else 1)


async def test_quoted_and_bare_keys_are_one() -> None:
    api, counter = harness()
    await send(api, "k1")
    assert (await send(api, '"k1"')).headers["idempotency-replayed"] == "true"
    assert counter.tokens == ["k1"]


async def test_other_parameters_are_refused() -> None:
    api, counter = harness()
    await send(api)
    for fields in ({**FIELDS, "Body": "x"}, {"To": FIELDS["To"]}, {**FIELDS, "To": ["+1", "+2"]}):
        reply = await send(api, fields=fields)
        assert (reply.status, reply.code) == (422, 20422)
    assert (await send(api, path=PATH + "?a=1")).status == 422
    assert counter.effects == 1


async def test_order_of_different_fields_does_not_matter() -> None:
    api, counter = harness()
    await send(api, fields=[("To", "1"), ("Body", "2")])
    assert (await send(api, fields=[("Body", "2"), ("To", "1")])).headers["idempotency-replayed"] == "true"
    assert (await send(api, "k2", fields=[("M", "1"), ("M", "2")])).status == 201
    assert (await send(api, "k2", fields=[("M", "2"), ("M", "1")])).status == 422
    assert counter.effects == 2


async def test_keys_are_scoped_by_account_and_path() -> None:
    api, counter = harness()
    await send(api)
    await send(api, path=PATH.replace(PARENT, CHILD))
    await send(api, path=PATH.replace("Messages", "Calls"))
    assert counter.effects == 3


async def test_refusals_give_the_key_back() -> None:
    api, counter = harness()
    for failure in (ApiError.of(21211, to="+1"), ApiError.of(20503), RuntimeError("boom")):
        counter.fail = failure
        assert (await send(api)).status in (400, 503, 500)
    counter.fail = None
    assert (await send(api)).status == 201
    assert counter.effects == 1


async def test_in_progress_waits_then_conflicts() -> None:
    api, counter = harness()
    await send(api)
    (row,) = api.replays.rows.values()
    api.replays.rows[next(iter(api.replays.rows))] = msgspec.structs.replace(row, state="running")
    began = api.clock.ms
    reply = await send(api)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (409, 20409, "1")
    assert 2000 <= api.clock.ms - began < 2200
    assert counter.effects == 1


async def test_a_waiting_request_gets_the_response_of_the_first() -> None:
    api, counter = harness()
    await send(api)
    ((key, done),) = api.replays.rows.items()
    api.replays.rows[key] = msgspec.structs.replace(done, state="running")

    async def finish() -> None:
        api.replays.rows[key] = done

    api.clock.on_sleep.append(finish)
    reply = await send(api)
    assert (reply.status, reply.headers["idempotency-replayed"]) == (201, "true")
    assert counter.effects == 1


async def test_a_dead_holders_key_is_taken_over_in_the_next_epoch() -> None:
    api, counter = harness()
    await send(api)
    ((key, done),) = api.replays.rows.items()
    api.replays.rows[key] = msgspec.structs.replace(done, state="running", expires_ms=api.clock.ms)
    assert (await send(api)).status == 201
    assert (api.replays.rows[key].epoch, api.replays.rows[key].state) == (1, "done")
    assert counter.effects == 2


async def test_a_claim_that_the_store_gives_up_is_still_this_processes() -> None:
    """The key's partition went to another node and came back while the first request runs here."""
    api, counter = harness()
    replies: list[Reply] = []

    async def again() -> None:
        ((key, row),) = api.replays.rows.items()
        api.replays.rows[key] = msgspec.structs.replace(row, expires_ms=0)
        replies.append(await send(api))
        replies.append(await send(api, fields={**FIELDS, "Body": "other"}))

    counter.meanwhile = again
    assert (await send(api)).status == 201
    assert [(reply.status, reply.code) for reply in replies] == [(409, 20409), (422, 20422)]
    assert counter.effects == 1
    counter.meanwhile = None
    assert (await send(api)).status == 201, "it is over when it was answered"


async def test_responses_are_kept_for_a_day() -> None:
    api, counter = harness()
    await send(api)
    (row,) = api.replays.rows.values()
    assert row.expires_ms - api.clock.ms == 24 * 3600 * 1000
    api.clock.ms += 24 * 3600 * 1000
    await send(api)
    assert counter.effects == 2


async def test_a_failure_after_the_commit_may_have_taken_it_keeps_the_key() -> None:
    api, counter = harness()
    counter.in_commit = True

    async def broken(request: Request, app: Counter) -> Response:
        await create(request, app)
        raise RuntimeError("after the commit")

    api = Harness([Route("api", "POST", "/2010-04-01/Accounts/{AccountSid}/Messages", broken)], counter)
    counter.harness = api
    assert (await send(api)).status == 500
    assert (await send(api)).status == 201
    assert counter.effects == 1


async def test_get_ignores_the_key_and_every_request_has_a_token() -> None:
    api, counter = harness()
    for _ in range(2):
        assert (await api.get(PATH, headers={"Idempotency-Key": "k"})).status == 201
    await api.post(PATH, FIELDS)
    assert counter.effects == 3
    assert len(set(counter.tokens)) == 3
    assert all(len(token) == 32 for token in counter.tokens)
    assert not api.replays.rows


@pytest.mark.parametrize("key", ["", '"', '""', '"a', 'a"b\x07', '"a";p=1', "k" * 256, "ü", " ", '"' + "k" * 256 + '"'])
async def test_bad_keys(key: str) -> None:
    api, counter = harness()
    reply = await send(api, key)
    assert (reply.status, reply.code) == (400, 20422)
    assert counter.effects == 0


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_every_printable_key_can_be_quoted(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_key(quoted.encode(), 255) == key


@given(st.binary(max_size=300))
def test_any_header_is_a_key_or_400(raw: bytes) -> None:
    try:
        key = parse_key(raw, 255)
    except ApiError as error:
        key = "x" if error.status == 400 else ""
    assert 1 <= len(key) <= 255


async def test_stored_responses_are_sealed_at_rest_and_replayed_in_clear() -> None:
    api, _ = harness()
    api.api._idempotency._vault = Secrets([b"k" * 32])  # the harness has none of its own
    first = await send(api)
    (row,) = api.replays.rows.values()
    assert row.body != first.body
    assert b"SM1" not in row.body
    assert (await send(api)).body == first.body

"""The API's short way: what it takes on is answered as the usual way answers it."""

import asyncio
import base64
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.api.harness import CREDENTIALS, PARENT, Harness
from trunkline.api import respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Begun, Route
from trunkline.model.errors import ApiError
from trunkline.storage.written import Written

PATH = f"/2010-04-01/Accounts/{PARENT}/Messages.json"


def show(request: Request) -> Response:
    content = {"form": request.form, "params": request.params, "account": request.account_sid, "url": request.base_url}
    return respond.resource(request.format, content, "Echo", 201)


class Services:
    """What `begin` does next; the write it waits for."""

    def __init__(self) -> None:
        self.written: Written[None] = Written()
        self.handled = 0


async def handle(request: Request, app: Services) -> Response:
    app.handled += 1
    if "Crash" in request.form:
        raise RuntimeError("secret")
    await asyncio.sleep(0)
    return show(request)


def begin(request: Request, app: Services) -> Begun | None:
    if "Later" in request.form:
        return None
    if "Refuse" in request.form:
        raise ApiError.of(21211, to="+1", headers=(("X-Why", "because"),))
    if "Crash" in request.form:
        raise RuntimeError("secret")
    return app.written, [show(request)]


class Quick:
    def __init__(self) -> None:
        self.app = Services()
        routes = [
            Route("api", "POST", "/2010-04-01/Accounts/{AccountSid}/Messages", handle, begin=begin),
            Route("api", "POST", "/2010-04-01/Accounts/{AccountSid}/Slow", handle),
        ]
        self.seen: list[tuple[str, str, int]] = []
        self.harness = Harness(routes, self.app, observe=lambda m, t, s, d: self.seen.append((m, t, s)))
        self.answers: list[tuple[int, dict[bytes, bytes], bytes]] = []

    def ask(self, path: str = PATH, headers: dict[bytes, bytes] | None = None, **fields: str) -> bool:
        sent = {
            b"host": b"localhost:8080",
            b"content-type": b"application/x-www-form-urlencoded",
            b"authorization": b"Basic " + base64.b64encode(":".join(CREDENTIALS).encode()),
        } | (headers or {})
        scope = {
            "type": "http", "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": b"", "client": ("192.0.2.1", 1), "headers": list(sent.items()),
        }  # fmt: skip
        return self.harness.api.quick(
            scope, urlencode(fields).encode(), lambda s, h, b: self.answers.append((s, dict(h), b))
        )


@pytest.fixture
async def site() -> Quick:
    return Quick()


async def test_it_answers_when_the_write_is_done_and_not_before(site: Quick) -> None:
    assert site.ask(To="+1", Body="x y")
    assert not site.answers
    site.app.written.settle(None, None)
    [(status, headers, body)] = site.answers
    usual = await site.harness.post(PATH, {"To": "+1", "Body": "x y"})
    assert (status, body) == (usual.status, usual.body)
    assert {name.decode() for name in headers} == set(usual.headers)
    assert headers[b"content-length"] == b"%d" % len(body)
    assert site.seen[0] == site.seen[1] == ("POST", "/2010-04-01/Accounts/{AccountSid}/Messages", 201)


@pytest.mark.parametrize(
    ("fields", "headers", "path"),
    [
        ({"Refuse": "1"}, {}, PATH),
        ({"Refuse": "1"}, {}, PATH.replace(".json", "")),
        ({"Crash": "1"}, {}, PATH),
        ({}, {b"authorization": b"Basic nonsense"}, PATH),
        ({}, {}, PATH.replace(".json", ".csv")),
        ({}, {}, PATH.replace(PARENT, "AC" + "0" * 32)),
    ],
)
async def test_refusals_are_those_of_the_usual_way(
    site: Quick, fields: dict[str, str], headers: dict[bytes, bytes], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert site.ask(path, headers, **fields)
    [(status, sent, body)] = site.answers
    auth: dict[str, Any] = {"headers": {"authorization": headers[b"authorization"]}} if headers else {}
    if "Refuse" not in fields:  # `handle` refuses nothing itself
        usual = await site.harness.post(path, fields, **auth)
        assert (status, body) == (usual.status, usual.body)
        assert {name.decode() for name in sent} == set(usual.headers)
    else:
        assert (status, sent[b"x-why"]) == (400, b"because")
    assert b"secret" not in body


async def test_a_failed_write_is_an_error_and_not_an_acceptance(site: Quick) -> None:
    assert site.ask(To="+1")
    site.app.written.settle(None, OSError("disk full"))
    assert [answer[0] for answer in site.answers] in ([500], [503])


async def test_what_must_wait_is_handled_whole(site: Quick) -> None:
    assert site.ask(Later="1")
    assert not site.answers
    while not site.answers:
        await asyncio.sleep(0)
    assert site.answers[0][0] == 201
    assert site.app.handled == 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/elsewhere", {}),
        (PATH.replace("Messages", "Slow"), {}),
        (PATH.replace("Messages", "Calls"), {}),
        (PATH, {b"idempotency-key": b"k"}),
    ],
)
async def test_all_else_is_left_alone(site: Quick, path: str, headers: dict[bytes, bytes]) -> None:
    assert not site.ask(path, headers)
    await asyncio.sleep(0)
    assert (site.answers, site.app.handled, site.seen) == ([], 0, [])

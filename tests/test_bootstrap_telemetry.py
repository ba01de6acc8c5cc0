"""Traces, events and metrics of a whole node: a collector, a web server and a carrier of the test's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.e2e.sink import Sink
from trunkline import bootstrap
from trunkline.accounts.directory import create_account
from trunkline.messaging.outbound import NewMessage
from trunkline.model.clock import SystemClock
from trunkline.settings import Data, Loopback, Security, Settings
from trunkline.settings.kinds import Secret
from trunkline.settings.telemetry import Telemetry
from trunkline.telemetry.traceparent import build, parse

THEM = "+14155550199"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WAIT_S = 20.0


class Collector:
    """Takes what is posted to it as OTLP/JSON."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.url = ""
        self._changed = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        assert request.path == "/v1/traces"
        assert request.content_type == "application/json"
        self.authorizations.add(request.headers.get("Authorization"))
        for resource in json.loads(await request.read())["resourceSpans"]:
            self.spans += resource["scopeSpans"][0]["spans"]
        self._changed.set()
        return web.json_response({})

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] == name]

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while not all(map(self.named, names)):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    own = Collector()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", own.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    own.url = "http://{}:{}/v1/traces".format(*runner.addresses[0][:2])
    yield own
    await runner.cleanup()


@contextlib.asynccontextmanager
async def node_with(folder: Path, **telemetry: Any) -> AsyncIterator[tuple[bootstrap.Node, str]]:
    """A node that is started, and the SID of its account."""
    settings = Settings(
        data=Data(path=str(folder)),
        connectors=(Loopback(name="air", delay_s=0),),
        security=Security(webhook_private_networks=True),
        telemetry=Telemetry(flush_s=0.02, **telemetry),
    )
    database = bootstrap.open_database(settings)
    account = await create_account(database, SystemClock(), "one")
    await database.close()
    node = bootstrap.Node(settings)
    await node.start()
    try:
        yield node, account.sid
    finally:
        await node.stop()


async def send(node: bootstrap.Node, account: str, sink: Sink, **changes: Any) -> str:
    new = NewMessage(account_sid=account, from_="BRAND", to=THEM, body="hi", status_callback=f"{sink.url}/s", **changes)
    message, written = node.outbound.accept(new)
    await written
    return message.sid


async def metrics_of(node: bootstrap.Node) -> str:
    request: Any = type("Request", (), {"headers": {}})()
    return (await node.metrics.mounts()["/metrics"](request)).body.decode()


async def test_a_traced_message_is_followed_from_the_request_to_its_callbacks(
    tmp_path: Path, collector: Collector
) -> None:
    file = tmp_path / "events.jsonl"
    options = {
        "otlp_endpoint": collector.url, "otlp_authorization": Secret("Bearer x"), "sample": 0.0, "events": str(file),
    }  # fmt: skip
    async with Sink() as sink, node_with(tmp_path / "data", **options) as (node, account):
        sid = await send(node, account, sink, traceparent=build(TRACE, SPAN), token="key-1")
        await sink.until(lambda: len(sink.hooks) == 2)
        await collector.until("message accept", "message submit", "callback status")
        await send(node, account, sink)
        await sink.until(lambda: len(sink.hooks) == 4)
        async with asyncio.timeout(WAIT_S):
            while node.landing.landed < 2:
                await asyncio.sleep(0.02)
        document = await node.archive.get(account, sid)
        page = await metrics_of(node)
    assert collector.authorizations == {"Bearer x"}
    (accept,) = collector.named("message accept")
    (submit,) = collector.named("message submit")
    callbacks = collector.named("callback status")
    assert {span["traceId"] for span in collector.spans} == {TRACE}
    assert accept["parentSpanId"] == SPAN
    assert {span["parentSpanId"] for span in [submit, *callbacks]} == {accept["spanId"]}
    told = [parse(hook.headers.get("traceparent", "")) for hook in sink.hooks]
    assert [one is not None for one in told] == [True, True, False, False]
    assert {one.span_id for one in told if one is not None} == {span["spanId"] for span in callbacks}
    body = json.loads(document.body)
    assert parse(body["traceparent"]) == parse(build(TRACE, accept["spanId"]))
    assert list(body["stages"]) == ["accept", "submit", "receipt"]
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert {event["status"] for event in events} == {"delivered"}
    assert [event["token"] for event in events if event["sid"] == sid] == ["key-1"]
    for line in (
        'trunkline_stage_seconds_count{line="message",stage="accept"} 2.0',
        'trunkline_stage_seconds_count{line="message",stage="submit"} 2.0',
        'trunkline_stage_seconds_count{line="message",stage="archive"} 2.0',
        'trunkline_stage_seconds_count{line="callback",stage="status"} 4.0',
        'trunkline_stage_errors_total{line="message",stage="submit"} 0.0',
        "trunkline_traces_total 1.0",
        'trunkline_spans_total{what="dropped"} 0.0',
    ):
        assert line in page.splitlines(), line


async def test_sampling_chooses_messages_without_a_parent(tmp_path: Path, collector: Collector) -> None:
    async with Sink() as sink, node_with(tmp_path, otlp_endpoint=collector.url, sample=1.0) as (node, account):
        await send(node, account, sink)
        await collector.until("message accept", "callback status")
        await sink.until(lambda: len(sink.hooks) == 2)
    (accept,) = collector.named("message accept")
    assert "parentSpanId" not in accept
    assert {parse(hook.headers["traceparent"]).trace_id for hook in sink.hooks} == {accept["traceId"]}


async def test_without_a_collector_the_customers_own_trace_is_passed_on(tmp_path: Path) -> None:
    async with Sink() as sink, node_with(tmp_path) as (node, account):
        await send(node, account, sink, traceparent=build(TRACE, SPAN))
        await sink.until(lambda: len(sink.hooks) == 2)
    assert {parse(hook.headers["traceparent"]).trace_id for hook in sink.hooks} == {TRACE}


async def test_a_collector_that_is_away_costs_only_spans(tmp_path: Path) -> None:
    async with (
        Sink() as sink,
        node_with(tmp_path, otlp_endpoint="http://127.0.0.1:1/v1/traces", sample=1.0) as (
            node,
            account,
        ),
    ):
        await send(node, account, sink)
        await sink.until(lambda: len(sink.hooks) == 2)
    assert node.telemetry.tracer.dropped > 0

"""/metrics, /healthz and /readyz (docs/howto/observe.md).

The parts count with plain integers; a scrape reads them. Labels are bounded: no account, no number, no URL. What a
customer did is told by his post-flight documents.
"""

import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import orjson
from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from trunkline.api.asgi import Mount
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.respond import text as text_response
from trunkline.metrics.calls import of_calls
from trunkline.metrics.cluster import of_cluster
from trunkline.metrics.depths import Depths, of_binds
from trunkline.metrics.stages import of_stages, of_telemetry

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
UNFIT, DRAIN = 503, 404
"""HAProxy takes 404 for a node that is to get nothing new and may answer what it has (`disable-on-404`); for anything
else it cuts the connections, as to a host that is gone."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Parts(Protocol):
    """The node, as far as it is measured."""

    settings: Any
    archive: Any
    queue: Any
    database: Any
    inflight: Any
    outbound: Any
    inbound: Any
    delivery: Any
    landing: Any
    alerts: Any
    connectors: dict[str, Any]
    voice: Any
    """None where calls are not taken."""
    memory: Any
    """The `MemoryStore`, where there is `voice`."""
    cluster: Any
    """None where the node is alone."""
    telemetry: Any
    smpp_server: Any
    ready: bool


class Metrics(Collector):
    """See the module."""

    def __init__(self, node: Parts) -> None:
        self._node = node
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._latency = Histogram(
            "trunkline_http_seconds",
            "Time to answer API requests",
            ("method", "route", "status"),
            registry=self._registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._children: dict[tuple[str, str, int], Any] = {}
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._depths = Depths(node.queue)
        self._failing: dict[str, float] = {}
        """Store -> since when it has been seen failing, seconds of `monotonic`."""
        self.monotonic: Callable[[], float] = time.monotonic

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request; labels are routes of our own table and status classes."""
        key = (method, route, status // 100)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._latency.labels(method, route, f"{status // 100}xx")
        child.observe(seconds)

    def collect(self) -> Iterator[Any]:
        """What the parts have counted."""
        node = self._node
        counters = {
            "webhooks_delivered": ("Callbacks delivered", node.delivery.delivered),
            "webhook_attempts_failed": ("Failed attempts at callbacks", node.delivery.failed),
            "webhooks_exhausted": ("Callbacks given up", node.delivery.exhausted),
            "landed": ("Flights landed", node.landing.landed),
            "inbound_received": ("Inbound messages taken", node.inbound.received),
            "inbound_unknown": ("Inbound messages to numbers that nobody has", node.inbound.unknown),
            "alerts_raised": ("Alerts raised", node.alerts.raised),
            "alerts_dropped": ("Alerts dropped: an account raised too many", node.alerts.dropped),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"trunkline_{name}", text, value)
        writers = CounterMetricFamily("trunkline_store_writes", "Writes committed", labels=["store"])
        commits = CounterMetricFamily("trunkline_store_commits", "Commits", labels=["store"])
        for store, part in (("queue", node.queue), ("database", node.database)):
            writers.add_metric([store], part.writer.writes)
            commits.add_metric([store], part.writer.commits)
        yield writers
        yield commits
        yield GaugeMetricFamily("trunkline_waiting_segments", "Segments waiting", sum(node.outbound.waiting.values()))
        up = GaugeMetricFamily("trunkline_connector_up", "Whether a connector can send", labels=["connector"])
        room = GaugeMetricFamily("trunkline_connector_room", "Messages it takes now", labels=["connector"])
        for name, connector in node.connectors.items():
            up.add_metric([name], float(connector.health()[0]))
            room.add_metric([name], connector.capacity())
        yield up
        yield room
        yield from of_binds(node.connectors, node.smpp_server)
        yield from self._depths.families(node.delivery)
        yield from of_stages(node)
        yield from of_telemetry(node.telemetry)
        yield GaugeMetricFamily("trunkline_ready", "Whether messages are taken on", float(node.ready))
        if node.voice is not None:
            yield from of_calls(node.voice)
        if node.cluster is not None:
            yield from of_cluster(node.cluster, node.settings.cluster.lease_s)

    # -- mounts ----------------------------------------------------------------------------------------------

    def mounts(self) -> dict[str, Mount]:
        """The paths outside the API."""
        return {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/readyz/drain": self._drain,
            "/metrics": self._metrics,
        }

    async def _healthz(self, request: Request) -> Response:
        """200 while the process serves at all."""
        return text_response("ok\n")

    async def _readyz(self, request: Request) -> Response:
        """200 when messages can be accepted; the body names what is wrong otherwise, and what each connector says."""
        return self._fitness(UNFIT)

    async def _drain(self, request: Request) -> Response:
        """The same, for balancers that leave an unfit node what it has already, when it says 404."""
        return self._fitness(DRAIN)

    def _fitness(self, unfit: int) -> Response:
        node = self._node
        problems = [] if node.ready else ["starting or stopping"]
        noted = {}
        for store, part in (("queue", node.queue), ("database", node.database)):
            if part.writer.failed is None:
                self._failing.pop(store, None)
            elif self._stops(store):
                problems.append(f"{store}: {part.writer.failed}")
            else:
                noted[store] = str(part.writer.failed)
        if node.cluster is not None and (problem := node.cluster.health()):
            problems.append(problem)
        if node.outbound.refuse:
            problems.append(node.outbound.refuse)
        connectors = {name: connector.health()[1] for name, connector in node.connectors.items()}
        told: dict[str, object] = {"ready": not problems, "problems": problems, "connectors": connectors, **noted}
        if node.cluster is not None and node.cluster.queue.healthy:  # new work goes to the databases that are well
            told["queue"] = node.cluster.queue.healthy
        if node.voice is not None and node.memory.problem:  # costs takeover: this node goes on, as all others do then
            told["memory"] = node.memory.problem
        if node.archive.problem:  # messages are taken all the same, and land later
            told["archive"] = node.archive.problem
        body = orjson.dumps(told)
        return text_response(body, "application/json", unfit if problems else 200)

    def _stops(self, store: str) -> bool:
        """Whether a store that fails makes the node unfit. In a cluster it is the others' too, and a balancer that
        found all nodes unfit would refuse what they can hold open: messages go on without the database of records,
        and wait for a queue that is switched over."""
        node, now = self._node, self.monotonic()
        if node.cluster is None:
            return True
        return store == "queue" and now - self._failing.setdefault(store, now) >= node.settings.storage.wait_s

    async def _metrics(self, request: Request) -> Response:
        token = str(node_token(self._node))
        given = request.headers.get(b"authorization", b"")
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            return text_response("metrics_token is asked for\n", status=401)
        await self._depths.look()
        return text_response(generate_latest(self._registry), CONTENT_TYPE)


def node_token(node: Parts) -> str:
    """The bearer token that /metrics asks for, or an empty string."""
    return node.settings.server.metrics_token or ""

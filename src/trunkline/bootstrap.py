"""Wiring: the only file that names concrete classes.

`Node` builds every part from the settings, starts them from the bottom up and stops them from the top down.
`trunkline.bootstrap_serve` runs one.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trunkline import inherited, metrics
from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import StatusHandler
from trunkline.accounts.directory import Directory
from trunkline.accounts.misses import Misses
from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.closed import Closed
from trunkline.api.idempotency import Idempotency
from trunkline.api.limits import ApiLimits
from trunkline.api.media_content import MediaFront
from trunkline.api.resources import all_routes
from trunkline.api.services import Services
from trunkline.api.unknown import Unknown
from trunkline.bootstrap_cluster import CannotJoin, ClusterNode, lease, tls_contexts
from trunkline.bootstrap_learning import feed_of
from trunkline.bootstrap_roles import ARCHIVE, MESSAGING, missing_roles, reading_calls, things
from trunkline.bootstrap_stop import Grace
from trunkline.bootstrap_stores import (
    ARCHIVE_FILE,
    MEDIA_FOLDER,
    RECORDING_FOLDER,
    SEGMENT_FOLDER,
    CannotStart,
    check_memory,
    check_objects,
    check_storage,
    compact_stores,
    data_folder,
    open_archive,
    open_blobs,
    open_database,
    open_memory,
    open_objects,
    open_queue,
    open_secrets,
    open_sharded_queue,
    peek_memory,
    rotate_master_key,
    take_folder,
)
from trunkline.bootstrap_telemetry import Telemetry, TimedSink
from trunkline.bootstrap_voice import Voice
from trunkline.inflight.store import Inflight
from trunkline.listeners.carriers import CarrierFront
from trunkline.listeners.smpp import SmppServer
from trunkline.media.recording_audio import RecordingAudio
from trunkline.messaging import usage_triggers
from trunkline.messaging.connectors.base import Connector
from trunkline.messaging.connectors.incoming import Mounted
from trunkline.messaging.connectors.loopback import LoopbackConnector
from trunkline.messaging.connectors.table import Context, make
from trunkline.messaging.disk import DiskWatch
from trunkline.messaging.dispatch import Dispatcher
from trunkline.messaging.failover import Failover
from trunkline.messaging.from_calls import FromCalls
from trunkline.messaging.inbound import Inbound
from trunkline.messaging.media import MediaFiles, OutboundMedia
from trunkline.messaging.optout import OptOuts
from trunkline.messaging.outbound import Outbound
from trunkline.messaging.privacy import Privacy
from trunkline.messaging.reader import Reader
from trunkline.messaging.receipts import Receipts
from trunkline.messaging.replies import InboundHandler
from trunkline.messaging.routing import Router
from trunkline.messaging.scheduler import Scheduler
from trunkline.messaging.usage import usage_of
from trunkline.model import sid as sids
from trunkline.model.clock import Clock, SystemClock
from trunkline.postflight.landing import Landing
from trunkline.postflight.retention import Maintenance
from trunkline.settings import Settings
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.storage.queue import Queue
from trunkline.storage.sharded import ShardedQueue
from trunkline.testing.handsets import Handsets
from trunkline.testing.phones import remote
from trunkline.testing.phones.remote import Phones
from trunkline.testing.simulator import Simulator
from trunkline.webhooks.delivery import Delivery, Handler
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import PRIVATE, Guard
from trunkline.webhooks.http import Client

if TYPE_CHECKING:
    from trunkline.bootstrap_region import NodeRegion
    from trunkline.region.gate import Gate

UPKEEP_S = 600.0
"""How often alerts, drafts of media and privacy deletions are cleaned up."""
MEMORY_STOP_S = 2.0
"""How long a stop waits for the memory store to have what was posted, seconds."""

__all__ = [
    "ARCHIVE_FILE",
    "SEGMENT_FOLDER",
    "CannotJoin",
    "CannotStart",
    "Node",
    "check_memory",
    "check_objects",
    "check_storage",
    "compact_stores",
    "missing_roles",
    "open_archive",
    "open_database",
    "open_queue",
    "open_secrets",
    "peek_memory",
    "rotate_master_key",
    "things",
    "tls_contexts",
]

log = logging.getLogger("trunkline")


class Node:
    """Every part of one server. Built on the running event loop; `start`, then serve `app`, then `stop`."""

    def __init__(self, settings: Settings, clock: Clock | None = None, phones: Phones | None = None) -> None:
        self.settings = settings
        self.phones = phones
        self.clock = clock or SystemClock()
        self.base_url = settings.base_url
        self.grace = Grace(settings.server.shutdown_s)
        folder = data_folder(settings)
        self.lock = take_folder(folder)
        self.secrets = open_secrets(settings)
        self.database = open_database(settings, self.clock, self.secrets)
        self.cluster: ClusterNode | None = None
        if settings.sip.enabled or settings.cluster.enabled:
            self.memory = open_memory(settings, self.clock)
        self.queue: Queue = self._join() if settings.cluster.enabled else open_queue(settings, own=True)
        self.archive = open_archive(settings, self.clock)
        self.blobs = open_blobs(settings, MEDIA_FOLDER, settings.limits.media_bytes, settings.data.media_bytes)
        self.directory = Directory(self.database, settings.sip.domain_suffix, settings.sip.trunk_domain_suffix)
        clustered = settings.cluster.enabled
        self.misses: Misses | None = Misses(self.directory, self.clock.monotonic) if clustered else None
        self.optouts = OptOuts(self.database, self.directory)
        self.alerts = Alerts(self.database, self.clock)
        self.inflight = Inflight(self.queue, self.clock)
        self._wire_webhooks()
        self._wire_messages()
        self.connectors = self._make_connectors()
        self.from_calls = FromCalls(self.outbound, self.directory)
        self._wire_dispatch()
        self.maintenance = Maintenance(
            self.archive,
            self.clock,
            self._retention_days,
            compact_after_ms=int(settings.archive.erase_within_s * 500),
        )
        self.voice = self._make_voice() if settings.sip.enabled else None
        self.telemetry = Telemetry(settings, self.clock)
        self.telemetry.wire(self)
        self.feed = feed_of(self, settings)
        self.region = self._make_region() if settings.regions else None
        app = self._make_app()
        self.app: CarrierFront | Gate = app if self.region is None else self.region.front(app)
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

    def _join(self) -> ShardedQueue:
        """Be one node of several: the queue, of which it will own parts."""
        queue = open_sharded_queue(self.settings, self.settings.node.name)
        self.cluster = ClusterNode(self.settings, self.clock, queue, self.memory)
        sids.use_shards(self.cluster.roles.shard_for_new)
        if not isinstance(self.memory, JournalStore):
            self.memory.own(self.cluster.owns_key)
        return queue

    # -- wiring ----------------------------------------------------------------------------------------------

    def _wire_webhooks(self) -> None:
        own = self.settings.webhooks
        security = self.settings.security
        allowed = (*security.webhook_allow, *(PRIVATE if security.webhook_private_networks else ()))
        self.guard = Guard(allowed)
        self.client = Client(max_per_host=own.per_host, max_total=own.in_flight)
        self.fetcher = Fetcher(self.client, self.guard, self.clock, own, allow_http=security.webhook_http)
        self.status_handler = StatusHandler(
            self.client,
            self.guard,
            self.fetcher,
            self.directory.account,
            self.alerts,
            self.clock,
            own,
            allow_http=security.webhook_http,
        )

    def _wire_messages(self) -> None:
        settings = self.settings
        names = [connector.name for connector in settings.connectors]
        router = Router(settings.routes, settings.rates, names)
        self.outbound = Outbound(settings, self.inflight, self.directory, router, self.optouts.message_opted_out)
        self.disk = DiskWatch(settings.data_path, settings.data.min_free_bytes, self.outbound)
        self.reader = Reader(self.inflight, self.archive, self.database)
        self.privacy = Privacy(self.inflight, self.archive, self.database, self.blobs)
        self.scheduler = Scheduler(self.database, self.inflight, self.outbound, self.directory, self.reader)
        self.receipts = Receipts(self.inflight, self.outbound, self.archive)
        self.media = MediaFiles(
            self.blobs, self.database, self.directory, self.alerts, self.clock, settings, self.client, self.guard,
            self._media_url,
        )  # fmt: skip
        self.media_fetch = OutboundMedia(self.media, self.inflight, self.outbound, self.alerts)
        self.inbound = Inbound(
            settings, self.inflight, self.directory, self.outbound, self.optouts, self.media, self.alerts
        )

        self.inbound_handler = InboundHandler(
            self.fetcher, self.outbound, self.reader, self.directory, self.database, self.alerts, self.clock,
            settings.webhooks,
        )  # fmt: skip

    def _media_url(self, account: str, message: str, media: str) -> str:
        return f"{self.base_url}/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}"

    def _make_connectors(self) -> dict[str, Connector]:
        context = Context(
            clock=self.clock,
            public_url=lambda: self.base_url,
            may_send=self.cluster.open if self.cluster is not None else lambda: True,
            owns=lambda address: (
                self.directory.number(address) is not None or self.directory.short_code(address) is not None
            ),
        )
        try:
            made = {own.name: make(own, context) for own in self.settings.connectors}
        except ValueError as error:
            raise CannotStart(f"connectors: {error}") from None
        if self.cluster is not None:
            made |= lease(self.settings, context, self.cluster)
        return made

    def _wire_dispatch(self) -> None:
        handlers: dict[str, Handler] = {"status": self.status_handler, "inbound": self.inbound_handler}
        handlers[usage_triggers.KIND] = usage_triggers.UsageTriggerHandler(
            self.fetcher, self.directory.account, self.alerts
        )
        self.smpp_server = SmppServer(
            self.settings, self.directory, self.outbound, self.inflight, self.reader, self.alerts
        )
        kept = [number for name, number in inherited.descriptors().items() if name.startswith(inherited.SMPP)]
        self.smpp_server.given = [socket.socket(fileno=number) for number in kept]
        if self.cluster is not None:
            self.cluster.share_clients(self.smpp_server)
        handlers.update(self.smpp_server.handlers)
        self.delivery = Delivery(self.queue, self.clock, self.settings.webhooks, handlers)
        self.smpp_server.attach(self.delivery)
        rate_of: Callable[[str, str], float] = self.outbound.rate_of
        pace_of: Callable[[str], float] = self.outbound.pace_of
        if self.cluster is not None:
            rate_of, pace_of = self.cluster.shared(self)
        self.dispatcher = Dispatcher(
            self.inflight,
            self.connectors,
            rate_of=rate_of,
            pace_of=pace_of,
            allow=self.outbound.allow,
            outcome=self.outbound.settled,
        )
        carrier_id_ms = int(self.settings.messaging.carrier_id_s * 1000)
        self.landing = Landing(self.inflight, self.archive, carrier_id_ms)
        self.directory.rates_changed = self.dispatcher.refresh_rates
        self.inflight.owed = self.delivery.push
        self.outbound.push = self.dispatcher.push
        self.outbound.reserve = self.dispatcher.reserve
        self.outbound.submit_now = self.dispatcher.submit_now
        self.outbound.release = self.dispatcher.release
        self.outbound.push_stored = self.dispatcher.push_stored
        self.outbound.submitted = self.receipts.known
        self.outbound.fetch_media = self.media_fetch.start
        self.delivery.finished = self.landing.settled
        self.usage_triggers = usage_triggers.UsageTriggers(
            self.database,
            self.queue,
            usage_of(self.archive, self.database, self.clock),
            self.directory,
            self.clock,
            self.delivery.push,
        )

    def _make_voice(self) -> Voice:
        recording_bytes = self.settings.media.recording_bytes
        voice = Voice(
            self.settings,
            self.clock,
            database=self.database,
            queue=self.queue,
            archive=self.archive,
            memory=self.memory,
            secrets=self.secrets,
            directory=self.directory,
            alerts=self.alerts,
            client=self.client,
            guard=self.guard,
            fetcher=self.fetcher,
            delivery=self.delivery,
            base_url=lambda: self.base_url,
            send_message=self.from_calls if self.cluster is None else self.cluster.sender(self.from_calls),
            blobs=open_blobs(self.settings, RECORDING_FOLDER, recording_bytes, recording_bytes),
            objects=open_objects(self.settings),
        )
        voice.flights.landed = self.landing.wake
        self.disk.told = voice.outbound.refuse_all
        self.landing.forget.append(voice.flights.forget)
        return voice

    def _make_app(self) -> CarrierFront:
        settings = self.settings
        limits = ApiLimits(
            body_bytes=settings.server.max_body_bytes,
            body_seconds=settings.server.request_timeout_s,
            held_body_bytes=settings.limits.in_flight_bytes,
            requests_per_second=settings.limits.requests_per_second,
            failed_logins=settings.security.failed_logins_per_minute,
            idempotency_retention_ms=int(settings.messaging.idempotency_s * 1000),
            idempotency_wait_ms=int(settings.messaging.idempotency_wait_s * 1000),
        )
        calls = self.voice.calls if self.voice is not None else reading_calls(self)
        self.recording_audio = RecordingAudio() if calls is not None else None
        self.services = Services(
            settings=settings,
            clock=self.clock,
            database=self.database,
            queue=self.queue,
            archive=self.archive,
            blobs=self.blobs,
            secrets=self.secrets,
            directory=self.directory,
            inflight=self.inflight,
            reader=self.reader,
            outbound=self.outbound,
            optouts=self.optouts,
            alerts=self.alerts,
            privacy=self.privacy,
            scheduler=self.scheduler,
            calls=calls,
            audio=self.recording_audio,
        )
        self.metrics = metrics.Metrics(self)
        api = Api(
            all_routes(),
            self.services,
            Authenticator(self.directory, self.secrets.pepper, self.clock.monotonic, limits),
            Idempotency(self.queue, self.clock.now_ms, limits, vault=self.secrets),
            limits=limits,
            mounts=self.metrics.mounts(),
            trusted_proxies=settings.server.trusted_proxies,
            observe=self.metrics.observe,
            public=not settings.voice.recording_login,
            homes=None if self.cluster is None else self.cluster.homes(limits.idempotency_key_chars),
            unknown=None if self.misses is None else Unknown(self.directory, self.misses),
        )
        if self.cluster is not None:
            self.cluster.answer_for(api)
        mounted: dict[str, Any] = {n: c for n, c in self.connectors.items() if hasattr(c, "handle")}
        if self.cluster is not None:
            mounted = self.cluster.mount(mounted)
        app = MediaFront(api, self.services) if self.does("api") else Closed(api, self.metrics.mounts())
        return CarrierFront(app, mounted, self._simulator())

    def does(self, role: str) -> bool:
        """Whether this node has a role."""
        return role in self.settings.node.roles

    def _simulator(self) -> Mounted | None:
        """The control surface of handsets and phones, where the profile allows them and there are some."""
        loopback = next((c for c in self.connectors.values() if isinstance(c, LoopbackConnector)), None)
        if self.settings.rules.strict or (loopback is None and self.phones is None):
            return None  # it asks for no login: staging goes without
        return Simulator(Handsets(loopback, self.clock) if loopback else None, self.phones)

    def _make_region(self) -> "NodeRegion":
        """What keeps asking whether this region is the active one; imported late, with its driver."""
        from trunkline.bootstrap_region import NodeRegion

        return NodeRegion(self)

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, recover what the last process left, connect. Receipts can come as soon as connectors start."""
        if self.region is not None:
            await self.region.start()
        await self.directory.start()
        await self.optouts.start()
        await self.blobs.measure()
        if self.cluster is None:
            await self.take_up()
        else:
            await self._enter(self.cluster)
        sink = TimedSink(_Sink(self) if self.cluster is None else self.cluster.across, self.telemetry)
        for name, connector in self.connectors.items():
            connector.start(sink, lambda name=name: self.dispatcher.wake(name))  # type: ignore[misc]
            self.dispatcher.wake(name)
        try:
            if self.does(MESSAGING):
                await self.smpp_server.start()
        except (OSError, ValueError) as error:
            raise CannotStart(f"smpp_server: {error}") from None
        self.telemetry.start()
        self.feed.start()
        self.landing.start()
        self.landing.wake()
        if self.voice is not None:
            try:
                await self.voice.start()
            except OSError as error:
                raise CannotStart(f"sip: {error}") from None
            if self.phones is not None:
                await self.phones.point_at(remote.platform(self.settings, self.voice.sip.port))
        if self.does(MESSAGING):
            self.scheduler.start()
        self.usage_triggers.start()
        self.inbound.start()
        loop = asyncio.get_running_loop()
        failover = Failover(self.inflight, self.outbound, self.connectors)
        self.disk.look()
        loops = (self.maintenance.run(), failover.run(), self._upkeep(), self.disk.run())
        self._tasks = [loop.create_task(work) for work in loops]
        self.ready = True

    async def take_up(self, queue: Queue | None = None) -> None:
        """Go on with what another process left in the queue, or in this partition of it."""
        await self.receipts.recover(queue)
        doubtful = await self.outbound.recover(queue)
        if doubtful:
            log.warning("%d messages were being submitted when the last process ended: in doubt", doubtful)
        await self.media_fetch.recover(queue)
        await self.inbound.recover(queue)
        await self.dispatcher.recover(queue)
        await self.delivery.recover(queue)
        if queue is not None:
            await self.smpp_server.recover(queue)
            self.scheduler.look_again()
            self.landing.wake()

    async def _enter(self, cluster: ClusterNode) -> None:
        """Be a member, and take up what falls to this node. Raises CannotJoin."""
        self.scheduler.is_ours = self.usage_triggers.is_ours = cluster.is_our_sid
        cluster.wire(self)
        await cluster.start()

    async def _retention_days(self) -> dict[str, int]:
        """Account -> days that its messages are kept, where they are not kept for ever."""
        common = self.settings.archive.retention_days
        days = {account.sid: account.retention_days or common for account in self.directory.accounts()}
        return {sid: kept for sid, kept in days.items() if kept}

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                await self.blobs.sweep(self.clock.now_ms() / 1000)
                if self.voice is not None:
                    await self.voice.blobs.sweep(self.clock.now_ms() / 1000)
                if self.cluster is not None:
                    if not self.cluster.ownership.holds(ARCHIVE):
                        continue
                    self.privacy.hide()  # other nodes hide things, too
                await self.alerts.sweep()
                if self.voice is not None:
                    await self.voice.recordings.sweep()
                if self.privacy.due(int(self.settings.archive.erase_within_s * 1000)):
                    began_ms = self.clock.now_ms()
                    if await asyncio.to_thread(compact_stores, self.settings):
                        self.privacy.compacted(began_ms)
            except Exception:
                log.exception("upkeep failed; it is tried again")

    async def drain(self, hurry: Callable[[], bool]) -> None:
        """Be no longer ready, take no new calls, and wait for those that are up, `server.shutdown_s` at most."""
        self.ready = False
        self.grace.begin()
        if self.voice is not None:
            await self.voice.drain(self.grace.left(), hurry)

    async def halt(self) -> None:
        """End what runs beside requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _has_heirs(self, cluster: ClusterNode) -> bool:
        """Whether other nodes go on with our calls: those of a region that was replaced stop, too."""
        return bool(cluster.others()) and (self.region is None or self.region.guard.replaced_by is None)

    async def stop(self) -> None:
        """Finish what is under way within `server.shutdown_s`, what `drain` took of it included; the rest is taken up
        at the next start."""
        self.ready = False
        self.grace.begin()
        await self.halt()
        if self.voice is not None and self.cluster is not None and self._has_heirs(self.cluster):
            await self.voice.hand_over()
            await self.memory.settled(MEMORY_STOP_S)
            await self.cluster.leave(self.grace.left())
            await self.voice.stop()
        else:
            if self.voice is not None:
                await self.voice.stop()
            if self.cluster is not None:
                await self.cluster.leave(self.grace.left())
        self.dispatcher.stop()
        await asyncio.gather(
            self.smpp_server.stop(),
            self.scheduler.stop(),
            self.usage_triggers.stop(),
            self.media_fetch.stop(),
            self.inbound.stop(),
            *(connector.stop(self.grace.left()) for connector in self.connectors.values()),
        )
        await self.delivery.stop(self.grace.left())
        await self.landing.stop()
        await self.feed.stop()
        await self.telemetry.stop()
        if self.recording_audio is not None:
            await self.recording_audio.close()
        if self.cluster is not None:
            await self.cluster.close()
        if self.voice is not None or self.cluster is not None:
            await self.memory.settled(MEMORY_STOP_S)
            self.memory.close()
        await self.client.close()
        await self.alerts.close()
        await self.archive.close()
        if self.region is not None:
            await self.region.stop()
        await self.queue.close()
        await self.database.close()
        os.close(self.lock)


class _Sink:
    """A node as connectors see it: where they put receipts and inbound messages."""

    def __init__(self, node: Node) -> None:
        self.receipt = node.receipts.apply
        self.inbound = node.inbound.receive

"""Wiring: the only file that names concrete classes.

`Node` builds every part from the settings, starts them from the bottom up and stops them from the top down. `serve`
runs a node behind uvicorn until a signal ends it.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import uvicorn
import uvloop

from trunkline import bootstrap_processes as processes
from trunkline import inherited, metrics
from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import StatusHandler
from trunkline.accounts.directory import Directory
from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.idempotency import Idempotency
from trunkline.api.limits import ApiLimits
from trunkline.api.media_content import MediaFront
from trunkline.api.resources import all_routes
from trunkline.api.services import Services
from trunkline.bootstrap_stores import (
    ARCHIVE_FILE,
    MEDIA_FOLDER,
    SEGMENT_FOLDER,
    CannotStart,
    check_memory,
    check_storage,
    compact_stores,
    data_folder,
    open_archive,
    open_database,
    open_memory,
    open_queue,
    open_secrets,
    peek_memory,
    rotate_master_key,
    take_folder,
)
from trunkline.bootstrap_voice import Voice, tls_config
from trunkline.inflight.store import Inflight
from trunkline.listeners.carriers import CarrierFront
from trunkline.listeners.guarded_http import HttpLimits, guarded
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
from trunkline.model.clock import Clock, SystemClock
from trunkline.postflight.landing import Landing
from trunkline.postflight.retention import Maintenance
from trunkline.settings import Settings
from trunkline.sip.tls import TlsContexts, TlsError
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.secrets import (
    BadMasterKey,
    CannotOpen,
)
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.testing.handsets import Handsets
from trunkline.testing.phones import remote
from trunkline.testing.phones.remote import Phones
from trunkline.testing.simulator import Simulator
from trunkline.webhooks.delivery import Delivery, Handler
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import PRIVATE, Guard
from trunkline.webhooks.http import Client

SPARE_FILES = 1024
"""Open files beside connections: databases, segments, carriers."""
UPKEEP_S = 600.0
"""How often alerts, drafts of media and privacy deletions are cleaned up."""
MEMORY_STOP_S = 2.0
"""How long a stop waits for the memory store to have what was posted, seconds."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Garbage is collected in larger steps than Python's default of 700 objects: the hot path makes no cycles, and what was
loaded at the start is never garbage. A step takes about half a microsecond an object; nothing else runs meanwhile."""

__all__ = [
    "ARCHIVE_FILE",
    "SEGMENT_FOLDER",
    "CannotStart",
    "Node",
    "check_memory",
    "check_storage",
    "compact_stores",
    "open_archive",
    "open_database",
    "open_queue",
    "open_secrets",
    "peek_memory",
    "rotate_master_key",
    "serve",
]

log = logging.getLogger("trunkline")


class Node:
    """Every part of one server. Built on the running event loop; `start`, then serve `app`, then `stop`."""

    def __init__(self, settings: Settings, clock: Clock | None = None, phones: Phones | None = None) -> None:
        self.settings = settings
        self.phones = phones
        self.clock = clock or SystemClock()
        self.base_url = settings.base_url
        folder = data_folder(settings)
        self._lock = take_folder(folder)
        self.secrets = open_secrets(settings)
        self.database = open_database(settings, self.clock, self.secrets)
        self.queue = open_queue(settings, own=True)
        self.archive = open_archive(settings, self.clock)
        self.blobs = FolderBlobs(folder / MEDIA_FOLDER, settings.limits.media_bytes, settings.data.media_bytes)
        self.directory = Directory(self.database, settings.sip.domain_suffix, settings.sip.trunk_domain_suffix)
        self.optouts = OptOuts(self.database, self.directory)
        self.alerts = Alerts(self.database, self.clock)
        self.inflight = Inflight(self.queue, self.clock)
        self._wire_webhooks()
        self._wire_messages()
        self.connectors = self._make_connectors()
        self._wire_dispatch()
        self.voice = self._make_voice() if settings.sip.enabled else None
        self.app = self._make_app()
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

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
            owns=lambda address: (
                self.directory.number(address) is not None or self.directory.short_code(address) is not None
            ),
        )
        try:
            return {own.name: make(own, context) for own in self.settings.connectors}
        except ValueError as error:
            raise CannotStart(f"connectors: {error}") from None

    def _wire_dispatch(self) -> None:
        handlers: dict[str, Handler] = {"status": self.status_handler, "inbound": self.inbound_handler}
        handlers[usage_triggers.KIND] = usage_triggers.UsageTriggerHandler(
            self.fetcher, self.directory.account, self.alerts
        )
        self.smpp_server = SmppServer(
            self.settings, self.directory, self.outbound, self.inflight, self.reader, self.alerts
        )
        handlers.update(self.smpp_server.handlers)
        self.delivery = Delivery(self.queue, self.clock, self.settings.webhooks, handlers)
        self.smpp_server.attach(self.delivery)
        self.dispatcher = Dispatcher(
            self.inflight,
            self.connectors,
            rate_of=self.outbound.rate_of,
            pace_of=self.outbound.pace_of,
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
        self.memory = open_memory(self.settings, self.clock)
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
            send_message=FromCalls(self.outbound, self.directory),
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
        self.recording_audio = RecordingAudio() if settings.sip.enabled else None
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
            calls=self.voice.calls if self.voice is not None else None,
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
        )
        mounted: dict[str, Any] = {n: c for n, c in self.connectors.items() if hasattr(c, "handle")}
        return CarrierFront(MediaFront(api, self.services), mounted, self._simulator())

    def _simulator(self) -> Mounted | None:
        """The control surface of handsets and phones, where the profile allows them and there are some."""
        loopback = next((c for c in self.connectors.values() if isinstance(c, LoopbackConnector)), None)
        if self.settings.rules.strict or (loopback is None and self.phones is None):
            return None  # it asks for no login: staging goes without
        return Simulator(Handsets(loopback, self.clock) if loopback else None, self.phones)

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, recover what the last process left, connect. Receipts can come as soon as connectors start."""
        await self.directory.start()
        await self.optouts.start()
        await self.blobs.measure()
        self.receipts.recover()
        doubtful = await self.outbound.recover()
        if doubtful:
            log.warning("%d messages were being submitted when the last process ended: in doubt", doubtful)
        await self.media_fetch.recover()
        await self.inbound.recover()
        await self.dispatcher.recover()
        await self.delivery.recover()
        sink = _Sink(self)
        for name, connector in self.connectors.items():
            connector.start(sink, lambda name=name: self.dispatcher.wake(name))  # type: ignore[misc]
            self.dispatcher.wake(name)
        try:
            await self.smpp_server.start()
        except (OSError, ValueError) as error:
            raise CannotStart(f"smpp_server: {error}") from None
        self.landing.start()
        self.landing.wake()
        if self.voice is not None:
            try:
                await self.voice.start()
            except OSError as error:
                raise CannotStart(f"sip: {error}") from None
            if self.phones is not None:
                await self.phones.point_at(remote.platform(self.settings, self.voice.sip.port))
        self.scheduler.start()
        self.usage_triggers.start()
        self.inbound.start()
        maintenance = Maintenance(
            self.archive,
            self.clock,
            self._retention_days,
            compact_after_ms=int(self.settings.archive.erase_within_s * 500),
        )
        loop = asyncio.get_running_loop()
        failover = Failover(self.inflight, self.outbound, self.connectors)
        self.disk.look()
        loops = (maintenance.run(), failover.run(), self._upkeep(), self.disk.run())
        self._tasks = [loop.create_task(work) for work in loops]
        self.ready = True

    async def _retention_days(self) -> dict[str, int]:
        """Account -> days that its messages are kept, where they are not kept for ever."""
        common = self.settings.archive.retention_days
        days = {account.sid: account.retention_days or common for account in self.directory.accounts()}
        return {sid: kept for sid, kept in days.items() if kept}

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                await self.alerts.sweep()
                await self.blobs.sweep(self.clock.now_ms() / 1000)
                if self.voice is not None:
                    await self.voice.recordings.sweep()
                    await self.voice.blobs.sweep(self.clock.now_ms() / 1000)
                if self.privacy.due(int(self.settings.archive.erase_within_s * 1000)):
                    began_ms = self.clock.now_ms()
                    if await asyncio.to_thread(compact_stores, self.settings):
                        self.privacy.compacted(began_ms)
            except Exception:
                log.exception("upkeep failed; it is tried again")

    async def drain(self, hurry: Callable[[], bool]) -> None:
        """Be no longer ready, take no new calls, and wait for those that are up, `server.shutdown_s` at most."""
        self.ready = False
        if self.voice is not None:
            await self.voice.drain(self.settings.server.shutdown_s, hurry)

    async def stop(self) -> None:
        """Finish what is under way within `server.shutdown_s`; the rest is taken up at the next start."""
        self.ready = False
        grace_s = self.settings.server.shutdown_s
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.voice is not None:
            await self.voice.stop()
        self.dispatcher.stop()
        await asyncio.gather(
            self.smpp_server.stop(),
            self.scheduler.stop(),
            self.usage_triggers.stop(),
            self.media_fetch.stop(),
            self.inbound.stop(),
            *(connector.stop(grace_s) for connector in self.connectors.values()),
        )
        await self.delivery.stop(grace_s)
        await self.landing.stop()
        if self.recording_audio is not None:
            await self.recording_audio.close()
        if self.voice is not None:
            await self.memory.settled(MEMORY_STOP_S)
            self.memory.close()
        await self.client.close()
        await self.alerts.close()
        await self.archive.close()
        await self.queue.close()
        await self.database.close()
        os.close(self._lock)


class _Sink:
    """A node as connectors see it: where they put receipts and inbound messages."""

    def __init__(self, node: Node) -> None:
        self.receipt = node.receipts.apply
        self.inbound = node.inbound.receive


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens and stops the node after it."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again when serving has ended, which would end the process there and then: the
        node has still to be stopped."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls that are up may end by themselves first; the API serves them meanwhile. Another interrupt hurries."""
        await self._node.drain(lambda: self.force_exit)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("listening on %s port %d", host, port)
                if not self._node.settings.server.public_url and not self._node.settings.server.port:
                    self._node.base_url = f"http://{host}:{port}"


def serve(settings: Settings) -> None:
    """Run one node until SIGINT or SIGTERM. Exits with status 1 and one line when it cannot start.

    Where calls are taken this process becomes the supervisor, which runs the same command again as its child.
    """
    if settings.sip.enabled and not inherited.supervised():
        _supervise(settings)
    if inherited.supervised():
        inherited.end_with_parent()
    _allow_files(settings)
    try:
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except (CannotStart, CannotSurvive, BadMasterKey, CannotOpen, StoreUnavailable) as error:
        raise SystemExit(f"trunkline: {error}") from None


def _supervise(settings: Settings) -> NoReturn:
    """See what would keep the node from starting before anything else is touched. Exits like `serve`."""
    try:
        os.close(take_folder(data_folder(settings)))
        _port_is_free(settings.server.host, settings.server.port)
        TlsContexts(tls_config(settings)).load()
    except (CannotStart, TlsError) as error:
        raise SystemExit(f"trunkline: {error}") from None
    processes.run(settings)


def _allow_files(settings: Settings) -> None:
    """Raise the soft limit of open files to what the settings' connections need, as far as the hard limit allows."""
    wanted = settings.server.max_connections + settings.smpp_server.max_connections + settings.webhooks.in_flight
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _port_is_free(host: str, port: int) -> None:
    """Seen before carriers are connected, not after. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(f"cannot listen on {host} port {port}: {reason}; see server.host and server.port") from None


async def _phones(settings: Settings) -> Phones | None:
    """The simulated phones, where a trunk leads to them. Raises CannotStart."""
    if not remote.wanted(settings):
        return None
    try:
        return await Phones.start(data_folder(settings), host=remote.host(settings), engine=settings.speech.engine)
    except remote.CannotStart as error:
        raise CannotStart(str(error)) from None


async def _serve(settings: Settings) -> None:
    phones = await _phones(settings)
    try:
        await _serve_with(remote.with_phones(settings, phones) if phones else settings, phones)
    finally:
        if phones is not None:
            await phones.stop()


async def _serve_with(settings: Settings, phones: Phones | None) -> None:
    node = Node(settings, phones=phones)
    given = [number for name, number in inherited.descriptors().items() if name.startswith(inherited.HTTP)]
    sockets = [socket.socket(fileno=number) for number in given] or None
    if sockets is None:
        _port_is_free(settings.server.host, settings.server.port)
    await node.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    own = settings.server
    config = uvicorn.Config(
        node.app,
        host=own.host,
        port=own.port,
        http=guarded(
            HttpLimits(
                head_bytes=own.max_header_bytes,
                request_s=own.request_timeout_s,
                write_s=own.request_timeout_s,
                connections=own.max_connections,
            )
        ),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=own.backlog,
        timeout_keep_alive=int(own.keep_alive_s),
        timeout_graceful_shutdown=int(own.shutdown_s),
        ssl_certfile=own.tls_cert or None,
        ssl_keyfile=own.tls_key or None,
    )
    try:
        await _Server(config, node).serve(sockets)
    finally:
        await node.stop()

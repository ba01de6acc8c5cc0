"""Wiring of the voice side: SIP, media, prompts, calls. Made by `trunkline.bootstrap.Node` when `sip.enabled`.

`Voice` builds every part, starts them from the bottom up and stops them from the top down. Without a supervisor the
node starts the media process as its child, and starts it again when it dies.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

import msgspec

from trunkline import inherited
from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.bootstrap_processes import media_config, socket_path, spool_folder, tls_config
from trunkline.inherited import MEDIA_FENCE, SIP_TCP, SIP_TLS, SIP_UDP
from trunkline.media.client import MediaClient
from trunkline.media.fence import FenceMemory
from trunkline.media.prompts import Prompts
from trunkline.media.worker_client import AUDIO_IDLE_S, WorkerFailed, Workers
from trunkline.media.worker_wire import AUDIO, SPEECH, Setup
from trunkline.model.call import Call, Direction, Status
from trunkline.model.clock import Clock
from trunkline.settings import Settings
from trunkline.sip.core import StackConfig
from trunkline.sip.flow import is_numeric
from trunkline.sip.timers import Timing
from trunkline.sip.tls import TlsError
from trunkline.sip.transport import SipTransport, TransportLimits
from trunkline.storage.archive import Archive
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.database import Database
from trunkline.storage.memory import MemoryStore
from trunkline.storage.object_blobs import ObjectBlobs
from trunkline.storage.objects import AsyncObjects
from trunkline.storage.queue import Queue
from trunkline.storage.secrets import Secrets
from trunkline.voice import number_risks
from trunkline.voice.audio_fetch import AudioFetch
from trunkline.voice.bans import Bans
from trunkline.voice.calls import Calls
from trunkline.voice.domains import Domains
from trunkline.voice.doorkeeper import Doorkeeper
from trunkline.voice.edges import Edges
from trunkline.voice.flights import CallFlights
from trunkline.voice.guesses import Guesses
from trunkline.voice.heir import Heir
from trunkline.voice.inbound import Inbound
from trunkline.voice.live import LiveCall
from trunkline.voice.logins import Logins
from trunkline.voice.lost_recordings import LostRecordings
from trunkline.voice.outbound import Outbound
from trunkline.voice.outgoing import Wires
from trunkline.voice.permissions import Permissions
from trunkline.voice.reader import CallReader
from trunkline.voice.recording_takeover import SharedRecordings
from trunkline.voice.recordings import Recordings
from trunkline.voice.recovery import Recovery
from trunkline.voice.registrations import Registrations
from trunkline.voice.service import VoiceServices
from trunkline.voice.session import APOLOGY
from trunkline.voice.sources import Sources
from trunkline.voice.spending import Spending
from trunkline.voice.takeover import Takeover
from trunkline.voice.trunk_service import TrunkService
from trunkline.voice.trunks import Trunks
from trunkline.voice.verbs.sms import SendMessage
from trunkline.webhooks.delivery import Delivery
from trunkline.webhooks.failures import HostRefused
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

PROMPT_FOLDER = "prompts"
WORKER_BYTES = 4 << 30
"""Address space of a speech or audio worker."""
AUDIO_TIMEOUT_S = 60.0
"""Longest decoding of one audio file."""
MEDIA_REST_S = 0.5
"""Wait before a media process that has died is started again."""
MEDIA_WAIT_S = 10.0
"""How long a start waits for the media process; calls get 503 until it is there."""
DRAIN_LOOK_S = 0.1
"""Between two looks whether calls are up while the server stops."""
WRITTEN_LOOK_S = 0.01
"""Between two looks whether what happened to them is stored."""
DRAIN_S = 6.0
"""How long calls that are ended by a stop, with what they owe and their recordings, may take to be stored."""
HAND_OVER_S = 1.0
"""How long what happened to calls may take to be stored before they are another node's, or another process's."""
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound

log = logging.getLogger("trunkline")


class Fence(Protocol):
    """Of the lease of a node that is one of several (trunkline.cluster.fence.Fence)."""

    deadline_ns: int
    on_extend: list[Callable[[int], None]]
    on_open: list[Callable[[], None]]

    @property
    def open(self) -> bool: ...


class Voice:
    """See the module. Built on the running event loop."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        database: Database,
        queue: Queue,
        archive: Archive,
        memory: MemoryStore,
        secrets: Secrets,
        directory: Directory,
        alerts: Alerts,
        client: Client,
        guard: Guard,
        fetcher: Fetcher,
        delivery: Delivery,
        base_url: Callable[[], str],
        send_message: SendMessage,
        blobs: FolderBlobs | ObjectBlobs,
        objects: AsyncObjects | None,
    ) -> None:
        self.settings = settings
        self._guard = guard
        self.flights = CallFlights(queue, clock)
        self.reader = CallReader(queue, archive)
        self.media = MediaClient()
        self._wire_prompts(AudioFetch(client, guard, clock, settings))
        self.blobs = blobs
        self.recordings = Recordings(settings, database, queue, blobs, spool_folder(settings), clock, base_url)
        self.services = VoiceServices(
            settings=settings, clock=clock, directory=directory, alerts=alerts, fetcher=fetcher, flights=self.flights,
            memory=memory, media=self.media, prompts=self.prompts, trunks=settings.trunks,
            media_address=self._media_address, recordings=self.recordings, send_message=send_message,
        )  # fmt: skip
        key = hashlib.sha256(b"sip nonces" + secrets.pepper).digest()
        self.sources = Sources(
            settings.trunks, self._domain, key, settings.sip.source_requests_per_second, clock,
            Edges(settings.sip.edges),
        )  # fmt: skip
        self._wire_domains(key)
        self.inbound = Inbound(self.services, self.sources, self.domains)
        self._wire_sip()
        trunks = self._make_trunks(clock)
        self.trunks = TrunkService(
            trunks, self.sip, self.inbound.doors, self.sources.by_address, secret=key, domain=self._domain,
            folder=settings.data_path, clock=clock,
        )  # fmt: skip
        wires = self._make_wires(trunks, clock)
        self.outbound = self.services.outbound = Outbound(self.services, wires, self.recordings, secrets)
        self.outbound.domains = self.domains
        self._wire_permissions(trunks)
        self.calls = Calls(
            settings, self.flights, self.reader, self.outbound, self.recordings, directory, archive, database, alerts,
            secrets, self.services.live.get,
        )  # fmt: skip
        self.flights.owed = self.recordings.owed = delivery.push
        self.recordings.find_call = self.services.live.get
        self.recordings.flight_of = self.flights.id_of
        run = inherited.run_name()
        self.recovery = Recovery(self.services, self.sip.stack, self.inbound, run, lambda: self.media.epoch)
        self._wire_lost_recordings(objects, database, clock)
        self.takeover: Takeover | None = None
        """Of a node that is one of several."""
        self.heir: Heir | None = None
        self.listening = asyncio.Event()
        """SIP messages are taken, and the calls of the process before this one have been taken up."""
        self.media.on_hello(self.recovery.greeted)
        self.media.otherwise = self.recordings.event
        self._media_task: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _wire_lost_recordings(self, objects: AsyncObjects | None, database: Database, clock: Clock) -> None:
        """Recordings of lost processes; and of lost hosts, where there is an object store: then they leave this one."""
        spool = spool_folder(self.settings)
        self.lost_recordings = LostRecordings(
            self.recordings, database, spool, lambda: self.recovery.recorded,
            mine=lambda call_sid: self.recordings.is_ours(call_sid),
        )  # fmt: skip
        self.shared: SharedRecordings | None = None
        if objects is not None:
            longest_ms = int(self.settings.voice.recording_max_s * 1000)
            origin = self.settings.node.name
            self.shared = SharedRecordings(objects, self.recordings, database, clock, spool, origin, longest_ms)
            self.lost_recordings.assemble = self.shared.takeover.assemble

    def _make_wires(self, trunks: Trunks, clock: Clock) -> Wires:
        return Wires(
            invite=self.sip.stack.invite, trunks=trunks, domain=self._domain, resolve=self._resolve,
            now=clock.monotonic, busy_on_decline=self.settings.voice.busy_on_decline,
        )  # fmt: skip

    def _make_doorkeeper(self) -> Doorkeeper:
        own = self.settings.sip
        hosts = [one for one in (own.host, own.advertised) if is_numeric(one) and one not in WILDCARDS]
        return Doorkeeper(self.sources, self.inbound.doors, self.domains, self.settings.trunks, hosts)

    def _make_trunks(self, clock: Clock) -> Trunks:
        own = self.settings
        return Trunks(own.trunks, random.Random(), clock.monotonic(), clock.monotonic, own.voice.emergency_trunk)

    def _wire_prompts(self, fetch: AudioFetch) -> None:
        own = self.settings
        self.speech_workers = Workers(
            Setup(role=SPEECH, memory_bytes=WORKER_BYTES, engine=own.speech.engine, warm=True),
            processes=own.speech.workers, timeout_s=own.speech.timeout_s, idle_s=own.speech.idle_s,
        )  # fmt: skip
        # Of several nodes each is ready to go on with another's prompts.
        idle_s = 0.0 if own.cluster.enabled else AUDIO_IDLE_S
        self.audio_workers = Workers(
            Setup(role=AUDIO, memory_bytes=WORKER_BYTES), timeout_s=AUDIO_TIMEOUT_S, idle_s=idle_s
        )
        self.prompts = Prompts(
            own.data_path / PROMPT_FOLDER,
            speech=self.speech_workers,
            audio=self.audio_workers,
            fetch=fetch,
            max_bytes=own.media.prompt_bytes,
            engine=own.speech.engine,
        )

    def _wire_domains(self, key: bytes) -> None:
        """SIP domains and their phones."""
        services, own = self.services, self.settings.sip
        clock = services.clock
        self.bans: Bans = Bans(own, services.memory, clock, self._is_trunk)
        self.sources.bans = self.bans
        self.sources.scanners = tuple(one.lower() for one in own.scanner_agents)
        logins = Logins(
            own.realm, key, clock, own.digest_algorithms, self.sources.failed, self.bans.vouched,
            Guesses(own.ban_after, own.ban_window_s, clock.monotonic),
        )  # fmt: skip
        self.registrations: Registrations = Registrations(
            services.memory, services.directory, services.alerts, logins, own, services.clock, self.sources.edges
        )
        self.domains = Domains(services.directory, logins, self.registrations, self.sources.edges)

    def _is_trunk(self, host: str) -> bool:
        return self.sources.by_address(host) is not None or self.inbound.doors.knows(host) or host in self.sources.edges

    def _wire_permissions(self, trunks: Trunks) -> None:
        """Whom accounts may call, and for how much."""
        own, services = self.settings.voice, self.services
        self.spending = Spending(
            own,
            services.memory,
            services.alerts,
            services.clock,
            services.live,
            {one.name: one for one in trunks.all}.get,
        )
        self.permissions = self.outbound.permissions = Permissions(
            own, services.directory, number_risks.load(own.high_risk_file), self.settings.trunks,
            self.spending if self.spending.limited else None,
        )  # fmt: skip

        def price(call: Call) -> None:
            before = call.price
            trunks.price(call)
            if not before:
                self.spending.ended(call)

        self.flights.price = price

    async def _resolve(self, host: str) -> str:
        """The address of a host that a customer names. Raises Failure; also for a trunk's gateway by another name."""
        address = await self._guard.resolve(host)
        if self.permissions.is_trunk(address) or (not self.settings.voice.sip_to_trunks and self._is_carriers(address)):
            raise HostRefused(f"{host} is a trunk's gateway")
        return address

    def _is_carriers(self, address: str) -> bool:
        """Whether a trunk's gateway or registrar is at an address, or what it calls from: a carrier's other hosts
        believe our address as well as its gateways do. Where these are private, the operator has let customers in."""
        numeric = ip_address(address)
        gateway = not numeric.is_loopback and self.inbound.doors.knows(address)
        return gateway or (numeric.is_global and self.sources.by_address(address) is not None)

    def _wire_sip(self) -> None:
        own = self.settings.sip
        config = StackConfig(
            host=own.advertised,
            user_agent=own.user_agent,
            timing=Timing(t1=own.t1_s),
            invite_timeout_s=own.invite_timeout_s,
            max_transactions=own.max_transactions,
            session_expires_s=int(own.session_expires_s),
            min_se_s=own.min_se_s,
        )
        limits = TransportLimits(max_connections=own.max_connections, max_message_bytes=own.max_message_bytes)
        self.sip: SipTransport = SipTransport(config, self.inbound, limits, tls_config(self.settings), own.dns_servers)
        self.sip.stack.trace = self.inbound.doors.tracing(self.services.trace)
        self.sip.stack.on_flow_closed = self.registrations.flow_closed
        self.sip.stack.is_inside = self._guard.refuses
        self.sip.refuses, self.sip.admits = self.bans.refuses, self.bans.admits
        if not own.answer_strangers:
            self.inbound.doorkeeper = self._make_doorkeeper()

    @property
    def _domain(self) -> str:
        own = self.settings.sip
        return own.domain or own.advertised or own.host

    def _media_address(self, host: str) -> str:
        """The address that our SDP names towards a peer."""
        own = self.settings.media
        for told in (self.trunks.advertised(host), own.advertised, self.settings.sip.advertised):
            if is_numeric(told):  # a name is for Contact and Via: few peers look one up in SDP
                return told
        if own.host not in WILDCARDS:
            return own.host
        return self.sip.local_address_towards(host)

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self.blobs.measure()
        await self.prompts.start()
        loop = asyncio.get_running_loop()
        if not inherited.supervised():
            config = media_config(self.settings, recordings=str(spool_folder(self.settings)))
            self._media_task = loop.create_task(_keep_media(config))
        await self.recovery.read()
        await self.registrations.load()
        for host in self.registrations.hosts():
            self.bans.vouched(host)
        await self.bans.load()
        await self.spending.load()
        if not await self.media.start(socket_path(self.settings), MEDIA_WAIT_S):
            log.error("the media process is not there; calls are refused until it is")
        await self.lost_recordings.start()
        await self.recordings.recover()
        if self.shared is not None:
            self.shared.start()
        if self.takeover is None:  # else `gained` ends or goes on with what is left
            await self.outbound.recover(self.recovery.adopted)
        await self._listen()
        self.recovery.resume()
        self.listening.set()
        self.trunks.start()
        self.outbound.start()
        guards = self.bans.run(self.settings.data_path), self.spending.run()
        work = (self._warm(), self.recovery.note_life(), self.lost_recordings.run(), *guards)
        self._tasks += [loop.create_task(one) for one in work]
        tls = f"; TLS on port {self.sip.tls_port}" if self.sip.tls_port else ""
        log.info("SIP on %s port %d, UDP and TCP%s", self.sip.host, self.sip.port, tls)

    async def _listen(self) -> None:
        """Take SIP messages. Raises OSError."""
        own, given = self.settings.sip, inherited.descriptors()
        if SIP_UDP not in given or SIP_TCP not in given:
            await self.sip.start(own.host, own.port, tls_port=own.tls_port or None)
            return
        try:
            self.sip.tls.load()
        except TlsError as error:  # the supervisor has read them: this is a later start, with calls that go on
            log.error("%s; no TLS connection is taken until then", error)
        sockets = {name: socket.socket(fileno=given[name]) for name in (SIP_UDP, SIP_TCP, SIP_TLS) if name in given}
        await self.sip.start(udp_socket=sockets[SIP_UDP], tcp_socket=sockets[SIP_TCP], tls_socket=sockets.get(SIP_TLS))

    async def _warm(self) -> None:
        """Have the speech engine loaded, and what is said in a hurry spoken, before the first call wants it."""
        try:
            await self.speech_workers.start()
            if self.takeover is not None:
                await self.audio_workers.start()
            await self.prompts.speech(APOLOGY)
        except WorkerFailed as error:
            log.error("speech does not work: %s", error)
        except Exception:
            log.exception("speech does not work")

    # -- one of several nodes --------------------------------------------------------------------------------

    def join(self, node: str, fence: Fence, mine: Callable[[str], bool], speaks_for: Callable[[str], bool]) -> None:
        """Be one of several nodes that take over each other's calls. Before `start`. `fence`: whether this one may
        still say anything; `mine`: whether what a SID names is its own; `speaks_for`: the same, though its partition of
        the queue may not be open yet."""
        services, memory = self.services, self.services.memory
        services.settled = memory.settled
        self.flights.memory = memory
        self.sip.fence = services.gate = self.flights.gate = fence
        fence.on_open.append(self.flights.reopened)
        self.recordings.is_ours, self.recordings.memory, self.recordings.gate = mine, memory, fence
        fd = inherited.descriptors().get(MEDIA_FENCE)
        if fd is not None:
            deadline = FenceMemory(fd)
            deadline.set(fence.deadline_ns)
            fence.on_extend.append(deadline.set)
        self.recovery.join(node, speaks_for)
        continues = self.shared.takeover if self.shared is not None else None
        self.takeover = Takeover(services, self.sip.stack, continues)
        self.heir = Heir(services, self.takeover, self.listening, self.lost_recordings.take)

    def granted(self, number: int, is_in: Callable[[str], bool]) -> None:
        """A partition of the queue is this node's, by what its SIDs say, though its database may be away."""
        if self.heir is not None:
            self.heir.granted(number, is_in)

    def gained(self, number: int, is_in: Callable[[str], bool], queue: Queue) -> None:
        """Now it can be written."""
        if self.heir is not None:
            self.heir.gained(number, is_in, queue)

    def has_calls(self, is_in: Callable[[str], bool]) -> bool:
        """Whether a call of a partition is up, or on its way there. One that was let go of is another's already, though
        the media process may not have closed it yet."""
        ours = (sid for sid, call in self.services.live.items() if not call.abandoned)
        return any(map(is_in, ours)) or bool(self.flights.held(is_in))

    def lost(self, number: int, is_in: Callable[[str], bool]) -> None:
        """A partition is another node's: its calls are dropped here, without a word."""
        if self.heir is not None and self.takeover is not None:
            self.heir.lost(number)
            self.takeover.let_go(is_in)

    async def drain(self, wait_s: float, hurry: Callable[[], bool]) -> None:
        """Take no more calls, and wait for those that are up to end: `wait_s` at most, or until it says to hurry."""
        self.inbound.draining = True
        self.outbound.stop()
        await self.trunks.stop()
        live = self.services.live
        if live:
            log.info("%d calls are up: they have %g s to end", len(live), wait_s)
        for _ in range(int(wait_s / DRAIN_LOOK_S)):
            if not live or hurry():
                return
            await asyncio.sleep(DRAIN_LOOK_S)

    async def hand_over(self) -> None:
        """Before this node leaves a cluster: the next owners of the calls go on with them, as with those of a lost
        host, so nothing more is said of them here. Those about to end have had their time (`drain`)."""
        self.inbound.draining = True
        self.outbound.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self._written()
        if self.takeover is not None:
            self.takeover.let_go()

    async def settle(self, wait_s: float) -> None:
        """Before another process takes over: place no new calls (they wait in the queue), and wait until those that
        are being placed are answered or over, `wait_s` at most."""
        self.outbound.hold()
        for _ in range(int(wait_s / DRAIN_LOOK_S)):
            if not any(map(_is_placed, self.services.live.values())):
                return
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _written(self) -> None:
        """What happened to calls is stored."""
        while any(flight.pending for flight in self.flights):  # noqa: ASYNC110 - has no event
            await asyncio.sleep(WRITTEN_LOOK_S)

    async def let_go(self) -> None:
        """Say and hear nothing more; calls stay, for another process to go on with."""
        await self.sip.close()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self._written()
        await self.media.close()
        for call in list(self.services.live.values()):
            if call.session is not None:
                call.session.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self._written()

    async def stop(self) -> None:
        """Take no more calls, end those that are up, and let what they say be stored."""
        self.inbound.draining = True
        self.outbound.stop()
        calls = list(self.services.live.values())
        sessions = [call.session for call in calls if call.session is not None]
        for call in calls:
            call.hangup("shutdown", 503)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                for call in calls:
                    await call.settled.wait()
                # What they owe is told before the end.
                await self._written()
                kept = [one.finished for call in calls for one in self.recordings.of_call(call.sid)]
                if kept:
                    await asyncio.wait(kept)
        for session in sessions:
            session.cancel()
        await self.recordings.close()
        if self.shared is not None:
            await self.shared.stop()
        if self.heir is not None:
            await self.heir.close()
        await self.trunks.stop()
        await self.sip.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._media_task is not None:
            self._media_task.cancel()
            await asyncio.gather(self._media_task, return_exceptions=True)
        await self.media.close()
        await self.prompts.close()


def _is_placed(live: LiveCall) -> bool:
    """Whether it is a call of ours that rings, or will."""
    return live.status in (Status.INITIATED, Status.RINGING) and live.record.direction is not Direction.INBOUND


async def _keep_media(config: dict[str, Any]) -> None:
    """Run the media process as a child until cancelled; start it again when it ends."""
    program = (
        "import sys; from trunkline.inherited import end_with_parent; end_with_parent(); "
        "from trunkline.media.process import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "--config-json", msgspec.json.encode(config).decode()]
    while True:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.terminate()
                await process.wait()
            raise
        log.error("the media process ended with status %d; it is started again", status)
        await asyncio.sleep(MEDIA_REST_S)

"""The node's side of a restart without a failed request (the supervisor's: trunkline.supervisor.handover).

A new process loads what it can and waits for its turn (`await_turn`). The old one, told to hand over:

    1. hands no more messages and callbacks out, places no more calls, and waits for what is under way; the API goes on
    2. closes its listening sockets, which stay open in the supervisor: connections wait in the kernel
    3. answers the requests that are under way, passes every idle connection of the API on to the next process (over
       TLS, which cannot be passed on, `Connection: close` was said for CLOSING_S), and those on which a request waits
       of which nothing has been done (trunkline.model.held), with what was read; unbinds SMPP clients
    4. passes carriers' binds (of a node alone) and SIP peers' TCP connections on, leaves calls as they are, to be taken
       up like after a crash, closes the stores, and ends

Why connections are passed on: a keep-alive connection that is closed may have a request under way to it, which fails.
One that is not read from loses nothing: the bytes are in the kernel, and the next process reads them.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, Protocol, runtime_checkable

import msgspec
import uvicorn

from trunkline import inherited
from trunkline.api.request import Request
from trunkline.bootstrap import MEMORY_STOP_S, Node
from trunkline.bootstrap_processes import ORDERS_SOCKET, socket_path
from trunkline.inherited import (
    BEGUN,
    BINDS,
    CLOSED,
    CONNECTIONS,
    HAND_OVER,
    HEALTH,
    KINDS,
    MAX_DESCRIPTORS,
    READY,
    RELEASED,
    SIP_STREAMS,
    WARM,
    Channel,
)
from trunkline.listeners.guarded_http import GuardedHttp
from trunkline.messaging.connectors.base import Connector
from trunkline.settings import Settings
from trunkline.sip import transport_handover
from trunkline.sip.transport import SipTransport
from trunkline.supervisor.orders import NoSupervisor, give

CLOSING_S: Final = 0.7
"""Over TLS: how long answers say `Connection: close` before connections without a request are closed."""
SETTLE_S: Final = 15.0
"""Longest wait for submits, callbacks and placed calls under way (less where `server.shutdown_s` is); the API serves
meanwhile."""
REQUESTS_S: Final = 10.0
"""Longest wait for requests under way once nothing new is accepted."""
LET_GO_S: Final = 2.0
"""How long carriers' answers are waited for once nothing new is accepted."""
PAIRS_AT_ONCE: Final = 128
"""Descriptors in one message where each connection comes with a memory."""
PASS_S: Final = 5.0
"""Longest wait for the supervisor to take connections."""
LOOK_S: Final = 0.002
WELL: Final = 200
SUPERVISOR: Final = "supervisor"
"""Kind of the calls between nodes that are for the supervisor."""
PEERS_MAY: Final = ("status", "upgrade")
STATUS_S: Final = 3.0
ACCEPT_S: Final = 1.0
"""How long an order may take to be refused."""
LATE: Final = {
    "postgres": "trunkline.storage.engines.postgres.partitions",
    "valkey": "trunkline.storage.engines.valkey.store",
}
"""What is imported only where it is asked for, and early in a process that waits for its turn."""

_decode_bind: Final = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode
"""Connector, which of its binds, state."""

log = logging.getLogger("trunkline")


def await_turn(channel: Channel | None, settings: Settings) -> bool:
    """Wait until the process before this one has let go of the data folder, if there is one. False: it is not to be."""
    if channel is not None and inherited.BATON in inherited.descriptors():
        for engine in {settings.storage.engine, settings.memory.engine} & LATE.keys():
            with contextlib.suppress(ImportError):
                importlib.import_module(LATE[engine])
        channel.say({"event": WARM, "pid": os.getpid(), "takes": KINDS})
    return inherited.await_baton()


@runtime_checkable
class Binds(Protocol):
    """A connector that may be left bound (trunkline.messaging.connectors.smpp)."""

    def take(self, mark: str, connection: socket.socket, state: bytes) -> None: ...

    async def let_go(self, grace_s: float) -> list[tuple[str, int, bytes]]: ...


Heard = list[tuple[inherited.Message, list[int]]]


def inherit(channel: Channel | None, node: Node) -> Heard:
    """What the supervisor has said before this process's turn; carriers' binds are the connectors' from here on. Before
    the node starts."""
    found: Heard = []
    with contextlib.suppress(EOFError):
        while channel is not None and (heard := channel.heard()) is not None:
            if heard[0].get("do") == BINDS:
                _take_binds(node, heard[1])
            else:
                found.append(heard)
    return found


def _take_binds(node: Node, descriptors: list[int]) -> None:
    for descriptor, memory in zip(descriptors[::2], descriptors[1::2], strict=True):
        connection, (name, mark, state) = socket.socket(fileno=descriptor), _decode_bind(_read_all(memory))
        connector: object = node.connectors.get(name)
        if isinstance(connector, Binds):
            connector.take(mark, connection, state)
        else:
            connection.close()


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens, stops the node after it, and can hand over."""

    def __init__(self, config: uvicorn.Config, node: Node, channel: Channel | None, early: Heard) -> None:
        """`early`: what was heard before (`inherit`)."""
        super().__init__(config)
        self._early = early
        self._node = node
        self._channel = channel
        self._leaving: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._takes: tuple[str, ...] = ()
        """What the next process may be given (trunkline.inherited.KINDS)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again when serving has ended, which would end the process there and then: the
        node has still to be stopped."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: stop, unless it is leaving anyway."""
        if self._leaving is None or sig == signal.SIGINT:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls that are up may end by themselves first; the API serves them meanwhile. Another interrupt hurries."""
        await self._node.drain(lambda: self.force_exit)
        self.config.timeout_graceful_shutdown = math.ceil(self._node.grace.left())
        await super().shutdown(sockets)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("listening on %s port %d", host, port)
                if not self._node.settings.server.public_url and not self._node.settings.server.port:
                    self._node.base_url = f"http://{host}:{port}"
        if self._channel is not None:
            for message, descriptors in self._early:
                self._told(self._channel, message, descriptors)
            self._hear()
            asyncio.get_running_loop().add_reader(self._channel.fileno(), self._hear)
            self._channel.say({"event": READY, "pid": os.getpid()})

    # -- the supervisor's words ------------------------------------------------------------------------------

    def _hear(self) -> None:
        channel = self._channel
        assert channel is not None
        try:
            while (heard := channel.heard()) is not None:
                self._told(channel, *heard)
        except EOFError:
            asyncio.get_running_loop().remove_reader(channel.fileno())

    def _told(self, channel: Channel, message: inherited.Message, descriptors: list[int]) -> None:
        do = message.get("do")
        loop = asyncio.get_running_loop()
        if do == CONNECTIONS:
            for descriptor in descriptors:
                loop.create_task(self._adopt(socket.socket(fileno=descriptor), b""))
        elif do in (BEGUN, SIP_STREAMS):
            adopt = self._adopt if do == BEGUN else self._adopt_stream
            for descriptor, memory in zip(descriptors[::2], descriptors[1::2], strict=True):
                loop.create_task(adopt(socket.socket(fileno=descriptor), _read_all(memory)))
        elif do == HEALTH:
            self._telling = loop.create_task(self._tell_health(channel))
        elif do == HAND_OVER and self._leaving is None and not self.should_exit:
            self._takes = tuple(message.get("takes", (CONNECTIONS,)))
            self._leaving = loop.create_task(self._hand_over(channel))
        else:  # what cannot be used is not kept open
            for descriptor in descriptors:
                os.close(descriptor)

    async def _adopt(self, connection: socket.socket, read: bytes) -> None:
        """Serve a connection of the process before this one, which has read the beginning of a request."""
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._protocol(read), connection)

    async def _adopt_stream(self, connection: socket.socket, state: bytes) -> None:
        """Go on with a SIP peer's connection of the process before this one."""
        voice = self._node.voice
        if voice is None:
            connection.close()
            return
        try:
            await transport_handover.adopt(voice.sip, connection, state)
        except (OSError, ValueError) as error:
            connection.close()
            log.warning("a SIP connection could not be taken over: %s", error)

    def _protocol(self, read: bytes) -> asyncio.Protocol:
        made: GuardedHttp = self.config.http_protocol_class(  # type: ignore[assignment, call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        made.first = read
        return made

    async def _tell_health(self, channel: Channel) -> None:
        node = self._node
        response = await node.metrics.mounts()["/readyz"](Request("GET", "/readyz"))
        ok = response.status == WELL
        why = "" if ok else response.body.decode("utf-8", "replace")[:500]
        calls = len(node.voice.services.live) if node.voice is not None else 0
        channel.say({"event": HEALTH, "ok": ok, "why": why, "calls": calls})

    # -- handing over ----------------------------------------------------------------------------------------

    async def _hand_over(self, channel: Channel) -> None:
        """See the module. The process ends here."""
        node = self._node
        try:
            await _settle(node, min(SETTLE_S, node.settings.server.shutdown_s))
            if self.config.ssl is not None:
                self.config.encoded_headers = [*self.config.encoded_headers, (b"connection", b"close")]
                await self.on_tick(0)
                await asyncio.sleep(CLOSING_S)
            for server in self.servers:
                server.close()
            channel.say({"event": CLOSED})
            await asyncio.gather(self._empty(channel), node.smpp_server.stop(1.0))
            await _let_go(node, channel, self._takes)
        except Exception:  # whatever it was: the next process takes up what is left, like after a crash
            log.exception("handing over did not go as it should")
        finally:
            channel.say({"event": RELEASED})
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    async def _empty(self, channel: Channel) -> None:
        """Answer what is under way, and pass on each connection as soon as nothing is."""
        end = asyncio.get_running_loop().time() + REQUESTS_S
        connections: set[Any] = self.server_state.connections
        while True:
            whole = [one for one in connections if isinstance(one, GuardedHttp) and one.is_idle]
            if self.config.ssl is None:
                begun = self._begun() if BEGUN in self._takes else []
                idle = [number for one in whole if (number := one.let_go()) >= 0]
                connections.difference_update(whole)
                await _pass(channel, CONNECTIONS, idle, MAX_DESCRIPTORS // 2)
                await _pass(channel, BEGUN, begun, PAIRS_AT_ONCE)
                for memory in begun[1::2]:
                    os.close(memory)
            else:
                for one in whole:
                    one.shutdown()
                connections.difference_update(whole)
            if not connections or asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(LOOK_S)
        if connections:
            log.warning("%d requests were under way for %g s: their connections close", len(connections), REQUESTS_S)

    def _begun(self) -> list[int]:
        """Let go of the requests of which nothing has been done: of each its connection, and what was read of it."""
        descriptors: list[int] = []
        connections: set[Any] = self.server_state.connections
        for one in list(connections):
            read = one.take_back() if isinstance(one, GuardedHttp) else None
            if read is not None:
                connections.discard(one)
                if (connection := one.let_go()) >= 0:
                    descriptors += [connection, _memory(read)]
        return descriptors


async def _pass(channel: Channel, kind: str, descriptors: list[int], at_once: int) -> None:
    """Pass connections on; where the supervisor reads more slowly, wait."""
    end = asyncio.get_running_loop().time() + PASS_S
    for start in range(0, len(descriptors), at_once):
        some = tuple(descriptors[start : start + at_once])
        while not channel.say({"event": kind}, some):
            if asyncio.get_running_loop().time() > end:
                log.warning("%d connections could not be passed on", len(descriptors) - start)
                return
            await asyncio.sleep(LOOK_S)


async def _pass_streams(channel: Channel, sip: SipTransport) -> None:
    """Pass on the connections of SIP peers; nothing is said on them any more."""
    descriptors: list[int] = []
    for connection, state in transport_handover.let_go(sip):
        descriptors += [connection, _memory(state)]
    await _pass(channel, SIP_STREAMS, descriptors, PAIRS_AT_ONCE)
    for descriptor in descriptors:
        os.close(descriptor)


async def _leave_carrier(channel: Channel, takes: tuple[str, ...], name: str, connector: Connector) -> None:
    """Leave a carrier's binds to the next process, where that takes them; else unbind."""
    if BINDS not in takes or not isinstance(connector, Binds):
        await connector.stop(LET_GO_S)
        return
    descriptors: list[int] = []
    for mark, connection, state in await connector.let_go(LET_GO_S):
        descriptors += [connection, _memory(msgspec.msgpack.encode((name, mark, state)))]
    await _pass(channel, BINDS, descriptors, PAIRS_AT_ONCE)
    for descriptor in descriptors:
        os.close(descriptor)


def _memory(read: bytes) -> int:
    """Memory with these bytes, as a descriptor."""
    memory = os.memfd_create("trunkline-request", os.MFD_CLOEXEC)
    with open(os.dup(memory), "wb") as file:
        file.write(read)
    return memory


def _read_all(memory: int) -> bytes:
    with open(memory, "rb") as file:
        file.seek(0)
        return file.read()


async def _settle(node: Node, wait_s: float) -> None:
    """Before another process takes over: hand nothing more out, and wait for what is under way, `wait_s` at most
    for each kind. Requests are served meanwhile; what they accept waits in the queue."""
    if node.voice is not None:
        await node.voice.settle(wait_s)
    node.dispatcher.stop()
    await asyncio.gather(node.scheduler.stop(), node.usage_triggers.stop(), node.delivery.stop(wait_s))


async def _let_go(node: Node, channel: Channel, takes: tuple[str, ...]) -> None:
    """Let another process go on with everything, calls included; nothing is said to anybody about them. After
    `_settle`, and once no request is under way. `takes`: what may be passed on to it (trunkline.inherited.KINDS)."""
    await node.halt()
    await asyncio.gather(
        node.media_fetch.stop(),
        node.inbound.stop(),
        *(_leave_carrier(channel, takes, name, one) for name, one in node.connectors.items()),
    )
    if node.voice is not None:
        if SIP_STREAMS in takes:
            await _pass_streams(channel, node.voice.sip)
        await node.voice.let_go()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LET_GO_S):
            await node.landing.stop()
    await node.telemetry.stop()
    if node.recording_audio is not None:
        await node.recording_audio.close()
    if node.voice is not None or node.cluster is not None:
        await node.memory.settled(MEMORY_STOP_S)
    if node.cluster is not None:
        await node.cluster.close()
    await node.client.close()
    await node.alerts.close()
    await node.archive.close()
    if node.region is not None:
        await node.region.stop()
    await node.queue.close()
    await node.database.close()
    if node.voice is not None or node.cluster is not None:
        node.memory.close()
    os.close(node.lock)


def take_orders(node: Node) -> None:
    """Let `trunkline rollout` ask this node's supervisor for an upgrade, and this node how it is. Before it starts."""
    if node.cluster is None:
        return

    async def answer(_: str, payload: bytes) -> bytes:
        order = json.loads(payload)
        if order.get("do") not in PEERS_MAY:
            return json.dumps({"error": "no such order"}).encode()
        try:
            said = await asyncio.to_thread(_first_word, socket_path(node.settings, ORDERS_SOCKET), order)
        except NoSupervisor as error:
            said = {"error": str(error)}
        if order["do"] == "status" and "error" not in said:
            said |= await _condition(node)
        return json.dumps(said).encode()

    node.cluster.peers.handle(SUPERVISOR, answer)


def _first_word(path: str, order: dict[str, Any]) -> dict[str, Any]:
    """The answer to an order; one that takes long is accepted once it has not been refused."""
    try:
        for said in give(path, order, STATUS_S if order["do"] == "status" else ACCEPT_S):
            refused = said.get("over") and not said.get("ok")
            return {"error": str(said.get("text"))} if refused else dict(said)
    except NoSupervisor:
        if order["do"] == "status":
            raise
    return {"accepted": True}


async def _condition(node: Node) -> dict[str, Any]:
    """Whether it is well, how many requests it has answered, and how many of them within which time: `within` has the
    bounds in seconds as text, as JSON wants keys."""
    mounts = node.metrics.mounts()
    ready = await mounts["/readyz"](Request("GET", "/readyz"))
    scrape = Request("GET", "/metrics")
    scrape.headers = {b"authorization": f"Bearer {node.settings.server.metrics_token}".encode()}
    asked = errors = 0.0
    within: dict[str, int] = {}
    for line in (await mounts["/metrics"](scrape)).body.decode().splitlines():
        if line.startswith("trunkline_http_seconds_count"):
            count = float(line.rpartition(" ")[2])
            asked += count
            errors += count if 'status="5xx"' in line else 0.0
        elif line.startswith("trunkline_http_seconds_bucket"):
            bound = line.partition('le="')[2].partition('"')[0]
            within[bound] = within.get(bound, 0) + int(float(line.rpartition(" ")[2]))
    why = "" if ready.status == WELL else ready.body.decode("utf-8", "replace")[:500]
    well = ready.status == WELL
    return {"well": well, "why": why, "requests": int(asked), "errors": int(errors), "within": within}

"""Wiring of a node that is one of several: made by `trunkline.bootstrap.Node` when `cluster.enabled`.

`ClusterNode` knows the others: its lease and fence, who owns what, the calls between nodes. It is what the parts of the
node that reach beyond it are given (`Holders`, `Parts`, `Cluster`, `Peers` in their modules). The hooks at the end make
of "this node owns it now" what the node does about it.
"""

import asyncio
import contextlib
import logging
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.api import homes
from trunkline.api.asgi import Api
from trunkline.api.homes import Homes
from trunkline.api.idempotency import parse_key
from trunkline.bootstrap_owned import ConnectorHooks, TrunkHooks, UpkeepHooks
from trunkline.bootstrap_roles import CONNECTOR, SINGLE, TRUNK, RoleMap, things
from trunkline.bootstrap_stores import CannotStart
from trunkline.cluster import mistakes
from trunkline.cluster.copies import Copies
from trunkline.cluster.events import Listener, NameTaken, Timing
from trunkline.cluster.fence import Fence
from trunkline.cluster.kinds import MESSAGING
from trunkline.cluster.membership import Membership
from trunkline.cluster.ownership import Hooks, Ownership
from trunkline.cluster.peers import Peers, Refused
from trunkline.cluster.records import NodeRecord
from trunkline.cluster.shared_counts import SharedCounts
from trunkline.listeners import carriers_elsewhere
from trunkline.listeners.smpp import SmppServer
from trunkline.messaging import from_calls_elsewhere
from trunkline.messaging.across import Across
from trunkline.messaging.connectors.base import Connector
from trunkline.messaging.connectors.incoming import Mounted
from trunkline.messaging.connectors.table import Context, make
from trunkline.messaging.from_calls import FromCalls
from trunkline.messaging.from_calls_elsewhere import FromCallsElsewhere
from trunkline.messaging.leased import LeasedConnector
from trunkline.messaging.shared_rates import SharedRates
from trunkline.messaging.shared_waiting import SharedWaiting
from trunkline.model import sid as sids
from trunkline.model.clock import Clock
from trunkline.settings import Settings
from trunkline.settings.connectors import Smpp
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.memory import MemoryStore
from trunkline.storage.queue import Queue
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice.shared_registrations import SharedRegistrations

if TYPE_CHECKING:
    from trunkline.bootstrap import Node

SETTLE_S: Final = 10.0
"""How long a start waits for what is this node's to be opened."""
LOOK_S: Final = 0.02
"""Between two looks whether something is still under way."""
WILDCARDS: Final = ("", "::", "0.0.0.0")  # noqa: S104 - listeners on every address
RETRY_S: Final = 0.5
"""Wait after a partition that was gained could not be read."""

Rate = Callable[[str, str], float]
Pace = Callable[[str], float]

log = logging.getLogger("trunkline")


def own_http(settings: Settings) -> str:
    """Where this very node answers HTTP; `server.public_url` is all nodes' together."""
    server = settings.server
    host = server.host if server.host not in WILDCARDS else settings.node.address.rpartition(":")[0]
    return f"{'https' if server.tls_cert else 'http'}://{host}:{server.port}"


class CannotJoin(CannotStart):
    """This node cannot be one of the cluster; the text is one line for the operator."""


class ClusterNode(Listener):
    """See the module."""

    def __init__(self, settings: Settings, clock: Clock, queue: ShardedQueue, memory: MemoryStore) -> None:
        own, sip = settings.node, settings.sip
        self.name = own.name
        self.queue = queue
        self._settings = settings
        self.fence = Fence()
        self.peers = Peers(own.name, str(settings.cluster.secret), *tls_contexts(settings))
        me = NodeRecord(
            name=own.name, zone=own.zone, region=own.region, address=own.address, http=own_http(settings),
            sip=f"{sip.advertised or sip.host}:{sip.port}" if sip.enabled else "",
            place=f"{machine()} {settings.data_path.resolve()}", roles=own.roles,
            voice_partitions=settings.cluster.voice_partitions,
        )  # fmt: skip
        timing = Timing(lease_s=settings.cluster.lease_s)
        self.membership = Membership(me, memory, self.peers, self.fence, clock, timing)
        self.membership.listeners.append(self)
        self.ownership = Ownership(self.membership, queue)
        self.roles = RoleMap(settings, queue, self.membership, self.ownership)
        self.counts = SharedCounts(self, {})
        mistakes.serve(self.peers)
        self.joined_by: list[Callable[[str], None]] = []
        """Told of each node that has come."""
        self.lost_by: list[Callable[[str], None]] = []
        """Told of each node that has gone."""
        self._work: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """What runs as long as the node does."""
        self._tasks: list[asyncio.Task[None]] = []

    # -- wiring ------------------------------------------------------------------------------------------------

    def wire(self, node: "Node") -> None:
        """Let a node's parts know of the others. Before `start`."""
        parts = CarrierParts(self, node.inflight.sid_of_carrier_id)
        if not isinstance(node.database, SqliteDatabase):
            copies = Copies(self, node.database.heard, time.monotonic)
            copies.serve(self.peers.handle)
            node.database.settle = copies.settle
        self.across = Across(self, parts, node.receipts, node.inbound.receive, node.connectors)
        self.across.serve(self.peers.handle)
        self.lost_by.append(self.across.lost)
        node.receipts.entry = self.across.receipt
        node.dispatcher.may_send = self.open
        if node.misses is not None:
            node.inbound.look = node.misses.number
        if node.voice is not None:
            held = node.voice.inbound.held
            held.can_begin = self.roles.can_begin_calls
            held.look = node.inbound.look
            node.voice.join(self.name, self.fence, self.is_our_sid, self.speaks_for)
            node.voice.outbound.beside = self.shard_beside
        if MESSAGING in self.roles.mine:
            from_calls_elsewhere.serve(self.peers.handle, node.from_calls)
        self.ownership.register("p", PartitionHooks(node, self))
        node.maintenance.pause()
        self.ownership.register(SINGLE, UpkeepHooks(node.maintenance))
        if node.voice is not None:
            self.ownership.register(TRUNK, TrunkHooks(node.voice.trunks.registrations))
            phones = SharedRegistrations(self, node.voice.registrations)
            phones.serve(self.peers.handle)
            self._work.append(phones.run)
        self.ownership.register(CONNECTOR, ConnectorHooks(node.connectors, node.grace.left, self.fence))

    def homes(self, max_key_chars: int) -> Homes:
        """Which requests another node answers."""
        wait_s = self._settings.cluster.home_wait_s
        return Homes(self, lambda raw: parse_key(raw, max_key_chars), wait_s)

    def answer_for(self, api: Api) -> None:
        """Answer requests that other nodes hand over, and hold the limits of customers together with them."""
        self.peers.handle(homes.HTTP, lambda node, payload: homes.answer(api, payload))
        self.counts.add("logins", api.failures)
        if api.rate is not None:
            self.counts.add("requests", api.rate)

    def sender(self, here: FromCalls) -> FromCalls | FromCallsElsewhere:
        """What takes on the messages of this node's calls."""
        return here if MESSAGING in self.roles.mine else FromCallsElsewhere(self)

    def mount(self, connectors: Mapping[str, Mounted]) -> dict[str, Mounted]:
        """Where carriers' own requests go: here, or to a node that has to do with messages."""
        if MESSAGING not in self.roles.mine:
            return {name: carriers_elsewhere.Elsewhere(name, self) for name in connectors}
        carriers_elsewhere.serve(self.peers.handle, connectors)
        return dict(connectors)

    def with_role(self, role: str) -> list[str]:
        """The other live nodes that have a role."""
        return self.roles.with_role(role)

    def share_clients(self, server: SmppServer) -> None:
        """Deliver to SMPP clients that are bound to other nodes, and for them."""
        elsewhere = server.join(self, self.peers.handle)
        self.counts.add("binds", server.failures)
        self.joined_by.append(elsewhere.joined)
        self.lost_by.append(elsewhere.lost)
        self._work.append(elsewhere.run)

    def shared(self, node: "Node") -> tuple[Rate, Pace]:
        """The rates of senders and accounts, as far as they are this node's."""
        rates = SharedRates(
            self,
            active=lambda: node.dispatcher.limited(),
            changed=lambda: node.dispatcher.refresh_rates(),
            now=time.monotonic,
        )
        rates.serve(self.peers.handle)
        self.counts.add("waiting", SharedWaiting(node.outbound, time.monotonic))
        self.counts.serve(self.peers.handle)
        self._work += [rates.run, self.counts.run]
        outbound = node.outbound
        return (
            lambda account, sender: outbound.rate_of(account, sender) / rates.nodes(account, sender),
            lambda account: outbound.pace_of(account) / rates.nodes(account, ""),
        )

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join, and open what is this node's. Raises CannotJoin, StoreUnavailable."""
        try:
            await self.peers.listen(self._settings.node.address)
            await self.membership.start(alone_here=True)
            await self._agree()
        except TimeoutError:
            raise CannotJoin("the memory store did not answer in time: is it, or this machine, too busy?") from None
        except OSError as error:
            raise CannotJoin(f"node.address {self._settings.node.address}: {error.strerror or error}") from None
        except (NameTaken, Refused, ValueError) as error:
            raise CannotJoin(str(error)) from None
        self._tasks = [asyncio.get_running_loop().create_task(run()) for run in self._work]
        self.ownership.offer(things(self._settings))
        await self.ownership.start()
        end = time.monotonic() + SETTLE_S
        while not self._is_settled() and time.monotonic() < end:  # noqa: ASYNC110 - several things, no one event
            await asyncio.sleep(LOOK_S)

    async def _agree(self) -> None:
        """See that the others think alike. Raises ValueError."""
        try:
            self.roles.check()
            await mistakes.check_secret(self.peers, self.name, list(self.membership.view.nodes.values()))
        except ValueError:
            await self.membership.stop()
            raise

    def _is_settled(self) -> bool:
        """Whether what the map gives to this node is open here, and nothing is without an owner."""
        now = self.membership.view.map
        wanted = [thing.name for thing in things(self._settings)]
        ours = {name for name in wanted if self.ownership.owner_of(name) == self.name}
        return ours <= self.ownership.owned and all(now.owner(name) is not None for name in self.ownership.claimable())

    async def leave(self, timeout_s: float) -> None:
        """Hand everything over and go; no calls between nodes after that."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ownership.leave(timeout_s)
        await self.membership.stop()

    async def close(self) -> None:
        """Leave without a word about it, if that has not been done, and end all calls between nodes."""
        await self.ownership.stop()
        await self.membership.halt()
        await self.peers.close()

    def health(self) -> str:
        """What keeps this node from working, in one line; empty: nothing."""
        if not self.membership.live:
            return "not a member of the cluster (see the log)"
        if not self.fence.open:
            return "the lease has run out: the memory store is away, or this node is cut off"
        return "" if self.queue.owned or self.others() else "no partition of the queue is this node's"

    # -- messaging.leased.Holders ------------------------------------------------------------------------------

    def holder(self, connector: str) -> str | None:
        """The other node that holds a connector."""
        owner = self.ownership.owner_of(f"{CONNECTOR}/{connector}")
        return owner if owner != self.name else None

    def open(self) -> bool:
        """Whether this node may send."""
        return self.fence.passes()

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """See `trunkline.cluster.peers.Peers.call`."""
        return self.peers.call(node, kind, payload, timeout_s)

    # -- api.homes.Cluster -------------------------------------------------------------------------------------

    def home(self, account: str, key: str, path: str) -> int:
        """The virtual shard of an Idempotency-Key."""
        return self.queue.home_of(account, key, path)

    def is_ours(self, shard: int) -> bool:
        """Whether this node owns the partition of a shard."""
        return self.queue.partition_of_shard(shard) in self.queue.owned

    def shard_of(self, sid: str) -> int:
        """The virtual shard of a SID."""
        return sids.shard_of(sid)

    def owns_key(self, key: str) -> bool:
        """Whether a key of the memory store is this node's to write: a call's are its owner's alone."""
        kind, _, rest = key.partition("/")
        return kind != "call" or self.speaks_for(rest.partition("/")[0])

    def speaks_for(self, sid: str) -> bool:
        """Whether this node, and no other, sends for what a SID names, be its partition open already or not."""
        number = self.queue.partition_of(sid)
        return number in self.queue.owned or self.ownership.grants(f"p/{number}")

    def shard_beside(self, sid: str) -> int:
        """A shard for what belongs to a SID: its own, unless that cannot be written now and another one of ours can."""
        shard = sids.shard_of(sid)
        return shard if self.is_ours(shard) or not self.queue.owned else self.queue.shard_for_new(calls=True)

    def spare_shard(self, path: str) -> int | None:
        """A shard of another node for what a POST makes that is not made here."""
        return self.roles.spare_shard(path)

    def lacks(self, path: str) -> str:
        """The role that a POST needs and no live node has."""
        return self.roles.lacks(path)

    def is_our_sid(self, sid: str) -> bool:
        """Whether what a SID names is this node's to work on."""
        return self.queue.partition_of(sid) in self.queue.owned

    async def owner(self, shard: int) -> str:
        """The node that owns a shard's partition, ready for work. Raises StoreUnavailable."""
        number = self.queue.partition_of_shard(shard)
        end = time.monotonic() + self._settings.cluster.home_wait_s
        while (left := end - time.monotonic()) > 0:
            found = await self.ownership.wait_for_owner(number, left)
            if found is not None and (found != self.name or number in self.queue.owned):
                return found
            await asyncio.sleep(LOOK_S)
        raise StoreUnavailable(f"partition {number} of the queue has no owner")

    # -- others ------------------------------------------------------------------------------------------------

    def others(self) -> list[str]:
        """The other live nodes."""
        return [name for name in self.membership.view.map.members if name != self.name]

    def joined(self, member: NodeRecord) -> None:
        """See `Listener`."""
        if member.name != self.name:
            for told in self.joined_by:
                told(member.name)

    def left(self, member: NodeRecord) -> None:
        """See `Listener`."""
        self.lost(member)

    def lost(self, member: NodeRecord) -> None:
        """See `Listener`."""
        for told in self.lost_by:
            told(member.name)


def machine() -> str:
    """What tells this machine from a copy of it: a node of the same name elsewhere is no former life of this one."""
    try:
        return Path("/etc/machine-id").read_text().strip() or str(uuid.getnode())
    except OSError:
        return str(uuid.getnode())


class CarrierParts:
    """`trunkline.messaging.across.Parts`: whose message a carrier's id belongs to."""

    def __init__(self, cluster: ClusterNode, in_memory: Callable[[str, str], str | None]) -> None:
        self._cluster = cluster
        self._in_memory = in_memory

    def find(self, connector: str, carrier_id: str) -> tuple[str, bool] | None:
        """See `Parts.find`. Raises StoreUnavailable."""
        sid = self._in_memory(connector, carrier_id)
        if sid is not None:
            return sid, True
        found = self._cluster.queue.find_carrier_id(connector, carrier_id)
        return None if found is None else (found[2], self._cluster.is_our_sid(found[2]))

    def owner(self, sid: str) -> Awaitable[str]:
        """See `Parts.owner`."""
        return self._cluster.owner(sids.shard_of(sid))


def lease(settings: Settings, context: Context, cluster: ClusterNode) -> dict[str, Connector]:
    """The connectors whose binds one node at a time holds."""

    def of(own: Smpp) -> LeasedConnector:
        return LeasedConnector(own.name, lambda: make(own, context), cluster, own.window * own.binds)

    return {own.name: of(own) for own in settings.connectors if isinstance(own, Smpp)}


def tls_contexts(settings: Settings) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """For peers that call and for peers that are called: both show the certificate, and ask for one of the same CA.
    Raises CannotJoin."""
    own = settings.cluster
    if not own.tls_certificate:
        return None, None
    made = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        try:
            context = ssl.create_default_context(purpose, cafile=own.tls_ca or None)
            context.load_cert_chain(own.tls_certificate, own.tls_key or None)
        except (OSError, ssl.SSLError) as error:
            raise CannotJoin(f"cluster.tls_certificate: {error}") from None
        context.check_hostname = False  # nodes are told apart by the secret and their names, not by host names
        context.verify_mode = ssl.CERT_REQUIRED
        made.append(context)
    return made[0], made[1]


# -- what ownership means for the node --------------------------------------------------------------------------------


class PartCalls(Protocol):
    """The calls of a partition, told by their SIDs (trunkline.bootstrap_voice.Voice)."""

    def granted(self, number: int, is_in: Callable[[str], bool]) -> None:
        """Nobody else speaks for them: they go on here."""

    def gained(self, number: int, is_in: Callable[[str], bool], queue: Queue) -> None:
        """Their part of the queue is this node's."""

    def has_calls(self, is_in: Callable[[str], bool]) -> bool:
        """Whether one is up."""

    def lost(self, number: int, is_in: Callable[[str], bool]) -> None:
        """They are another's: nothing more is sent for them."""


class NoCalls:
    """Of a node that takes no calls."""

    def granted(self, number: int, is_in: Callable[[str], bool]) -> None:
        """Nothing."""

    def gained(self, number: int, is_in: Callable[[str], bool], queue: Queue) -> None:
        """Nothing."""

    def has_calls(self, is_in: Callable[[str], bool]) -> bool:
        """Never."""
        return False

    def lost(self, number: int, is_in: Callable[[str], bool]) -> None:
        """Nothing."""


class PartitionHooks(Hooks):
    """A partition of the queue: its messages, callbacks and calls are this node's."""

    def __init__(self, node: "Node", cluster: ClusterNode) -> None:
        self._node = node
        self._cluster = cluster
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: PartCalls = node.voice if node.voice is not None else NoCalls()
        cluster.queue.regained = lambda number: self._spawn(self._take_up(number))
        cluster.queue.lost = cluster.ownership.deposed
        node.outbound.leaves = lambda sid: cluster.queue.partition_of(sid) in cluster.queue.closing

    def granted(self, thing: str) -> None:
        """Whoever is on the line waits: its calls go on before its database is asked."""
        number = _number(thing)
        self._calls.granted(number, self._is_in(number))

    async def gained(self, thing: str, former: str) -> None:
        """Take up what is in it."""
        number = _number(thing)
        self._cluster.queue.closing.discard(number)
        self._node.inflight.leave(number)  # what was read of it while it was another's is old
        self._node.dispatcher.enter(number)
        self._node.delivery.enter(number)
        try:
            self._calls.gained(number, self._is_in(number), self._cluster.queue.partition(number))
        except Exception:
            log.exception("calls of partition %d could not be taken up; its messages are", number)
        if not await self._took_up(number):
            self._spawn(self._take_up(number))  # a hook that waited for a database would hold up others, and a stop

    async def _take_up(self, number: int) -> None:
        while number in self._cluster.queue.owned and not await self._took_up(number):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_S)

    async def _took_up(self, number: int) -> bool:
        """Whether there is no more to be done about it."""
        try:
            await self._node.take_up(self._cluster.queue.partition(number))
        except (StoreUnavailable, OSError) as error:
            log.warning("partition %d of the queue cannot be read yet: %s", number, error)
            return False
        except Exception:
            log.exception("partition %d of the queue could not be taken up; it is tried again", number)
            return False
        return True

    async def leaving(self, thing: str) -> bool:
        """Begin nothing more of it, and wait for what is under way. Not while a call of it is up; where everything
        leaves (a stop) it is let go of even so, and then what is being submitted must have its outcome before."""
        node, number = self._node, _number(thing)
        if self._calls.has_calls(self._is_in(number)) and not self._cluster.ownership.retiring:
            return False
        self._cluster.queue.closing.add(number)
        node.dispatcher.leave(number)
        node.delivery.leave(number)
        while node.inflight.busy(number) or node.delivery.busy(number):  # noqa: ASYNC110 - neither has an event
            await asyncio.sleep(LOOK_S)
        if self._calls.has_calls(self._is_in(number)):
            return False
        queue = self._cluster.queue
        await node.inbound.move_parts(
            queue.partition(number), lambda: queue.partition_of_shard(queue.shard_for_new()) != number
        )
        return True

    def stays(self, thing: str) -> None:
        """It goes on here."""
        number = _number(thing)
        self._cluster.queue.closing.discard(number)
        self._node.dispatcher.enter(number)
        self._node.delivery.enter(number)
        self._spawn(self._look_again())

    async def released(self, thing: str) -> None:
        """Another node's now; others that waited behind it go on."""
        number = _number(thing)
        self._cluster.queue.closing.discard(number)
        self._node.inflight.leave(number)
        await self._look_again()

    def lost(self, thing: str) -> None:
        """Another's at once: nothing of it is sent or written here."""
        number = _number(thing)
        self._cluster.queue.closing.add(number)  # until it is let go of, or gained again
        self._node.dispatcher.leave(number)
        self._node.delivery.leave(number)
        self._node.inflight.leave(number)
        self._calls.lost(number, self._is_in(number))
        self._spawn(self._look_again())

    def _is_in(self, number: int) -> Callable[[str], bool]:
        return lambda sid: self._cluster.queue.partition_of(sid) == number

    async def _look_again(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._node.outbound.recount()
            await self._node.dispatcher.recover()
            await self._node.delivery.recover()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _number(thing: str) -> int:
    return int(thing.partition("/")[2])

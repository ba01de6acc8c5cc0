"""The `[node]` and `[cluster]` sections: one server of several."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from trunkline.settings.kinds import Secret, Section

if TYPE_CHECKING:
    from trunkline.settings.load import Settings

MIN_SECRET_CHARS = 32
MAX_BODY_BYTES = 7 * 1024 * 1024
"""Of a request that one node hands to another whole, in one frame with its headers (trunkline.cluster.peers_wire)."""
Role = Literal["api", "messaging", "voice", "media"]
ROLES: tuple[Role, ...] = ("api", "messaging", "voice", "media")
VoicePartitions = Annotated[int, Meta(ge=0, le=63)]
LeaseSeconds = Annotated[float, Meta(ge=0.2, le=30.0)]
WaitSeconds = Annotated[float, Meta(ge=0.1, le=60.0)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+):\d{1,5}")


class Node(Section, frozen=True, kw_only=True):
    """Which server this is, where there are several."""

    name: str = msgspec.field(default_factory=lambda: socket.gethostname().partition(".")[0] or "node")
    """Its name, which no other node has, the same at each start. Default: the host's name."""
    zone: str = ""
    """The zone that it lies in: what may be lost together (a room, a data centre). Another node of another zone takes
    over what it does."""
    region: str = ""
    """The region that its zone lies in."""
    address: str = ""
    """`host:port` at which other nodes reach it; it listens there."""
    roles: tuple[Role, ...] = ROLES
    """What it does: `api` answers customers' requests; `messaging` sends and takes messages, holds carriers' binds and
    serves SMPP clients; `voice` has the calls, SIP and registrations; `media` their sound, on the same machine as
    `voice`. A single server has all."""


class Cluster(Section, frozen=True, kw_only=True):
    """Several servers as one. Needs PostgreSQL (`[storage]`), Valkey (`[memory]`), an object store (`[objects]`) and
    the same master key on each."""

    enabled: bool = False
    """Whether this server is one of several."""
    secret: Secret = Secret("")
    """What nodes show each other, at least 32 characters, the same on each."""
    lease_s: LeaseSeconds = 1
    """Seconds of silence after which a node is called lost and its heir takes over. Shorter is quicker; it must be well
    above the pauses that machines and networks make."""
    home_wait_s: WaitSeconds = 5
    """Seconds that a request is held open for the one node that may answer it (a message being changed, a repeated
    Idempotency-Key) while that node is being replaced; then 503 with Retry-After."""
    voice_partitions: VoicePartitions = 0
    """How many of `storage.partitions`, the last ones, hold calls alone, the others messages alone: for nodes with
    `voice` and without `messaging`. 0: all hold both, and their owners do both. The same on each node, fixed for the
    life of a cluster."""
    tls_certificate: str = ""
    """PEM file of this node's certificate, with its chain: then nodes speak TLS with each other."""
    tls_key: str = ""
    """PEM file of the certificate's key; empty: it is in the same file."""
    tls_ca: str = ""
    """PEM file of the authorities that sign the nodes' certificates."""


FILES = ("tls_certificate", "tls_key", "tls_ca")


def cluster_absolute(own: Cluster, base: Path) -> Cluster:
    """With its files' paths taken from the settings file's folder."""
    paths = {name: str((base / value).absolute()) for name in FILES if (value := getattr(own, name))}
    return msgspec.structs.replace(own, **paths)


def does(settings: "Settings", role: Role) -> bool:
    """Whether this server has a role."""
    return role in settings.node.roles


def cluster_problems(settings: "Settings") -> Iterator[str]:
    """What does not fit together, one line each."""
    own, node = settings.cluster, settings.node
    yield from _role_problems(settings)
    if not own.enabled:
        return
    if not _NAME.fullmatch(node.name):
        yield f"node.name: {node.name[:80]!r} is no name; use letters, digits, dots and dashes, 63 at most"
    if not _ADDRESS.fullmatch(node.address):
        yield f"node.address: {node.address[:80]!r} is not host:port; say where the other nodes reach this one"
    if len(own.secret) < MIN_SECRET_CHARS:
        yield f"cluster.secret: needs {MIN_SECRET_CHARS} characters, the same on each node; best env:NAME"
    if settings.storage.engine != "postgres":
        yield 'storage.engine: a cluster needs "postgres"; a file is one server\'s alone'
    if settings.memory.engine != "valkey":
        yield 'memory.engine: a cluster needs "valkey"; a file is one server\'s alone'
    if not settings.objects.url:
        yield "objects.url: a cluster needs an object store or a shared folder; one node's files are not the others'"
    if not settings.security.master_key:
        yield "security.master_key: every node of a cluster needs the same one; give it, best as env:NAME"
    if settings.server.max_body_bytes > MAX_BODY_BYTES:
        yield f"server.max_body_bytes: nodes hand requests of at most {MAX_BODY_BYTES} bytes to each other"
    for name in FILES:
        value = getattr(own, name)
        if value and not Path(value).is_file():
            yield f"cluster.{name}: {value} cannot be read; check the path and its mode"
    if own.tls_certificate and not own.tls_ca:
        yield "cluster.tls_ca: nodes check each other's certificates; name the authority that signs them"


def _role_problems(settings: "Settings") -> Iterator[str]:
    own, roles = settings.cluster, settings.node.roles
    if not roles:
        yield f"node.roles: a node needs one at least: {', '.join(ROLES)}"
    elif not own.enabled and set(roles) != set(ROLES):
        yield "node.roles: a single server has all; remove it, or set cluster.enabled"
    elif ("voice" in roles) != ("media" in roles):
        yield "node.roles: voice and media go together today, for they share memory; name both or neither"
    elif "voice" in roles and "messaging" not in roles and not own.voice_partitions:
        yield "cluster.voice_partitions: a node with voice and without messaging needs some; the same on each node"
    if own.voice_partitions and own.voice_partitions >= settings.storage.partitions:
        yield (
            f"cluster.voice_partitions: {own.voice_partitions} of {settings.storage.partitions} storage.partitions "
            "leave none for messages"
        )

"""The `[memory]` section: where state that may be rebuilt is kept."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trunkline.settings.kinds import Secret, Section

Milliseconds = Annotated[int, Meta(ge=10, le=10_000)]
_LABEL = re.compile(r"[^=]+=[^=/]+(/[^=/]+)?")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]+)(:\d{1,5})?")


class Memory(Section, frozen=True, kw_only=True):
    """Where state is kept that changes fast and can be rebuilt: live calls' checkpoints, registered phones, bans,
    spending, leases. Losing it costs takeover, never a running call."""

    engine: Literal["journal", "valkey"] = "journal"
    """`journal`: a file in the data folder. `valkey`: shared by the nodes of a cluster; needs `pip install
    trunkline[cluster]` and Valkey, or Redis 6.2 or newer."""
    url: Secret = Secret("")
    """`redis://user:password@host:6379/0`, `rediss://` for TLS; several hosts with commas are tried one by one. With
    `sentinels` the hosts are not used and may be left out (`redis://user:password@/0`)."""
    sentinels: tuple[str, ...] = ()
    """`host:port` of each Sentinel (port 26379 if left out): they say which server is the primary."""
    service: str = "trunkline"
    """The name under which the Sentinels watch it (`sentinel monitor NAME ...`)."""
    sentinel_password: Secret = Secret("")
    """What the Sentinels' own `requirepass` asks for, if they have one."""
    tls_ca: str = ""
    """PEM file of the authorities that sign the servers' certificates; empty: the system's."""
    survives: Literal["process", "power", "host", "zone", "region"] = "process"
    """What is written there must outlive. The start is refused, and later on writes that must be sure fail, where the
    servers' own settings and replicas do not give it (`valkey` only)."""
    zones: tuple[str, ...] = ()
    """For `zone` and `region`: `NAME=ZONE` or `NAME=REGION/ZONE` of each server, by its address as the Sentinels and
    replicas give it (`host:port`, or the host alone)."""
    wait_ms: Milliseconds = 200
    """Milliseconds that a write waits for replicas; then it is in doubt, and a lease counts as not renewed."""


def memory_absolute(own: Memory, base: Path) -> Memory:
    """With its file's path taken from the settings file's folder."""
    return msgspec.structs.replace(own, tls_ca=str((base / own.tls_ca).absolute())) if own.tls_ca else own


def memory_problems(own: Memory) -> Iterator[str]:
    """What does not fit together, one line each."""
    if own.engine == "journal":
        for name in ("url", "sentinels"):
            if getattr(own, name):
                yield f'memory.{name}: is of no use with engine = "journal"; remove it or say engine = "valkey"'
        if own.survives != "process":
            yield f'memory.survives: a journal cannot outlive its {own.survives}; say engine = "valkey" or "process"'
        return
    if not own.url and not own.sentinels:
        yield 'memory.url: engine = "valkey" needs it, best as env:NAME; or name its sentinels'
    if own.tls_ca and not Path(own.tls_ca).is_file():
        yield f"memory.tls_ca: {own.tls_ca} cannot be read; check the path and its mode"
    for one in own.sentinels:
        if not _HOST.fullmatch(one):
            yield f"memory.sentinels: {one[:80]!r} is not host:port"
    if own.sentinels and not own.service:
        yield "memory.service: the Sentinels need to be asked for a name; give the one of `sentinel monitor`"
    for entry in own.zones:
        if not _LABEL.fullmatch(entry):
            yield f"memory.zones: {entry[:80]!r} is not NAME=ZONE or NAME=REGION/ZONE"

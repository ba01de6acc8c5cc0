"""The processes of a server that takes calls: what the supervisor runs.

    supervisor   keeps the listening sockets (API, SMPP, SIP), the RTP ports and the shared memories, starts the others
                 (again), and puts the node on another version (trunkline.supervisor.handover)
    recorder     writes recordings (only where calls are taken)
    media        the tick engine; a second one waits to follow it (only where calls are taken)
    node         everything else; its orderly end is the server's

`run` turns the present process into the supervisor; its children run the same command again, and find that they are
supervised (trunkline.inherited).
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from trunkline.inherited import HTTP, MEDIA_FENCE, MEDIA_STATE, RECORD_RING, SIP_TCP, SIP_TLS, SIP_UDP, SMPP
from trunkline.media.ports import SLOTS_PER_LEG
from trunkline.settings import Settings
from trunkline.sip.tls import TlsConfig
from trunkline.supervisor.plan import Child, Plan, Ports

SPOOL_FOLDER = "spool"
CONTROL_SOCKET = "media.sock"
PORTS_SOCKET = "ports.sock"
ORDERS_SOCKET = "supervisor.sock"
"""Where the supervisor takes orders (trunkline.supervisor.desk)."""
MAX_SOCKET_PATH = 100
"""Bytes of a Unix socket's path that every system takes; a longer one is put into the system's folder for such."""
STOP_EXTRA_S = 25.0
"""What a stop takes at most beside `server.shutdown_s`: the least that each of its steps gets, and closing."""


def socket_path(settings: Settings, name: str = CONTROL_SOCKET) -> str:
    """A Unix socket of this data folder's."""
    path = str(settings.data_path.resolve() / name)
    if len(path.encode()) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(path.encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"trunkline-{os.getuid()}-{digest}.sock")


def spool_folder(settings: Settings) -> Path:
    """Where recordings are written while they run."""
    return settings.data_path.resolve() / SPOOL_FOLDER


def media_config(settings: Settings, **more: Any) -> dict[str, Any]:
    """What the media process is told (trunkline.media.process.Config)."""
    own = settings.media
    return {
        "control": socket_path(settings), "host": own.host or settings.sip.host, "port_min": own.port_min,
        "port_max": own.port_max, "legs": own.legs, "jitter_min_ms": own.jitter_min_ms,
        "jitter_max_ms": own.jitter_max_ms, "dtmf_in_band": own.dtmf_in_band, "quarantine_s": own.quarantine_s,
        "priority": own.priority, "opus_bitrate": own.opus_bitrate, "opus_complexity": own.opus_complexity, **more,
    }  # fmt: skip


def plan(settings: Settings, command: Sequence[str], *, fenced: bool = False) -> Plan:
    """The processes; `command` runs the node. `fenced`: it is one of a cluster, and says until when audio may be sent
    (trunkline.media.fence)."""
    made = Plan(
        children=[],
        sip_port=-1,
        http_host=settings.server.host,
        http_port=settings.server.port,
        control=socket_path(settings, ORDERS_SOCKET),
        stop_s=settings.server.shutdown_s + STOP_EXTRA_S,
    )
    node = _plan_calls(settings, made, fenced) if settings.sip.enabled else []
    node.append(HTTP)
    if settings.smpp_server.enabled:
        made.smpp_host, made.smpp_port = settings.smpp_server.host, settings.smpp_server.port
        node.append(SMPP)
    made.children.append(Child("node", list(command), node, main=True))
    return made


def _plan_calls(settings: Settings, made: Plan, fenced: bool) -> list[str]:
    """What a server that takes calls has besides the node; the names of what the node gets of it."""
    own, python = settings.media, sys.executable
    ports = socket_path(settings, PORTS_SOCKET)
    fence: dict[str, Any] = {"fence_fd": MEDIA_FENCE} if fenced else {}
    config = msgspec.json.encode(
        media_config(settings, ports_path=ports, state_fd=MEDIA_STATE, ring_fd=RECORD_RING, **fence)
    ).decode()
    spool = str(spool_folder(settings))
    media = [python, "-m", "trunkline.media.process", "--config-json", config]
    recorder = [python, "-m", "trunkline.media.recorder", "--ring", RECORD_RING, "--folder", spool]
    fences = [MEDIA_FENCE] if fenced else []
    made.children += [
        Child("recorder", recorder, [RECORD_RING]),
        Child("media", media, [MEDIA_STATE, RECORD_RING, *fences], standby=True),
    ]
    made.sip_host, made.sip_port, made.sip_tls_port = settings.sip.host, settings.sip.port, settings.sip.tls_port
    made.memories = [MEDIA_STATE, RECORD_RING, *fences]
    made.ports = Ports(ports, own.host or settings.sip.host, own.port_min, own.port_max, own.legs * SLOTS_PER_LEG)
    return [SIP_UDP, SIP_TCP, *([SIP_TLS] if settings.sip.tls_port else []), *fences]


def run(settings: Settings) -> NoReturn:
    """Become the supervisor of what this process was started as."""
    command = [sys.executable, *_as_module(sys.orig_argv[1:])]
    made = plan(settings, command, fenced=settings.cluster.enabled).to_json()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "trunkline.supervisor", made])  # noqa: S606 - our own program


def _as_module(arguments: list[str]) -> list[str]:
    """The arguments of Python with the module for the installed script, which belongs to one interpreter."""
    if arguments and not arguments[0].startswith("-") and Path(arguments[0]).name == "trunkline":
        return ["-m", "trunkline", *arguments[1:]]
    return arguments


def tls_config(settings: Settings) -> TlsConfig:
    """How SIP shows and proves identities."""
    own = settings.sip
    return TlsConfig(own.tls_certificate, own.tls_key, own.tls_client_ca, own.tls_ca, own.tls_verify)

"""A node's settings, made for the engines of the plan, and the records that the lab's customers need."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lab import outside, probe, redis, wrong_clock
from lab.hosts import Service
from lab.plan import (
    HTTP_PORT,
    OUTSIDE,
    PEER_PORT,
    REDIS_PORT,
    SENTINEL_PORT,
    SIP_PORT,
    SMSC_PORT,
    WEBHOOK_PORT,
    Plan,
    Zone,
)
from trunkline.accounts.directory import create_account
from trunkline.bootstrap import open_database
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.settings import load

MASTER_KEY = "00" * 32
"""The same on every node; on real machines from a secret store."""
CALLED = {"ivr": "+12025550142", "bridged": "+12025550143", "recorded": "+12025550144"}
"""What a call is about -> the number that is called for it."""
SAID = "+12025550145"
"""The number of calls that hear what nobody has said before."""
ABROAD = "+4930"
"""Numbers that the trunk's carrier takes, behind a SIP edge."""
SENDER = "+12025550140"
STORAGE_WAIT_S = 10.0
LEGS = 400
SHUTDOWN_S = 10.0
"""Less than the lab's own patience with a service that is to stop."""
PARTITIONS = 12
"""A multiple of nodes and of databases."""
SECRET = "the-lab-keeps-no-secrets-" + "0" * 16


class Customer(NamedTuple):
    """The lab's account."""

    sid: str
    token: str
    sender: str


def sections(plan: Plan, zone: Zone, folder: Path) -> dict[str, Mapping[str, Any]]:
    """The settings of the node in a zone."""
    queues = [plan.dsn(cluster, "queue") for cluster in plan.clusters if "queue" in cluster.databases]
    (records,) = [cluster for cluster in plan.clusters if "records" in cluster.databases]
    found: dict[str, Mapping[str, Any]] = {
        "server": {
            "host": zone.node,
            "port": HTTP_PORT,
            "public_url": f"http://{outside.EDGE}",
            "shutdown_s": SHUTDOWN_S,
        },
        "data": {"path": str(folder / "data"), "min_free_bytes": 16 << 20},
        "security": {"master_key": MASTER_KEY},
        "log": {"level": "info"},
        "messaging": {"long_code_mps": 0},
        "webhooks": {"retry_first_s": 0.5},
        "storage": {
            "engine": "postgres",
            "queue": queues[0],
            "database": plan.dsn(records, "records"),
            "survives": "zone",
            "zones": [f"{one.name}={one.region}/{one.name}" for one in plan.zones],
            "wait_s": STORAGE_WAIT_S,
        },
        "sip": {"enabled": True, "host": zone.node, "port": SIP_PORT},
        "media": {"legs": LEGS, "priority": False},
    }
    if plan.edge:
        found["sip"] = {**found["sip"], "edges": [outside.SIP_EDGE]}
    return found | _shared(plan, zone, queues) if plan.nodes > 1 else found


def _shared(plan: Plan, zone: Zone, queues: list[str]) -> dict[str, Mapping[str, Any]]:
    """What a node of several needs besides."""
    alone = sections(msgspec.structs.replace(plan, nodes=1), zone, plan.run)
    return {
        "storage": {**alone["storage"], "queue": queues, "partitions": PARTITIONS},
        "memory": {
            "engine": "valkey",
            "url": "redis:///0",
            "sentinels": [f"{one.store}:{SENTINEL_PORT}" for one in plan.zones],
            "service": redis.MASTER,
            "survives": "zone",
            "zones": [f"{one.store}:{REDIS_PORT}={one.region}/{one.name}" for one in plan.zones],
        },
        "objects": {"url": f"file://{plan.run / 'objects'}", "survives": "zone"},
        "node": {
            "name": zone.name,
            "zone": zone.name,
            "region": zone.region,
            "address": f"{zone.node}:{PEER_PORT}",
        },
        "cluster": {"enabled": True, "secret": SECRET, "lease_s": plan.lease_s},
    }


def write(plan: Plan, zone: Zone, folder: Path) -> Path:
    """The settings file."""
    tables: list[tuple[str, Mapping[str, Any]]] = [
        (f"[{name}]", section) for name, section in sections(plan, zone, folder).items()
    ]
    carrier = {"name": "carrier", "kind": "smpp", "host": outside.SMSC, "port": SMSC_PORT, "system_id": "trunkline",
               "window": 20, "reconnect_longest_s": 2, "response_timeout_s": 5}  # fmt: skip
    trunk = {"name": "trunk", "addresses": [f"{OUTSIDE}.0/24"], "prefixes": []}
    if plan.edge:
        trunk = {"name": "trunk", "addresses": [outside.PHONES], "prefixes": [ABROAD],
                 "gateways": [f"sip:{outside.SIP_EDGE}"]}  # fmt: skip
    tables += [("[[connectors]]", carrier), ("[[trunks]]", trunk)]
    lines = ['profile = "integration"']
    for title, section in tables:
        lines += ["", title, *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    file = folder / "trunkline.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def ready(zone: Zone) -> bool:
    """Whether the node takes work."""
    return probe.answers_http(zone.node, HTTP_PORT, "/readyz")


def service(plan: Plan, zone: Zone, folder: Path) -> Service:
    """The node of a zone, its settings written."""
    file = write(plan, zone, folder)
    return Service(
        name="trunkline", kind="node",
        command=(sys.executable, "-m", "trunkline", "--config", str(file), "serve"),
        resolver=outside.resolver(folder),
        environment={"TRUNKLINE_CACHE": str(plan.home / "cache")},  # the nodes of a lab need not compile one by one
        ready=lambda: ready(zone),
    )  # fmt: skip


def with_clock(service: Service, file: Path) -> Service:
    """The same with a wall clock that is off by as many seconds as `file` says."""
    return msgspec.structs.replace(service, environment={**service.environment, **wrong_clock.environment(file)})


def seed(file: Path) -> Customer:
    """An account with a number that sends, and one that is called. Blocks; raises StoreUnavailable."""

    async def work() -> Customer:
        clock = SystemClock()
        database = open_database(load(file, {}), clock)
        try:
            account = await create_account(database, clock, "Lab")
            webhooks = f"http://{outside.CUSTOMER}:{WEBHOOK_PORT}"
            for number in (SENDER, *CALLED.values(), SAID):
                await database.insert(
                    PhoneNumber(
                        sid=new_sid(PHONE_NUMBER),
                        account_sid=account.sid,
                        phone_number=number,
                        bought_ms=clock.now_ms(),
                        voice_url=f"{webhooks}/voice",
                        status_callback=f"{webhooks}/calls",
                    )
                )
            return Customer(account.sid, account.auth_token, SENDER)
        finally:
            await database.close()

    return asyncio.run(work())

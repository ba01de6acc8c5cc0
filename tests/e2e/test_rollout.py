"""`trunkline rollout` on two nodes in two zones while messages come to both: each is replaced, no request fails."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.restart_load import Requests, eventually
from tests.e2e.server import Server
from tests.e2e.test_cluster import LEASE_S
from tests.e2e.test_kill import carrier  # noqa: F401  (fixture)
from tests.e2e.voice_app import VoiceApp
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres, postgres  # noqa: F401  (fixture)
from tests.redis import RedisServer, needs_redis
from trunkline.bootstrap_processes import ORDERS_SOCKET, socket_path
from trunkline.settings import load
from trunkline.supervisor.orders import give

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
ROLLOUTS = int(os.environ.get("ROLLOUTS", "1"))
ZONES = {"one": "a", "two": "b"}
PARTITIONS = 4


class Lab(NamedTuple):
    nodes: dict[str, Server]
    tenant: Tenant
    app: VoiceApp


@pytest.fixture
def lab(tmp_path: Path, carrier: Carrier, postgres: PostgresServer) -> Iterator[Lab]:  # noqa: F811
    memory = RedisServer().start()
    app = VoiceApp()
    storage = {
        "engine": "postgres", "queue": [postgres.database(), postgres.database()], "database": postgres.database(),
        "partitions": PARTITIONS,
    }  # fmt: skip
    nodes = {}
    for name, zone in ZONES.items():
        folder = tmp_path / name
        folder.mkdir()
        settings: dict[str, Any] = {
            "profile": "development",
            "server": {"supervisor": "yes"},
            "messaging": {"long_code_mps": 0},
            "webhooks": {"retry_first_s": 0.2},
            "storage": storage,
            "memory": {"engine": "valkey", "url": memory.url},
            "objects": {"url": f"file://{tmp_path / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
            "node": {"name": name, "zone": zone, "address": f"127.0.0.1:{free_port()}"},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
            "connectors": [carrier.connector(window=10)],
        }  # fmt: skip
        nodes[name] = Server(folder, settings)
    (tmp_path / "objects").mkdir()
    try:
        tenant = nodes["one"].seed(make_tenant)
        for node in nodes.values():
            node.start()
        yield Lab(nodes, tenant, app)
    finally:
        for node in nodes.values():
            node.close()
        memory.close()
        app.close()


def pid(node: Server) -> int:
    """The node's process, as its supervisor says."""
    path = socket_path(load(node.folder / "trunkline.toml", {}), ORDERS_SOCKET)
    (status,) = give(path, {"do": "status"}, 20.0)
    return int(next(child["pid"] for child in status["children"] if child["name"] == "node"))


def rollout(node: Server, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "trunkline", "--config", str(node.folder / "trunkline.toml"), "rollout", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_every_node_is_replaced_and_no_request_fails(lab: Lab) -> None:
    account = lab.tenant.account
    form = {
        "From": lab.tenant.numbers[0].phone_number, "To": "+12125550100", "Body": "Rolled",
        "StatusCallback": f"{lab.app.url}/message",
    }  # fmt: skip
    loads = [Requests(node.port, account.sid, str(account.auth_token), form) for node in lab.nodes.values()]
    try:
        eventually(lambda: all(len(one.accepted) > 10 for one in loads), "traffic")
        for _ in range(ROLLOUTS):
            before = [pid(node) for node in lab.nodes.values()]
            done = rollout(lab.nodes["two"], "--restart", "--grace", "1", "--watch", "1")
            assert done.returncode == 0, done.stdout + done.stderr
            assert not set(before) & {pid(node) for node in lab.nodes.values()}
    finally:
        for one in loads:
            one.stop()
    accepted = {sid for one in loads for sid in one.accepted}

    def told() -> bool:
        forms = lab.app.at("/message")
        return accepted <= {form["MessageSid"] for form in forms if form["MessageStatus"] == "delivered"}

    failed = [text for one in loads for text in one.failed]
    longest = max(wait for one in loads for wait in one.waits)
    print(done.stdout)
    print(f"{ROLLOUTS} rollouts of 2 nodes: {len(accepted)} accepted, {len(failed)} failed, longest {longest:.2f} s")
    assert failed == []
    eventually(told, "receipts of everything", 120.0)


def test_a_version_that_does_not_start_stops_it_at_the_first_node(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    before = [pid(node) for node in lab.nodes.values()]
    done = rollout(lab.nodes["one"], "--python", str(broken), "--grace", "1", "--watch", "1")
    assert done.returncode == 1
    assert "one went back by itself" in done.stdout
    assert [pid(node) for node in lab.nodes.values()] == before

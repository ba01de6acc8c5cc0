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
from tests.e2e.releases import install, previous_commit, running
from tests.e2e.restart_load import Held, Requests, eventually
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
HOLDS_S = (2.0, 6.0)
PIVOT = (
    ("expand", "lane_split"), ("backfill", "lane_split"), ("verify", "lane_split"),
    ("contract", "lane_split", "--wait", "60"),
)  # fmt: skip


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


def command(node: Server, *words: str) -> "subprocess.CompletedProcess[str]":
    whole = [sys.executable, "-m", "trunkline", "--config", str(node.folder / "trunkline.toml"), *words]
    return subprocess.run(whole, capture_output=True, text=True, timeout=500, check=False)


def rollout(node: Server, *words: str) -> "subprocess.CompletedProcess[str]":
    return command(node, "rollout", *words)


def delivered(lab: Lab) -> set[str]:
    """What the customer was told."""
    return {form["MessageSid"] for form in lab.app.at("/message") if form["MessageStatus"] == "delivered"}


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

    failed = [text for one in loads for text in one.failed]
    longest = max(wait for one in loads for wait in one.waits)
    print(done.stdout)
    print(f"{ROLLOUTS} rollouts of 2 nodes: {len(accepted)} accepted, {len(failed)} failed, longest {longest:.2f} s")
    assert failed == []
    eventually(lambda: accepted <= delivered(lab), "receipts of everything", 120.0)


def test_rollouts_between_two_releases_across_a_pivot_fail_no_request(lab: Lab, tmp_path: Path) -> None:
    """There and back, with a step of the pivot after each."""
    commit = previous_commit()
    before = install(tmp_path / "before", f"before.{commit}", commit)
    after = install(tmp_path / "after", "after", os.environ.get("AFTER", ""))
    account = lab.tenant.account
    form = {
        "From": lab.tenant.numbers[0].phone_number, "To": "+12125550100", "Body": "Rolled",
        "StatusCallback": f"{lab.app.url}/message",
    }  # fmt: skip
    who = (account.sid, str(account.auth_token), form)
    loads: list[Requests | Held] = [Requests(node.port, *who) for node in lab.nodes.values()]
    held = [Held(node.port, *who, HOLDS_S) for node in lab.nodes.values()]
    loads += held
    steps = iter(PIVOT)
    try:
        eventually(lambda: all(len(one.accepted) > 10 for one in loads[:2]), "traffic")
        for number in range(2 * ROLLOUTS):
            release = before if number % 2 == 0 else after
            done = rollout(lab.nodes["two"], "--python", str(release.python), "--grace", "1", "--watch", "1")
            assert done.returncode == 0, done.stdout + done.stderr
            assert {running(pid(node)) for node in lab.nodes.values()} == {str(release.python)}
            for words in (next(steps, ()), next(steps, ())):
                ran = command(lab.nodes["one"], "schema", *words) if words else done
                assert ran.returncode == 0, ran.stdout + ran.stderr
    finally:
        for one in loads:
            one.stop()
    failed = [text for one in loads for text in one.failed]
    accepted = {sid for one in loads for sid in one.accepted}
    longest = max(wait for one in loads if isinstance(one, Requests) for wait in one.waits)
    print(
        f"{2 * ROLLOUTS} rollouts of 2 nodes between {before.version} and {after.version}: {len(accepted)} accepted,"
        f" {sum(len(one.accepted) for one in held)} of them held, {len(failed)} failed, longest {longest:.2f} s"
    )
    assert failed == []
    eventually(lambda: accepted <= delivered(lab), "receipts of everything", 180.0)


def test_a_version_that_does_not_start_stops_it_at_the_first_node(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    before = [pid(node) for node in lab.nodes.values()]
    done = rollout(lab.nodes["one"], "--python", str(broken), "--grace", "1", "--watch", "1")
    assert done.returncode == 1
    assert "one went back by itself" in done.stdout
    assert [pid(node) for node in lab.nodes.values()] == before

"""A full disk: what was accepted stays, new work is told 503 to come again, and all goes on once there is room.

Needs root (a small tmpfs as the data folder).
"""

import ctypes
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import LOOPBACK, Tenant, make_tenant
from tests.e2e.server import Server
from tests.security.conftest import Target
from tests.security.raw import request
from tests.security.test_isolation import call
from trunkline.model.clock import Clock
from trunkline.storage.database import Database

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tmpfs")
SIZE_BYTES = 24 * 1024 * 1024
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Target]:
    """A server whose data folder has 24 MiB."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    if libc.mount(b"tmpfs", str(data).encode(), b"tmpfs", 0, b"size=%d,mode=700" % SIZE_BYTES):
        pytest.skip(f"no tmpfs: {os.strerror(ctypes.get_errno())}")
    carrier = {"name": "web", "kind": "http", "url": "http://127.0.0.1:9/"}
    server = Server(
        tmp_path,
        {
            **LOOPBACK,
            "connectors": [{"name": "air", "kind": "loopback", "delay_s": 0.5}, carrier],
            "routes": [{"name": "all", "connector": "air"}],
        },
    )

    async def work(database: Database, clock: Clock) -> tuple[Tenant, Tenant]:
        return await make_tenant(database, clock, 0), await make_tenant(database, clock, 1)

    try:
        tenants = server.seed(work)
        server.start()
        yield Target(server, tenants)
    finally:
        server.close()
        libc.umount2(str(data).encode(), 2)


def send(target: Target, text: str) -> tuple[int, str, bytes]:
    """Status, SID and head of one message's acceptance."""
    account, numbers = target.tenants[0]
    form = {"To": "+12025550177", "From": numbers[0].phone_number, "Body": text}
    reply = call(target, account, "POST", f"/2010-04-01/Accounts/{account.sid}/Messages.json", form)
    sid = json.loads(reply.body).get("sid", "") if reply.status == 201 else ""
    return reply.status, sid, reply.head


def ready(target: Target) -> int:
    """What /readyz says."""
    with target.raw() as raw:
        raw.send(request("GET", "/readyz"))
        return raw.reply().status


def fill(folder: Path) -> Path:
    """Take every free byte."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


def test_a_full_disk_loses_nothing_and_heals(small: Target) -> None:
    accepted = [sid for status, sid, _ in (send(small, f"before {n}") for n in range(20)) if status == 201]
    assert len(accepted) == 20
    with ThreadPoolExecutor(1) as pool:  # it fills while messages are accepted, claimed and submitted
        filling = pool.submit(fill, small.server.data)
        burst = [send(small, f"burst {n}") for n in range(200)]
        ballast = filling.result()
    accepted += [sid for status, sid, _ in burst if status == 201]
    assert {status for status, _, _ in burst} <= {201, 503}
    refused = 0
    for _ in range(3000):
        status, sid, head = send(small, "x" * 1500)
        if status == 201:
            accepted.append(sid)
            continue
        assert status == 503, (status, head)
        assert b"retry-after" in head.lower()
        refused += 1
        if refused == 5:
            break
    assert refused == 5, "the disk never became full"
    inbound = {"id": "c1", "from": "+14155550123", "to": small.tenants[0].numbers[0].phone_number, "text": "hi"}
    body = json.dumps(inbound).encode()
    with small.raw() as raw:
        raw.send(request("POST", "/connectors/web/inbound", b"Content-Type: application/json\r\n", body))
        assert raw.reply(20).status == 503
    receipt = json.dumps({"id": "nobody", "status": "delivered"}).encode()
    with small.raw() as raw:
        raw.send(request("POST", "/connectors/web/receipt", b"Content-Type: application/json\r\n", receipt))
        assert raw.reply(20).status == 503
    for _ in range(20):  # what takes less room may have found some since
        status, sid, _ = send(small, "x" * 1500)
        accepted += [sid] if status == 201 else []
        if ready(small) == 503:
            break
    else:
        raise AssertionError("it is ready though it refuses")
    ballast.unlink()
    until = time.monotonic() + 20
    while send(small, "after")[0] != 201:
        assert time.monotonic() < until, "the server does not recover when there is room again"
        time.sleep(0.2)
    account = small.tenants[0].account
    until = time.monotonic() + 60
    left = set(accepted)
    while left:
        for sid in list(left):
            reply = call(small, account, "GET", f"/2010-04-01/Accounts/{account.sid}/Messages/{sid}.json")
            assert reply.status == 200, (sid, reply)
            if json.loads(reply.body)["status"] == "delivered":
                left.discard(sid)
        assert time.monotonic() < until, f"{len(left)} of {len(accepted)} messages are stuck"
        time.sleep(0.5)
    with small.raw() as raw:
        raw.send(request("POST", "/connectors/web/inbound", b"Content-Type: application/json\r\n", body))
        assert raw.reply(20).status == 200


def test_new_messages_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    """Below data.min_free_bytes only what must be kept is kept: receipts and received messages."""
    server = Server(tmp_path, {**LOOPBACK, "data": {"min_free_bytes": 1 << 40}})

    async def work(database: Database, clock: Clock) -> tuple[Tenant, Tenant]:
        return await make_tenant(database, clock, 0), await make_tenant(database, clock, 1)

    try:
        target = Target(server, server.seed(work))
        server.start()
        until = time.monotonic() + 10
        while (answer := send(target, "x"))[0] == 201:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert answer[0] == 503
        assert b"retry-after" in answer[2].lower()
        with target.raw() as raw:
            raw.send(request("GET", "/readyz"))
            reply = raw.reply()
        assert reply.status == 503
        assert b"min_free_bytes" in reply.body
    finally:
        server.close()

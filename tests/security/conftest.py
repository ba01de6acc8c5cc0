"""A server with small limits, to be attacked over real sockets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import LOOPBACK, Tenant, make_tenant
from tests.e2e.server import Server
from tests.interop.switch import Switch
from tests.security.hostility import attacked
from tests.security.raw import Raw
from trunkline.model.clock import Clock
from trunkline.storage.database import Database

HEAD_BYTES = 8192
BODY_BYTES = 32 * 1024
CONNECTIONS = 64
TIMEOUT_S = 1.0
HTTP_CARRIER = {
    "name": "web",
    "kind": "http",
    "url": "http://127.0.0.1:9/send",
    "callback_token": "carrier-callback-token",
    "password": "carrier-password-0123",
    "username": "carrier",
}
SETTINGS: dict[str, Any] = {
    **LOOPBACK,
    "connectors": [*LOOPBACK["connectors"], HTTP_CARRIER],
    "routes": [{"name": "all", "connector": "air"}],
    "sip": {"enabled": True, "port": 0},
    "media": {"legs": 20},
    "speech": {"engine": "tones"},
    "trunks": [{"name": "phones", "simulated": True}],
    "server": {
        "max_header_bytes": HEAD_BYTES,
        "max_body_bytes": BODY_BYTES,
        "max_connections": CONNECTIONS,
        "request_timeout_s": TIMEOUT_S,
        "keep_alive_s": TIMEOUT_S,
        "metrics_token": "metrics-token-0123",
    },
}


class Target(NamedTuple):
    """The server and two accounts that know nothing of each other."""

    server: Server
    tenants: tuple[Tenant, Tenant]

    def raw(self, source: str = "127.0.0.1") -> Raw:
        """A connection of one's own."""
        return Raw(self.server.port, source)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One server for all attacks: whoever brings it down fails the tests that follow, too."""
    server = Server(tmp_path_factory.mktemp("target"), SETTINGS)

    async def work(database: Database, clock: Clock) -> tuple[Tenant, Tenant]:
        return await make_tenant(database, clock, 0), await make_tenant(database, clock, 1)

    tenants = server.seed(work)
    server.start()
    yield Target(server, tenants)
    server.close()


@pytest.fixture(scope="session")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """A server that takes calls, to be attacked over SIP and RTP."""
    running = attacked(tmp_path_factory.mktemp("attacked"))
    yield running
    running.close(hard=True)

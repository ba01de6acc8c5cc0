"""The SIP edge of docs/howto/sip-edge.md in front of a cluster: phones behind Kamailio with the configuration that we
ship, two nodes on PostgreSQL and Redis."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.test_takeover import Cluster, Member, eventually
from tests.e2e.voice_app import response
from tests.interop.baresip import Baresip, write_wav
from tests.interop.edge import EDGE, Behind, Edge, speaks_tls
from tests.interop.phone_calls import GREETING, SAID, THANKS
from tests.interop.pjsua import Pjsua
from tests.interop.raw_sip import RawCaller, read
from tests.interop.switch import BEHIND, HOST
from tests.interop.test_sip_domain import PASSWORD, REGISTERED, Office
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
NODES = ("127.0.0.2", "127.0.0.6")
NUMBER = "+12015550100"
TRANSPORTS = ["UDP", "TCP", "TLS"]
PATIENCE_S = 60.0


class Site:
    """Two nodes and the edge; the certificate is everybody's."""

    def __init__(self, folder: Path, database: PostgresServer) -> None:
        authority = Authority(folder)
        files = authority.issue("both", addresses=("127.0.0.1", EDGE, BEHIND, *NODES))
        both = folder / "both-in-one.pem"
        both.write_bytes(files.chain.read_bytes() + files.key.read_bytes())
        self.folder, self.certificate = folder, str(both)
        sip = {"edges": [EDGE], "tls_certificate": self.certificate, "tls_ca": str(authority.path)}
        own = [{"host": host, "port": free_port(host), "tls_port": free_port(host)} for host in NODES]
        self.cluster = Cluster(folder, database, sip, own)
        self.behind = [Behind(one["host"], one["port"], one["tls_port"]) for one in own]
        self.edge = Edge(folder / "edge", self.behind, certificate=self.certificate)
        self.app = self.cluster.app
        for name, samples in (("greeting", GREETING), ("thanks", THANKS)):
            self.app.files[f"/{name}.wav"] = ("audio/wav", write_wav(folder / f"{name}.wav", samples).read_bytes())
        self.app.answers["/menu"] = response(
            '<Gather numDigits="2" timeout="60" action="/thanks"><Play loop="0">/greeting.wav</Play></Gather>'
        )
        self.app.answers["/thanks"] = response('<Play loop="4">/thanks.wav</Play><Hangup/>')
        self.said = write_wav(folder / "said.wav", SAID)
        self._phones: list[Any] = []

    @property
    def nodes(self) -> list[Member]:
        return self.cluster.nodes

    def start(self) -> "Site":
        self.cluster.start()
        self.edge.start()
        self.nodes[0].answer_at(f"{self.app.url}/menu", f"{self.app.url}/status")
        return self

    def close(self) -> None:
        self.hush()
        self.edge.close()
        self.cluster.close()

    def hush(self) -> None:
        """End the phones."""
        for phone in self._phones:
            phone.close()
        self._phones.clear()

    def log(self) -> str:
        """The end of everybody's."""
        return "\n".join([*(node.tail(40) for node in self.nodes), self.edge.log()[-6000:]])

    def office(self, name: str, *, secure: bool = False) -> Office:
        """A SIP domain, whose phones know the edge alone."""
        way = SimpleNamespace(client=self.nodes[0].client, app=self.app, host=self.edge.host, sip_port=self.edge.port)
        return Office(way, name, secure=secure)  # type: ignore[arg-type]

    def phone(self, office: Office, user: str, transport: str, **more: Any) -> Baresip:
        """baresip, registered through the edge."""

        def start(**options: Any) -> Baresip:
            made = Baresip(self.folder / f"phone{len(self._phones)}-{office.name}", self.said, **options)
            self._phones.append(made)
            return made

        if transport == "TLS":
            more = {"port": self.edge.tls_port, "certificate": self.certificate, **more}
        made = office.phone(start, user, transport, **more)
        made.prints(REGISTERED)
        return made

    def pjsua(self, office: Office, user: str, transport: str, **more: Any) -> Pjsua:
        """PJSIP, registered through the edge."""
        port = self.edge.tls_port if transport == "TLS" else self.edge.port
        made = Pjsua(
            self.folder / f"pjsua{len(self._phones)}-{office.name}", self.said, user=user, password=PASSWORD,
            domain=office.name, proxy=f"sip:{EDGE}:{port};transport={transport.lower()}", transport=transport, **more,
        )  # fmt: skip
        self._phones.append(made)
        assert made.sees("registered")["status"] == 200
        return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Site]:
    """A site whose nodes stay alive."""
    speaks_tls()
    made = Site(tmp_path_factory.mktemp("edge"), postgres)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The same, for one test: its phones end with it."""
    running.app.hooks.clear()
    try:
        yield running
    except BaseException:
        print(running.log())
        raise
    finally:
        running.hush()


@pytest.fixture
def doomed(tmp_path: Path, postgres: PostgresServer) -> Iterator[Site]:
    """A site of which a part will be lost."""
    speaks_tls()
    made = Site(tmp_path, postgres)
    try:
        yield made.start()
    finally:
        made.close()


# -- phones behind it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_phone_is_called_from_any_node_and_calls(site: Site, transport: str) -> None:
    office = site.office(f"edge-{transport}".lower())
    phone = site.phone(office, "alice", transport)
    site.app.answers["/domain"] = response(
        '<Gather numDigits="2" timeout="60" action="/thanks"><Play loop="0">/greeting.wav</Play></Gather>'
    )
    for node in site.nodes:
        site.app.hooks.clear()
        phone.forgets()
        node.client.calls.create(
            to=f"sip:alice@{office.name}", from_=NUMBER, url=f"{site.app.url}/menu",
            status_callback=f"{site.app.url}/status",
        )  # fmt: skip
        talks(site, phone)
    site.app.hooks.clear()
    phone.forgets()
    phone.does("dial", f"sip:200@{office.name}")
    talks(site, phone)
    (asked,) = site.app.at("/domain")
    assert asked["SipSourceIp"] == HOST


def talks(site: Site, phone: Baresip) -> None:
    """It hears the menu, is heard there, and is hung up."""
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    for key in "42":
        phone.does("sndcode", key)
    (form,) = site.app.wait("/thanks")
    assert form["Digits"] == "42"
    phone.hears(THANKS)
    phone.sees("CALL_CLOSED")
    assert [one["CallStatus"] for one in site.app.wait("/status", timeout_s=PATIENCE_S)] == ["completed"]

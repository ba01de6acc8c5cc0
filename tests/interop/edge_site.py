"""Two whole servers on PostgreSQL and Redis with the SIP edge in front of them, and who calls through it."""

import itertools
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.certificates import Authority
from tests.e2e.test_takeover import Cluster, Member
from tests.e2e.voice_app import response
from tests.interop.baresip import Baresip, write_wav
from tests.interop.edge import EDGE, Behind, Edge
from tests.interop.outsider import Outsider
from tests.interop.phone_calls import GREETING, SAID, THANKS
from tests.interop.pjsua import Pjsua
from tests.interop.switch import BEHIND, HOST
from tests.interop.test_sip_domain import PASSWORD, REGISTERED, Office
from tests.ports import free_port
from tests.postgres import PostgresServer

NODES = ("127.0.0.2", "127.0.0.6")
NUMBER, ABROAD = "+12015550100", "+4930"
TRANSPORTS = ["UDP", "TCP", "TLS"]
PATIENCE_S = 60.0
NODE_S = 2
"""How long the edge waits for a node's first word."""


class Site:
    """Two nodes and the edge; the certificate is everybody's."""

    def __init__(self, folder: Path, database: PostgresServer) -> None:
        authority = Authority(folder)
        files = authority.issue("both", addresses=("127.0.0.1", EDGE, BEHIND, *NODES))
        both = folder / "both-in-one.pem"
        both.write_bytes(files.chain.read_bytes() + files.key.read_bytes())
        self.folder, self.certificate = folder, str(both)
        sip = {"edges": [EDGE], "tls_certificate": self.certificate, "tls_ca": str(authority.path)}
        own: list[dict[str, Any]] = [
            {"host": host, "port": free_port(host), "tls_port": free_port(host)} for host in NODES
        ]
        self.behind = [Behind(one["host"], one["port"], one["tls_port"]) for one in own]
        self.carrier = Outsider(BEHIND)
        carriers = [f"sip:{self.carrier.contact}"]
        self.edge = Edge(folder / "edge", self.behind, certificate=self.certificate, carriers=carriers)
        self.carrier.server = (EDGE, self.edge.port)
        far = {"name": "far", "addresses": [BEHIND], "gateways": [f"sip:{EDGE}:{self.edge.port}"], "prefixes": [ABROAD]}
        near = {"name": "near", "addresses": [HOST], "prefixes": []}
        self.cluster = Cluster(folder, database, sip, own, trunks=[near, far])
        self.app = self.cluster.app
        for name, samples in (("greeting", GREETING), ("thanks", THANKS)):
            self.app.files[f"/{name}.wav"] = ("audio/wav", write_wav(folder / f"{name}.wav", samples).read_bytes())
        self.app.answers["/menu"] = response(
            '<Gather numDigits="2" timeout="60" action="/thanks"><Play loop="0">/greeting.wav</Play></Gather>'
        )
        self.app.answers["/thanks"] = response('<Play loop="4">/thanks.wav</Play><Hangup/>')
        self.said = write_wav(folder / "said.wav", np.tile(SAID, 5))  # longer than any call, on a busy machine too
        self._phones: list[Any] = []
        self._numbers = itertools.count()
        self.callers: list[Outsider] = []

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
        self.carrier.close()
        self.edge.close()
        self.cluster.close()

    def owner(self) -> Member:
        """The node that has a call."""
        return next(node for node in self.nodes if calls_at(node))

    def hush(self) -> None:
        """End the phones."""
        for phone in self._phones:
            phone.close()
        for one in self.callers:
            one.close()
        self._phones.clear()
        self.callers.clear()

    def log(self) -> str:
        """The end of everybody's."""
        return "\n".join([*(node.tail(40) for node in self.nodes), self.edge.log()[-6000:]])

    def office(self, name: str, *, secure: bool = False) -> Office:
        """A SIP domain, whose phones know the edge alone."""
        way = SimpleNamespace(client=self.nodes[0].client, app=self.app, host=self.edge.host, sip_port=self.edge.port)
        return Office(way, name, secure=secure, staff=("alice", *map(str.lower, TRANSPORTS)))  # type: ignore[arg-type]

    def _place(self) -> Path:
        """A folder for a phone; baresip has room for a short name only."""
        return self.folder / f"p{next(self._numbers)}"

    def phone(self, office: Office, user: str, transport: str, **more: Any) -> Baresip:
        """baresip, registered through the edge."""

        def start(**options: Any) -> Baresip:
            made = Baresip(self._place(), self.said, **options)
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
            self._place(), self.said, user=user, password=PASSWORD,
            domain=office.name, proxy=f"sip:{EDGE}:{port};transport={transport.lower()}", transport=transport, **more,
        )  # fmt: skip
        self._phones.append(made)
        assert made.sees("registered")["status"] == 200
        return made


def rings(site: Site, node: Member, office: Office, user: str = "alice") -> None:
    """A node calls a phone."""
    node.client.calls.create(
        to=f"sip:{user}@{office.name}", from_=NUMBER, url=f"{site.app.url}/menu",
        status_callback=f"{site.app.url}/status",
    )  # fmt: skip


def caller(site: Site, edge: Edge | None = None) -> Outsider:
    """A carrier's: it is known by its address, though the edge stands in between."""
    made = Outsider(BEHIND, edge or site.edge)
    site.callers.append(made)
    return made


def host_of(uri: str) -> str:
    """Of a Contact."""
    return uri.partition("@")[2].partition(":")[0] or uri.removeprefix("sip:").partition(":")[0]


def calls_at(node: Member) -> int:
    """The calls that a node has."""
    with urllib.request.urlopen(f"{node.base_url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("trunkline_calls{")))


def ended(site: Site) -> None:
    """The only call is told to have been completed."""
    assert [one["CallStatus"] for one in site.app.wait("/status", timeout_s=PATIENCE_S)] == ["completed"]

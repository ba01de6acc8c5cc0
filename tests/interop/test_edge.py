"""The SIP edge of docs/howto/sip-edge.md in front of a cluster: phones behind Kamailio with the configuration that we
ship, two nodes on PostgreSQL and Redis."""

import urllib.request
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
from tests.interop.outsider import INSIDE, Outsider, Refusing
from tests.interop.phone_calls import GREETING, SAID, THANKS
from tests.interop.pjsua import Pjsua
from tests.interop.switch import BEHIND, HOST
from tests.interop.test_sip_domain import PASSWORD, REGISTERED, Office
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
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
        self.said = write_wav(folder / "said.wav", SAID)
        self._phones: list[Any] = []
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
        rings(site, node, office)
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
    ended(site)


def rings(site: Site, node: Member, office: Office, user: str = "alice") -> None:
    """A node calls a phone."""
    node.client.calls.create(
        to=f"sip:{user}@{office.name}", from_=NUMBER, url=f"{site.app.url}/menu",
        status_callback=f"{site.app.url}/status",
    )  # fmt: skip


# -- takeover ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_goes_on_at_the_heir_through_the_edge(doomed: Site, transport: str) -> None:
    """The re-INVITE comes to the phone over the connection that it has to the edge, whoever sends it."""
    office = doomed.office(f"heir-{transport}".lower())
    phone = doomed.phone(office, "alice", transport)
    rings(doomed, doomed.nodes[0], office)
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    phone.does("sndcode", "4")
    goes_on(doomed, lambda: phone.does("sndcode", "2"))
    phone.hears(THANKS)
    phone.sees("CALL_CLOSED")
    ended(doomed)


def test_a_call_that_a_phone_made_goes_on_with_new_keys(doomed: Site) -> None:
    """TLS and SRTP all the way, which its domain wants; the way back to the caller leads through the edge."""
    office = doomed.office("keys", secure=True)
    phone = doomed.pjsua(office, "alice", "TLS", srtp="srtp")
    doomed.app.answers["/domain"] = doomed.app.answers["/menu"]
    phone.does("dial", uri=f"sip:200@{office.name}")
    assert phone.sees("media")["srtp"] is True
    phone.hears(GREETING)
    phone.does("press", digits="4")
    goes_on(doomed, lambda: phone.does("press", digits="2"))
    phone.hears(THANKS)
    ended(doomed)


def test_without_an_edge_the_heir_connects_to_a_phone_that_takes_connections(doomed: Site) -> None:
    """TLS both ways with verified certificates, and SRTP: the lost host's keys are never used again."""
    first = doomed.nodes[0]
    port = doomed.behind[0].tls_port
    phone = Pjsua(
        doomed.folder / "direct", doomed.said, user="alice", password=PASSWORD, domain=f"{NODES[0]}:{port}",
        proxy=f"sip:{NODES[0]}:{port};transport=tls", transport="TLS", srtp="srtp", certificate=doomed.certificate,
    )  # fmt: skip
    try:
        phone.does("dial", uri=f"sip:{NUMBER}@{NODES[0]}:{port};transport=tls")
        assert phone.sees("media")["srtp"] is True
        phone.hears(GREETING)
        assert calls_at(first) == 1
        phone.does("press", digits="4")
        goes_on(doomed, lambda: phone.does("press", digits="2"))
        phone.hears(THANKS)
        ended(doomed)
    finally:
        phone.close()


def test_a_phone_behind_a_nat_goes_on_too(doomed: Site) -> None:
    """All that it says of itself is the inside of its NAT: Via, Contact and SDP."""
    phone = Outsider(HOST, doomed.edge, says=INSIDE)
    try:
        phone.calls()
        phone.is_heard()
        owner = doomed.owner()
        before = phone.remote_rtp
        owner.dies()
        phone.takes_invite()
        assert phone.remote_rtp != before
        phone.is_heard()
        assert phone.hang_up() == 200
        ended(doomed)
    except BaseException:
        print(doomed.log())
        raise
    finally:
        phone.close()


def test_a_carrier_that_knows_one_address_is_called_and_goes_on_at_the_heir(doomed: Site) -> None:
    """It sees nothing but the edge."""
    carrier = doomed.carrier
    doomed.nodes[0].client.calls.create(
        to=f"{ABROAD}5550177", from_=NUMBER, url=f"{doomed.app.url}/menu", status_callback=f"{doomed.app.url}/status"
    )
    try:
        carrier.takes_invite()
        carrier.is_heard()
        owner = doomed.owner()
        before = carrier.remote_rtp
        owner.dies()
        carrier.takes_invite()
        assert carrier.remote_rtp != before
        carrier.is_heard()
        assert carrier.hang_up() == 200
        assert carrier.sources == {(EDGE, doomed.edge.port)}
        ended(doomed)
    except BaseException:
        print(doomed.log())
        raise


def calls_at(node: Member) -> int:
    """The calls that a node has."""
    with urllib.request.urlopen(f"{node.base_url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("trunkline_calls{")))


def goes_on(site: Site, press: Callable[[], object]) -> None:
    """The host of the only call dies; the other one has it, and the keys from before."""
    owner = site.owner()
    heir = next(node for node in site.nodes if node is not owner)
    owner.dies()
    try:
        eventually(lambda: "were taken over: 1 legs" in heir.text(), "the takeover")
        assert "1 reached, 0 gone" in heir.text()
        press()
        (form,) = site.app.wait("/thanks", timeout_s=PATIENCE_S)
        assert form["Digits"] == "42"
    except BaseException:
        print(site.log())
        raise


def ended(site: Site) -> None:
    """The only call is told to have been completed."""
    assert [one["CallStatus"] for one in site.app.wait("/status", timeout_s=PATIENCE_S)] == ["completed"]


# -- what it does with requests ------------------------------------------------------------------------------------


def caller(site: Site, edge: Edge | None = None) -> Outsider:
    """A carrier's: it is known by its address, though the edge stands in between."""
    made = Outsider(BEHIND, edge or site.edge)
    site.callers.append(made)
    return made


def test_calls_are_spread_over_the_nodes_and_keep_to_theirs(site: Site) -> None:
    hosts: set[str] = set()
    for _ in range(100):
        one = caller(site).calls()
        hosts.add(host_of(one.target))
        assert one.hang_up() == 200
        if len(hosts) == len(NODES):
            break
    assert hosts == set(NODES)


def test_a_node_that_refuses_is_passed_over(site: Site, tmp_path: Path) -> None:
    refusing = Refusing("127.0.0.7")
    edge = Edge(tmp_path / "edge", [Behind(refusing.host, refusing.port), site.behind[0]])
    try:
        edge.start()
        for _ in range(100):
            one = caller(site, edge).calls()
            assert host_of(one.target) == NODES[0]
            assert one.hang_up() == 200
            if "INVITE" in refusing.asked:
                break
        assert "INVITE" in refusing.asked
    finally:
        edge.close()
        refusing.close()


def test_a_dead_node_is_passed_over(doomed: Site) -> None:
    doomed.nodes[0].dies()
    for _ in range(8):
        one = caller(doomed).calls()
        assert host_of(one.target) == NODES[1]
        assert one.hang_up() == 200


def test_it_is_no_relay(site: Site) -> None:
    """Neither by a Route, nor within what pretends to be a call, nor along a Path; and nobody says who he is."""
    victim, edge = Outsider("127.0.0.8"), site.edge
    site.callers.append(victim)
    received = f"sip:{victim.contact}".replace(":", "%3a")
    ours = f"sip:{edge.host}:{edge.port}"
    for headers, to, target in (
        ([f"Route: <sip:{victim.contact};lr>"], "", f"sip:{NUMBER}@{edge.host}:{edge.port}"),
        ([f"Route: <{ours};lr>"], ";tag=x", f"sip:x@{victim.contact}"),
        ([f"Route: <{ours};lr>, <sip:{victim.contact};lr>"], ";tag=x", f"sip:x@{NODES[0]}"),
        ([f"Route: <sip:phones@{edge.host}:{edge.port};lr;received={received}>"], "", f"sip:x@{victim.contact}"),
        ([], "", f"sip:x@{victim.contact}"),
        (["P-Edge-Source: 127.0.0.5"], "", f"sip:{NUMBER}@{edge.host}:{edge.port}"),
    ):
        stranger = Outsider("127.0.0.9", edge)
        site.callers.append(stranger)
        stranger.target, stranger.to = target, f"<{target}>{to}"
        stranger.send(stranger.message("INVITE", headers=headers, body=stranger.offer()))
        try:
            status = stranger.final(timeout_s=NODE_S * len(NODES) + 2).status
        except TimeoutError:
            status = 0  # strangers get no answer
        assert status in (0, 403, 481), (status, headers)
    victim.sip.settimeout(1)
    with pytest.raises(TimeoutError):
        victim.sip.recvfrom(2048)
    assert caller(site).calls().hang_up() == 200, "that strangers get no answer does not make a node a dead one"


def host_of(uri: str) -> str:
    """Of a Contact."""
    return uri.partition("@")[2].partition(":")[0] or uri.removeprefix("sip:").partition(":")[0]

"""TLS on real sockets: calls, certificates, names, handshakes that get nowhere, pings."""

import asyncio
import gc
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import uvloop

from tests.certificates import Authority
from tests.security.test_sip_fuzz import resident_bytes
from tests.sip.link import OFFER, Caller
from tests.sip.test_transport import Node, ended, options, responses, until
from tests.sip.zone import Zone
from trunkline.sip import handshakes, transport_stream
from trunkline.sip import transport as transport_module
from trunkline.sip.flow import Flow
from trunkline.sip.tls import Certificate, TlsConfig, TlsError, TlsSession
from trunkline.sip.transport import SipTransport
from trunkline.sip.transport_stream import Connection

NAME = "sip.example.com"
CLIENT = "pbx.example.net"


class SecureNode(Node):
    """One that listens for TLS too."""

    def __init__(self, tls, dns_servers=(), **config):
        super().__init__(**config)
        self.transport = SipTransport(self.stack.config, self, None, tls, dns_servers)
        self.stack = self.transport.stack

    @property
    def tls_port(self):
        return self.transport.tls_port


@asynccontextmanager
async def secure_nodes(folder, zone=None):
    """Makes nodes that trust one authority, and closes them; `make.issue` makes certificates of it."""
    authority, made = Authority(folder), []

    async def make(file="server", names=(NAME,), *, listens=True, **tls):
        files = authority.issue(file, names) if file else None
        shown = {"certificate": str(files.chain), "key": str(files.key)} if files else {}
        config = TlsConfig(**{"ca": str(authority.path), **shown, **tls})
        node = SecureNode(config, [zone.server] if zone else ())
        await node.start(**({"tls_port": 0} if listens else {}))
        made.append(node)
        return node

    make.authority = authority
    try:
        yield make
    finally:
        for node in made:
            await node.transport.close()


@pytest.fixture
async def nodes(tmp_path):
    async with secure_nodes(tmp_path) as make:
        yield make


def call(node, port):
    """A call by TLS to 127.0.0.1, which certificates name."""
    return node.call(port, "TLS")


def client(node, **changes):
    """What a foreign client needs to connect."""
    context = ssl.create_default_context(cafile=node.transport.tls.config.ca)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


async def connect(node, **changes):
    return await asyncio.open_connection("127.0.0.1", node.tls_port, ssl=client(node, **changes))


async def test_a_call(nodes):
    a, b = await nodes(), await nodes()
    caller = call(a, b.tls_port)
    await until(lambda: caller.dialog is not None and b.legs and b.legs[0].heard)
    request = b.invites[0].request
    assert request.via.transport == "TLS"
    assert str(request.contact.uri) == f"sip:127.0.0.1:{a.tls_port};transport=tls"
    assert b.invites[0].flow.transport == "TLS"
    b.dialogs[0].bye()
    await until(lambda: caller.leg.heard)
    assert a.transport.connections == b.transport.connections == 1, "one connection for both ways"
    again = call(a, b.tls_port)
    await until(lambda: again.dialog is not None)
    assert a.transport.connections == 1


async def test_a_sips_uri_goes_by_tls_and_is_answered_as_one(nodes):
    a, b = await nodes(), await nodes()
    caller = Caller(a)
    a.stack.invite(f"sips:bob@127.0.0.1:{b.tls_port}", from_="<sips:a@a>", sdp=OFFER, listener=caller)
    await until(lambda: caller.dialog is not None)
    assert b.invites[0].flow.transport == "TLS"
    assert str(b.invites[0].request.contact.uri) == f"sips:127.0.0.1:{a.tls_port}"
    assert caller.dialog.remote_target == f"sips:127.0.0.1:{b.tls_port}"
    b.dialogs[0].bye()
    await until(lambda: caller.leg.heard == ["bye"])


async def test_who_called_can_be_reached_again_when_the_connection_is_lost(nodes):
    """As after a crash: the dialog's connection is gone, and another is made to the remote target."""
    a, b = await nodes(), await nodes()
    caller = call(a, b.tls_port)
    await until(lambda: caller.dialog is not None and b.legs and b.legs[0].heard)
    for connection in list(b.transport._connections.values()):
        connection.abort()
    await until(lambda: a.transport.connections == 0)
    b.dialogs[0].info("text/plain", b"still here")
    await until(lambda: caller.leg.info)
    caller.dialog.bye()
    await until(lambda: b.legs[0].heard[-1] == "bye")


async def test_a_client_that_proves_who_it_is(nodes):
    server = await nodes(client_ca=str(nodes.authority.path))
    known, anonymous = await nodes("client", (CLIENT,)), await nodes(None, listens=False)
    for node, certificate in ((known, Certificate((CLIENT, "127.0.0.1"))), (anonymous, None)):
        caller = call(node, server.tls_port)
        await until(lambda caller=caller: caller.dialog is not None)
        flow = server.invites[-1].flow
        assert server.transport.peer_certificate(flow) == certificate
        assert flow.domain == (CLIENT if certificate else "")
    assert server.transport.peer_certificate(Flow("TLS", ("x", 1), ("y", 1), 99)) is None


async def test_a_client_of_another_authority_is_refused(nodes, tmp_path):
    server = await nodes(client_ca=str(nodes.authority.path))
    (tmp_path / "other").mkdir()
    files = Authority(tmp_path / "other").issue("client", (CLIENT,))
    stranger = await nodes(None, listens=False, certificate=str(files.chain), key=str(files.key))
    caller = call(stranger, server.tls_port)
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503
    assert not server.invites
    assert server.stack.metrics["tls_refused"] == 1


async def test_a_server_that_is_not_who_it_should_be_gets_nothing(nodes, tmp_path, caplog):
    caplog.set_level("INFO")
    a, b = await nodes(), await nodes()
    caller = Caller(a)
    a.stack.invite(
        "sips:bob@bank.example", from_="<sip:a@a>", target=("TLS", "127.0.0.1", b.tls_port, "bank.example"),
        sdp=OFFER, listener=caller,
    )  # fmt: skip
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503
    assert "its certificate is not of bank.example but of sip.example.com, 127.0.0.1" in caplog.text
    assert not b.invites
    careless = await nodes(None, listens=False, ca="", verify=False)
    caller = call(careless, b.tls_port)
    await until(lambda: caller.dialog is not None)
    (tmp_path / "other").mkdir()
    files = Authority(tmp_path / "other").issue("server")
    impostor = await nodes(None, certificate=str(files.chain), key=str(files.key))
    caller = call(a, impostor.tls_port)
    await until(lambda: caller.failure)
    assert "its certificate is not trusted" in caplog.text


async def test_names_lead_through_srv_to_the_first_that_answers(tmp_path):
    """RFC 3263: failover over the servers of a name; the certificate names the domain that was asked for."""
    zone = await Zone({}).start()
    try:
        async with secure_nodes(tmp_path, zone) as make:
            a, b = await make(), await make("b", ("example.com",))
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                dead = nobody.getsockname()[1]
                zone.records = {
                    ("example.com", "NAPTR"): ['1 1 "s" "SIPS+D2T" "" _sips._tcp.example.com.'],
                    ("_sips._tcp.example.com", "SRV"): [
                        f"1 1 {dead} b.example.com.",
                        f"2 1 {b.tls_port} b.example.com.",
                    ],
                    ("b.example.com", "A"): ["127.0.0.1"],
                }
                caller = Caller(a)
                a.stack.invite("sips:bob@example.com", from_="<sip:a@a>", sdp=OFFER, listener=caller)
                await until(lambda: caller.dialog is not None or caller.failure)
                assert caller.dialog is not None
                targets = await a.transport.resolve("example.com", None)
                assert [one.port for one in targets] == [dead, b.tls_port]
    finally:
        zone.close()


async def test_a_new_certificate_is_shown_from_the_next_connection_on(nodes, monkeypatch):
    monkeypatch.setattr(transport_module, "RELOAD_S", 0.02)
    a, b = await nodes(None, listens=False), await nodes()
    caller = call(a, b.tls_port)
    await until(lambda: caller.dialog is not None and b.legs and b.legs[0].heard)
    first = b.transport.tls.server
    nodes.authority.issue("server", ("new.example.com",))
    await until(lambda: b.transport.tls.server is not first)
    _, writer = await connect(b)
    shown = writer.get_extra_info("peercert")
    assert ("DNS", "new.example.com") in shown["subjectAltName"]
    writer.close()
    caller.dialog.info("text/plain", b"still up")
    await until(lambda: b.legs[0].info)


async def test_certificates_that_cannot_be_read(nodes, tmp_path):
    lost = SecureNode(TlsConfig(str(tmp_path / "none.pem"), str(tmp_path / "none.key")))
    with pytest.raises(TlsError, match=r"none\.pem"):
        await lost.start(tls_port=0)
    await lost.transport.close()


async def test_who_does_not_speak_tls_is_closed_without_a_word(nodes, caplog):
    node = await nodes()
    for data in (options(), b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x00" * 2000):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.tls_port)
        writer.write(data)
        assert await ended(reader)
        writer.close()
    assert node.stack.metrics == {"tls_not_spoken": 4}
    reader, writer = await asyncio.open_connection("127.0.0.1", node.tls_port)
    writer.write(b"\x16\x03\x01\x40\x00" + b"\xff" * 17_000)
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert answer == b"" or answer[0] == 0x15, "an alert at most"
    writer.close()
    await until(lambda: node.transport.handshakes == 0)
    assert not caplog.records
    reader, writer = await connect(node)
    writer.write(options())
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    writer.close()


async def test_handshakes_are_bounded_in_number_and_time(nodes, monkeypatch):
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 3)
    patience_s = transport_stream.HANDSHAKE_S
    monkeypatch.setattr(transport_stream, "HANDSHAKE_S", 0.6)
    node = await nodes()
    silent = [await asyncio.open_connection("127.0.0.1", node.tls_port) for _ in range(6)]
    await until(lambda: node.stack.metrics.get("tls_evicted") == 3)
    assert node.transport.handshakes == 3
    monkeypatch.setattr(transport_stream, "HANDSHAKE_S", patience_s)  # the next one means it
    reader, writer = await connect(node)
    writer.write(options())
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    for each, _ in silent:
        assert await ended(each)
    await until(lambda: node.transport.handshakes == 0)
    assert node.transport.connections == 1, "one that stands is not counted among them"
    for _, each in (*silent, (reader, writer)):
        each.close()


async def test_a_flood_of_broken_handshakes_keeps_others_out_of_nothing(nodes):
    """From one address 300 connections at once that never finish their handshake: 50 of them are under way, the others
    are closed unread, and who comes from elsewhere is served at once; so is a call that is up."""
    node = await nodes()
    reader, writer = await connect(node)
    flood = []
    for number in range(300):
        one = await asyncio.open_connection("127.0.0.1", node.tls_port, local_addr=("127.0.0.66", 0))
        one[1].write(b"\x16\x03\x01\x02\x00\x01"[: 1 + number % 6])
        flood.append(one)
    await until(lambda: node.stack.metrics.get("tls_crowded", 0) == 300 - handshakes.MAX_OF_NETWORK)
    assert node.transport.handshakes == handshakes.MAX_OF_NETWORK
    assert "tls_evicted" not in node.stack.metrics
    other, its = await connect(node)
    for read, write in ((other, its), (reader, writer)):
        write.write(options())
        assert await responses(read, 1) == [b"SIP/2.0 200 OK"]
    for _, each in (*flood, (other, its), (reader, writer)):
        each.close()
    await until(lambda: node.transport.handshakes == 0)


async def test_a_peer_may_be_kept_out_before_anything_is_read(nodes):
    node = await nodes()
    node.transport.admits = lambda host: host != "127.0.0.1"
    for port in (node.tls_port, node.port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        writer.close()
    assert node.stack.metrics == {"connections_not_admitted": 2}


async def test_a_server_that_stays_silent_is_given_up(nodes, monkeypatch):
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT_S", 0.1)
    node = await nodes()
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        caller = call(node, quiet.getsockname()[1])
        await until(lambda: caller.failure)
        assert caller.failure[0] == 503
        await until(lambda: node.transport.handshakes == 0)


@pytest.mark.parametrize("kind", ["TCP", "TLS"])
async def test_connections_that_calls_use_are_pinged(nodes, monkeypatch, kind):
    """RFC 5626 section 3.5.1; a peer that has answered once and does not any more is gone."""
    monkeypatch.setattr(transport_stream, "PING_S", 0.02)
    monkeypatch.setattr(transport_module, "SWEEP_S", 0.01)
    a, b = await nodes(), await nodes()
    caller = a.call(b.tls_port if kind == "TLS" else b.port, kind)
    await until(lambda: caller.dialog is not None)
    (connection,) = a.transport._connections.values()
    await until(lambda: connection._pongs)
    assert connection._parser.held == 0
    heard = connection.heard_at
    await until(lambda: connection.heard_at > heard)
    monkeypatch.setattr(transport_stream, "PONG_S", 0.05)
    monkeypatch.setattr(transport_stream, "PONG", b"")
    await until(lambda: a.transport.connections == 0)


async def test_connections_that_nobody_uses_are_not_pinged(nodes, monkeypatch):
    monkeypatch.setattr(transport_stream, "PING_S", 0.0)
    a, b = await nodes(), await nodes()
    caller = call(a, b.tls_port)
    await until(lambda: caller.dialog is not None)
    caller.dialog.bye()
    await until(lambda: not a.stack.dialogs)
    assert not a.transport._used()
    flow = Flow("TLS", ("127.0.0.1", b.tls_port), ("127.0.0.1", a.tls_port))
    a.transport.hold(flow)
    a.transport.hold(flow)
    assert len(a.transport._used()) == 1
    a.transport.release(flow)
    assert len(a.transport._used()) == 1
    a.transport.release(flow)
    assert not a.transport._used()


async def test_handshake_garbage_leaves_nothing_behind(nodes):
    """Of 1,800 broken handshakes not one object is kept, and of OpenSSL's own memory, which nobody counts, less than
    2.8 kB each."""
    node = await nodes()
    node.transport._handshakes._take = lambda network, now: True  # as if from many addresses
    hello = bytearray(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") + bytearray(range(256)) * 2

    async def garbage(count):
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.tls_port)
            hello[number % len(hello)] ^= 1 + number % 255
            writer.write(b"\x16" + bytes(hello[1 : 20 + number % 500]))
            if number % 3:
                writer.write_eof()
            else:
                writer.transport.abort()
            if number % 3:
                await ended(reader)
            writer.close()

    await garbage(300)
    gc.collect()
    before = resident_bytes()
    await garbage(1500)
    await until(lambda: node.transport.handshakes == 0)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, (Connection, TlsSession))]
    assert resident_bytes() - before < 4 * 1024 * 1024
    assert node.transport.connections == 0


ON_UVLOOP = (
    test_a_call,
    test_who_called_can_be_reached_again_when_the_connection_is_lost,
    test_a_client_that_proves_who_it_is,
    test_handshake_garbage_leaves_nothing_behind,
)


@pytest.mark.parametrize("scenario", ON_UVLOOP, ids=lambda scenario: scenario.__name__.removeprefix("test_"))
def test_the_same_on_uvloop(scenario, tmp_path):
    async def run():
        async with secure_nodes(tmp_path) as make:
            await scenario(make)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())

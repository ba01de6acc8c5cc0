"""UDP and TCP over loopback: framing, reuse, limits, names, given sockets."""

import asyncio
import selectors
import socket
import time
from contextlib import asynccontextmanager

import pytest
import uvloop

from tests.sip.link import ANSWER, OFFER, Caller, Leg
from trunkline.sip import transport as transport_module
from trunkline.sip import transport_stream
from trunkline.sip.core import StackConfig
from trunkline.sip.flow import Flow, bracketed
from trunkline.sip.timers import Timing
from trunkline.sip.transport import SipTransport, TransportLimits, bind
from trunkline.sip.transport_sockets import connecting_from

PATIENCE_S = 60
PATIENT, HASTY = Timing(t1=0.1), Timing(t1=0.02)
"""Requests are given up after 64 T1: 6.4 s, which no busy machine takes; 1.3 s."""


class Node:
    """A transport with a core that answers every call."""

    def __init__(self, limits=None, **config):
        config.setdefault("timing", PATIENT)
        self.transport = SipTransport(StackConfig(**config), self, limits)
        self.stack = self.transport.stack
        self.invites, self.dialogs, self.legs, self.flows = [], [], [], []

    async def start(self, host="127.0.0.1", port=0, **sockets):
        await self.transport.start(host, port, **sockets)
        return self

    @property
    def port(self):
        return self.transport.port

    def on_invite(self, invite):
        self.invites.append(invite)
        dialog = invite.accept(ANSWER)
        dialog.listener = Leg(self)
        self.dialogs.append(dialog)
        self.legs.append(dialog.listener)

    def on_request(self, request, flow):
        self.flows.append(flow)

    def permitted(self, request, flow):
        return True

    def call(self, port, transport="UDP", host="127.0.0.1", **options):
        caller = Caller(self)
        options.setdefault("sdp", OFFER)
        caller.invite = self.stack.invite(
            f"sip:bob@{bracketed(host)}:{port}",
            from_="<sip:a@a>",
            target=(transport, host, port),
            listener=caller,
            **options,
        )
        return caller


@asynccontextmanager
async def nodes_in_a_loop():
    """Makes nodes, and closes them."""
    made = []

    async def make(address="127.0.0.1", *, advertised="", **config):
        port = 5080 if advertised else 0
        node = await Node(host=advertised, port=port, **config).start(address)
        made.append(node)
        return node

    try:
        yield make
    finally:
        for node in made:
            await node.transport.close()


@pytest.fixture
async def nodes():
    async with nodes_in_a_loop() as make:
        yield make


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def options(number=1, extra="", body=""):
    return (
        f"OPTIONS sip:bob@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5999;branch=z9hG4bKo{number};rport\r\n"
        f"From: <sip:x@x>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: o{number}\r\nCSeq: 1 OPTIONS\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def responses(reader, count):
    """So many responses of a stream (all without bodies)."""
    async with asyncio.timeout(PATIENCE_S):
        return [(await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0] for _ in range(count)]


async def ended(reader):
    """Whether the other end closed without a word."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_a_call(nodes, transport):
    a, b = await nodes(), await nodes()
    caller = a.call(b.port, transport)
    await until(lambda: caller.dialog is not None and b.legs and b.legs[0].heard)
    assert b.legs[0].heard == [("ack", b"")]
    assert b.invites[0].request.via.transport == transport
    b.dialogs[0].bye()
    await until(lambda: caller.leg.heard)
    assert caller.leg.heard == ["bye"]
    await until(lambda: not a.stack.dialogs and not b.stack.dialogs)
    assert b.transport.connections == (transport == "TCP")


async def test_both_ports_are_the_same_and_free_ones_are_found(nodes):
    node = await nodes()
    with socket.socket() as tcp:
        tcp.connect(("127.0.0.1", node.port))
    with pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", node.port)


async def test_given_sockets_are_taken_over_and_outlive_the_transport():
    udp, tcp = bind("127.0.0.1", 0)
    kept = udp.dup(), tcp.dup()
    first = await Node().start(udp_socket=udp, tcp_socket=tcp)
    port = first.port
    await first.transport.close()
    second = await Node().start(udp_socket=kept[0], tcp_socket=kept[1])
    assert second.port == port
    other = await Node().start()
    for transport in ("UDP", "TCP"):
        caller = other.call(port, transport)
        await until(lambda caller=caller: caller.dialog is not None)
    await second.transport.close()
    await other.transport.close()


async def test_a_tcp_connection_is_used_again(nodes):
    a, b = await nodes(), await nodes()
    callers = [a.call(b.port, "TCP") for _ in range(5)]
    await until(lambda: all(caller.dialog for caller in callers))
    assert a.transport.connections == b.transport.connections == 1
    b.dialogs[0].info("text/plain", b"x")
    await until(lambda: any(caller.leg.info for caller in callers))
    assert a.transport.connections == 1, "the callee's requests come back by it"


async def test_messages_may_be_cut_and_joined_as_tcp_likes(nodes):
    node = await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    for byte in options(1):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    writer.write(options(2) + b"\r\n" + options(3) + options(4)[:40])
    assert await responses(reader, 2) == [b"SIP/2.0 200 OK"] * 2
    writer.write(options(4)[40:])
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    writer.close()
    await until(lambda: node.transport.connections == 0)


async def test_keepalives_are_answered_over_tcp_and_ignored_over_udp(nodes):
    node = await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.readexactly(2) == b"\r\n"
    writer.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for data in (b"\r\n\r\n", b"\0\0\0\0", b"", b"\r\n"):
            udp.sendto(data, ("127.0.0.1", node.port))
        udp.sendto(options(), ("127.0.0.1", node.port))
    await until(lambda: node.flows)
    assert "malformed" not in node.stack.metrics


async def test_a_message_that_is_too_large_ends_the_connection(nodes):
    node = await nodes(limits=TransportLimits(max_message_bytes=4096))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(options(1, body="x" * 5000))
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.read()).startswith(b"SIP/2.0 513")
    writer.close()
    await until(lambda: node.transport.connections == 0)


async def test_garbage_ends_the_connection_and_nothing_else(nodes):
    node = await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    async with asyncio.timeout(PATIENCE_S):
        await reader.read()
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(options())
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    writer.close()


async def test_connections_are_bounded_and_idle_ones_give_way(nodes, monkeypatch):
    node = await nodes(limits=TransportLimits(max_connections=2))
    kept = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(2)]
    for reader, writer in kept:
        writer.write(options())
        await responses(reader, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    async with asyncio.timeout(PATIENCE_S):
        assert await ended(reader)
    writer.close()
    assert node.transport.connections == 2
    monkeypatch.setattr(transport_module, "EVICT_IDLE_S", 0.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(options(2))
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    assert node.transport.connections == 2
    for _, each in (*kept, (reader, writer)):
        each.close()


async def test_who_hoards_connections_gets_nobody_else_out(nodes, monkeypatch):
    monkeypatch.setattr(transport_module, "EVICT_IDLE_S", 0.0)
    node = await nodes(limits=TransportLimits(max_connections=8))

    async def connected(source):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, local_addr=(source, 0))
        writer.write(options())
        assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
        return reader, writer

    phones = [await connected(f"127.0.0.{number}") for number in (11, 12, 13)]
    flood = [await connected("127.0.0.66") for _ in range(9)]
    for _, writer in phones:
        writer.write(options())
    for reader, _ in phones:
        assert await responses(reader, 1) == [b"SIP/2.0 200 OK"], "the phones' connections stand"
    monkeypatch.setattr(transport_module, "EVICT_IDLE_S", 3600.0)
    late = [await connected("127.0.0.14")]
    assert node.transport.connections == 8
    for _, writer in (*phones, *flood, *late):
        writer.close()


async def test_a_connection_that_brings_nothing_whole_is_closed(nodes, monkeypatch):
    monkeypatch.setattr(transport_stream, "PARTIAL_S", 0.05)
    monkeypatch.setattr(transport_module, "SWEEP_S", 0.02)
    node = await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(options()[:50])
    async with asyncio.timeout(PATIENCE_S):
        assert await ended(reader)
    writer.close()


async def test_a_half_closed_connection_still_gets_its_responses(nodes):
    node = await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(options())
    writer.write_eof()
    assert await responses(reader, 1) == [b"SIP/2.0 200 OK"]
    writer.close()
    await until(lambda: node.transport.connections == 0)


async def test_nobody_listens_is_503(nodes):
    a, gone = await nodes(), await nodes()
    port = gone.port
    await gone.transport.close()
    caller = a.call(port, "TCP")
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503


async def test_a_connection_that_closes_before_the_response_is_503(nodes):
    a = await nodes()
    opened = asyncio.Event()

    async def hang_up(reader, writer):
        opened.set()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    caller = a.call(server.sockets[0].getsockname()[1], "TCP")
    await until(lambda: caller.failure)
    assert opened.is_set()
    assert caller.failure[0] == 503
    server.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_hosts_that_are_none_fail_and_take_no_place(nodes, transport):
    """A peer writes what it likes into its Contact: what no resolver takes must not stay in the way of others."""
    node = await nodes()
    statuses = []
    hosts = [
        *(f".{number}" for number in range(transport_module.MAX_CONNECTING + 1)),
        "a..1",
        f"{'x' * 64}.1",
        "192.0.2.1;maddr=%00.1",
    ]
    for host in hosts:
        node.stack.request(
            "OPTIONS", f"sip:a@{host};transport={transport}", from_="<sip:a@a>",
            on_response=lambda status, response: statuses.append(status),
        )  # fmt: skip
        await until(lambda: len(node.transport._waiting) < transport_module.MAX_CONNECTING)
    await until(lambda: len(statuses) == len(hosts))
    assert set(statuses) == {503}
    other = await nodes()
    node.call(other.port, "TCP")
    await until(lambda: other.invites)


async def test_host_names_are_looked_up(nodes):
    a, b = await nodes(), await nodes()
    for transport in ("UDP", "TCP"):
        caller = a.call(b.port, transport, host="localhost")
        await until(lambda caller=caller: caller.dialog is not None)
    assert await a.transport.flow_to("UDP", "localhost", 5060) == Flow(
        "UDP", ("127.0.0.1", 5060), ("127.0.0.1", a.port)
    )


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_name_that_a_peer_outside_gives_does_not_lead_inside(nodes, transport, allowed):
    a, b = await nodes(), await nodes()
    if allowed:
        a.stack.is_inside = lambda host, address: (host, address) != ("localhost", "127.0.0.1")
    a.stack.flow_to = lambda target: Flow(target.transport, (target.host, target.port), ("127.0.0.1", 1), 0, "", True)
    for _ in range(2):  # once it is known the name is not looked up
        caller = a.call(b.port, transport, host="localhost")
        await until(lambda caller=caller: caller.failure or caller.dialog is not None)
        assert (caller.dialog is not None) is allowed
    assert bool(b.invites) is allowed
    assert bool(a.stack.metrics.get("aimed_inside")) is not allowed


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_an_unknown_host_name_is_503(nodes, transport, monkeypatch):
    a = await nodes()

    async def fails(*_, **__):
        raise socket.gaierror("unknown")

    monkeypatch.setattr(a.transport._names, "find", fails)
    caller = a.call(5060, transport, host="nobody.invalid")
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503


async def test_another_transport_is_503(nodes):
    a = await nodes()
    caller = a.call(5061, "TLS")
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503


async def test_bound_to_a_wildcard_it_names_the_address_towards_the_peer(nodes):
    a, b = await nodes("0.0.0.0"), await nodes()
    caller = a.call(b.port)
    await until(lambda: caller.dialog is not None)
    assert b.invites[0].request.contact.uri.host == "127.0.0.1"
    assert a.transport.local_address_towards("127.0.0.1") == "127.0.0.1"
    caller.dialog.bye()
    await until(lambda: b.legs[0].heard[-1:] == ["bye"])


async def test_an_advertised_address_is_named_instead(nodes):
    a, b = await nodes(advertised="sip.example.com"), await nodes()
    a.call(b.port)
    await until(lambda: b.invites)
    assert str(b.invites[0].request.contact.uri) == "sip:sip.example.com:5080"


async def test_ipv6_and_ipv4_on_one_socket(nodes):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        both = await nodes("::")
    except OSError:
        pytest.skip("no IPv6 here")
    four, six = await nodes(), await nodes("::1")
    for other, host in ((four, "127.0.0.1"), (six, "::1")):
        for transport in ("UDP", "TCP"):
            caller = other.call(both.port, transport, host=host)
            await until(lambda caller=caller: caller.dialog is not None)
            assert both.invites[-1].flow.remote[0] == host
            both.dialogs[-1].bye()
            await until(lambda caller=caller: caller.leg.heard == ["bye"])


class Jumping(selectors.DefaultSelector):
    """Time is what it makes of it: where the loop would wait, and nothing has come, it is later at once."""

    now = 1000.0

    def select(self, timeout=None):
        found = super().select(0 if timeout else timeout)
        if not found and timeout:
            self.now += timeout
        return found


def test_timers_fire_at_their_times(monkeypatch):
    """Timers A and B through the loop's own, on a clock that knows no pauses of the machine: each send in time."""
    clock, sent = Jumping(), []
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)

    async def run():
        async with nodes_in_a_loop() as make:
            a = await make(timing=Timing())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", 0))
                asyncio.get_running_loop().add_reader(silent, lambda: sent.append((clock.now, silent.recv(65536))))
                began, caller = clock.now, a.call(silent.getsockname()[1])
                while not caller.failure:
                    await asyncio.sleep(0.005)
                assert caller.failure[0] == 408
                assert clock.now - began == pytest.approx(32, abs=0.01)
                assert [at - began for at, _ in sent] == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5], abs=0.01)
                assert {data.split()[0] for _, data in sent} == {b"INVITE"}
                assert a.stack.transactions == 0
                asyncio.get_running_loop().remove_reader(silent)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
        runner.run(run())


async def test_timers_run_on_the_loop(nodes):
    """On a loop in real time (uvloop too) repetitions leave, and it is given up. How many they are, and when, is a
    matter of the test above: a loop that the machine lets wait may not come to the last ones."""
    a = await nodes(timing=HASTY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        caller = a.call(silent.getsockname()[1])
        await until(lambda: caller.failure)
        got = 0
        while True:
            try:
                silent.recv(65536)
            except BlockingIOError:
                break
            got += 1
    assert caller.failure[0] == 408
    assert 2 <= got <= 7
    assert a.stack.transactions == 0


PLAIN = (
    test_a_tcp_connection_is_used_again,
    test_messages_may_be_cut_and_joined_as_tcp_likes,
    test_keepalives_are_answered_over_tcp_and_ignored_over_udp,
    test_a_message_that_is_too_large_ends_the_connection,
    test_garbage_ends_the_connection_and_nothing_else,
    test_a_half_closed_connection_still_gets_its_responses,
    test_nobody_listens_is_503,
    test_a_connection_that_closes_before_the_response_is_503,
    test_host_names_are_looked_up,
    test_bound_to_a_wildcard_it_names_the_address_towards_the_peer,
    test_ipv6_and_ipv4_on_one_socket,
    test_timers_run_on_the_loop,
)


@pytest.mark.parametrize("scenario", PLAIN, ids=lambda scenario: scenario.__name__.removeprefix("test_"))
def test_the_same_on_uvloop(scenario):
    async def run():
        async with nodes_in_a_loop() as make:
            await scenario(make)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_call_on_uvloop(transport):
    async def run():
        async with nodes_in_a_loop() as make:
            await test_a_call(make, transport)
        await test_given_sockets_are_taken_over_and_outlive_the_transport()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_an_address_that_is_refused_is_heard_only_about_calls(nodes):
    a, b = await nodes(), await nodes()
    a.call(b.port)
    await until(lambda: b.dialogs and b.legs and a.stack.dialogs)
    b.transport.refuses = lambda host: host == "127.0.0.1"
    before = b.stack.metrics["requests"]
    a.stack.request("OPTIONS", "sip:b@b", from_="<sip:a@a>", target=("UDP", "127.0.0.1", b.port), on_response=print)
    await until(lambda: b.stack.metrics.get("banned"))
    assert b.stack.metrics["requests"] == before
    next(iter(a.stack._dialogs.values())).bye()
    await until(lambda: not b.stack.dialogs)


class Gate:
    """A lease that the test ends."""

    open = True


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_nothing_leaves_a_host_whose_lease_has_run_out(nodes, transport):
    a, b = await nodes(), await nodes()
    gate = a.transport.fence = Gate()
    a.call(b.port, transport)
    await until(lambda: b.legs and b.legs[0].heard and a.stack.dialogs)
    gate.open = False
    before = dict(b.stack.metrics)
    next(iter(a.stack._dialogs.values())).info("application/x", b"late")
    await until(lambda: a.stack.metrics.get("fenced"))
    await asyncio.sleep(0.05)
    assert b.stack.metrics == before
    assert b.legs[0].info == []
    gate.open = True
    next(iter(a.stack._dialogs.values())).info("application/x", b"in time")
    await until(lambda: b"in time" in b.legs[0].info)


async def test_a_connection_comes_from_the_address_that_is_listened_on(nodes):
    """Edge proxies and carriers know us by it."""
    a, b = await nodes("127.0.0.2"), await nodes()
    caller = a.call(b.port, "TCP")
    await until(lambda: caller.dialog is not None and b.invites)
    assert b.invites[0].flow.remote[0] == "127.0.0.2"


@pytest.mark.parametrize(
    ("host", "remote", "ours"),
    [
        ("192.0.2.11", "198.51.100.7", ("192.0.2.11", 0)),
        ("0.0.0.0", "198.51.100.7", None),
        ("::", "2001:db8::1", None),
        ("127.0.0.1", "198.51.100.7", None),
        ("127.0.0.2", "127.0.0.1", ("127.0.0.2", 0)),
        ("192.0.2.11", "2001:db8::1", None),
        ("sip.example.com", "198.51.100.7", None),
    ],
)
def test_where_connections_come_from(host, remote, ours):
    assert connecting_from(host, remote) == ours

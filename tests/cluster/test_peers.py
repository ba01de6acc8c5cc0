import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.certificates import Authority
from trunkline.cluster import peers_link, peers_wire
from trunkline.cluster.peers import PeerError, Peers, PeerUnavailable, Refused, is_loopback, split_address
from trunkline.cluster.peers_wire import Handshake, Malformed

SECRET = "a secret that has more than thirty-two characters"
Make = Callable[..., Awaitable[tuple[Peers, str]]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Peers] = []

    async def one(name: str, secret: str = SECRET, address: str = "127.0.0.1:0", **more: object) -> tuple[Peers, str]:
        peers = Peers(name, secret, **more)  # type: ignore[arg-type]
        made.append(peers)
        port = await peers.listen(address)
        return peers, f"127.0.0.1:{port}"

    yield one
    for peers in made:
        await peers.close()


async def echo(node: str, payload: bytes) -> bytes:
    return node.encode() + b":" + payload


async def pair(make: Make) -> tuple[Peers, Peers]:
    (a, at_a), (b, at_b) = await make("a"), await make("b")
    for peers in (a, b):
        peers.handle("echo", echo)
        peers.know({"a": at_a, "b": at_b})
    return a, b


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_both_call_each_other_over_one_connection(make: Make) -> None:
    a, b = await pair(make)
    assert await a.call("b", "echo", b"1", 2) == b"a:1"
    assert await b.call("a", "echo", b"2", 2) == b"b:2"
    assert await a.call("a", "echo", b"3", 2) == b"a:3"
    await until(lambda: len(a._all) == len(b._all) == 1)
    assert a.connected == {"b"}


async def test_when_both_dial_at_once_one_connection_stays_and_no_call_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.cluster.peers.HANDSHAKE_S", 0.2)
    a, b = await pair(make)
    told = await asyncio.gather(*(one.call(to, "echo", b"x", 2) for one, to in [(a, "b"), (b, "a")] * 20))
    assert set(told) == {b"a:x", b"b:x"}
    await until(lambda: len(a._all) == len(b._all) == 1)
    assert next(iter(b._all)).dialled is False, "the smaller name's stays"
    assert await b.call("a", "echo", b"2", 2) == b"b:2"


async def test_requests_under_way_have_a_budget_of_bytes_that_small_ones_need_not_heed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_link, "MAX_BYTES_IN_FLIGHT", 100_000)
    a, b = await pair(make)
    done = asyncio.Event()
    came: list[int] = []

    async def slow(node: str, payload: bytes) -> bytes:
        came.append(len(payload))
        await done.wait()
        return b"done"

    b.handle("slow", slow)
    large = [asyncio.create_task(a.call("b", "slow", b"x" * 40_000, 20)) for _ in range(2)]
    await until(lambda: len(came) == 2)
    with pytest.raises(PeerUnavailable) as refused:
        await a.call("b", "slow", b"x" * 40_000, 20)
    assert not refused.value.sent
    assert await a.call("b", "echo", b"small", 20) == b"a:small"
    done.set()
    assert await asyncio.gather(*large) == [b"done"] * 2
    assert await a.call("b", "slow", b"x" * 90_000, 20) == b"done", "what is answered is under way no longer"
    await until(lambda: {(link._sent_bytes, link._asked_bytes) for link in (*a._all, *b._all)} == {(0, 0)})


async def test_who_sends_more_than_the_budget_is_told_that_we_are_busy(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await pair(make)
    done = asyncio.Event()

    async def slow(node: str, payload: bytes) -> bytes:
        monkeypatch.setattr(peers_link, "MAX_BYTES_IN_FLIGHT", 100_000)
        await done.wait()
        return b"done"

    b.handle("slow", slow)
    first = asyncio.create_task(a.call("b", "slow", b"x" * 90_000, 20))
    await until(lambda: peers_link.MAX_BYTES_IN_FLIGHT == 100_000)
    (link,) = a._all
    link._sent_bytes = 0  # a peer that does not count
    with pytest.raises(PeerError) as busy:
        await a.call("b", "slow", b"x" * 90_000, 20)
    assert busy.value.code == "busy"
    done.set()
    assert await first == b"done"


async def test_a_slow_answer_holds_up_nobody_and_ends_at_its_deadline(make: Make) -> None:
    a, b = await pair(make)
    done = asyncio.Event()

    async def slow(node: str, payload: bytes) -> bytes:
        await done.wait()
        return b"late"

    b.handle("slow", slow)
    waiting = [asyncio.create_task(a.call("b", "slow", b"", 0.3)) for _ in range(10)]
    assert await a.call("b", "echo", b"1", 2) == b"a:1"
    for task in waiting:
        with pytest.raises(PeerUnavailable, match=r"b: no answer within 0\.") as raised:
            await task
        assert raised.value.sent
    done.set()
    assert await a.call("b", "echo", b"2", 2) == b"a:2", "late answers do no harm"


async def test_errors_cross_with_a_code(make: Make) -> None:
    a, b = await pair(make)

    async def coded(node: str, payload: bytes) -> bytes:
        raise PeerError("not-mine", "ask c")

    async def broken(node: str, payload: bytes) -> bytes:
        raise KeyError("x" * 10_000)

    b.handle("coded", coded)
    b.handle("broken", broken)
    with pytest.raises(PeerError) as raised:
        await a.call("b", "coded", b"", 2)
    assert (raised.value.code, raised.value.text) == ("not-mine", "ask c")
    with pytest.raises(PeerError) as raised:
        await a.call("b", "broken", b"", 2)
    assert raised.value.code == "KeyError"
    assert len(raised.value.text) <= peers_link.MAX_TEXT_CHARS
    with pytest.raises(PeerError, match="unknown-kind: nothing"):
        await a.call("b", "nothing", b"", 2)


async def test_too_many_requests_are_refused_not_piled_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_link, "MAX_IN_FLIGHT", 5)
    a, b = await pair(make)

    async def never(node: str, payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    b.handle("never", never)
    await a.call("b", "echo", b"", 2)
    waiting = [asyncio.create_task(a.call("b", "never", b"", 1)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(PeerUnavailable, match="5 requests wait for it") as raised:
        await a.call("b", "echo", b"", 1)
    assert not raised.value.sent
    monkeypatch.setattr(peers_link, "MAX_IN_FLIGHT", 50)
    await until(lambda: len(next(iter(b._all))._answering) == 5)
    monkeypatch.setattr(peers_link, "MAX_IN_FLIGHT", 5)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    with pytest.raises(PeerError, match="busy"):
        await a.call("b", "echo", b"", 1)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_payload_larger_than_a_frame_is_refused_before_it_is_sent(make: Make) -> None:
    a, _ = await pair(make)
    with pytest.raises(PeerUnavailable, match="more than a frame holds"):
        await a.call("b", "echo", bytes(peers_wire.MAX_FRAME_BYTES), 2)
    big = bytes(1_000_000)
    assert await a.call("b", "echo", big, 5) == b"a:" + big


async def test_a_peer_that_goes_is_told_at_once_and_found_again(make: Make) -> None:
    a, b = await pair(make)

    async def never(node: str, payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    b.handle("never", never)
    waiting = asyncio.create_task(a.call("b", "never", b"", 60))
    await until(lambda: any(link._answering for link in b._all))
    address = a._addresses["b"]
    await b.close()
    with pytest.raises(PeerUnavailable) as raised:
        await waiting
    assert raised.value.sent
    with pytest.raises(PeerUnavailable) as raised:
        await a.call("b", "echo", b"", 1)
    assert not raised.value.sent
    again = Peers("b", SECRET)
    again.handle("echo", echo)
    await again.listen(address)
    await until(lambda: "b" in a.connected)
    assert await a.call("b", "echo", b"x", 1) == b"a:x"
    await again.close()


async def test_calls_to_strangers_fail(make: Make) -> None:
    a, _ = await make("a")
    with pytest.raises(PeerUnavailable, match="x is not known"):
        await a.call("x", "echo", b"", 1)


async def test_another_secret_is_refused_by_either_side(make: Make) -> None:
    (a, _), (_, at_b) = await make("a", secret="x" * 40), await make("b")
    a.know({"b": at_b})
    with pytest.raises(PeerUnavailable):
        await a.call("b", "echo", b"", 1)
    assert a.connected == frozenset()


async def test_another_node_at_the_address_is_told_from_the_one_meant(make: Make) -> None:
    (a, _), (_, at_b) = await make("a"), await make("b")
    a.know({"c": at_b})
    with pytest.raises(PeerUnavailable, match=r"it is b, not c; two nodes may have the same node.address"):
        await a.call("c", "echo", b"", 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!IB", 1, peers_wire.PING),
        struct.pack("!IB", 0, 0),
        struct.pack("!IB", 2000, peers_wire.PROVE) + bytes(1999),
        peers_wire.frame(peers_wire.PROVE, b""),
        peers_wire.frame(peers_wire.PROVE, bytes(64) + b"\xff\xfe"),
        peers_wire.frame(peers_wire.PROVE, bytes(64) + b"a"),
        peers_wire.call(1, b"echo", b"before the proof"),
    ],
)
async def test_whoever_does_not_prove_himself_is_cut_off(make: Make, garbage: bytes) -> None:
    b, at_b = await make("b")
    b.handle("echo", echo)
    reader, writer = await asyncio.open_connection(*split_address(at_b))
    writer.write(garbage)
    async with asyncio.timeout(2):
        with contextlib.suppress(ConnectionError):
            hello = await reader.read(1000)
            assert hello[4] == peers_wire.HELLO
            assert await reader.read(1000) == b""
    writer.close()
    assert b._all == set()


async def test_silence_is_cut_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_link, "HANDSHAKE_S", 0.1)
    b, at_b = await make("b")
    reader, writer = await asyncio.open_connection(*split_address(at_b))
    async with asyncio.timeout(2):
        with contextlib.suppress(ConnectionError):
            await reader.read(1000)
            assert await reader.read(1000) == b""
    writer.close()
    await until(lambda: b._all == set())


async def proven(address: str, name: str = "a") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has shaken hands, by hand."""
    reader, writer = await asyncio.open_connection(*split_address(address))
    size, _ = struct.unpack("!IB", await reader.readexactly(5))
    hello = await reader.readexactly(size - 1)
    shake = Handshake(SECRET.encode(), name)
    writer.write(shake.prove(hello, "b"))
    size, kind = struct.unpack("!IB", await reader.readexactly(5))
    assert kind == peers_wire.WELCOME
    shake.welcomed(hello, await reader.readexactly(size - 1), "b")
    return reader, writer


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("!IB", 0, peers_wire.CALL),
        struct.pack("!IB", peers_wire.MAX_FRAME_BYTES + 1, peers_wire.CALL),
        struct.pack("!IB", 4, peers_wire.CALL) + b"abc",
        struct.pack("!IB", 12, peers_wire.CALL) + bytes(8) + b"\xffab",
        struct.pack("!IB", 3, peers_wire.ANSWER) + b"ab",
        struct.pack("!IB", 1, 99),
        peers_wire.frame(peers_wire.HELLO),
    ],
)
async def test_malformed_frames_close_the_connection_and_nothing_else(make: Make, garbage: bytes) -> None:
    b, at_b = await make("b")
    b.handle("echo", echo)
    reader, writer = await proven(at_b)
    writer.write(garbage)
    async with asyncio.timeout(2):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1000) == b""
    writer.close()
    _, second = await proven(at_b)
    await until(lambda: b.connected == {"a"})
    second.close()


async def test_frames_may_come_in_any_pieces(make: Make) -> None:
    b, at_b = await make("b")
    b.handle("echo", echo)
    reader, writer = await proven(at_b)
    for byte in peers_wire.call(7, b"echo", b"slowly") + peers_wire.frame(peers_wire.PING):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    wanted = {peers_wire.answer(7, b"a:slowly"), peers_wire.frame(peers_wire.PONG)}
    told = await reader.readexactly(sum(map(len, wanted)))
    assert told in {b"".join(order) for order in (list(wanted), list(wanted)[::-1])}
    writer.close()


async def test_a_peer_without_signs_of_life_is_dropped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_link, "PING_S", 0.05)
    monkeypatch.setattr(peers_link, "DEAD_S", 0.3)
    b, at_b = await make("b")
    _, writer = await proven(at_b)
    await until(lambda: b.connected == {"a"})
    await until(lambda: b.connected == frozenset())
    writer.close()


async def test_living_peers_are_not_dropped_for_silence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_link, "PING_S", 0.05)
    monkeypatch.setattr(peers_link, "DEAD_S", 0.3)
    a, b = await pair(make)
    downs: list[str] = []
    a.on_change = lambda node, up: None if up else downs.append(node)
    await a.call("b", "echo", b"", 1)
    await asyncio.sleep(0.6)
    assert downs == []
    assert b.connected == {"a"}


async def test_other_machines_need_a_long_secret() -> None:
    peers = Peers("a", "short")
    with pytest.raises(Refused, match=r"cluster.secret: 0.0.0.0:0 can be reached from other mac.*at least 32"):
        await peers.listen("0.0.0.0:0")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("0.0.0.0", False), ("a.b", False)],
)
def test_which_hosts_are_this_machines_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_addresses() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("node-a:65535") == ("node-a", 65535)
    for wrong in ("node-a", ":80", "a:", "a:x", "a:65536", "a:-1", "a:²"):
        with pytest.raises(ValueError, match="no host:port"):
            split_address(wrong)


async def test_tls_shows_both_certificates(make: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("node")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority.path)
    for context in (server, client):
        context.load_cert_chain(files.chain, files.key)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
    (a, _), (b, at_b) = [await make(name, tls_server=server, tls_client=client) for name in ("a", "b")]
    b.handle("echo", echo)
    a.know({"b": at_b})
    assert await a.call("b", "echo", bytes(100_000), 5) == b"a:" + bytes(100_000)
    plain, _ = await make("c")
    plain.know({"b": at_b})
    with pytest.raises(PeerUnavailable):
        await plain.call("b", "echo", b"", 1)


def test_a_proof_is_worth_nothing_elsewhere() -> None:
    a, b, c = (Handshake(SECRET.encode(), name) for name in "abc")
    hello_b = b.hello()[5:]
    prove = a.prove(hello_b, "b")[5:]
    assert b.welcome(prove)[0] == "a"
    with pytest.raises(Malformed):
        c.welcome(prove)
    with pytest.raises(Malformed):
        Handshake(SECRET.encode(), "b").welcome(prove)
    named = prove[:-1] + b"z"
    with pytest.raises(Malformed):
        b.welcome(named)
    with pytest.raises(Malformed):
        a.welcomed(hello_b, prove[32:64], "b")

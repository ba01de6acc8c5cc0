"""Calls over TCP and TLS with a whole server, the own stack as the peer: both ways, mutual TLS, new certificates, and a
node that is killed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.call_server import NUMBER, CallServer
from tests.e2e.voice_app import VoiceApp, response
from tests.interop.raw_sip import offer
from tests.ports import free_port
from tests.sip.link import Caller, Leg
from trunkline.sip.core import StackConfig
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.tls import TlsConfig
from trunkline.sip.transport import SipTransport

PATIENCE_S = 60.0
HOST = "127.0.0.1"
CARRIER = "carrier.example.net"
HOLD = "<Say loop='0'>Please hold the line.</Say>"


class Peer:
    """A phone that takes every call."""

    def __init__(self, tls: TlsConfig) -> None:
        self.sip = SipTransport(StackConfig(), self, None, tls)
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind((HOST, 0))
        self.sdp = offer(HOST, self.rtp.getsockname()[1]).encode()
        self.invites: list[ServerInvite] = []
        self.legs: list[Leg] = []

    def on_invite(self, invite: ServerInvite) -> None:
        self.invites.append(invite)
        dialog = invite.accept(self.sdp)
        dialog.listener = Leg(self)
        self.legs.append(dialog.listener)

    def on_request(self, request: Any, flow: Any) -> None:
        return None

    def permitted(self, request: Any, flow: Any) -> bool:
        return True

    def call(self, transport: str, port: int) -> Caller:
        caller = Caller(self)
        uri = f"sip:{NUMBER}@{HOST}:{port};transport={transport.lower()}"
        caller.invite = self.sip.stack.invite(uri, from_="<sip:+12025550111@x>", sdp=self.sdp, listener=caller)
        return caller

    async def close(self) -> None:
        await self.sip.close()
        self.rtp.close()


class Place:
    """A server, its web application, an authority, and peers that are closed in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = VoiceApp()
        self.authority = Authority(folder)
        self.files = self.authority.issue("server", ["sip.example.com"])
        self.peers: list[Peer] = []
        self.server: CallServer | None = None

    async def begin(self, transport: str, *, trunk: dict[str, Any] | None = None, **sip: Any) -> Peer:
        """Start a peer, and the server, whose calls go out to it."""
        peer = await self.peer("peer", [CARRIER])
        gateway = f"sip:{HOST}:{peer.sip.local_port(transport)};transport={transport.lower()}"
        tls = {
            "tls_port": free_port(), "tls_certificate": str(self.files.chain), "tls_key": str(self.files.key),
            "tls_ca": str(self.authority.path),
        }  # fmt: skip
        trunk = {"name": "air", "addresses": [HOST], "gateways": [gateway], **(trunk or {})}
        self.server = await asyncio.to_thread(
            CallServer, self.folder, 9, 50, sip={"enabled": True, "port": 0, **tls, **sip}, trunks=[trunk]
        )
        self.tls_port = tls["tls_port"]
        await asyncio.to_thread(self.server.start)
        self.app.answers["/voice"] = response(HOLD)
        await asyncio.to_thread(self.server.answer_at, f"{self.app.url}/voice", f"{self.app.url}/status")
        return peer

    async def peer(self, file: str, names: list[str], authority: Authority | None = None) -> Peer:
        files = (authority or self.authority).issue(file, names)
        peer = Peer(TlsConfig(str(files.chain), str(files.key), ca=str(self.authority.path)))
        self.peers.append(peer)
        await peer.sip.start(tls_port=0)
        return peer

    def port(self, transport: str) -> int:
        return int(self.tls_port) if transport == "TLS" else self.server.sip_port

    async def close(self) -> None:
        for peer in self.peers:
            await peer.close()
        if self.server is not None:
            await asyncio.to_thread(self.server.close)
        self.app.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.close()


async def until(condition: Callable[[], Any], what: str = "") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def ends(place: Place, status: str) -> None:
    """The application hears of the end of the one call."""
    (told,) = await asyncio.to_thread(place.app.wait, "/status")
    assert told["CallStatus"] == status


async def test_calls_over_tls_both_ways(place: Place) -> None:
    peer = await place.begin("TLS")
    caller = peer.call("TLS", place.tls_port)
    await until(lambda: caller.dialog is not None or caller.failure)
    assert caller.dialog is not None
    assert caller.dialog.remote_target == f"sip:{HOST}:{place.tls_port};transport=tls"
    caller.dialog.bye()
    await ends(place, "completed")

    client = place.server.client
    made = await asyncio.to_thread(lambda: client.calls.create(to="+12025550177", from_=NUMBER, twiml=response(HOLD)))
    await until(lambda: peer.invites and peer.legs[0].heard)
    assert peer.invites[0].flow.transport == "TLS"
    assert peer.invites[0].request.via.transport == "TLS"
    await asyncio.to_thread(lambda: client.calls(made.sid).update(status="completed"))
    await until(lambda: peer.legs[0].heard[-1] == "bye")


async def test_a_certificate_is_proof_of_who_calls(place: Place, tmp_path: Path) -> None:
    """Mutual TLS: the trunk's certificate is taken, none gets 403 or 401, one of another authority no connection."""
    trunk = {"addresses": [], "tls_names": [CARRIER]}
    peer = await place.begin("TLS", trunk=trunk, tls_client_ca=str(place.authority.path))
    caller = peer.call("TLS", place.tls_port)
    await until(lambda: caller.dialog is not None or caller.failure)
    assert caller.dialog is not None, caller.failure
    caller.dialog.bye()

    other = await place.peer("other", ["someone.example.net"])
    caller = other.call("TLS", place.tls_port)
    await until(lambda: caller.failure)
    assert caller.failure[0] in (401, 403)

    (tmp_path / "rogue").mkdir()
    rogue = await place.peer("rogue", [CARRIER], Authority(tmp_path / "rogue"))
    caller = rogue.call("TLS", place.tls_port)
    await until(lambda: caller.failure)
    assert caller.failure[0] == 503


async def test_a_new_certificate_is_shown_while_a_call_is_up(place: Place) -> None:
    peer = await place.begin("TLS")
    caller = peer.call("TLS", place.tls_port)
    await until(lambda: caller.dialog is not None)
    place.authority.issue("server", ["new.example.com"])

    def shown() -> list[str]:
        context = ssl.create_default_context(cafile=str(place.authority.path))
        with context.wrap_socket(socket.create_connection((HOST, place.tls_port)), server_hostname=HOST) as sock:
            return [value for kind, value in sock.getpeercert()["subjectAltName"] if kind == "DNS"]  # type: ignore

    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(shown) != ["new.example.com"]:
            await asyncio.sleep(0.1)
    caller.dialog.bye()
    await ends(place, "completed")


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
async def test_a_call_over_a_connection_survives_the_node(place: Place, transport: str) -> None:
    """Its connection dies with the node; the next one connects to the peer's Contact."""
    peer = await place.begin(transport)
    client = place.server.client
    callers = [peer.call(transport, place.port(transport)) for _ in range(2)]
    await until(lambda: all(caller.dialog is not None for caller in callers))
    made = await asyncio.to_thread(lambda: client.calls.create(to="+12025550177", from_=NUMBER, twiml=response(HOLD)))
    await until(lambda: peer.invites and peer.legs[0].heard)
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await asyncio.to_thread(lambda: client.calls.list(status="in-progress"))) < 3:
            await asyncio.sleep(0.05)
    sids = [one.sid for one in found]
    begin = len(place.server.text())
    await asyncio.to_thread(place.server.kill_child, "node")
    await until(lambda: peer.sip.connections == 0)
    early, writer = await asyncio.open_connection(HOST, place.port("TCP"))
    writer.write(options())
    await asyncio.to_thread(place.server.until_back, begin)
    async with asyncio.timeout(PATIENCE_S):
        assert (await early.readline()).startswith(b"SIP/2.0 200"), "who connected meanwhile was not turned away"
    writer.close()
    assert not any(caller.leg.heard for caller in callers)
    callers[0].dialog.bye()
    inbound = [sid for sid in sids if sid != made.sid]
    await asyncio.to_thread(place.app.wait, "/status", 1)
    (ended,) = [form["CallSid"] for form in place.app.at("/status")]
    inbound.remove(ended)
    for sid in (*inbound, made.sid):
        await asyncio.to_thread(lambda sid=sid: client.calls(sid).update(status="completed"))
    await until(lambda: callers[1].leg.heard == ["bye"])
    await until(lambda: peer.legs[0].heard[-1] == "bye")


async def test_files_that_cannot_be_read_are_said_before_anything_starts(place: Place, tmp_path: Path) -> None:
    await place.begin("TLS")
    await asyncio.to_thread(place.server.stop)
    sip = {**place.server._tables["sip"], "tls_key": str(tmp_path / "none.key")}
    done = await asyncio.to_thread(place.server.again, {"sip": sip})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("trunkline: the TLS certificate ")
    assert line.endswith("see sip.tls_certificate and sip.tls_key")


def options() -> bytes:
    """Asks whether anybody is there."""
    return (
        f"OPTIONS sip:x@{HOST} SIP/2.0\r\nVia: SIP/2.0/TCP {HOST}:5999;branch=z9hG4bKearly;rport\r\n"
        "From: <sip:x@x>;tag=1\r\nTo: <sip:x@x>\r\nCall-ID: early\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()

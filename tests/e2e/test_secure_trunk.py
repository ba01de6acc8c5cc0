"""An account's secure trunk on a whole server: its PBX by TLS with SRTP, both ways; the carrier in the open."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.call_server import NUMBER
from tests.e2e.test_calls_secure import HOST, Peer, Place, place, until  # noqa: F401 (a fixture)
from tests.sip.link import Caller, Leg
from trunkline.sip import offer_answer, sdes
from trunkline.sip.flow import Target
from trunkline.sip.offer_answer import OFF, REQUIRED, Local
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.tls import TlsConfig

DOMAIN = "office.pstn.localhost"
OTHER = "+12025550177"


class Pbx(Peer):
    """Offers and answers SRTP, in place of which it may be told to speak in the open."""

    def __init__(self, *details: Any) -> None:
        super().__init__(*details)
        keys = tuple(sdes.make_key(secrets.token_bytes(sdes.KEY_BYTES)) for _ in sdes.SUITES)
        port = self.rtp.getsockname()[1]
        self.local = Local(address=HOST, port=port, session_id=1, version=1, srtp=REQUIRED, srtp_keys=keys)

    def on_invite(self, invite: ServerInvite) -> None:
        self.invites.append(invite)
        dialog = invite.accept(offer_answer.answer(invite.offer, self.local).sdp)
        dialog.listener = Leg(self)
        self.legs.append(dialog.listener)

    def dials(self, transport: str, port: int, **changes: Any) -> Caller:
        caller = Caller(self)
        sdp = offer_answer.offer(msgspec.structs.replace(self.local, **changes))
        target = Target(transport, HOST, port, "sip.example.com" if transport == "TLS" else "")
        caller.invite = self.sip.stack.invite(
            f"sip:{OTHER}@{DOMAIN}", from_=f"<sip:{NUMBER}@{DOMAIN}>", target=target, sdp=sdp, listener=caller
        )
        return caller


def opened(server: Any, pbx: Pbx) -> None:
    """The trunk, which takes calls from this machine and calls the PBX; the server's number is on it."""
    client = server.client
    made = client.trunking.v1.trunks.create(domain_name=DOMAIN, secure=True)
    assert made.secure is True
    trunk = client.trunking.v1.trunks(made.sid)
    addresses = client.sip.ip_access_control_lists.create(friendly_name="here")
    client.sip.ip_access_control_lists(addresses.sid).ip_addresses.create(friendly_name="here", ip_address=HOST)
    trunk.ip_access_control_lists.create(ip_access_control_list_sid=addresses.sid)
    url = f"sip:{HOST}:{pbx.sip.tls_port}"
    trunk.origination_urls.create(sip_url=url, priority=1, weight=1, enabled=True, friendly_name="PBX")
    (number,) = client.incoming_phone_numbers.list(phone_number=NUMBER)
    trunk.phone_numbers.create(phone_number_sid=number.sid)


async def with_pbx(place: Place) -> tuple[Peer, Pbx]:  # noqa: F811
    carrier = await place.begin("UDP")
    files = place.authority.issue("pbx", ["pbx.example.net"])
    pbx = Pbx(TlsConfig(str(files.chain), str(files.key), ca=str(place.authority.path)))
    place.peers.append(pbx)
    await pbx.sip.start(tls_port=0)
    await asyncio.to_thread(opened, place.server, pbx)
    return carrier, pbx


async def test_a_secure_trunk_both_ways(place: Place, tmp_path: Path) -> None:  # noqa: F811
    carrier, pbx = await with_pbx(place)
    caller = pbx.dials("TLS", place.tls_port)
    await until(lambda: caller.dialog is not None or caller.failure)
    assert caller.dialog is not None, caller.failure
    await until(lambda: carrier.invites)
    assert b"a=crypto" not in carrier.invites[0].offer
    assert f"sip:{OTHER}@" in carrier.invites[0].request.uri
    caller.dialog.bye()
    await until(lambda: carrier.legs[0].heard and carrier.legs[0].heard[-1] == "bye")

    calling = carrier.call("UDP", place.port("UDP"))
    await until(lambda: pbx.invites)
    assert pbx.invites[0].flow.transport == "TLS"
    assert b"RTP/SAVP" in pbx.invites[0].offer
    await until(lambda: calling.dialog is not None)
    calling.dialog.bye()
    await until(lambda: pbx.legs[0].heard and pbx.legs[0].heard[-1] == "bye")

    for transport, changes, status in (("UDP", {"srtp": OFF, "srtp_keys": ()}, 403), ("TLS", {"srtp": OFF}, 488)):
        refused = pbx.dials(transport, place.port(transport), **changes)
        await until(lambda refused=refused: refused.failure)
        assert refused.failure[0] == status

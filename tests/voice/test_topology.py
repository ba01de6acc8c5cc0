"""Nothing of one leg's network is seen on the other leg, or by the application beyond what Twilio shows."""

import pytest

from trunkline.sip import offer_answer

from ..messaging.world import eventually
from .lines import APP, NODE, OURS, SECOND, THEM, TRUNKS, Phone

INSIDE = "10.66.6"
"""Addresses of both far ends' inner networks."""
HEADERS = [
    ("User-Agent", "Secret-PBX/9.1"), ("Server", "Secret-PBX/9.1"), ("Organization", "Secret Ltd"),
    ("P-Charging-Vector", "icid-value=secret"), ("P-Access-Network-Info", "secret"), ("Subject", "secret"),
    ("Alert-Info", "<http://secret.example/ring>"), ("Call-Info", "<http://secret.example/me>"),
    ("Warning", '399 secret.example "secret"'), ("Reply-To", "<sip:secret@example.com>"),
]  # fmt: skip


def inner(sdp: bytes) -> bytes:
    """A description that tells about the inside of its sender's network."""
    lines = sdp.decode().split("\r\n")
    lines[1] = f"o=secret 1 1 IN IP4 {INSIDE}.1"
    lines[2] = "s=secret"
    lines.insert(3, "i=secret")
    lines.insert(-1, f"a=candidate:1 1 UDP 1 {INSIDE}.1 5000 typ host")
    lines.insert(-1, "a=x-secret:yes")
    return "\r\n".join(lines).encode()


@pytest.fixture
async def wire(make_lines):
    """Lines to two carriers, and every message that leaves the node, by where it goes."""
    lines = await make_lines(trunks=(*TRUNKS, TRUNKS[0].__class__(name="in", addresses=(SECOND[0],), prefixes=())))
    seen = {}
    deliver = lines.net._deliver

    def spied(data, flow):
        if flow.local == NODE:
            seen.setdefault(flow.remote, []).append(data)
        deliver(data, flow)

    lines.net._deliver = spied
    lines.seen = seen
    return lines


def dials(phone, lines, sdp):
    return phone.stack.invite(
        f"sip:{OURS}@127.0.0.1", from_=f'"Ann" <sip:+12125550123@{INSIDE}.2;x=secret>', target=("UDP", *NODE), sdp=sdp,
        headers=[("Record-Route", f"<sip:{SECOND[0]}:5060;lr;edge=secret>"), *HEADERS], listener=phone,
    )  # fmt: skip


def leaked(messages: list[bytes]) -> list[str]:
    text = b"".join(messages).decode().lower()
    return [word for word in ("secret", INSIDE) if word in text]


async def talked(lines, plan):
    """A call from one carrier's network to the other's; what the two and the application were told."""
    lines.web.pages[APP + "in"] = f"<Dial action='/done'>{THEM}</Dial>"
    lines.web.pages[APP + "done"] = "<Hangup/>"
    caller = Phone(lines.net, SECOND)
    lines.phone.plan = plan
    invite = dials(caller, lines, inner(offer_answer.offer(caller.local)))
    await eventually(lambda: lines.phone.invites)
    return caller, invite


async def test_a_call_that_is_answered(wire):
    def picks_up(invite):
        invite.ring(180, headers=HEADERS)
        answer = inner(offer_answer.answer(invite.offer, wire.phone.local).sdp)
        dialog = invite.accept(answer, headers=[("P-Asserted-Identity", "<sip:secret@example.com>"), *HEADERS])
        dialog.listener = wire.phone
        wire.phone.dialogs.append(dialog)

    caller, invite = await talked(wire, picks_up)
    await eventually(lambda: wire.phone.dialogs and caller.dialogs)
    wire.phone.hangs_up()
    await eventually(lambda: caller.byes)
    there = wire.phone.invites[0].request
    assert leaked([there.encode()]) == []
    assert there.call_id != invite.call_id
    assert leaked([_without_echo(data) for data in wire.seen[SECOND]]) == []
    assert leaked([repr(request).encode() for request in wire.web.asked]) == []


async def test_a_call_that_is_refused(wire):
    caller, _ = await talked(wire, lambda invite: invite.reject(480, headers=HEADERS))
    await eventually(lambda: [one for one in wire.web.asked if one[0] == APP + "done"])
    await eventually(lambda: not wire.services.live)
    assert leaked([_without_echo(data) for data in wire.seen[SECOND]]) == []
    assert leaked([repr(request).encode() for request in wire.web.asked]) == []
    await eventually(lambda: caller.byes)


ECHOED = (b"via:", b"record-route:", b"from:", b"route:", b"to:", b"bye ", b"v:", b"f:", b"t:")
"""What a response repeats of its request, and a request in a dialog of its peer: it is the peer's own."""


def _without_echo(data: bytes) -> bytes:
    return b"\r\n".join(line for line in data.split(b"\r\n") if not line.lower().startswith(ECHOED))

"""Hostile and broken messages at the stack: no fault of ours, no growth, and a call that goes on."""

import random

import pytest

from tests.sip.link import flow_of, pair
from tests.sip.test_torture import BEHAVIOUR, INVALID, VALID
from tests.sip.test_transaction import invite_bytes
from trunkline.sip.transaction import MAX_LINGERING

OUTCOMES = {
    "BADASPEC": [200], "BADBRANCH": [200], "BADDATE": [200], "BADDN": [200], "BADINV01": [], "BADVERS": [505],
    "BCAST": [], "BEXT01": [420], "BIGCODE": [], "CLERR": [400], "CPARAM01": [405], "CPARAM02": [405], "DBLREQ": [405],
    "ESC01": [200], "ESC02": [501], "ESCNULL": [405], "ESCRURI": [400], "INSUF": [400], "INTMETH": [501],
    "INV2543": [200], "INVUT": [415], "LONGREQ": [200], "LTGTRURI": [400], "LWSDISP": [200], "LWSRURI": [400],
    "LWSSTART": [400], "MCL01": [400], "MISMATCH01": [400], "MISMATCH02": [400], "MPART01": [405], "MULTI01": [400],
    "NCL": [400], "NOREASON": [], "NOVELSC": [416], "QUOTBAL": [400], "REGAUT01": [405], "REGBADCT": [400],
    "REGESCRT": [405], "SCALAR02": [400], "SCALARLG": [], "SDP01": [200], "SEMIURI": [200], "TRANSPORTS": [200],
    "TRWS": [400], "UNKSCM": [416], "UNKSM2": [405], "UNREASON": [], "WSINV": [481], "ZEROMF": [200],
}  # fmt: skip
"""What a stack without a registrar sends back. Of WSINV the To has a tag, of no dialog that we know; BCAST has two Vias
and belongs to nothing; responses with broken numbers are dropped; BADINV01's Via leaves nobody to answer."""


def test_every_torture_message_has_its_outcome():
    assert {**VALID, **BEHAVIOUR, **INVALID}.keys() == OUTCOMES.keys()


@pytest.mark.parametrize(("name", "sent"), OUTCOMES.items())
def test_torture_messages_of_rfc_4475(name, sent):
    network, _, b = pair()
    b.stack.receive({**VALID, **BEHAVIOUR, **INVALID}[name], flow_of(b))
    assert network.sent() == sent
    network.run(400)
    assert "errors" not in b.stack.metrics
    assert b.quiet


def mutated(dice, data):
    """A message with some bytes, lines or pieces changed."""
    lines = data.split(b"\r\n")
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(lines))
        line = lines[at]
        kind = dice.randrange(6)
        if kind == 0:
            lines[at] = line[: dice.randint(0, len(line))]
        elif kind == 1:
            spot = dice.randint(0, len(line))
            lines[at] = line[:spot] + dice.randbytes(dice.randint(1, 8)) + line[spot:]
        elif kind == 2:
            lines.insert(at, dice.choice(lines))
        elif kind == 3 and len(lines) > 1:
            del lines[at]
        elif kind == 4:
            lines[at] = line.replace(b":", dice.choice((b"", b"::", b" : ", b":\x00", b":<", b':"')), 1)
        else:
            lines[at] = line.replace(b";", dice.choice((b",", b";;", b";=", b"\n ", b"?a=b;")), 1)
    return b"\r\n".join(lines)


def test_mutated_messages_are_no_fault_and_leave_nothing():
    dice = random.Random(4711)
    network, a, b = pair()
    caller = a.call(b)
    network.run(1)
    spoken = [message.encode() for _, _, message in network.log]
    spoken += [invite_bytes(method=method) for method in ("OPTIONS", "CANCEL", "INFO", "REGISTER")]
    stranger = flow_of(b)
    for _ in range(20_000):
        phone = dice.choice((a, b))
        phone.stack.receive(mutated(dice, dice.choice(spoken)), stranger._replace(local=phone.address))
    assert "errors" not in a.stack.metrics
    assert "errors" not in b.stack.metrics
    network.run(400)
    for dialog in (caller.dialog, *b.dialogs):
        dialog.bye()
    network.run(400)
    assert a.quiet
    assert b.quiet


def test_what_strangers_leave_behind_is_bounded_and_calls_are_not_of_it():
    """Refusals that nobody acknowledges and answered requests linger; the oldest make room. Those of a call stay."""
    network, a, b = pair()
    caller = a.call(b)
    network.run(1)
    b.dialogs[0].bye()
    network.run(0.1)
    assert caller.leg.heard == ["bye"]
    kept = set(a.stack._server)
    assert kept, "the BYE's transaction"
    a.on_call = lambda invite: invite.reject(403)
    for number in range(2 * MAX_LINGERING):
        branch = f"z9hG4bK{number}"
        data = invite_bytes(branch=branch, cseq=number)
        a.stack.receive(data.replace(b"INVITE", b"OPTIONS") if number % 2 else data, flow_of(a))
    assert len(a.stack._server) == MAX_LINGERING + len(kept)
    assert kept <= set(a.stack._server)
    assert len(a.stack.timers) <= 2 * MAX_LINGERING
    sent = len(network.log)
    a.stack.receive(invite_bytes(branch="z9hG4bK0", cseq=0), flow_of(a))
    assert len(network.log) == sent + 1, "one that has left is answered anew"
    network.run(400)
    assert a.quiet


def test_a_flood_of_invites_that_nobody_acknowledges_is_bounded():
    network, _, b = pair(max_transactions=100)
    b.on_call = lambda invite: invite.reject(403)
    for number in range(5000):
        b.stack.receive(invite_bytes(branch=f"z9hG4bK{number}", cseq=number), flow_of(b))
    assert b.stack.transactions == 100
    assert len(b.stack.timers) <= 200
    assert network.sent().count(503) == 4900
    network.log.clear()
    network.run(400)
    assert b.quiet

"""Reliable provisional responses: RFC 3262, both roles, and what strangers make of it."""

import pytest

from tests.sip.link import ANSWER, OFFER, flow_of, pair
from tests.sip.test_client_invite import ByHand
from trunkline.sip.message import Request
from trunkline.sip.reliable import MAX_UNANSWERED, rack_of
from trunkline.sip.timers import Timing

EARLY = b"v=0 early"


@pytest.fixture
def phones():
    return pair()


def rings(network, a, b, **options):
    """A call that rings with early media."""
    b.on_call = lambda invite: invite.ring(183, sdp=EARLY)
    caller = a.call(b, **options)
    network.run(1)
    return caller, b.invites[0]


def test_early_media_is_sent_and_acknowledged_reliably(phones):
    network, a, b = phones
    caller, invite = rings(network, a, b)
    assert network.sent() == ["INVITE", 183, "PRACK", 200]
    (progress,), (prack,) = network.of(183), network.of("PRACK")
    assert progress.headers.get("Require") == "100rel"
    assert prack.headers.get("RAck") == f"{progress.headers.get('RSeq')} 1 INVITE"
    assert prack.cseq == (2, "PRACK")
    assert caller.progress == [(183, invite.to_tag, EARLY)]
    b.accept(invite)
    network.run(1)
    assert caller.sdp == ANSWER
    caller.dialog.bye()
    network.run(100)
    (bye,) = network.of("BYE")
    assert bye.cseq[0] == 3, "the dialog goes on counting where PRACK was"
    assert a.quiet
    assert b.quiet


def test_ringing_without_media_is_reliable_only_if_that_is_required(phones):
    network, a, b = phones
    b.on_call = lambda invite: invite.ring()
    a.call(b)
    a.call(b, headers=[("Require", "100rel")])
    network.run(1)
    assert ["RSeq" in response.headers for response in network.of(180)] == [False, True]
    assert len(network.of("PRACK")) == 1


def test_a_late_offer_is_never_answered_reliably(phones):
    network, a, b = phones
    _, invite = rings(network, a, b, sdp=b"")
    assert "RSeq" not in network.of(183)[0].headers
    assert "100rel" not in invite.request.headers.get("Supported")


def test_the_next_response_waits_for_the_prack_of_the_first(phones):
    network, a, b = phones

    def on_call(invite):
        invite.ring(183, sdp=EARLY)
        invite.ring(180, headers=[("Require", "100rel")])
        invite.ring(183, sdp=b"v=0 other")

    b.on_call = on_call
    caller = a.call(b, headers=[("Require", "100rel")])
    network.run(2)
    first, second, third = [m for m in network.of(183) + network.of(180) if "RSeq" in m.headers]
    numbers = sorted(int(m.headers.get("RSeq")) for m in (first, second, third))
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert [status for status, _, _ in caller.progress] == [183, 180, 183]


def test_it_is_repeated_until_the_prack_comes_and_then_given_up(phones):
    """Section 3: T1, doubling without a limit, 64*T1 in all; then the INVITE fails."""
    network, a, b = phones
    network.fate = lambda data, source, to: [] if data.startswith(b"PRACK") else [0.01]
    caller, _ = rings(network, a, b)
    network.run(40)
    assert len(network.of(183)) == 7, "at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s"
    assert caller.failure[0] == 504
    assert b.cancelled == ['SIP;cause=504;text="No PRACK"']
    network.run(100)
    assert a.quiet
    assert b.quiet


def test_no_2xx_while_a_description_is_unacknowledged(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [3.0 if data.startswith(b"PRACK") else 0.01]
    caller, invite = rings(network, a, b)
    b.accept(invite)
    network.run(1)
    assert network.of(200, b.address) == []
    network.run(5)
    assert caller.dialog is not None
    methods = [response.cseq[1] for response in network.of(200, b.address)]
    assert methods.index("PRACK") < methods.index("INVITE")
    assert b.legs[0].heard == [("ack", b"")]


def test_hanging_up_while_the_2xx_waits(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [3.0 if data.startswith(b"PRACK") else 0.01]
    caller, invite = rings(network, a, b)
    b.accept(invite).bye()
    network.run(10)
    assert caller.leg.heard == ["bye"]
    network.run(100)
    assert a.quiet
    assert b.quiet


def test_a_prack_lets_no_2xx_leave_that_is_held_back_for_something_else(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [2.0 if data.startswith(b"PRACK") else 0.01]
    _, invite = rings(network, a, b)
    told = []
    invite.on_left = lambda: told.append(invite.left)
    invite.accept(ANSWER, hold=True)
    network.run(5)
    assert network.of("PRACK")
    assert (told, invite.waits) == ([], True)
    invite.release()
    assert (told, invite.waits) == ([True], False)


def test_a_cancel_while_the_2xx_waits(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [] if data.startswith(b"PRACK") else [0.01]
    caller, invite = rings(network, a, b)
    b.accept(invite)
    caller.invite.cancel()
    network.run(2)
    assert caller.failure[0] == 487
    assert b.legs[0].heard == ["cancelled"]
    network.run(100)
    assert a.quiet
    assert b.quiet


def test_no_prack_while_the_2xx_waits(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [] if data.startswith(b"PRACK") else [0.01]
    caller, invite = rings(network, a, b)
    b.accept(invite)
    network.run(40)
    assert caller.failure[0] == 504
    assert b.legs[0].heard == ["no-prack"]
    assert b.stack.dialogs == 0


def test_a_caller_that_acknowledges_after_the_2xx(phones):
    """A response without a description does not hold the 2xx up, and its PRACK is still answered."""
    network, a, b = phones
    network.fate = lambda data, source, to: [2.0 if data.startswith(b"PRACK") else 0.01]
    b.on_call = lambda invite: invite.ring()
    caller = a.call(b, headers=[("Require", "100rel")])
    network.run(0.1)
    b.accept(b.invites[0])
    network.run(5)
    assert caller.dialog is not None
    assert [response.cseq[1] for response in network.of(200, b.address)][:2] == ["INVITE", "PRACK"]


def test_a_restarted_callee_still_knows_the_prack(phones):
    network, a, b = phones
    network.fate = lambda data, source, to: [5.0 if data.startswith(b"PRACK") else 0.01]
    _, invite = rings(network, a, b)
    state = b.accept(invite).state()
    assert state.rack.endswith(" 1 INVITE")
    b.stack.forget_dialog(b.dialogs[0])
    adopted = b.stack.adopt(state, b.legs[0])
    prack = network.of("PRACK")[0]
    network.run(6)
    assert not adopted.ended
    assert [m.status for m in network.of(200, b.address) if m.cseq == prack.cseq][:1] == [200]
    assert network.of(481) == []


# --- as a caller


class Callee(ByHand):
    """A callee made by hand that rings reliably."""

    def rings(self, rseq, sdp=EARLY, tag="t1", status=183, **more):
        headers = [("Require", "100rel"), ("RSeq", str(rseq))]
        self.answers(status, tag=tag, sdp=sdp, headers=headers, **more)

    def racks(self):
        return [m.headers.get("RAck") for m in self.got("PRACK")]


def test_repeated_and_disordered_responses_get_no_prack():
    callee = Callee()
    caller = callee.calls()
    for rseq in (7, 7, 9, 8, 8, 9, 6):
        callee.rings(rseq)
    assert callee.racks() == ["7 1 INVITE", "8 1 INVITE", "9 1 INVITE"]
    assert len(caller.progress) == 3


def test_each_fork_counts_for_itself():
    callee = Callee()
    callee.calls()
    callee.rings(7)
    callee.rings(100, tag="t2")
    assert callee.racks() == ["7 1 INVITE", "100 1 INVITE"]
    assert [m.to_tag for m in callee.got("PRACK")] == ["t1", "t2"]
    assert [m.uri for m in callee.got("PRACK")] == ["sip:t1@10.0.0.2:5062", "sip:t2@10.0.0.2:5062"]


def test_a_flood_of_reliable_responses_is_bounded():
    callee = Callee()
    callee.calls()
    for rseq in range(1, 1000):
        callee.rings(rseq)
    assert len(callee.racks()) == MAX_UNANSWERED
    for tag in range(1000):
        callee.rings(1, tag=f"x{tag}")
    assert len(callee.racks()) < MAX_UNANSWERED + 16


@pytest.mark.parametrize("rseq", ["", "x", "-1", "99999999999999999999", "4294967296", "0"])
def test_a_bad_rseq_is_no_reliable_response(rseq):
    callee = Callee()
    caller = callee.calls()
    callee.rings(rseq)
    assert callee.racks() == []
    assert [status for status, _, _ in caller.progress] == [183]


def test_a_fork_that_cannot_be_reached():
    callee = Callee()
    caller = callee.calls()
    callee.rings(1, sdp=b"", tag="")
    assert callee.racks() == []
    assert caller.progress == []


def test_a_cancelled_call_still_acknowledges():
    callee = Callee()
    caller = callee.calls()
    callee.answers(180)
    caller.invite.cancel()
    callee.rings(3)
    assert callee.racks() == ["3 1 INVITE"]


# --- as a callee, from a stranger


class Ringing:
    """A call that rings reliably for a caller made by hand."""

    def __init__(self):
        self.network, self.a, self.b = pair(timing=Timing(t1=0.5))
        self.network.fate = lambda data, source, to: [] if data.startswith(b"PRACK") else [0.01]
        self.caller, self.invite = rings(self.network, self.a, self.b)
        self.ours = self.network.of("PRACK")[0]

    def sends(self, method="PRACK", cseq=2, body=b"", **headers):
        fields = [
            ("Via", f"SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{method}{cseq};rport"),
            ("From", self.ours.headers.get("From")),
            ("To", self.ours.headers.get("To")),
            ("Call-ID", self.ours.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Max-Forwards", "70"),
            *headers.items(),
        ]
        if body:
            fields.append(("Content-Type", "application/sdp"))
        before = len(self.network.log)
        self.network.fate = lambda *_: []
        request = Request.make(method, self.ours.uri, headers=fields, body=body)
        self.b.stack.receive(request.encode(), flow_of(self.b, "10.0.0.1", 5060))
        return [message for _, _, message in self.network.log[before:]]

    @property
    def rack(self):
        return self.ours.headers.get("RAck")


@pytest.mark.parametrize(
    ("rack", "status"),
    [
        (None, 400), ("", 400), ("1", 400), ("a b c", 400), ("1 1 INVITE", 481), ("99999999999 1 INVITE", 400),
        ("1 99999999999 INVITE", 400), ("-1 1 INVITE", 400), ("1 1 INVITE extra", 400),
    ],
)  # fmt: skip
def test_a_prack_for_nothing(rack, status):
    ringing = Ringing()
    headers = {} if rack is None else {"RAck": rack}
    (response,) = ringing.sends(**headers)
    assert response.status == status
    assert len(ringing.network.of(183)) == 2
    (accepted,) = ringing.sends(cseq=3, RAck=ringing.rack)
    assert accepted.status == 200, "the right one still counts"


def test_a_prack_twice_and_out_of_order():
    ringing = Ringing()
    assert ringing.sends(cseq=5, RAck=ringing.rack)[0].status == 200
    assert ringing.sends(cseq=6, RAck=ringing.rack)[0].status == 481
    assert ringing.sends(cseq=4, RAck=ringing.rack)[0].status == 500


def test_a_bye_ends_a_call_that_rings():
    ringing = Ringing()
    assert [m.status for m in ringing.sends("BYE")] == [200, 487]
    assert ringing.b.cancelled == [""]
    assert ringing.sends("UPDATE", cseq=9)[0].status == 481


def test_an_update_before_the_answer():
    """RFC 3311 section 5.2: not while the INVITE's own offer has no answer that both know of."""
    ringing = Ringing()
    assert ringing.sends("UPDATE", cseq=2, body=OFFER)[0].status == 500
    assert ringing.sends("UPDATE", cseq=3)[0].status == 200
    assert ringing.sends(cseq=4, RAck=ringing.rack)[0].status == 200
    assert ringing.sends("UPDATE", cseq=5, body=OFFER)[0].status == 488, "the listener takes none"
    ringing.invite.listener.on_update = lambda offer: b"v=0 changed"
    (response,) = ringing.sends("UPDATE", cseq=6, body=OFFER)
    assert (response.status, response.body) == (200, b"v=0 changed")
    assert ringing.sends("INFO", cseq=7)[0].status == 481


def test_a_prack_with_an_offer():
    ringing = Ringing()
    ringing.invite.listener.on_update = lambda offer: b"v=0 changed " + offer
    (response,) = ringing.sends(cseq=4, body=OFFER, RAck=ringing.rack)
    assert (response.status, response.body) == (200, b"v=0 changed " + OFFER)


def test_rack():
    request = Request.make("PRACK", "sip:a@b", headers=[("RAck", " 1  2   INVITE ")])
    assert rack_of(request) == (1, 2, "INVITE")

"""UPDATE (RFC 3311) in both directions, before and after the answer."""

import pytest

from tests.sip.link import ANSWER, OFFER
from tests.sip.test_client_invite import ByHand
from tests.sip.test_dialog import Call
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request


@pytest.fixture
def call():
    return Call()


def update(call, dialog, body=b"", headers=()):
    heard = []
    fields = [*headers, ("Content-Type", "application/sdp")] if body else list(headers)
    dialog.request("UPDATE", fields, body, lambda status, response: heard.append((status, response and response.body)))
    call.run()
    return heard


def test_an_update_changes_the_session_without_an_ack(call):
    assert update(call, call.out, b"v=0 new") == [(200, ANSWER)]
    assert call.into_leg.heard == [("reinvite", b"v=0 new")]
    assert call.network.sent() == ["UPDATE", 200]
    assert call.out.state().peer_updates
    assert call.into.state().peer_updates


def test_an_update_without_an_offer_moves_the_target(call):
    update(call, call.out, headers=[("Contact", "<sip:moved@10.0.0.77:5099>")])
    assert call.into.remote_target == "sip:moved@10.0.0.77:5099"
    assert call.into_leg.heard == []


def test_a_refused_update_leaves_everything(call):
    call.into_leg.answer = None
    heard = update(call, call.out, b"v=0 new", [("Contact", "<sip:moved@10.0.0.77:5099>")])
    assert heard == [(488, b"")]
    assert call.into.remote_target != "sip:moved@10.0.0.77:5099"


def test_an_update_that_is_no_sdp(call):
    heard = []
    call.out.request("UPDATE", [("Content-Type", "text/plain")], b"x", lambda status, _: heard.append(status))
    call.run()
    assert heard == [415]


def test_offers_that_cross_get_491(call):
    call.network.fate = lambda data, source, to: [0.3]
    call.into.reinvite(b"v=0 theirs", lambda *_: None)
    assert update(call, call.out, b"v=0 ours")[0][0] == 491


def test_an_offer_before_the_ack_gets_500():
    call = Call()
    call.network.fate = lambda data, source, to: [2.0 if data.startswith(b"ACK") else 0.01]
    call.out.reinvite(b"v=0 again", lambda *_: None)
    call.run(0.5)
    call.network.log.clear()
    assert update(call, call.out, b"v=0 new")[0][0] == 500
    assert "Retry-After" in call.network.of(500)[0].headers


# --- before the answer, from a callee


class Callee(ByHand):
    def updates(self, cseq=1, body=b"", tag="t1"):
        invite = self.got("INVITE")[-1]
        fields = [
            ("Via", f"SIP/2.0/UDP 10.0.0.2:5062;branch=z9hG4bKu{cseq}{tag};rport"),
            ("From", f"{invite.headers.get('To')};tag={tag}"),
            ("To", invite.headers.get("From")),
            ("Call-ID", invite.call_id),
            ("CSeq", f"{cseq} UPDATE"),
            ("Max-Forwards", "70"),
        ]
        if body:
            fields.append(("Content-Type", "application/sdp"))
        before = len(self.network.log)
        request = Request.make("UPDATE", "sip:a@10.0.0.1", headers=fields, body=body)
        self.phone.stack.receive(request.encode(), Flow("UDP", self.address, self.phone.address, 0))
        return self.network.log[before:][0][2]

    def rings(self, **more):
        self.answers(183, headers=[("Require", "100rel"), ("RSeq", "1")], **more)


def test_a_callee_updates_before_it_answers():
    callee = Callee()
    caller = callee.calls()
    assert callee.updates().status == 500, "there is no early dialog yet"
    callee.rings()
    assert callee.updates(2).status == 200
    assert callee.updates(3, body=OFFER).status == 491, "our offer has no answer"
    callee.answers(183, headers=[("Require", "100rel"), ("RSeq", "2")], sdp=b"v=0 early")
    assert callee.updates(4, body=OFFER).status == 488
    caller.on_early_update = lambda tag, offer: b"v=0 " + tag.encode()
    response = callee.updates(5, body=OFFER)
    assert (response.status, response.body) == (200, b"v=0 t1")
    assert callee.updates(5, body=OFFER, tag="t9").status == 500
    callee.answers(200)
    assert caller.sdp == b"", "the session is as the UPDATE left it"
    assert caller.dialog.state().remote_cseq == 5

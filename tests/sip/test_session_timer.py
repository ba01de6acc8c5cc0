"""Session timers: RFC 4028."""

import msgspec
import pytest

from tests.sip.link import OFFER, Leg, pair
from tests.sip.test_client_invite import ByHand, answers
from trunkline.sip.core import StackConfig
from trunkline.sip.dialog import DialogState
from trunkline.sip.incoming import lacking
from trunkline.sip.message import Request
from trunkline.sip.session_timer import Terms, expires_of, terms_of

KNOWS, SHORT, ZERO = ("Supported", "timer"), ("Session-Expires", "299"), ("Session-Expires", "0")


class Refreshing(Leg):
    """A listener that has a description to refresh with."""

    def __init__(self, phone):
        super().__init__(phone)
        self.refreshed = []

    def on_refresh(self):
        return OFFER

    def on_refreshed(self, sdp):
        self.refreshed.append(sdp)


def up(caller_s=0, callee_s=0, min_se_s=90, headers=(), **options):
    network, a, b = pair()
    a.stack.config = StackConfig(host="10.0.0.1", port=5060, user_agent="", session_expires_s=caller_s, min_se_s=90)
    b.stack.config = StackConfig(
        host="10.0.0.2", port=5062, user_agent="", session_expires_s=callee_s, min_se_s=min_se_s
    )
    caller = a.call(b, headers=headers, **options)
    network.run(2)
    return network, a, b, caller


def request(*headers):
    return Request.make("INVITE", "sip:a@b", headers=headers)


@pytest.mark.parametrize(
    ("headers", "ours", "terms"),
    [
        ([], 1800, None),
        ([KNOWS], 0, None),
        ([KNOWS], 1800, Terms(1800, "uac")),
        ([KNOWS, ("Min-SE", "3600")], 1800, Terms(3600, "uac")),
        ([KNOWS, ("Session-Expires", "600")], 1800, Terms(600, "uac")),
        ([KNOWS, ("Session-Expires", "3600;refresher=uas")], 1800, Terms(1800, "uas")),
        ([KNOWS, ("Session-Expires", "3600;refresher=uas")], 0, Terms(3600, "uas")),
        ([KNOWS, ("x", "3600"), ("Min-SE", "2000")], 1800, Terms(2000, "uac")),
        ([("Session-Expires", "600")], 1800, Terms(600, "uas")),
        ([("Session-Expires", "10")], 1800, Terms(90, "uas")),
        ([KNOWS, ("Session-Expires", "soon")], 0, None),
        ([KNOWS, ("Session-Expires", '600;refresher="')], 0, Terms(600, "uac")),
        ([KNOWS, ("Session-Expires", "9999999999")], 0, Terms(10**7, "uac")),
    ],
)
def test_what_is_settled(headers, ours, terms):
    """Section 9, table 2."""
    assert terms_of(request(*headers), StackConfig(session_expires_s=ours)) == terms


@pytest.mark.parametrize("text", ["", "x", "-5", "1" * 30, "5;refresher=nobody"])
def test_odd_session_expires(text):
    assert expires_of(request(("Session-Expires", text))).refresher == ""


def test_nothing_is_asked_for_by_default():
    network, _a, b, caller = up()
    assert "Session-Expires" not in b.invites[0].request.headers
    assert "timer" in b.invites[0].request.headers.get("Supported")
    network.run(20_000)
    assert network.sent() == ["INVITE", 200, "ACK"]
    assert caller.dialog.state().session_s == 0


def test_the_caller_refreshes_by_update_at_half_of_it():
    network, a, b, caller = up(1800)
    (ok,) = network.of(200)
    assert ok.headers.get("Session-Expires") == "1800;refresher=uac"
    assert ok.headers.get("Require") == "timer"
    network.run(890)
    assert len(network.of("UPDATE")) == 0
    network.run(20)
    (update,) = network.of("UPDATE")
    assert update.headers.get("Session-Expires") == "1800;refresher=uac"
    assert update.body == b""
    network.run(18_000)
    assert len(network.of("UPDATE")) == 21
    assert not caller.dialog.ended
    assert not b.dialogs[0].ended
    caller.dialog.bye()
    network.run(100)
    assert a.quiet
    assert b.quiet


def test_the_callee_refreshes_where_it_is_asked_to():
    network, _a, b, caller = up(headers=[("Session-Expires", "600;refresher=uas")])
    network.run(1000)
    assert len(network.of("UPDATE", b.address)) == 3
    assert network.of("UPDATE")[0].headers.get("Session-Expires") == "600;refresher=uac"
    assert caller.dialog.state().session_s == 600
    assert not caller.dialog.state().we_refresh


def test_a_peer_without_update_is_refreshed_by_reinvite():
    network, a, _b, caller = up(600)
    caller.dialog._state.peer_updates = False
    caller.dialog.listener = leg = Refreshing(a)
    network.run(310)
    assert network.of("UPDATE") == []
    assert len(network.of("INVITE")) == 2
    assert network.of("INVITE")[1].headers.get("Session-Expires") == "600;refresher=uac"
    assert leg.refreshed == [b"v=0 answer"]
    network.run(310)
    assert len(network.of("INVITE")) == 3


@pytest.mark.parametrize("status", [405, 501])
def test_a_peer_that_refuses_update_is_refreshed_by_reinvite(status):
    callee = Callee()
    callee.up("600;refresher=uac")
    callee.dialog.listener = Refreshing(callee.phone)
    callee.passes(301)
    callee.responds("UPDATE", status)
    callee.passes(1)
    assert len({invite.cseq for invite in callee.got("INVITE")}) == 2
    assert not callee.dialog.state().peer_updates


def test_who_is_not_refreshed_hangs_up():
    """Section 10: a third of the interval, 32 s at most, before its end."""
    network, a, b, caller = up(600)
    a.stack.forget_dialog(caller.dialog)
    caller.dialog.session.stop(caller.dialog)
    network.run(560)
    assert network.of("BYE") == []
    network.run(10)
    (bye,) = network.of("BYE", b.address)
    assert bye.headers.get("Reason") == 'SIP;cause=408;text="expired"'
    assert b.legs[0].heard[-1] == "expired"


def test_any_reinvite_refreshes():
    network, _a, _b, caller = up(600)
    network.run(200)
    caller.dialog.reinvite(b"v=0 hold", lambda *_: None)
    network.run(290)
    assert network.of("UPDATE") == []
    network.run(20)
    assert len(network.of("UPDATE")) == 1


def test_too_short_an_interval_is_refused_and_asked_for_again():
    network, _a, _b, caller = up(120, min_se_s=300)
    assert network.sent() == ["INVITE", 422, "ACK", "INVITE", 200, "ACK"]
    assert network.of(422)[0].headers.get("Min-SE") == "300"
    again = network.of("INVITE")[1]
    assert again.headers.get("Session-Expires") == "300"
    assert again.headers.get("Min-SE") == "300"
    assert caller.dialog.state().session_s == 300


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([KNOWS, SHORT], True),
        ([SHORT], False),
        ([KNOWS, ("x", "300")], False),
        ([KNOWS], False),
        ([KNOWS, ZERO], False),
    ],
)
def test_only_a_caller_that_knows_timers_is_refused(headers, refused):
    lacks = lacking(request(*headers), StackConfig(min_se_s=300))
    assert lacks == ((422, [("Min-SE", "300")]) if refused else None)


def test_an_endless_422_is_a_failure():
    callee = ByHand()
    callee.phone.stack.config = StackConfig(host="10.0.0.1", port=5060, session_expires_s=100, min_se_s=90)
    caller = callee.calls()
    for least in range(200, 2000, 100):
        callee.answers(422, headers=[("Min-SE", str(least))])
    assert len(callee.got("INVITE")) == 3
    assert caller.failure[0] == 422


@pytest.mark.parametrize("least", ["", "50", "x"])
def test_a_422_that_asks_for_nothing_longer(least):
    callee = ByHand()
    callee.phone.stack.config = StackConfig(host="10.0.0.1", port=5060, session_expires_s=100, min_se_s=90)
    caller = callee.calls()
    callee.answers(422, headers=[("Min-SE", least)])
    assert caller.failure[0] == 422


class Callee(ByHand):
    """A callee made by hand, in a call that is up."""

    def up(self, session):
        self.caller = self.calls()
        self.answers(200, sdp=b"v=0", headers=[("Session-Expires", session), ("Allow", "INVITE, UPDATE")])
        self.dialog = self.caller.dialog

    def responds(self, method, status, **more):
        self.sends(answers(self.got(method)[-1], status, **more))

    def passes(self, seconds):
        self.network.run(seconds)


def test_the_peer_chooses_who_refreshes():
    callee = Callee()
    callee.up("200;refresher=uas")
    callee.passes(150)
    assert callee.got("UPDATE") == []
    assert callee.dialog.session is not None
    callee.passes(20)
    assert callee.caller.leg.heard == ["expired"]


def test_an_absurd_interval_is_not_followed():
    callee = Callee()
    callee.up("1;refresher=uac")
    callee.passes(40)
    assert callee.got("UPDATE") == []


@pytest.mark.parametrize(("status", "reason"), [(481, "gone"), (408, "timeout")])
def test_a_refresh_that_finds_nobody_ends_the_call(status, reason):
    callee = Callee()
    callee.up("200;refresher=uac")
    callee.passes(101)
    callee.responds("UPDATE", status)
    assert callee.caller.leg.heard == [reason]


def test_a_refresh_that_is_refused_for_now_is_tried_again():
    callee = Callee()
    callee.up("200;refresher=uac")
    callee.passes(101)
    callee.responds("UPDATE", 491)
    callee.passes(5)
    assert len({m.cseq for m in callee.got("UPDATE")}) == 2
    callee.responds("UPDATE", 422, headers=[("Min-SE", "400")])
    callee.passes(0.1)
    assert callee.got("UPDATE")[-1].headers.get("Session-Expires") == "400;refresher=uac"
    callee.responds("UPDATE", 200, headers=[("Session-Expires", "400;refresher=uac")])
    assert callee.dialog.state().session_s == 400
    callee.passes(150)
    assert callee.caller.leg.heard == []


def test_a_peer_that_drops_the_timer():
    callee = Callee()
    callee.up("200;refresher=uac")
    callee.passes(101)
    callee.responds("UPDATE", 200)
    callee.passes(5000)
    assert callee.dialog.state().session_s == 0
    assert not callee.dialog.ended


def test_an_adopted_dialog_goes_on_with_it():
    network, a, b, caller = up(600)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(caller.dialog.state()), type=DialogState)
    a.stack.forget_dialog(caller.dialog)
    caller.dialog.session.stop(caller.dialog)
    heir = Leg(a)
    adopted = a.stack.adopt(state, heir)
    network.run(31)
    assert len(network.of("UPDATE")) == 1, "soon, for it is not known when it was refreshed last"
    network.run(3000)
    assert not adopted.ended
    assert not b.dialogs[0].ended


def test_a_state_of_an_older_release_has_no_timer():
    network, a, _b, caller = up(600)
    old = msgspec.to_builtins(caller.dialog.state())
    for name in ("session_s", "we_refresh", "peer_updates", "rack"):
        old.pop(name, None)
    state = msgspec.convert(old, DialogState)
    assert (state.session_s, state.we_refresh, state.rack) == (0, False, "")
    a.stack.forget_dialog(caller.dialog)
    caller.dialog.session.stop(caller.dialog)
    a.stack.adopt(state, Leg(a))
    network.run(200)
    assert network.of("UPDATE") == []


def test_a_call_may_have_an_interval_of_its_own():
    _network, _a, b, caller = up(1800, session_s=600)
    assert b.invites[0].request.headers.get("Session-Expires") == "600"
    assert caller.dialog.state().session_s == 600

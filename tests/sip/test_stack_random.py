"""Whatever the order, loss and repetition of messages: nothing raises, both sides learn the end, nothing is left."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.link import OFFER, flow_of, pair
from tests.sip.test_transaction import invite_bytes

ACTIONS = ("bye", "reinvite", "info", "options", "cancel", "answer", "reject", "ring")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    late=st.booleans(),
    tcp=st.booleans(),
    script=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.booleans(), st.sampled_from([0.0, 0.005, 0.3, 2.0])), max_size=12
    ),
)
def test_random_calls_end_and_leave_nothing(seed, loss, late, tcp, script):
    network, a, b = pair()
    dice = random.Random(seed)
    network.fate = lambda data, local, remote: (
        [dice.choice((0.001, 0.01, 0.2, 1.1)) for _ in range(dice.choice((1, 1, 1, 2)))]
        if dice.random() >= loss
        else []
    )
    b.on_call = lambda invite: None
    a.transport = "TCP" if tcp else "UDP"
    caller = a.call(b, sdp=b"" if late else OFFER)
    for action, by_caller, pause in script:
        perform(action, by_caller, caller, b)
        network.run(pause)
    if late and caller.dialog is not None:
        caller.dialog.ack(b"v=0 late answer")
    network.run(200)
    for dialog in filter(None, (caller.dialog, *b.dialogs)):
        dialog.bye()
    network.run(300)
    assert a.stack.metrics.get("errors", 0) == b.stack.metrics.get("errors", 0) == 0
    assert (caller.dialog is None) != (caller.failure is None)
    assert a.quiet
    assert b.quiet
    for leg in (caller.leg, *b.legs):
        assert len([what for what in leg.heard if what in ("bye", "no-ack", "gone", "timeout")]) <= 1


def perform(action, by_caller, caller, b):
    """One thing that a user may do at any moment."""
    dialog = caller.dialog if by_caller else b.dialogs[0] if b.dialogs else None
    if action == "cancel":
        caller.invite.cancel()
    elif action in ("answer", "reject", "ring") and b.invites:
        invite = b.invites[0]
        if action == "answer" and not invite.answered:
            b.accept(invite)
        elif action == "reject":
            invite.reject(486)
        else:
            invite.ring()
    elif dialog is not None and action == "bye":
        dialog.bye()
    elif dialog is not None and action == "reinvite":
        dialog.reinvite(OFFER, lambda status, sdp: None)
    elif dialog is not None and action in ("info", "options"):
        dialog.request(action.upper())


MESSAGES = st.builds(
    lambda method, branch, cseq, tagged: invite_bytes(
        branch=branch, cseq=cseq, method=method, to_tag=";tag=13c600000001" if tagged else ""
    ),
    st.sampled_from(["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "UPDATE", "FOO"]),
    st.sampled_from(["z9hG4bK1", "z9hG4bK2", "1", "z9hG4bK"]),
    st.integers(0, 3),
    st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(MESSAGES, st.integers(0, 5), st.sampled_from([0.0, 0.1, 40.0])), max_size=15), st.data())
def test_random_requests_of_a_stranger_leave_nothing(messages, data):
    network, _, b = pair()
    b.on_call = lambda invite: data.draw(st.sampled_from([b.accept, lambda i: i.ring(), lambda i: i.reject(404)]))(
        invite
    )
    for message, cut, pause in messages:
        b.stack.receive(message[: len(message) - cut * 20] if cut else message, flow_of(b))
        network.run(pause)
    network.run(400)
    assert b.stack.metrics.get("errors", 0) == 0
    assert b.quiet

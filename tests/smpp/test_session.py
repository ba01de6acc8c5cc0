from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smpp import strategies
from trunkline.smpp import codec, events
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import EncodeError, SessionStateError, WindowFullError
from trunkline.smpp.framer import Framer
from trunkline.smpp.session import ACCEPTS, Limits, Role, Session, State

SUBMIT = p.SubmitSm(source="12345", destination="15550002", message=b"hello")
DELIVER = p.DeliverSm(source="15550002", destination="12345", message=b"hi")


class Pair:
    """An ESME and an SMSC session, with a clock and a wire between them."""

    def __init__(self, bind: p.Bind | None = None, limits: Limits | None = None) -> None:
        self.now = 100.0
        self.esme = Session(Role.ESME, self.now, limits)
        self.smsc = Session(Role.SMSC, self.now, limits)
        if bind is not None:
            self.esme.bind(bind, self.now)
            (request,) = self.to_smsc()
            assert self.smsc.accept_bind(request.sequence, "smsc")
            (answer,) = self.to_esme()
            assert isinstance(answer, events.BindAnswered)

    def to_smsc(self) -> list[Any]:
        return self.smsc.receive(self.esme.data_to_send(), self.now)

    def to_esme(self) -> list[Any]:
        return self.esme.receive(self.smsc.data_to_send(), self.now)


def trx(limits: Limits | None = None) -> Pair:
    return Pair(p.BindTransceiver(system_id="me", password="secret"), limits)


def sent(session: Session) -> list[tuple[int, int, int]]:
    """command_id, status and sequence of what a session wants to send."""
    frames, error = Framer().feed(session.data_to_send())
    assert error is None
    return [frame[:3] for frame in frames]


def raw(command_id: int, sequence: int, body: bytes = b"", status: int = 0) -> bytes:
    return codec.HEADER.pack(16 + len(body), command_id, status, sequence) + body


# --- bind


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (p.BindTransmitter, State.BOUND_TX),
        (p.BindReceiver, State.BOUND_RX),
        (p.BindTransceiver, State.BOUND_TRX),
    ],
)
def test_binding(kind: type[p.Bind], state: State) -> None:
    pair = Pair()
    pair.esme.bind(kind(system_id="me", password="secret"), pair.now)
    (request,) = pair.to_smsc()
    assert request == events.BindRequested(1, kind(system_id="me", password="secret"))
    assert pair.smsc.state is State.OPEN
    assert pair.smsc.accept_bind(request.sequence, "smsc", c.INTERFACE_VERSION_50)
    (answer,) = pair.to_esme()
    assert (answer.pdu.system_id, answer.pdu.interface_version) == ("smsc", 0x50)
    assert pair.esme.state is pair.smsc.state is state


def test_a_refused_bind_closes_the_esme() -> None:
    pair = Pair()
    pair.esme.bind(p.BindTransceiver(), pair.now)
    (request,) = pair.to_smsc()
    assert pair.smsc.refuse_bind(request.sequence, c.ESME_RINVPASWD)
    answer, closed = pair.to_esme()
    assert answer.pdu.status == c.ESME_RINVPASWD
    assert "ESME_RINVPASWD" in closed.reason
    assert pair.smsc.state is State.OPEN, "the ESME may try again"


def test_a_generic_nack_to_the_bind_is_a_refusal() -> None:
    esme = Session(Role.ESME, 0)
    esme.bind(p.BindTransceiver(), 0)
    answer, closed = esme.receive(raw(c.GENERIC_NACK, 1, status=3), 0)
    assert answer.pdu.status == 3  # type: ignore[attr-defined]
    assert isinstance(closed, events.Closed)


def test_a_pdu_coalesced_behind_the_bind_response_is_handled() -> None:
    pair = Pair()
    pair.esme.bind(p.BindTransceiver(), pair.now)
    (request,) = pair.to_smsc()
    pair.smsc.accept_bind(request.sequence)
    pair.smsc.send(DELIVER, None, pair.now)
    answered, delivered = pair.to_esme()
    assert isinstance(answered, events.BindAnswered)
    assert delivered.pdu == DELIVER


def test_a_connection_that_never_binds_is_dropped() -> None:
    for role in Role:
        session = Session(role, 50.0, Limits(bind_timeout_s=10))
        assert session.next_timeout() == 60.0
        assert session.handle_timeout(59.9) == []
        session.receive(raw(c.ENQUIRE_LINK, 1), 59.95)
        assert isinstance(session.handle_timeout(60.0)[-1], events.Closed)
        assert session.next_timeout() is None


def test_a_second_bind_is_refused() -> None:
    pair = trx()
    pair.smsc.receive(raw(c.BIND_TRANSMITTER, 9, b"\0" * 7), pair.now)
    assert sent(pair.smsc) == [(c.BIND_TRANSMITTER_RESP, c.ESME_RALYBND, 9)]
    opening = Session(Role.SMSC, 0)
    opening.receive(raw(c.BIND_TRANSMITTER, 1, b"\0" * 7) * 2, 0)
    assert sent(opening) == [(c.BIND_TRANSMITTER_RESP, c.ESME_RALYBND, 1)]


def test_an_answer_to_a_bind_that_is_gone_is_refused() -> None:
    pair = trx()
    assert not pair.smsc.accept_bind(1)
    assert not pair.smsc.refuse_bind(1)


def test_outbind_reaches_the_esme() -> None:
    pair = Pair()
    pair.smsc.send_outbind(p.Outbind(system_id="smsc"))
    assert pair.to_esme() == [events.OutbindReceived(p.Outbind(system_id="smsc"))]


# --- requests and responses


def test_submit_and_its_response() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, "token", pair.now)
    (request,) = pair.to_smsc()
    assert request.pdu == SUBMIT
    assert (pair.esme.outstanding, pair.smsc.unanswered) == (1, 1)
    assert pair.smsc.respond(request.sequence, message_id="42")
    assert pair.to_esme() == [events.ResponseReceived("token", p.SubmitSmResp(message_id="42"))]
    assert (pair.esme.outstanding, pair.smsc.unanswered) == (0, 0)
    assert not pair.smsc.respond(request.sequence), "answered once"


def test_deliver_is_acknowledged_later_by_its_sequence_number() -> None:
    pair = trx()
    for token in ("a", "b"):
        pair.smsc.send(DELIVER, token, pair.now)
    first, second = pair.to_esme()
    assert sent(pair.esme) == []
    pair.esme.respond(second.sequence)
    pair.esme.respond(first.sequence, c.ESME_RX_T_APPN)
    answers = pair.to_smsc()
    assert [(a.token, a.pdu.status) for a in answers] == [("b", 0), ("a", c.ESME_RX_T_APPN)]


def test_error_responses() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, 1, pair.now)
    (request,) = pair.to_smsc()
    pair.smsc.respond(request.sequence, c.ESME_RTHROTTLED)
    (answer,) = pair.to_esme()
    assert answer.pdu == p.SubmitSmResp(status=c.ESME_RTHROTTLED)


def test_a_generic_nack_answers_a_request() -> None:
    pair = trx()
    sequence = pair.esme.send(SUBMIT, 1, pair.now)
    (answer,) = pair.esme.receive(raw(c.GENERIC_NACK, sequence, status=c.ESME_RINVCMDID), pair.now)
    assert answer.pdu == p.GenericNack(status=c.ESME_RINVCMDID)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "pdu",
    [
        SUBMIT,
        p.DataSm(destination="1"),
        p.SubmitMulti(destinations=("list",)),
        p.QuerySm(message_id="1"),
        p.CancelSm(message_id="1"),
        p.ReplaceSm(message_id="1"),
    ],
)
def test_every_request_to_the_smsc_can_be_answered(pdu: p.Request) -> None:
    for status in (c.ESME_ROK, c.ESME_RSYSERR):
        pair = trx()
        pair.esme.send(pdu, "t", pair.now)
        (request,) = pair.to_smsc()
        assert request.pdu == pdu
        assert pair.smsc.respond(request.sequence, status)
        (answer,) = pair.to_esme()
        assert (answer.pdu.command_id, answer.pdu.status) == (pdu.command_id | c.RESPONSE, status)


def test_respond_with_a_whole_pdu() -> None:
    pair = trx()
    pair.esme.send(p.QuerySm(message_id="1"), "t", pair.now)
    (request,) = pair.to_smsc()
    with pytest.raises(SessionStateError):
        pair.smsc.respond_with(request.sequence, p.SubmitSmResp())
    answer = p.QuerySmResp(message_id="1", message_state=2)
    assert pair.smsc.respond_with(request.sequence, answer)
    assert pair.to_esme() == [events.ResponseReceived("t", answer)]
    assert not pair.smsc.respond_with(request.sequence, answer)


def test_a_message_id_that_cannot_be_sent_leaves_the_request_answerable() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, "t", pair.now)
    (request,) = pair.to_smsc()
    with pytest.raises(EncodeError):
        pair.smsc.respond(request.sequence, message_id="x" * 65)
    assert pair.smsc.respond(request.sequence, message_id="1")


def test_responses_nobody_waits_for_are_ignored() -> None:
    pair = trx()
    sequence = pair.esme.send(SUBMIT, 1, pair.now)
    for data in (
        raw(c.SUBMIT_SM_RESP, 999, b"1\0"),
        raw(c.DELIVER_SM_RESP, sequence, b"\0"),
        raw(c.UNBIND_RESP, 5),
        raw(0x80000077, 5),
        raw(c.SUBMIT_SM_RESP, sequence, b"x" * 70),
    ):
        assert pair.esme.receive(data, pair.now) == []
    assert pair.esme.outstanding == 1


def test_the_window_is_a_bound() -> None:
    pair = trx(Limits(window=2))
    assert pair.esme.room == 2
    pair.esme.send(SUBMIT, 1, pair.now)
    pair.esme.send(SUBMIT, 2, pair.now)
    assert pair.esme.room == 0
    with pytest.raises(WindowFullError):
        pair.esme.send(SUBMIT, 3, pair.now)
    first, _ = pair.to_smsc()
    pair.smsc.respond(first.sequence, message_id="1")
    pair.to_esme()
    assert pair.esme.room == 1


def test_a_pdu_that_cannot_be_encoded_takes_no_room() -> None:
    pair = trx()
    with pytest.raises(EncodeError):
        pair.esme.send(p.SubmitSm(destination="x" * 30), 1, pair.now)
    assert pair.esme.outstanding == 0
    assert pair.esme.data_to_send() == b""


@pytest.mark.parametrize("bind", [p.BindTransmitter(), p.BindReceiver(), p.BindTransceiver()])
def test_what_may_be_sent_is_what_the_peer_accepts(bind: p.Bind) -> None:
    pair = Pair(bind)
    for session, peer in ((pair.esme, pair.smsc), (pair.smsc, pair.esme)):
        for pdu in (SUBMIT, DELIVER, p.DataSm(), p.QuerySm(), p.AlertNotification(), p.EnquireLink(), bind):
            if pdu.command_id in ACCEPTS[peer.role, peer.state]:
                session.send(pdu, None, pair.now)
            else:
                with pytest.raises(SessionStateError):
                    session.send(pdu, None, pair.now)


def test_nothing_may_be_sent_before_the_bind() -> None:
    with pytest.raises(SessionStateError):
        Session(Role.ESME, 0).send(SUBMIT, 1, 0)
    with pytest.raises(SessionStateError):
        Session(Role.SMSC, 0).bind(p.BindTransceiver(), 0)


def test_a_transmitter_gets_no_deliver_and_says_so() -> None:
    pair = Pair(p.BindTransmitter())
    assert pair.esme.receive(codec.encode(DELIVER, 8), pair.now) == []
    assert sent(pair.esme) == [(c.DELIVER_SM_RESP, c.ESME_RINVBNDSTS, 8)]


def test_sequence_numbers_wrap_and_skip_what_is_outstanding() -> None:
    pair = trx()
    first = pair.esme.send(SUBMIT, "first", pair.now)
    pair.esme._sequence = c.MAX_SEQUENCE - 1
    assert pair.esme.send(SUBMIT, "last", pair.now) == c.MAX_SEQUENCE
    assert pair.esme.send(SUBMIT, "wrapped", pair.now) == 1
    assert first == 2
    assert pair.esme.send(SUBMIT, "after", pair.now) == 3


def test_one_write_for_everything_queued() -> None:
    pair = trx()
    for n in range(5):
        pair.esme.send(SUBMIT, n, pair.now)
    data = pair.esme.data_to_send()
    assert len(data) == 5 * len(codec.encode(SUBMIT, 1))
    assert pair.esme.data_to_send() == b""


# --- time


def test_a_response_timeout_is_reported_and_a_late_answer_too() -> None:
    pair = trx(Limits(response_timeout_s=5, enquire_link_interval_s=30))
    pair.esme.send(SUBMIT, "t", pair.now)
    (request,) = pair.to_smsc()
    assert pair.esme.next_timeout() == pair.now + 5
    assert pair.esme.handle_timeout(pair.now + 4.9) == []
    assert pair.esme.handle_timeout(pair.now + 5) == [events.RequestFailed("t", "timeout")]
    pair.smsc.respond(request.sequence, message_id="late")
    assert pair.to_esme() == [events.ResponseReceived("t", p.SubmitSmResp(message_id="late"), late=True)]
    assert pair.esme.room == 10
    assert pair.to_esme() == []


def test_nothing_is_sent_into_silence_but_an_enquire_link() -> None:
    pair = trx(Limits(response_timeout_s=5, enquire_link_timeout_s=10))
    pair.now += 1
    pair.esme.send(SUBMIT, "t", pair.now)
    pair.to_smsc()
    pair.esme.handle_timeout(pair.now + 5)
    assert pair.esme.silent
    assert pair.esme.room == 0
    with pytest.raises(WindowFullError):
        pair.esme.send(SUBMIT, "more", pair.now + 5)
    pair.to_smsc()  # the enquire_link, which it answers
    pair.to_esme()
    assert not pair.esme.silent
    assert pair.esme.room == 10
    assert pair.esme.next_timeout() == pair.now + 30


def test_a_peer_that_has_said_anything_since_is_not_silent() -> None:
    pair = trx(Limits(response_timeout_s=5))
    pair.esme.send(SUBMIT, "lost", pair.now)
    pair.to_smsc()
    pair.now += 1
    pair.smsc.send(DELIVER, 1, pair.now)
    pair.to_esme()
    assert pair.esme.handle_timeout(pair.now + 5) == [events.RequestFailed("lost", "timeout")]
    assert sent(pair.esme) == []
    assert pair.esme.room == 10


def test_a_session_is_dead_after_silence_and_two_enquire_links() -> None:
    pair = trx(Limits(response_timeout_s=5, enquire_link_timeout_s=10, enquire_link_misses=2))
    pair.esme.send(SUBMIT, "t", pair.now)
    pair.esme.handle_timeout(pair.now + 5)
    assert pair.esme.handle_timeout(pair.now + 15) == []
    assert isinstance(pair.esme.handle_timeout(pair.now + 25)[-1], events.Closed)
    assert pair.esme.dead


def test_only_the_requests_that_are_due_time_out() -> None:
    pair = trx(Limits(response_timeout_s=5))
    pair.esme.send(SUBMIT, "old", pair.now)
    pair.esme.send(SUBMIT, "new", pair.now + 1)
    assert pair.esme.handle_timeout(pair.now + 5.5) == [events.RequestFailed("old", "timeout")]
    assert pair.esme.next_timeout() == pair.now + 6


def test_enquire_link_when_idle_and_drop_after_two_misses() -> None:
    pair = trx(Limits(enquire_link_interval_s=30, enquire_link_timeout_s=10, enquire_link_misses=2))
    start = pair.now
    assert pair.esme.next_timeout() == start + 30
    assert pair.esme.handle_timeout(start + 29) == []
    assert sent(pair.esme) == []
    pair.esme.handle_timeout(start + 30)
    assert [s[0] for s in sent(pair.esme)] == [c.ENQUIRE_LINK]
    assert pair.esme.next_timeout() == start + 40
    assert pair.esme.handle_timeout(start + 40) == []
    assert [s[0] for s in sent(pair.esme)] == [c.ENQUIRE_LINK]
    (closed,) = pair.esme.handle_timeout(start + 50)
    assert isinstance(closed, events.Closed)
    assert pair.esme.state is State.CLOSED


def test_an_answered_enquire_link_keeps_the_session() -> None:
    pair = trx()
    for _ in range(10):
        pair.now = pair.esme.next_timeout() or 0
        assert pair.esme.handle_timeout(pair.now) == []
        assert pair.to_smsc() == []
        assert pair.to_esme() == []
    assert pair.esme.state is State.BOUND_TRX


def test_traffic_postpones_the_enquire_link() -> None:
    pair = trx()
    pair.now += 20
    pair.smsc.send(DELIVER, 1, pair.now)
    pair.to_esme()
    assert pair.esme.next_timeout() == pair.now + 30


# --- the end


def test_unbind_is_answered_and_closes_both() -> None:
    pair = trx()
    pair.esme.unbind(pair.now)
    assert pair.esme.state is State.UNBOUND
    assert pair.to_smsc() == []
    assert isinstance(pair.to_esme()[-1], events.Closed)
    assert pair.smsc.next_timeout() == 0.0
    assert isinstance(pair.smsc.handle_timeout(pair.now)[-1], events.Closed)


def test_unbind_waits_for_what_is_outstanding() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, "t", pair.now)
    (request,) = pair.to_smsc()
    pair.esme.unbind(pair.now)
    assert sent(pair.esme) == []
    with pytest.raises(SessionStateError):
        pair.esme.send(SUBMIT, "more", pair.now)
    pair.smsc.respond(request.sequence, message_id="1")
    assert [e.token for e in pair.to_esme()] == ["t"]
    assert [s[0] for s in sent(pair.esme)] == [c.UNBIND]


def test_the_answer_to_an_unbind_waits_for_our_acknowledgements() -> None:
    pair = trx()
    pair.smsc.send(DELIVER, "t", pair.now)
    (delivered,) = pair.to_esme()
    pair.esme.receive(raw(c.UNBIND, 77), pair.now)
    assert sent(pair.esme) == []
    pair.esme.respond(delivered.sequence)
    assert [s[0] for s in sent(pair.esme)] == [c.DELIVER_SM_RESP, c.UNBIND_RESP]
    assert isinstance(pair.esme.handle_timeout(pair.now)[-1], events.Closed)


def test_unbind_ends_after_its_timeout() -> None:
    pair = trx(Limits(unbind_timeout_s=5))
    pair.esme.send(SUBMIT, "t", pair.now)
    pair.esme.data_to_send()
    pair.esme.unbind(pair.now)
    assert pair.esme.next_timeout() == pair.now + 5
    failed, closed = pair.esme.handle_timeout(pair.now + 5)
    assert failed == events.RequestFailed("t", "closed")
    assert isinstance(closed, events.Closed)
    assert [s[0] for s in sent(pair.esme)] == [c.UNBIND]


def test_a_lost_connection_fails_what_is_outstanding_once() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, "a", pair.now)
    pair.esme.send(SUBMIT, "b", pair.now)
    assert pair.esme.connection_lost("reset") == [
        events.RequestFailed("a", "closed"),
        events.RequestFailed("b", "closed"),
        events.Closed("reset"),
    ]
    assert pair.esme.connection_lost("again") == []
    assert not pair.esme.respond(1)
    assert pair.esme.receive(b"x" * 100, pair.now) == []
    assert pair.esme.room == 0


# --- bad peers


def test_an_unknown_command_is_nacked() -> None:
    pair = trx()
    assert pair.smsc.receive(raw(0x77, 5), pair.now) == []
    assert sent(pair.smsc) == [(c.GENERIC_NACK, c.ESME_RINVCMDID, 5)]


def test_a_malformed_body_is_refused_with_its_own_response() -> None:
    pair = trx()
    assert pair.smsc.receive(raw(c.SUBMIT_SM, 5, b"\0\1"), pair.now) == []
    assert sent(pair.smsc) == [(c.SUBMIT_SM_RESP, c.ESME_RINVMSGLEN, 5)]
    pair.smsc.receive(raw(c.SUBMIT_SM, 6, codec.encode(SUBMIT, 1)[16:] + b"\1"), pair.now)
    assert sent(pair.smsc) == [(c.SUBMIT_SM_RESP, c.ESME_RINVOPTPARSTREAM, 6)]


def test_a_bad_length_is_nacked_and_closes() -> None:
    pair = trx()
    pair.esme.send(SUBMIT, "t", pair.now)
    happened = pair.smsc.receive(pair.esme.data_to_send() + b"GET / HTTP/1.1\r\n", pair.now)
    assert isinstance(happened[0], events.RequestReceived)
    assert isinstance(happened[-1], events.Closed)
    assert [s[:2] for s in sent(pair.smsc)] == [(c.GENERIC_NACK, c.ESME_RINVCMDLEN)]


def test_a_run_of_bad_requests_closes() -> None:
    session = Session(Role.SMSC, 0, Limits(max_strikes=5))
    happened = session.receive(codec.encode(SUBMIT, 1) * 100, 0)
    assert isinstance(happened[-1], events.Closed)
    assert sent(session) == [(c.SUBMIT_SM_RESP, c.ESME_RINVBNDSTS, 1)] * 5


def test_good_requests_forgive_bad_ones() -> None:
    pair = trx(Limits(max_strikes=3))
    for n in range(10):
        pair.smsc.receive(raw(0x77, 5), pair.now)
        pair.esme.send(SUBMIT, n, pair.now)
        (request,) = pair.to_smsc()
        pair.smsc.respond(request.sequence, message_id="1")
        pair.to_esme()


@pytest.mark.parametrize(
    ("role", "pdu", "status"), [(Role.SMSC, SUBMIT, c.ESME_RTHROTTLED), (Role.ESME, DELIVER, c.ESME_RX_T_APPN)]
)
def test_unanswered_requests_are_bounded(role: Role, pdu: p.Request, status: int) -> None:
    pair = trx(Limits(max_inbound=3))
    session = pair.smsc if role is Role.SMSC else pair.esme
    happened = session.receive(b"".join(codec.encode(pdu, n) for n in range(1, 6)), pair.now)
    assert [e.sequence for e in happened] == [1, 2, 3]  # type: ignore[attr-defined]
    assert sent(session) == [(pdu.command_id | c.RESPONSE, status, n) for n in (4, 5)]
    session.respond(1)
    assert len(session.receive(codec.encode(pdu, 6), pair.now)) == 1


def test_a_sequence_number_in_use_is_not_taken_twice() -> None:
    pair = trx()
    happened = pair.esme.receive(codec.encode(DELIVER, 4) * 2, pair.now)
    assert len(happened) == 1
    assert sent(pair.esme) == [(c.DELIVER_SM_RESP, c.ESME_RX_T_APPN, 4)]


@given(st.sampled_from(list(Role)), st.lists(st.binary(max_size=80), max_size=10))
def test_any_octets_never_raise(role: Role, pieces: list[bytes]) -> None:
    session = Session(role, 0)
    for piece in pieces:
        session.receive(piece, 1)
    Framer().feed(session.data_to_send())


known = [k.command_id for k in codec.PDUS]
noise = st.builds(
    raw,
    st.sampled_from(known) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 5),
    st.binary(max_size=60),
    st.sampled_from([0, 0, 8]),
)
good = st.builds(codec.encode, strategies.any_pdu, st.integers(0, 5))


@given(st.sampled_from(list(Role)), st.lists(noise | good, max_size=30), st.booleans())
def test_any_pdus_keep_the_books_straight(role: Role, stream: list[bytes], bound: bool) -> None:
    pair = trx(Limits(max_inbound=2, window=3)) if bound else Pair()
    session = pair.smsc if role is Role.SMSC else pair.esme
    tokens: list[Any] = []
    if bound:
        pdu = DELIVER if role is Role.SMSC else SUBMIT
        tokens = [session.send(pdu, n, pair.now) and n for n in range(3)]
    happened: list[Any] = []
    for data in stream:
        happened += session.receive(data, pair.now)
        assert session.unanswered <= 2 or not bound
        assert session.outstanding <= 3
    happened += session.connection_lost("end")
    ends = [e.token for e in happened if isinstance(e, events.ResponseReceived | events.RequestFailed)]
    assert sorted(ends) == tokens, "every request ends exactly once"
    assert sum(isinstance(e, events.Closed) for e in happened) == 1
    assert isinstance(happened[-1], events.Closed)


def test_a_stranger_cannot_make_us_hold_a_large_pdu() -> None:
    large = p.SubmitSm(destination="1", tlvs=((c.TAG_MESSAGE_PAYLOAD, b"x" * 5000),))
    (closed,) = Session(Role.SMSC, 0).receive(codec.encode(large, 1)[:20], 0)
    assert isinstance(closed, events.Closed)
    pair = trx()
    pair.esme.send(large, 1, pair.now)
    (request,) = pair.to_smsc()
    assert request.pdu == large


def test_an_old_esme_gets_no_tlv() -> None:
    pair = Pair()
    pair.esme.bind(p.BindTransceiver(interface_version=0x33), pair.now)
    (request,) = pair.to_smsc()
    pair.smsc.accept_bind(request.sequence, "smsc")
    (answer,) = pair.to_esme()
    assert answer.pdu == p.BindTransceiverResp(system_id="smsc")


def test_an_smsc_that_unbinds_takes_what_was_sent_before_the_client_read_it():
    session = Session(Role.SMSC, 0.0)
    (asked,) = session.receive(codec.encode(p.BindTransceiver(system_id="a", password="b"), 1), 0.0)
    session.accept_bind(asked.sequence)
    session.data_to_send()
    session.unbind(0.0)
    assert session.data_to_send()[4:8] == c.UNBIND.to_bytes(4, "big")
    (late,) = session.receive(codec.encode(p.SubmitSm(destination="1", message=b"x"), 2), 0.1)
    assert isinstance(late, events.RequestReceived)
    assert session.receive(codec.header_only(c.UNBIND_RESP, 0, 1), 0.2) == []
    assert session.respond(late.sequence, message_id="m")
    assert session.data_to_send()[8:12] == bytes(4)
    (closed,) = session.handle_timeout(0.2)
    assert (type(closed), session.state) == (events.Closed, State.CLOSED)

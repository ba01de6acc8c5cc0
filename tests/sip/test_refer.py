"""REFER in both directions: RFC 3515, RFC 6665, RFC 4488."""

import pytest

from tests.sip.test_dialog import Call
from trunkline.sip.message import Request
from trunkline.sip.refer import MAX_NOTIFIES, SUBSCRIPTION_S, ReferProgress, fragment_status

TARGET = "<sip:agent@pbx.example?X-Case=7>"


class Referred(Call):
    """A call whose callee takes REFERs."""

    def __init__(self):
        super().__init__()
        self.refers = []
        self.heard = []
        self.into_leg.on_refer = self.on_refer
        self.status = 202

    def on_refer(self, refer):
        self.refers.append(refer)
        return self.status, []

    def refer(self, target=TARGET, headers=()):
        self.out.refer(target, self.heard.append, headers)
        self.run()


@pytest.fixture
def call():
    return Referred()


def test_a_referral_is_told_of_to_the_end(call):
    call.refer()
    (refer,) = call.refers
    assert (refer.target, refer.uri.user) == (TARGET, "agent")
    assert call.heard[-1] == ReferProgress(202, 100, False)
    refer.tell(180)
    call.run()
    told = []
    refer.tell(200, then=lambda: told.append(True))
    call.run()
    assert [(one.status, one.over) for one in call.heard[-2:]] == [(180, False), (200, True)]
    assert told == [True]
    notifies = call.network.of("NOTIFY")
    assert [one.headers.get("Subscription-State").partition(";")[0] for one in notifies] == [
        "active", "active", "terminated",
    ]  # fmt: skip
    assert notifies[-1].body == b"SIP/2.0 200 OK\r\n"
    assert notifies[0].headers.get("Event") == "refer"
    refer.tell(486)
    call.run()
    assert len(call.network.of("NOTIFY")) == 3, "nothing after the last"
    call.out.bye()
    assert call.over()


def test_a_second_referral_names_itself(call):
    call.refer()
    call.refers[0].tell(486)
    call.run()
    call.refer()
    call.refers[1].tell(200)
    call.run()
    assert call.network.of("NOTIFY")[-1].headers.get("Event") == f"refer;id={call.refers[1].request.cseq[0]}"
    assert call.heard[-1] == ReferProgress(202, 200, True)


def test_one_at_a_time(call):
    call.refer()
    call.refer()
    assert call.heard[-1] == ReferProgress(491, 0, True)
    call.out.request("REFER", [("Refer-To", TARGET)], on_response=lambda status, _: call.heard.append(status))
    call.run()
    assert call.heard[-1] == 491
    assert len(call.refers) == 1


def test_it_is_refused(call):
    call.status = 603
    call.refer()
    assert call.heard == [ReferProgress(603, 0, True)]
    assert call.network.of("NOTIFY") == []
    call.status = 202
    call.refer()
    assert call.heard[-1].response == 202


def test_nobody_takes_it_by_default():
    call = Call()
    heard = []
    call.out.refer(TARGET, heard.append)
    call.run()
    assert heard == [ReferProgress(603, 0, True)]


def test_without_a_subscription(call):
    """RFC 4488."""
    call.refer(headers=[("Refer-Sub", "false")])
    assert call.heard == [ReferProgress(202, 0, True)]
    told = []
    call.refers[0].tell(200, then=lambda: told.append(True))
    call.run()
    assert call.network.of("NOTIFY") == []
    assert told == [True]


def test_it_ends_by_itself(call):
    call.refer()
    call.run(SUBSCRIPTION_S + 2)
    assert call.heard[-1].over
    assert call.refers[0].over
    call.out.bye()
    assert call.over()


def test_the_end_of_the_call_ends_it(call):
    call.refer()
    call.into.bye()
    call.run()
    heard = list(call.heard)
    call.refers[0].tell(200)
    assert call.over()
    assert call.heard == heard
    call.out.refer(TARGET, call.heard.append)
    call.run()
    assert call.heard[-1] == ReferProgress(481, 0, True)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([], 400), (["<sip:a@b>", "<sip:c@d>"], 400), (["<sip:a@b>, <sip:c@d>"], 400), (["<<"], 400),
        (["<http://a.example>"], 416), (["<sip:a@b;method=SUBSCRIBE>"], 603), (["<sip:" + "a" * 3000 + "@b>"], 400),
        (["<tel:+15550100>"], 202),
    ],
)  # fmt: skip
def test_what_may_be_referred_to(call, values, status):
    heard = []
    fields = [("Refer-To", value) for value in values]
    call.out.request("REFER", fields, on_response=lambda status, _: heard.append(status))
    call.run()
    assert heard == [status]
    assert len(call.refers) == (status == 202)


def test_notifies_for_nothing(call):
    """RFC 6665: they get 481, another package 489; the call goes on."""
    heard = []
    for event in ("refer", "presence", ""):
        call.into.exchange("NOTIFY", [("Event", event)], b"", lambda status, _: heard.append(status))
    call.run()
    assert heard == [481, 489, 489]
    assert not call.out.ended
    assert not call.into.ended


def test_a_storm_of_notifies_is_bounded(call):
    call.refer()
    heard = []
    body = b"SIP/2.0 180 Ringing\r\n"
    fields = [("Event", "refer"), ("Subscription-State", "active"), ("Content-Type", "message/sipfrag")]
    for _ in range(500):
        call.into.exchange("NOTIFY", fields, body, lambda status, _: heard.append(status))
    call.run()
    assert heard.count(200) == MAX_NOTIFIES - 1, "one was the first, of 100"
    assert set(heard) == {200, 481}
    assert call.heard[-1].over
    assert len(call.heard) == MAX_NOTIFIES + 2


def test_a_flood_of_refers_makes_one_referral(call):
    heard = []
    for number in range(300):
        fields = [("Refer-To", f"<sip:{number}@b>")]
        call.out.request("REFER", fields, on_response=lambda status, _: heard.append(status))
    call.run()
    assert heard.count(202) == 1
    assert set(heard) == {202, 491}
    assert len(call.refers) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"SIP/2.0 486 Busy Here\r\n", "message/sipfrag;version=2.0", 486), (b"", "message/sipfrag", 0),
        (b"SIP/2.0 200 OK", "text/plain", 0), (b"SIP/2.0 xyz", "message/sipfrag", 0),
        (b"\xff" * 99, "message/sipfrag", 0),
        (b"SIP/2.0", "message/sipfrag", 0), (b"sip/2.0 180", "message/sipfrag", 180),
    ],
)  # fmt: skip
def test_fragments(body, kind, status):
    request = Request.make("NOTIFY", "sip:a@b", headers=[("Content-Type", kind)], body=body)
    assert fragment_status(request) == status

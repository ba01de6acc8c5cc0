"""Standard parameters of voice webhooks."""

from trunkline.model.call import Call, Direction
from trunkline.model.numbers import PhoneNumber
from trunkline.voice.params import place, rfc2822, standard
from trunkline.webhooks.params import Place


def call(**changes) -> Call:
    values = {"sid": "CA1", "account_sid": "AC1", "direction": Direction.OUTBOUND_DIAL, "from_": "+442071838750"}
    return Call(**(values | {"to": "sip:bob@example.com"} | changes))


def test_of_a_child_leg() -> None:
    params = dict(standard(call(parent_sid="CA0", answered_by="human", application_sid="AP1"), "in-progress"))
    assert (params["ParentCallSid"], params["AnsweredBy"], params["ApplicationSid"]) == ("CA0", "human", "AP1")
    assert (params["CallStatus"], params["Direction"], params["To"]) == (
        "in-progress", "outbound-dial", "sip:bob@example.com",
    )  # fmt: skip
    assert (params["FromCountry"], params["ToCountry"], params["CalledCountry"]) == ("GB", "", "")


def test_what_is_not_known_is_not_sent() -> None:
    names = dict(standard(call(), "ringing"))
    unknown = {"ForwardedFrom", "CallerName", "ParentCallSid", "ApplicationSid", "AnsweredBy", "SipCallId"}
    assert not names.keys() & unknown


def test_every_name_comes_once() -> None:
    names = [name for name, _ in standard(call(forwarded_from="+1", caller_name="x", sip_headers={"X-A": "b"}), "x")]
    assert len(names) == len(set(names))


def test_where_our_numbers_are() -> None:
    number = PhoneNumber(sid="PN1", account_sid="AC1", phone_number="+14155550100", locality="Oakland", region="ca")
    assert place("+14155550100", number) == Place("OAKLAND", "CA", "", "US")
    assert place("+4930123456") == Place(country="DE")
    assert place("sip:a@b") == Place()


def test_dates() -> None:
    assert rfc2822(1496350112000) == "Thu, 01 Jun 2017 20:48:32 +0000"

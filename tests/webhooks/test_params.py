"""Parameters of message webhooks, from Twilio's tables."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from trunkline.model.message import Direction, MediaItem, Message
from trunkline.webhooks.params import (
    Place,
    encode_form,
    fallback,
    inbound_message,
    message_status,
    raw_dlr_done_date,
)

MESSAGE = Message(
    sid="SM" + "0" * 32,
    account_sid="AC" + "1" * 32,
    direction=Direction.INBOUND,
    from_="+14155550100",
    to="+442071838750",
    body="Hello & goodbye",
    num_segments=2,
)


def test_an_inbound_message() -> None:
    assert dict(inbound_message(MESSAGE, from_place=Place("SAN FRANCISCO", "CA", "94105", "US"))) == {
        "MessageSid": MESSAGE.sid,
        "SmsSid": MESSAGE.sid,
        "SmsMessageSid": MESSAGE.sid,
        "AccountSid": MESSAGE.account_sid,
        "From": "+14155550100",
        "To": "+442071838750",
        "Body": "Hello & goodbye",
        "NumMedia": "0",
        "NumSegments": "2",
        "SmsStatus": "received",
        "ApiVersion": "2010-04-01",
        "FromCity": "SAN FRANCISCO",
        "FromState": "CA",
        "FromZip": "94105",
        "FromCountry": "US",
        "ToCity": "",
        "ToState": "",
        "ToZip": "",
        "ToCountry": "GB",
    }


def test_an_inbound_message_with_all_options() -> None:
    message = Message(
        sid="MM" + "0" * 32,
        account_sid="AC" + "1" * 32,
        direction=Direction.INBOUND,
        from_="12345",
        to="+14155550100",
        messaging_service_sid="MG" + "2" * 32,
        media=[MediaItem("ME1", "image/png", "https://x.test/1"), MediaItem("ME2", "text/vcard", "https://x.test/2")],
    )
    params = dict(inbound_message(message, opt_out_type="STOP"))
    assert params["MessagingServiceSid"] == "MG" + "2" * 32
    assert params["OptOutType"] == "STOP"
    assert params["NumMedia"] == "2"
    assert (params["MediaUrl1"], params["MediaContentType1"]) == ("https://x.test/2", "text/vcard")
    assert params["FromCountry"] == ""


def test_a_status_callback() -> None:
    assert dict(message_status(MESSAGE, "sent")) == {
        "MessageSid": MESSAGE.sid,
        "SmsSid": MESSAGE.sid,
        "MessageStatus": "sent",
        "SmsStatus": "sent",
        "AccountSid": MESSAGE.account_sid,
        "From": "+14155550100",
        "To": "+442071838750",
        "ApiVersion": "2010-04-01",
    }


def test_a_failed_message_tells_why() -> None:
    message = Message(
        sid=MESSAGE.sid,
        account_sid=MESSAGE.account_sid,
        direction=Direction.OUTBOUND_API,
        error_code=30003,
        error_message="Unreachable destination handset",
        done_date="2401311559",
        messaging_service_sid="MG1",
    )
    params = dict(message_status(message, "undelivered"))
    assert params["ErrorCode"] == "30003"
    assert params["ErrorMessage"] == "Unreachable destination handset"
    assert params["RawDlrDoneDate"] == "2401311559"
    assert params["MessagingServiceSid"] == "MG1"
    assert "RawDlrDoneDate" not in dict(message_status(message, "failed"))
    assert "ErrorCode" not in dict(message_status(message, "sent"))


def test_the_fallback_gets_the_reason() -> None:
    assert fallback([("A", "b")], error_code=11200, error_url="https://x.test/a") == [
        ("A", "b"),
        ("ErrorCode", "11200"),
        ("ErrorUrl", "https://x.test/a"),
    ]


def test_done_date() -> None:
    assert raw_dlr_done_date(1_706_716_740_000) == "2401311559"


def test_form_encoding() -> None:
    pairs = [("From", "+14155550100"), ("Body", "a b&c=d+ü😀"), ("Empty", ""), ("Sid", "SM12"), ("V", "2010-04-01")]
    text = encode_form(pairs)
    assert text == "From=%2B14155550100&Body=a+b%26c%3Dd%2B%C3%BC%F0%9F%98%80&Empty=&Sid=SM12&V=2010-04-01"


@given(st.lists(st.tuples(st.from_regex("[A-Za-z_0-9]{1,10}", fullmatch=True), st.text(st.characters(codec="utf-8")))))
def test_forms_read_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_qsl(encode_form(pairs), keep_blank_values=True) == pairs


def test_half_a_surrogate_pair_does_not_stop_a_webhook() -> None:
    assert encode_form([("Body", "a\ud800b")]) == "Body=a%3Fb"

"""The fixtures that users get: each test here is one they could write."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trunkline.testing.handsets import NotReceived
from trunkline.testing.local import Local, LocalFailed, RemoteHandset, local_url


def test_a_message_reaches_a_phone(trunkline: Local, handset: RemoteHandset) -> None:
    sent = trunkline.client.messages.create(to=handset.number, from_=trunkline.number, body="Shall we meet?")
    text = handset.receives()
    assert (text.from_, text.body) == (trunkline.number, "Shall we meet?")
    assert trunkline.client.messages(sent.sid).fetch().body == "Shall we meet?"


def test_a_phone_answers(trunkline: Local, handset: RemoteHandset) -> None:
    trunkline.client.messages.create(to=handset.number, from_=trunkline.number, body="What does this cost?")
    handset.receives("What does this cost?")
    handset.sends("HELP")
    assert "STOP" in handset.receives().body


def test_scripted_replies_come_in(trunkline: Local, handset: RemoteHandset) -> None:
    handset.replies("INFO")
    trunkline.client.messages.create(to=handset.number, from_=trunkline.numbers[1], body="Hi")
    assert handset.receives().body == "Hi"
    assert "unsubscribe" in handset.receives().body


def test_a_phone_that_is_off(trunkline: Local, handset: RemoteHandset) -> None:
    handset.off()
    sid = trunkline.client.messages.create(to=handset.number, from_=trunkline.number, body="Lost").sid
    with pytest.raises(NotReceived, match="'Lost' within"):
        handset.receives("Lost", timeout_s=0.3)
    handset.on()
    trunkline.client.messages.create(to=handset.number, from_=trunkline.number, body="Back")
    handset.receives("Back")
    assert trunkline.client.messages(sid).fetch().error_code == 30003


def test_handsets_have_numbers_of_their_own(trunkline: Local, handset: RemoteHandset) -> None:
    assert trunkline.handset().number != handset.number
    assert trunkline.handset("+15555559999").number == "+15555559999"


def test_other_products_are_here_too(trunkline: Local) -> None:
    service = trunkline.client.messaging.v1.services.create(friendly_name="Mine")
    assert service.sid in [one.sid for one in trunkline.client.messaging.v1.services.list()]
    trunkline.client.messaging.v1.services(service.sid).delete()
    looked_up = trunkline.client.lookups.v2.phone_numbers(trunkline.number).fetch()
    assert looked_up.phone_number == trunkline.number


def test_webhooks_are_set_without_an_sdk(trunkline: Local) -> None:
    trunkline.receive_at("http://127.0.0.1:9/sms", trunkline.numbers[1])
    (number,) = trunkline.client.incoming_phone_numbers.list(phone_number=trunkline.numbers[1])
    assert number.sms_url == "http://127.0.0.1:9/sms"
    trunkline.receive_at("", trunkline.numbers[1])


def test_the_program_under_test_is_told(trunkline: Local) -> None:
    assert trunkline.environment["TWILIO_ACCOUNT_SID"] == trunkline.account_sid
    assert trunkline.environment["TRUNKLINE_URL"].startswith("http://127.0.0.1:")


def test_settings_of_the_run_hold(tmp_path: Path) -> None:
    with Local(tmp_path, {"TRUNKLINE_MESSAGING_SCHEDULE_MIN_S": "1"}) as local:
        service = local.client.messaging.v1.services.create(friendly_name="Soon")
        (number,) = local.client.incoming_phone_numbers.list(phone_number=local.number)
        local.client.messaging.v1.services(service.sid).phone_numbers.create(phone_number_sid=number.sid)
        phone, at = local.handset(), datetime.now(UTC) + timedelta(seconds=2)
        sent = local.client.messages.create(
            to=phone.number, messaging_service_sid=service.sid, body="Soon", schedule_type="fixed", send_at=at
        )
        assert sent.status == "scheduled"
        phone.receives("Soon")


def test_refusals_say_why(trunkline: Local) -> None:
    with pytest.raises(LocalFailed, match=r"HTTP 400 .*21604"):
        trunkline.call("POST", f"/2010-04-01/Accounts/{trunkline.account_sid}/Messages.json", {"Body": "x"})


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = Local(tmp_path, {"TRUNKLINE_MESSAGING_MAX_SEGMENTS": "none"})
    with pytest.raises(LocalFailed, match="TRUNKLINE_MESSAGING_MAX_SEGMENTS"):
        broken.start()
    broken.stop()


@pytest.mark.parametrize(
    ("to", "here"),
    [
        ("https://api.twilio.com/2010-04-01/Accounts.json", "http://x:1/2010-04-01/Accounts.json"),
        ("https://api.sydney.au1.twilio.com/2010-04-01/Accounts.json", "http://x:1/2010-04-01/Accounts.json"),
        ("https://messaging.twilio.com/v1/Services?PageSize=2", "http://x:1/messaging/v1/Services?PageSize=2"),
        ("http://x:1/messaging/v1/Services?Page=1", "http://x:1/messaging/v1/Services?Page=1"),
    ],
)
def test_where_requests_go(to: str, here: str) -> None:
    assert local_url(to, "http://x:1") == here

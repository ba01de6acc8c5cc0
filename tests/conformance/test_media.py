"""Media and feedback of messages with every SDK."""

import pytest

from tests.conformance.sdk import Record, Sdk, SdkError
from tests.conformance.site import Site, Tenant
from tests.conformance.test_messages import settled

PHONE = "+12125550120"
PICTURE = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"


@pytest.fixture
def picture(site: Site) -> str:
    """URL of a picture."""
    (site.files / "dot.gif").write_bytes(PICTURE)
    return f"{site.files_url}/dot.gif"


def send(sdk: Sdk, tenant: Tenant, **options: object) -> Record:
    made = sdk.messages.create(to=PHONE, from_=tenant.numbers[0], body="Look", **options)
    return settled(sdk, made.sid)


def test_media(sdk: Sdk, tenant: Tenant, picture: str) -> None:
    message = send(sdk, tenant, media_url=[picture, picture])
    assert (message.sid[:2], message.num_media) == ("MM", "2")
    media = sdk.messages(message.sid).media
    files = media.list()
    assert len(files) == 2
    first = files[0]
    assert first.sid.startswith("ME")
    assert (first.parent_sid, first.content_type, first.account_sid) == (message.sid, "image/gif", tenant.sid)
    assert media(first.sid).fetch() == first
    assert [len(page) for page in media.pages(page_size=1)] == [1, 1]
    assert media(first.sid).delete() is True
    with pytest.raises(SdkError) as error:
        media(first.sid).fetch()
    assert error.value.code == 20404
    assert sdk.messages(message.sid).fetch().num_media == "1"


def test_media_bytes(sdk: Sdk, tenant: Tenant, picture: str) -> None:
    message = send(sdk, tenant, media_url=[picture])
    file = sdk.messages(message.sid).media.list()[0]
    answer = sdk.request("GET", "https://api.twilio.com" + file.uri.removesuffix(".json"))
    assert answer.status == 307
    location = answer.headers["location"]
    assert location.startswith("https://api.twilio.com/")
    bytes_ = sdk.request("GET", location)
    assert bytes_.status == 200
    assert bytes_.headers["content-type"] == "image/gif"
    assert int(bytes_.headers["content-length"]) == len(PICTURE)


def test_missing_media_fails_the_message(sdk: Sdk, tenant: Tenant, site: Site) -> None:
    made = sdk.messages.create(
        to=PHONE, from_=tenant.numbers[0], body="Look", media_url=[f"{site.files_url}/nothing.gif"]
    )
    assert settled(sdk, made.sid, "failed").error_code == 11200


def test_feedback(sdk: Sdk, tenant: Tenant) -> None:
    message = send(sdk, tenant)
    found = sdk.messages(message.sid).feedback.create(outcome="confirmed")
    assert (found.message_sid, found.outcome, found.account_sid) == (message.sid, "confirmed", tenant.sid)
    assert sdk.messages(message.sid).feedback.create(outcome="unconfirmed").outcome == "unconfirmed"

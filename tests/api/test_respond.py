"""Bodies in JSON and XML, and dates."""

from datetime import UTC, datetime
from email.utils import format_datetime
from xml.etree import ElementTree

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api import dates, respond, xml_body
from trunkline.api.respond import Format
from trunkline.model.errors import ApiError

MESSAGE = {
    "sid": "SM1",
    "date_created": "Thu, 24 Aug 2023 05:01:45 +0000",
    "body": 'a < b & "c" \x07 ü 😀',
    "error_code": None,
    "num_segments": "1",
    "flag": True,
    "capabilities": {"SMS": True, "mms": False},
    "uri": "/2010-04-01/Accounts/AC1/Messages/SM1.json",
    "subresource_uris": {"media": "/2010-04-01/Accounts/AC1/Messages/SM1/Media.json"},
}


def test_json_resource() -> None:
    response = respond.resource(Format.JSON, MESSAGE, "Message", 201)
    assert (response.status, orjson.loads(response.body)) == (201, MESSAGE)
    assert response.headers == ((b"content-type", b"application/json"),)


def test_xml_resource() -> None:
    response = respond.resource(Format.XML, MESSAGE, "Message")
    assert response.headers == ((b"content-type", b"application/xml"),)
    assert response.body.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n<TwilioResponse><Message><Sid>SM1</Sid>")
    message = ElementTree.fromstring(response.body)[0]
    found = {child.tag: child.text for child in message}
    assert found["Body"] == 'a < b & "c" \ufffd ü 😀'
    assert found["ErrorCode"] is None
    assert found["DateCreated"] == MESSAGE["date_created"]
    assert found["Flag"] == "true"
    assert found["Uri"] == "/2010-04-01/Accounts/AC1/Messages/SM1"
    assert message.findtext("SubresourceUris/Media") == "/2010-04-01/Accounts/AC1/Messages/SM1/Media"
    assert message.findtext("Capabilities/SMS") == "true"


def test_xml_error_is_as_twilio_writes_it() -> None:
    response = respond.error(ApiError.unauthorized(), Format.XML)
    assert response.body == (
        b"<?xml version='1.0' encoding='UTF-8'?>\n<TwilioResponse><RestException><Code>20003</Code>"
        b"<Detail>Your AccountSid or AuthToken was incorrect.</Detail><Message>Authenticate</Message>"
        b"<MoreInfo>https://www.twilio.com/docs/errors/20003</MoreInfo><Status>401</Status>"
        b"</RestException></TwilioResponse>"
    )
    assert (b"www-authenticate", b'Basic realm="Twilio API"') in response.headers


def test_json_error() -> None:
    response = respond.error(ApiError.of(21602), Format.JSON)
    assert orjson.loads(response.body) == {
        "code": 21602,
        "message": "Message body is required.",
        "more_info": "https://www.twilio.com/docs/errors/21602",
        "status": 400,
    }


def test_xml_page_has_its_paging_in_attributes() -> None:
    body = xml_body.page(
        "Messages", "Message", [{"sid": "SM1"}], {"page_size": 50, "next_page_uri": None, "uri": "/a.json?x=1&y=2"}
    )
    root = ElementTree.fromstring(body)
    assert root[0].tag == "Messages"
    assert root[0].attrib == {"pagesize": "50", "nextpageuri": "", "uri": "/a?x=1&y=2"}
    assert [child.findtext("Sid") for child in root[0]] == ["SM1"]


@given(st.dictionaries(st.from_regex(r"[a-z]+(_[a-z]+)*", fullmatch=True), st.text() | st.none() | st.integers()))
def test_any_text_makes_well_formed_xml(content: dict[str, object]) -> None:
    for value in list(content.values()):
        if isinstance(value, str):
            value.encode("utf-8", "replace")
    root = ElementTree.fromstring(xml_body.resource("Thing", content))
    assert len(root[0]) == len({xml_body.camel(key) for key in content}) or len(root[0]) == len(content)


@given(st.integers(0, 4_000_000_000_000))
def test_dates(ms: int) -> None:
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    assert dates.rfc2822(ms) == format_datetime(moment)
    assert dates.iso8601(ms) == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert dates.parse_instant(dates.rfc2822(ms)) == ms // 1000 * 1000
    assert dates.parse_instant(dates.iso8601(ms)) == ms // 1000 * 1000


def test_known_date() -> None:
    assert dates.rfc2822(1692853305999) == "Thu, 24 Aug 2023 05:01:45 +0000"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "ü€\x00"])
def test_headers_cannot_be_split(value: str) -> None:
    name, written = respond.header("X-Name", value)
    assert name == b"x-name"
    assert not set(written) & set(b"\r\n\x00")


def test_small_ones() -> None:
    assert respond.no_content().status == 204
    assert respond.redirect("https://x/y").headers == ((b"location", b"https://x/y"),)
    assert respond.text("hi").body == b"hi"

"""Documents as a whole: content types, encodings, errors, warnings, odd input."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twilio.twiml.messaging_response import MessagingResponse

from trunkline.twiml import Document, DocumentKind, Message, Redirect, TwimlError, parse

XML = "text/xml"


def document(body: str | bytes, content_type: str = XML) -> Document:
    result = parse(body.encode() if isinstance(body, str) else body, content_type)
    assert isinstance(result, Document), result
    return result


def error(body: str | bytes, content_type: str = XML) -> TwimlError:
    result = parse(body.encode() if isinstance(body, str) else body, content_type)
    assert isinstance(result, TwimlError), result
    return result


def codes(result: Document) -> list[int]:
    return [warning.code for warning in result.warnings]


def test_what_the_official_sdk_writes() -> None:
    response = MessagingResponse()
    response.message("plain & <simple>", to="+14155550100", from_="+14155550101", action="/done", method="GET")
    message = response.message(status_callback="https://x.test/status")
    message.body("Grüße 😀")
    message.media("https://x.test/a.png")
    response.redirect("/next?a=1&b=2", method="GET")
    result = document(str(response))
    first, second, third = result.verbs
    assert first == Message(
        body="plain & <simple>",
        to="+14155550100",
        from_="+14155550101",
        action="/done",
        method="GET",
        line=first.line,
        column=first.column,
    )
    assert isinstance(second, Message)
    assert second.body == "Grüße 😀"
    assert second.media == ("https://x.test/a.png",)
    assert second.status_callback == "https://x.test/status"
    assert isinstance(third, Redirect)
    assert (third.url, third.method) == ("/next?a=1&b=2", "GET")
    assert result.warnings == ()


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"])
@pytest.mark.parametrize("content_type", ["text/xml", "text/plain", ""])
def test_an_empty_answer_is_an_empty_document(body: bytes, content_type: str) -> None:
    if content_type == "" and body.startswith(b"\xef"):
        assert error(body, content_type).code == 12300
    else:
        assert document(body, content_type) == Document()


@pytest.mark.parametrize("body", ["<Response/>", "<Response></Response>", "<Response> <!-- no --> </Response>"])
def test_an_empty_response_has_no_verbs_and_no_warnings(body: str) -> None:
    assert document(body) == Document()


@pytest.mark.parametrize(
    "content_type",
    ["text/xml", "application/xml", "text/html", "Text/XML; charset=UTF-8", 'application/xml;charset="utf-8"'],
)
def test_types_that_are_twiml(content_type: str) -> None:
    (verb,) = document("<Response><Message>hü</Message></Response>", content_type).verbs
    assert isinstance(verb, Message)
    assert verb.body == "hü"


@pytest.mark.parametrize("content_type", ["", "application/json", "audio/mpeg", "image/png", "xml", "a" * 5000])
def test_types_that_are_not(content_type: str) -> None:
    assert error("<Response/>", content_type).code == 12300


def test_plain_text_is_the_reply() -> None:
    assert document("  Hello there\n", "text/plain; charset=utf-8").verbs == (Message(body="Hello there"),)


def test_plain_text_that_is_twiml_is_twiml() -> None:
    (verb,) = document("\n<Response><Message>hi</Message></Response>", "text/plain").verbs
    assert isinstance(verb, Message)
    assert verb.body == "hi"


def test_plain_text_that_only_looks_like_xml_is_the_reply() -> None:
    assert document("<3 you", "text/plain").verbs == (Message(body="<3 you"),)


def test_plain_text_that_is_too_long_is_not_sent() -> None:
    result = document("x" * 1601, "text/plain")
    assert result.verbs == ()
    assert codes(result) == [14103]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<Response><Message>Grüße</Message></Response>".encode("utf-8-sig"), XML),
        ("<Response><Message>Grüße</Message></Response>".encode("utf-16"), XML),
        ("\ufeff<Response><Message>Grüße</Message></Response>".encode("utf-16-be"), XML),
        ("<Response><Message>Grüße</Message></Response>".encode("latin-1"), "text/xml; charset=ISO-8859-1"),
        (
            "<?xml version='1.0' encoding='windows-1252'?><Response><Message>Grüße</Message></Response>".encode(
                "cp1252"
            ),
            XML,
        ),
        # The header wins over the declaration.
        (
            "<?xml version='1.0' encoding='utf-16'?><Response><Message>Grüße</Message></Response>".encode(),
            "text/xml; charset=utf-8",
        ),
    ],
)
def test_encodings(body: bytes, content_type: str) -> None:
    (verb,) = document(body, content_type).verbs
    assert isinstance(verb, Message)
    assert verb.body == "Grüße"


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"<Response>\xff</Response>", XML, "byte 10 is not valid utf-8"),
        (b"<?xml version='1.0' encoding='rot13'?><Response/>", XML, "unsupported encoding rot13"),
        (b"<Response/>", "text/xml; charset=idna", "unsupported encoding idna"),
    ],
)
def test_encodings_that_cannot_be_read(body: bytes, content_type: str, text: str) -> None:
    result = error(body, content_type)
    assert (result.code, result.message) == (12100, text)


@pytest.mark.parametrize(
    "body",
    [
        "<Response>",
        "<Response></response>",
        "not xml at all",
        "\n<?xml version='1.0'?><Response/>",
        "<Response>&nbsp;</Response>",
        "<Response><Message>a & b</Message></Response>",
        "<Response/><Response/>",
        "<Response>\x00</Response>",
        "<Response a='1' a='2'/>",
        "<?xml version='1.0'?>",
    ],
)
def test_malformed_documents(body: str) -> None:
    assert error(body).code == 12100


def test_the_place_of_a_parse_error_is_told() -> None:
    result = error("<Response>\n  <Message>a & b</Message>\n</Response>")
    assert (result.line, result.column) == (2, 15)


@pytest.mark.parametrize("root", ["response", "Html", "TwiML"])
def test_the_root_must_be_response(root: str) -> None:
    assert error(f"<{root}/>").code == 12102


def test_only_xml_one_point_zero() -> None:
    assert error("<?xml version='1.1'?><Response/>").code == 12101


ENTITIES = '<!DOCTYPE lol [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><Response><Message>&b;</Message></Response>'
EXTERNAL = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><Response><Message>&x;</Message></Response>'


@pytest.mark.parametrize(
    "body", [ENTITIES, EXTERNAL, "<!DOCTYPE html><Response/>", '<!DOCTYPE r SYSTEM "x"><Response/>']
)
def test_document_types_are_refused(body: str) -> None:
    result = error(body)
    assert result.code == 12100
    assert "DOCTYPE" in result.message


def test_bounds() -> None:
    assert error(b"<Response>" + b" " * 65536).code == 11750
    assert "deeper" in error("<Response>" + "<a>" * 40 + "</a>" * 40 + "</Response>").message
    assert "elements" in error("<Response>" + "<a/>" * 3000 + "</Response>").message
    attributes = " ".join(f"a{i}=''" for i in range(70))
    assert "attributes" in error(f"<Response {attributes}/>").message
    assert len(document("<Response>" + "<a/>" * 1900 + "</Response>").warnings) == 100


def test_limit_can_be_set() -> None:
    result = parse(b"<Response/>", XML, limit_bytes=10)
    assert isinstance(result, TwimlError)
    assert result.code == 11750


def test_unknown_elements_and_attributes_are_warned_of_and_the_rest_runs() -> None:
    result = document(
        "<Response colour='red'>\n"
        "  stray\n"
        "  <Fly/>\n"
        "  <Message wings='2'>hi<b>bold</b></Message>\n"
        "  <message>case matters</message>\n"
        "</Response>"
    )
    (verb,) = result.verbs
    assert isinstance(verb, Message)
    assert verb.body == "hi"
    assert [(w.code, w.line, w.column) for w in result.warnings] == [
        (12200, 1, 1),
        (12200, 1, 1),
        (12200, 3, 3),
        (12200, 4, 3),
        (12200, 4, 24),
        (12200, 5, 3),
    ]


def test_namespaces_written_by_tools_are_no_reason_to_warn() -> None:
    body = '<Response xmlns:xsi="http://w3.org/x" xsi:noNamespaceSchemaLocation="a.xsd"><Message>x</Message></Response>'
    assert document(body).warnings == ()


@pytest.mark.parametrize("verb", ["Say", "Dial", "Gather", "Sms"])
def test_voice_verbs_in_a_messaging_document(verb: str) -> None:
    result = document(f"<Response><{verb}>x</{verb}><Message>hi</Message></Response>")
    assert codes(result) == [14110]
    assert len(result.verbs) == 1


def test_message_is_no_voice_verb() -> None:
    result = parse(b"<Response><Message>hi</Message><Redirect>/x</Redirect></Response>", XML, kind=DocumentKind.VOICE)
    assert isinstance(result, Document)
    assert codes(result) == [12200]
    assert [type(verb) for verb in result.verbs] == [Redirect]


def test_no_more_than_ten_messages() -> None:
    result = document("<Response>" + "<Message>m</Message>" * 12 + "<Redirect>/x</Redirect></Response>")
    assert [type(verb) for verb in result.verbs] == [Message] * 10 + [Redirect]
    assert codes(result) == [14109]


TAGS = [
    "<Response>",
    "</Response>",
    "<Message",
    " to='+1'",
    ">",
    "</Message>",
    "<Body>",
    "</Body>",
    "<Media>",
    "</Media>",
]
ODD = [
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "&amp;",
    "&#0;",
    "&x;",
    "<?xml version='1.0'",
    "?>",
    "<!DOCTYPE a",
    "<Redirect/>",
]
STRANGE = ["\ufeff", "\x00", "😀", "\ud800", " encoding='utf-16'", "x" * 1700, "<a>" * 50, " ", "\n"]
FRAGMENTS = st.sampled_from([*TAGS, *ODD, *STRANGE])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(FRAGMENTS, max_size=25).map("".join), st.sampled_from([XML, "text/plain", "text/html; charset=utf-16", ""])
)
@example("<Response><Message>", XML)
def test_no_markup_makes_it_raise(text: str, content_type: str) -> None:
    result = parse(text.encode("utf-8", "surrogatepass"), content_type)
    assert isinstance(result, Document | TwimlError)
    for verb in result.verbs if isinstance(result, Document) else ():
        assert isinstance(verb, Message | Redirect)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=60))
def test_no_bytes_make_it_raise(body: bytes, content_type: str) -> None:
    assert isinstance(parse(body, content_type), Document | TwimlError)
    assert isinstance(parse(b"<Response><Message>" + body + b"</Message></Response>", XML), Document | TwimlError)


PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=200)


@settings(max_examples=200, deadline=None)
@given(PRINTABLE)
def test_every_text_the_sdk_can_write_comes_back(text: str) -> None:
    response = MessagingResponse()
    response.message(text)
    result = document(str(response))
    expected = text.strip()
    assert [verb.body for verb in result.verbs if isinstance(verb, Message)] == ([expected] if expected else [])

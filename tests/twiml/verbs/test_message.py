"""<Message>, from Twilio's table of attributes:

| attribute      | allowed                  | default                        |
| to             | phone number             | sender of the inbound message  |
| from           | phone number, short code | number that received           |
| action         | relative or absolute URL | none                           |
| method         | GET, POST                | POST                           |
| statusCallback | relative or absolute URL | none                           |
"""

from __future__ import annotations

import pytest

from trunkline.twiml import Document, Message, parse


def run(xml: str) -> Document:
    result = parse(f"<Response>{xml}</Response>".encode(), "text/xml")
    assert isinstance(result, Document)
    return result


def one(xml: str) -> Message:
    result = run(xml)
    assert result.warnings == ()
    (verb,) = result.verbs
    assert isinstance(verb, Message)
    return verb


def test_defaults() -> None:
    assert one("<Message>hi</Message>") == Message(body="hi", line=1, column=11)


def test_text_in_pieces() -> None:
    assert one("<Message> a\n<!-- no -->b<![CDATA[<c>]]> &#x1F600; </Message>").body == "a\nb<c> 😀"


def test_several_bodies_are_joined() -> None:
    assert one("<Message><Body>a </Body><Body>b</Body></Message>").body == "ab"


def test_text_beside_body_is_ignored() -> None:
    result = run("<Message>out<Body>in</Body></Message>")
    assert [verb.body for verb in result.verbs if isinstance(verb, Message)] == ["in"]
    assert [w.code for w in result.warnings] == [12200]


def test_media_alone_is_a_message() -> None:
    verb = one("<Message><Media>https://x.test/a.png</Media><Media> b.png </Media></Message>")
    assert (verb.body, verb.media) == ("", ("https://x.test/a.png", "b.png"))


def test_no_more_than_ten_media() -> None:
    result = run("<Message>" + "<Media>/m</Media>" * 11 + "</Message>")
    (verb,) = result.verbs
    assert isinstance(verb, Message)
    assert len(verb.media) == 10
    assert [w.code for w in result.warnings] == [21623]


def test_media_that_is_no_url() -> None:
    result = run("<Message>x<Media>ftp://x/y</Media><Media/></Message>")
    assert [w.code for w in result.warnings] == [12200, 12200]
    assert isinstance(result.verbs[0], Message)
    assert result.verbs[0].media == ()


@pytest.mark.parametrize("xml", ["<Message/>", "<Message> \n </Message>", "<Message><Body/></Message>"])
def test_an_empty_message_is_not_sent(xml: str) -> None:
    result = run(xml)
    assert result.verbs == ()
    assert [w.code for w in result.warnings] == [14103]


def test_length() -> None:
    assert len(one(f"<Message>{'é' * 1600}</Message>").body) == 1600
    result = run(f"<Message>{'é' * 1601}</Message>")
    assert result.verbs == ()
    assert [w.code for w in result.warnings] == [14103]


@pytest.mark.parametrize("to", ["+14155550100", "(415) 555-0100", "12345", "whatsapp:+14155550100", "messenger:abc"])
def test_to(to: str) -> None:
    assert one(f'<Message to="{to}">x</Message>').to == to


@pytest.mark.parametrize("sender", ["+14155550100", "12345", "ACME Shop", "MG" + "0" * 32])
def test_from(sender: str) -> None:
    assert one(f'<Message from="{sender}">x</Message>').from_ == sender


@pytest.mark.parametrize(
    ("attribute", "code"),
    [('to="nobody"', 14101), ('to=""', 14101), ('from="!"', 14102), ('from="TwelveLetters"', 14102)],
)
def test_a_bad_address_drops_the_message(attribute: str, code: int) -> None:
    result = run(f"<Message {attribute}>x</Message><Message>y</Message>")
    assert [verb.body for verb in result.verbs if isinstance(verb, Message)] == ["y"]
    assert [w.code for w in result.warnings] == [code]


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        ('method="PUT"', 14104),
        ('statusCallback="ftp://x"', 14105),
        ('statusCallback=""', 14105),
        ('action="a b"', 12200),
    ],
)
def test_other_bad_attributes_fall_back_to_the_default(attribute: str, code: int) -> None:
    result = run(f"<Message {attribute}>x</Message>")
    assert [w.code for w in result.warnings] == [code]
    assert result.verbs == (Message(body="x", line=1, column=11),)


def test_method_in_lower_case() -> None:
    assert one('<Message method="get">x</Message>').method == "GET"

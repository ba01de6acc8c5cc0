"""Voice documents: the table is handed in; the kind decides what plain text is."""

from twilio.twiml.voice_response import Gather, VoiceResponse

from trunkline.twiml import Document, DocumentKind, TwimlError, parse
from trunkline.twiml.xmltree import Element, read
from trunkline.voice.verbs import SPECS


def voice(body: str, content_type: str = "text/xml") -> Document | TwimlError:
    return parse(body.encode(), content_type, kind=DocumentKind.VOICE, verbs=SPECS)


def test_what_the_official_sdk_writes() -> None:
    response = VoiceResponse()
    response.say("Hello", voice="Polly.Joanna", language="en-US", loop=2)
    gather = Gather(num_digits=1, action="/menu", method="GET", timeout=3, finish_on_key="*")
    gather.say("Press one")
    gather.play("https://x.test/a.mp3", loop=2)
    gather.pause(length=2)
    response.append(gather)
    response.play("/b.wav", digits="ww1")
    response.pause(length=3)
    response.redirect("/next", method="GET")
    response.reject(reason="busy")
    response.hangup()
    result = voice(str(response))
    assert isinstance(result, Document)
    assert result.warnings == ()
    assert [type(verb).__name__ for verb in result.verbs] == [
        "Say", "Gather", "Play", "Pause", "Redirect", "Reject", "Hangup",
    ]  # fmt: skip


def test_ssml_that_the_official_sdk_writes() -> None:
    response = VoiceResponse()
    say = response.say("Hi ")
    say.break_(strength="weak", time="1s")
    say.emphasis("there", level="strong")
    say.say_as("123", interpret_as="digits")
    result = voice(str(response))
    assert isinstance(result, Document)
    assert result.warnings == ()
    (verb,) = result.verbs
    assert verb.ssml == (  # type: ignore[attr-defined]
        '<speak>Hi <break strength="weak" time="1s"></break><emphasis level="strong">there</emphasis>'
        '<say-as interpret-as="digits">123</say-as></speak>'
    )


def test_a_voice_document_in_messaging_is_told_apart() -> None:
    result = parse(b"<Response><Say>x</Say></Response>", "text/xml")
    assert isinstance(result, Document)
    assert [warning.code for warning in result.warnings] == [14110]


def test_a_verb_of_messages_is_a_message_in_calls_too() -> None:
    result = voice("<Response><Message>x</Message></Response>")
    assert isinstance(result, Document)
    assert len(result.verbs) == 1


def test_plain_text_that_is_no_twiml_is_for_the_caller_to_speak() -> None:
    assert isinstance(voice("hello", "text/plain"), TwimlError)
    assert isinstance(voice(" \n<Response/>", "text/plain"), Document)


def test_content_keeps_its_order() -> None:
    root = read("<a>one<b>two</b>three<c/></a>")
    shown = [piece if isinstance(piece, str) else piece.name for piece in root.content]
    assert shown == ["one", "b", "three", "c"]
    assert root.text == "onethree"
    assert [child.name for child in root.children] == ["b", "c"]
    assert all(isinstance(child, Element) for child in root.children)

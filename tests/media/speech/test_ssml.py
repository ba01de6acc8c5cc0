"""SSML to a script of spans, pauses and bleeps."""

import pytest

from trunkline.media.speech.ssml import MAX_PAUSE_MS, BadSsml, Bleep, Pause, Script, Span, Style, parse

EN = Style("en-US")


def script(inner: str, language: str = "en-US") -> Script:
    return parse(f"<speak>{inner}</speak>", language)


def test_plain_text_is_one_span_whatever_is_in_it() -> None:
    assert parse("a < b & c", "de-DE").pieces == [Span("a < b & c", Style("de-DE"))]
    assert parse("  ", "de-DE").pieces == []


@pytest.mark.parametrize(
    ("attributes", "ms"),
    [
        ("", 250),
        ('time="2s"', 2000),
        ('time="300ms"', 300),
        ('time="0.5s"', 500),
        ('time="99s"', MAX_PAUSE_MS),
        ('time="soon"', 250),
        ('strength="strong"', 500),
        ('strength="x-strong"', 1000),
        ('strength="odd"', 250),
    ],
)
def test_breaks(attributes: str, ms: int) -> None:
    assert script(f"a<break {attributes}/>b").pieces == [Span("a", EN), Pause(ms), Span("b", EN)]


@pytest.mark.parametrize("strength", ["none", "x-weak"])
def test_breaks_that_are_none(strength: str) -> None:
    assert script(f'a<break strength="{strength}"/>b').pieces == [Span("a b", EN)]


def test_paragraphs_and_sentences_pause() -> None:
    assert script("<p>a</p><s>b</s>").pieces == [Span("a", EN), Pause(700), Span("b", EN), Pause(350)]


def test_lang_sub_w_and_phoneme() -> None:
    pieces = script(
        '<lang xml:lang="fr-FR">oui</lang><sub alias="World Wide Web">WWW</sub><w role="amazon:VB">read</w>'
        '<phoneme alphabet="ipa" ph="pɪˈkɑːn">pecan</phoneme><phoneme alphabet="x-sampa" ph="pI">pe</phoneme>'
    ).pieces
    assert pieces == [
        Span("oui", Style("fr-FR")),
        Span("World Wide Web read", EN),
        Span("pecan", EN, "pɪˈkɑːn"),
        Span("pe", EN),
    ]


@pytest.mark.parametrize(
    ("attributes", "style"),
    [
        ('rate="150%"', Style("en-US", rate=1.5)),
        ('rate="x-slow"', Style("en-US", rate=0.5)),
        ('rate="9000%"', Style("en-US", rate=2.0)),
        ('rate="-10%"', Style("en-US", rate=0.9)),
        ('pitch="+10%"', Style("en-US", pitch=1.1)),
        ('pitch="low"', Style("en-US", pitch=0.87)),
        ('pitch="+12st"', Style("en-US", pitch=2.0)),
        ('volume="loud"', Style("en-US", volume_db=4.0)),
        ('volume="-6dB"', Style("en-US", volume_db=-6.0)),
        ('volume="silent"', Style("en-US", volume_db=-96.0)),
        ('rate="fast" pitch="nonsense" volume="??"', Style("en-US", rate=1.25)),
    ],
)
def test_prosody(attributes: str, style: Style) -> None:
    (span,) = script(f"<prosody {attributes}>a</prosody>").pieces
    assert isinstance(span, Span)
    assert span.style.language == "en-US"
    assert span.style[1:] == pytest.approx(style[1:])


def test_styles_nest() -> None:
    (span,) = script('<prosody rate="150%"><emphasis level="strong">a</emphasis></prosody>').pieces
    assert isinstance(span, Span)
    assert span.style.rate == pytest.approx(1.5 * 0.85)
    assert span.style.volume_db == 4.0


@pytest.mark.parametrize(
    ("attributes", "text", "said"),
    [
        ('interpret-as="characters"', "Ab1@", "ay, bee, one, at"),
        ('interpret-as="spell-out"', "hi!", "aitch, eye, exclamation mark"),
        ('interpret-as="cardinal"', "1,234", "one thousand two hundred thirty-four"),
        ('interpret-as="number"', "-7", "minus seven"),
        ('interpret-as="cardinal"', "1000000", "one million"),
        ('interpret-as="ordinal"', "22", "twenty-second"),
        ('interpret-as="ordinal"', "30th", "thirtieth"),
        ('interpret-as="digits"', "4 07", "four zero seven"),
        ('interpret-as="fraction"', "3/20", "three twentieths"),
        ('interpret-as="fraction"', "1+1/2", "one and one half"),
        ('interpret-as="fraction"', "1/0", "1/0"),
        ('interpret-as="date" format="mdy"', "09/22/1970", "September twenty-second, nineteen seventy"),
        ('interpret-as="date" format="dmy"', "3.4.2005", "April third, two thousand five"),
        ('interpret-as="date" format="yyyymmdd"', "20261231", "December thirty-first, twenty twenty-six"),
        ('interpret-as="date" format="my"', "5/1907", "May, nineteen oh seven"),
        ('interpret-as="date" format="md"', "2/29", "February twenty-ninth"),
        ('interpret-as="date" format="mdy"', "13/45/2000", "13/45/2000"),
        ('interpret-as="time"', "1'21\"", "one minute twenty-one seconds"),
        ('interpret-as="time"', "2:30pm", "2:30pm"),
        (
            'interpret-as="telephone"',
            "+1 (415) 555-0100",
            "plus one, four one five, five five five, zero one zero zero",
        ),
        ('interpret-as="unit"', "5km", "5km"),
        ('interpret-as="address"', "1 Main St.", "1 Main St."),
        ('interpret-as="unknown"', "x", "x"),
    ],
)
def test_say_as(attributes: str, text: str, said: str) -> None:
    assert script(f"<say-as {attributes}>{text}</say-as>").text == " ".join(said.split())


def test_other_languages_keep_their_numbers() -> None:
    say = '<say-as interpret-as="{}">{}</say-as>'
    assert script(say.format("cardinal", "1234"), "de-DE").text == "1234"
    assert script(say.format("digits", "12"), "de-DE").text == "1 2"
    assert script(say.format("characters", "ab"), "de-DE").text == "A, B"


def test_expletives_bleep() -> None:
    assert script('oh <say-as interpret-as="expletive">no</say-as>').pieces == [Span("oh ", EN), Bleep()]


def test_unknown_elements_are_read_with_a_warning() -> None:
    found = script("<audio src='x'>hello</audio>")
    assert found.text == "hello"
    assert found.warnings == ["<audio> is not known in <Say>"]


@pytest.mark.parametrize(
    "text", ["<speak>a", "<speak>&unknown;</speak>", '<!DOCTYPE x [<!ENTITY a "b">]><speak>&a;</speak>']
)
def test_what_is_not_well_formed_is_refused_or_plain(text: str) -> None:
    if text.startswith("<speak"):
        with pytest.raises(BadSsml):
            parse(text, "en-US")
    else:
        assert parse(text, "en-US").pieces == [Span(text, EN)]


def test_very_many_pieces_are_bounded() -> None:
    assert len(script("".join(f"<break/>{n}" for n in range(1500))).pieces) <= 2000

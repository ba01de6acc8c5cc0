"""Voices and languages."""

import pytest

from trunkline.media.speech.voices import CHILD, MAN, POLLY, WOMAN, Voice, engine_versions, espeak_language, resolve


@pytest.mark.parametrize(
    ("voice", "language", "expected"),
    [
        ("", "", Voice("en-US")),
        ("woman", "de-DE", Voice("de-DE")),
        ("man", "", Voice("en-US", MAN)),
        ("alice", "fr-FR", Voice("fr-FR")),
        ("Polly.Hans", "en-US", Voice("de-DE", MAN)),
        ("Polly.Joanna-Neural", "", Voice("en-US")),
        ("Polly.Matthew-Generative", "", Voice("en-US", MAN)),
        ("polly.ivy", "", Voice("en-US", WOMAN, CHILD)),
        ("Polly.Mía-Generative", "", Voice("es-MX")),
        ("Google.es-US-Chirp3-HD-Charon", "", Voice("es-US", MAN)),
        ("Google.en-GB-Wavenet-A", "", Voice("en-GB")),
        ("Polly.Nobody", "it-IT", Voice("it-IT", known=False)),
        ("robot", "", Voice("en-US", known=False)),
        ("Google.x", "", Voice("en-US", known=False)),
    ],
)
def test_names(voice: str, language: str, expected: Voice) -> None:
    assert resolve(voice, language) == expected


def test_every_polly_voice_of_the_builders_is_known() -> None:
    names = """Aditi Amy Astrid Bianca Brian Camila Carla Carmen Celine Chantal Conchita Cristiano Dora Emma Enrique Ewa
    Filiz Geraint Giorgio Gwyneth Hans Ines Ivy Jacek Jan Joanna Joey Justin Karl Kendra Kevin Kimberly Lea Liv Lotte
    Lucia Lupe Mads Maja Marlene Mathieu Matthew Maxim Mia Miguel Mizuki Naja Nicole Penelope Raveena Ricardo Ruben
    Russell Salli Seoyeon Takumi Tatyana Vicki Vitoria Zeina Zhiyu Adriano Andres Aria Arlet Arthur Ayanda Burcu Daniel
    Danielle Elin Gabrielle Gregory Hala Hannah Hiujin Ida Isabelle Kajal Kazuha Laura Liam Lisa Niamh Ola Olivia Pedro
    Remi Ruth Sergio Sofie Stephen Suvi Thiago Tomoko Zayd"""
    assert [name for name in names.split() if name.lower() not in POLLY] == []


@pytest.mark.parametrize(
    ("language", "expected"),
    [("en-US", "en-us"), ("en-AU", "en-gb"), ("de-AT", "de"), ("arb", "ar"), ("zh-TW", "cmn"), ("zh-HK", "yue"),
     ("pt-BR", "pt-br"), ("fr-CA", "fr-fr"), ("nb-NO", "nb"), ("es-MX", "es-419"), ("pl-PL", "pl")],
)  # fmt: skip
def test_languages_of_espeak(language: str, expected: str) -> None:
    assert espeak_language(language) == expected


def test_versions_name_the_engines() -> None:
    assert "hibari-tts" in engine_versions()

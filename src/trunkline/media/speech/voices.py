"""The voices and languages of `<Say>`, mapped to what our engines have: a language, a gender, an age.

The names are Twilio's (contract of the SDK's builders): man, woman, alice, Polly.NAME[-Neural|-Generative] and
Google.LANGUAGE-KIND-LETTER. A Polly or Google voice brings its language with it. No NumPy, no engine in here: the node
uses this too.
"""

import importlib.metadata
from functools import lru_cache
from typing import Final, NamedTuple

DEFAULT_LANGUAGE: Final = "en-US"
WOMAN, MAN = "woman", "man"
ADULT, CHILD = "adult", "child"
MAX_NAME: Final = 100
"""Longest name of a voice or language that is looked at, characters."""


class Voice(NamedTuple):
    """`known` False: the name meant nothing to us and the default speaks."""

    language: str
    gender: str = WOMAN
    age: str = ADULT
    known: bool = True


_POLLY_WOMEN: Final = {
    "ar-AE": "Hala",
    "arb": "Zeina",
    "ca-ES": "Arlet",
    "cmn-CN": "Zhiyu",
    "cs-CZ": "Jitka",
    "cy-GB": "Gwyneth",
    "da-DK": "Naja Sofie",
    "de-AT": "Hannah",
    "de-DE": "Marlene Vicki",
    "en-AU": "Nicole Olivia",
    "en-GB": "Amy Emma",
    "en-IE": "Niamh",
    "en-IN": "Raveena Aditi Kajal",
    "en-NZ": "Aria",
    "en-US": "Danielle Joanna Kendra Kimberly Ruth Salli Ivy",
    "en-ZA": "Ayanda",
    "es-ES": "Conchita Lucia",
    "es-MX": "Mia Mía",
    "es-US": "Lupe Penelope",
    "fi-FI": "Suvi",
    "fr-BE": "Isabelle",
    "fr-CA": "Chantal Gabrielle",
    "fr-FR": "Celine Lea",
    "is-IS": "Dora",
    "it-IT": "Bianca Carla",
    "ja-JP": "Kazuha Mizuki Tomoko",
    "ko-KR": "Seoyeon Jihye",
    "nb-NO": "Ida Liv",
    "nl-BE": "Lisa",
    "nl-NL": "Laura Lotte",
    "pl-PL": "Ewa Maja Ola",
    "pt-BR": "Camila Vitoria",
    "pt-PT": "Ines",
    "ro-RO": "Carmen",
    "ru-RU": "Tatyana",
    "sv-SE": "Astrid Elin",
    "tr-TR": "Burcu Filiz",
    "yue-CN": "Hiujin",
}
_POLLY_MEN: Final = {
    "ar-AE": "Zayd",
    "da-DK": "Mads",
    "de-DE": "Daniel Hans",
    "en-AU": "Russell",
    "en-GB": "Arthur Brian",
    "en-GB-WLS": "Geraint",
    "en-US": "Gregory Joey Matthew Stephen Justin Kevin",
    "es-ES": "Enrique Sergio",
    "es-MX": "Andres",
    "es-US": "Miguel Pedro",
    "fr-CA": "Liam",
    "fr-FR": "Mathieu Remi Rémi",
    "is-IS": "Karl",
    "it-IT": "Adriano Giorgio",
    "ja-JP": "Takumi",
    "nl-NL": "Ruben",
    "pl-PL": "Jacek Jan",
    "pt-BR": "Ricardo Thiago",
    "pt-PT": "Cristiano",
    "ru-RU": "Maxim",
}
_CHILDREN: Final = frozenset({"ivy", "justin", "kevin"})

POLLY: Final = {
    name.lower(): Voice(language, gender, CHILD if name.lower() in _CHILDREN else ADULT)
    for gender, table in ((WOMAN, _POLLY_WOMEN), (MAN, _POLLY_MEN))
    for language, names in table.items()
    for name in names.split()
}
"""Amazon's voices by name, lower-case."""

_GOOGLE_MEN: Final = frozenset({"charon", "fenrir", "orus", "puck", "b", "d", "i", "j", "o"})
"""Google's names and letters whose voices are men in most languages; the letters differ per language."""


@lru_cache(maxsize=2000)
def resolve(voice: str, language: str) -> Voice:
    """What speaks when `<Say voice language>` says so; either may be empty."""
    name, wanted = voice.strip()[:MAX_NAME], language.strip()[:MAX_NAME]
    kind, _, rest = name.partition(".")
    match kind.lower():
        case "" | "woman" | "alice":
            return Voice(wanted or DEFAULT_LANGUAGE)
        case "man":
            return Voice(wanted or DEFAULT_LANGUAGE, MAN)
        case "polly":
            found = POLLY.get(rest.partition("-")[0].lower())
            if found is not None:
                return found
        case "google":
            parts = rest.split("-")
            if len(parts) > 2:
                gender = MAN if parts[-1].lower() in _GOOGLE_MEN else WOMAN
                return Voice("-".join(parts[:2]), gender)
    return Voice(wanted or DEFAULT_LANGUAGE, known=False)


ESPEAK: Final = {
    "arb": "ar",
    "ar": "ar",
    "cmn": "cmn",
    "zh": "cmn",
    "zh-HK": "yue",
    "yue": "yue",
    "en": "en-us",
    "en-GB": "en-gb",
    "en-GB-WLS": "en-gb",
    "en-IE": "en-gb",
    "en-AU": "en-gb",
    "en-NZ": "en-gb",
    "en-ZA": "en-gb",
    "en-IN": "en-gb",
    "es-MX": "es-419",
    "es-US": "es-419",
    "fr": "fr-fr",
    "fr-BE": "fr-be",
    "fr-CH": "fr-ch",
    "nb": "nb",
    "no": "nb",
    "pt": "pt",
    "pt-BR": "pt-br",
    "vi": "vi",
}
"""espeak-ng's names for languages, where they are not simply the language's code."""


def espeak_language(language: str) -> str:
    """espeak-ng's name for a language like `de-AT`; it may still not have that one."""
    code = language.partition("-")[0]
    return ESPEAK.get(language) or ESPEAK.get(code) or code.lower()


def is_english(language: str) -> bool:
    return language.partition("-")[0].lower() == "en"


def engine_versions() -> str:
    """The versions of the engines that are Python packages: a new one speaks texts anew."""
    versions = []
    for package in ("hibari-tts", "espeakng-loader"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join(versions)

"""The tones of telephone networks, as what a leg can be told to play.

Frequencies and cadences as ITU-T lists them (Operational Bulletin 781, "Various tones used in national networks",
after E.180). A tone that is modulated there (400 Hz by 25 Hz) is the two side tones that it consists of.
"""

from typing import Final

from trunkline.media.protocol import Tone

Part = tuple[tuple[int, ...], int]

LEVEL_DB: Final = -16
"""dBm0 of each frequency."""


def _cadence(frequencies: tuple[int, ...], *times_ms: int) -> Tone:
    """On, off, on, off..., for ever."""
    parts: list[Part] = [(frequencies if index % 2 == 0 else (), ms) for index, ms in enumerate(times_ms)]
    return Tone(parts=parts, level_db=LEVEL_DB)


def _once(*parts: Part) -> Tone:
    return Tone(parts=list(parts), ms=sum(ms for _, ms in parts), level_db=LEVEL_DB)


_DOUBLE: Final = (400, 200, 400, 2000)

RINGING: Final[dict[str, Tone]] = {
    "at": _cadence((420,), 1000, 5000),
    "au": _cadence((413, 438), *_DOUBLE),
    "be": _cadence((425,), 1000, 3000),
    "bg": _cadence((425,), 1000, 4000),
    "br": _cadence((425,), 1000, 4000),
    "ch": _cadence((425,), 1000, 4000),
    "cl": _cadence((400,), 1000, 3000),
    "cn": _cadence((450,), 1000, 4000),
    "cz": _cadence((425,), 1000, 4000),
    "de": _cadence((425,), 1000, 4000),
    "dk": _cadence((425,), 1000, 4000),
    "ee": _cadence((425,), 1000, 4000),
    "es": _cadence((425,), 1500, 3000),
    "fi": _cadence((425,), 1000, 4000),
    "fr": _cadence((440,), 1500, 3500),
    "gr": _cadence((425,), 1000, 4000),
    "hu": _cadence((425,), 1250, 3750),
    "il": _cadence((400,), 1000, 3000),
    "in": _cadence((375, 425), *_DOUBLE),
    "it": _cadence((425,), 1000, 4000),
    "jp": _cadence((384, 416), 1000, 2000),
    "lt": _cadence((425,), 1000, 4000),
    "mx": _cadence((425,), 1000, 4000),
    "my": _cadence((425,), *_DOUBLE),
    "nl": _cadence((425,), 1000, 4000),
    "no": _cadence((425,), 1000, 4000),
    "nz": _cadence((400, 450), *_DOUBLE),
    "ph": _cadence((425, 480), 1000, 4000),
    "pl": _cadence((425,), 1000, 4000),
    "pt": _cadence((425,), 1000, 5000),
    "ru": _cadence((425,), 800, 3200),
    "se": _cadence((425,), 1000, 5000),
    "sg": _cadence((401, 449), *_DOUBLE),
    "th": _cadence((400,), 1000, 4000),
    "tw": _cadence((440, 480), 1000, 2000),
    "uk": _cadence((400, 450), *_DOUBLE),
    "us": _cadence((440, 480), 2000, 4000),
    "us-old": _cadence((380, 460), 2000, 4000),
    "ve": _cadence((425,), 1000, 4000),
    "za": _cadence((367, 433), *_DOUBLE),
}
"""What a caller hears while it rings, by the names of `<Dial ringTone>`; each lasts until it is stopped."""

DEFAULT_RINGING: Final = "us"

BUSY: Final = _cadence((480, 620), 500, 500)
"""The North American busy tone."""
CONGESTION: Final = _cadence((480, 620), 250, 250)
"""All trunks busy (reorder)."""
NOT_IN_SERVICE: Final = _once(((985,), 380), ((1371,), 274), ((1777,), 380))
"""The special information tones before "the number is not in service" (ITU-T E.180, vacant code)."""
BEEP: Final = _once(((1000,), 400))
"""Before a recording."""


def ringing(country: str = "") -> Tone:
    """The ringing tone of a country; an unknown or empty name gives the default."""
    return RINGING.get(country.lower(), RINGING[DEFAULT_RINGING])

"""The tones of telephone networks."""

import msgspec
import pytest

from trunkline.media import tones
from trunkline.media.protocol import Tone

RING_TONES = [
    "at", "au", "be", "bg", "br", "ch", "cl", "cn", "cz", "de", "dk", "ee", "es", "fi", "fr", "gr", "hu", "il", "in",
    "it", "jp", "lt", "mx", "my", "nl", "no", "nz", "ph", "pl", "pt", "ru", "se", "sg", "th", "tw", "uk", "us",
    "us-old", "ve", "za",
]  # fmt: skip


def test_every_ring_tone_that_dial_names_is_there() -> None:
    assert set(tones.RINGING) == set(RING_TONES)


def test_ringing_tones_are_telephone_tones_that_repeat() -> None:
    for name, tone in tones.RINGING.items():
        assert tone.ms == 0, name
        assert [bool(frequencies) for frequencies, _ in tone.parts] == [True, False] * (len(tone.parts) // 2), name
        assert all(300 <= f <= 500 for frequencies, _ in tone.parts for f in frequencies), name
        assert 2.5 <= sum(ms for _, ms in tone.parts) / 1000 <= 6, name


@pytest.mark.parametrize(
    ("name", "frequencies"), [("uk", (400, 450)), ("US", (440, 480)), ("", (440, 480)), ("xx", (440, 480))]
)
def test_ringing_by_name(name: str, frequencies: tuple[int, ...]) -> None:
    assert tones.ringing(name).parts[0][0] == frequencies


@pytest.mark.parametrize("tone", [tones.BEEP, tones.NOT_IN_SERVICE])
def test_single_tones_end(tone: Tone) -> None:
    assert tone.ms == sum(ms for _, ms in tone.parts) < 1100


def test_tones_travel_over_the_control_protocol() -> None:
    for tone in (*tones.RINGING.values(), tones.BUSY, tones.CONGESTION, tones.BEEP, tones.NOT_IN_SERVICE):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(tone), type=Tone) == tone

"""Tones, keys and silence are told apart in G.711 audio."""

import numpy as np
import pytest

from trunkline.rtp import g711
from trunkline.testing.phones.heard import RATE
from trunkline.testing.phones.rtp_peer import decoded, encoded
from trunkline.testing.phones.tones import describe, find_silence, find_tone, keys, keys_in, pair_of, sine


def over_the_line(*pieces):
    return decoded(encoded(np.concatenate(pieces), g711.PCMU), g711.PCMU)


@pytest.mark.parametrize("key", "0123456789ABCD*#")
@pytest.mark.parametrize("on_ms", [50, 100])
def test_every_key_is_heard_once(key, on_ms):
    assert keys_in(over_the_line(sine((), 200), keys(key, on_ms, 60), sine((), 100))) == key


def test_keys_in_a_row_and_pressed_twice():
    assert keys_in(over_the_line(keys("11203#", 80, 80))) == "11203#"
    with pytest.raises(ValueError, match="no key"):
        pair_of("x")


def test_a_tone_is_found_where_it_is_and_no_other():
    audio = over_the_line(sine((), 300), sine((440,), 500), sine((350, 440), 500), sine((), 300))
    start, end = find_tone(audio, (440,), 400)
    assert abs(start - 300 * 8) <= 240
    assert end - start >= 400 * 8
    assert find_tone(audio, (440,), 600) is None
    assert find_tone(audio, (350, 440), 400)[0] >= 790 * 8
    assert find_tone(audio, (460,), 100) is None
    assert find_tone(audio, (440,), 400, start=1000 * 8) is None


def test_silence_lasts_as_long_as_asked():
    audio = over_the_line(sine((), 300), sine((440,), 500), sine((), 700))
    assert find_silence(audio, 290)[0] == 0
    assert find_silence(audio, 600)[0] == 800 * 8
    assert find_silence(audio, 800) is None
    assert find_silence(audio, 290, start=350 * 8)[0] == 800 * 8


def test_a_description_names_what_was_heard():
    rng = np.random.default_rng(1)
    noise = (rng.normal(size=RATE) * 2000).astype(np.int16)
    audio = over_the_line(sine((), 300), sine((440,), 500), sine((), 100), keys("5"), sine((350, 440), 1000), noise)
    words = describe(audio)
    assert words.startswith("0.3 s silence, 0.5 s tone 440 Hz at -16 dBm0, 0.1 s silence, key 5, ")
    assert "1.0 s tone 35" in words
    assert words.endswith("1.0 s sound at -15 dBm0")
    lost = np.ones(len(audio), bool)
    lost[: 300 * 8] = False
    assert describe(audio, lost).startswith("0.3 s lost")
    assert describe(audio[:0]) == "nothing"

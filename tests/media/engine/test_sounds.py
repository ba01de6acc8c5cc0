from pathlib import Path

import numpy as np
import pytest

from tests.media.helpers import until
from trunkline.media.engine.sounds import Sounds, read_pcm, render_keys, render_tone
from trunkline.media.engine.state import FRAME
from trunkline.media.protocol import Digits, Tone


def test_a_sound_can_be_read_across_its_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(np.arange(500, dtype="<i2").tobytes())
    sound = Sounds(background=False).file(str(tmp_path / "a"))
    assert (sound.ready, sound.failed, sound.cycle) == (True, False, 500)
    assert sound.samples[499 : 499 + FRAME].tolist() == [499, *range(FRAME - 1)]


def test_short_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\1\0\2\0\3")
    (tmp_path / "b").write_bytes(b"")
    sounds = Sounds(background=False)
    short, empty = sounds.file(str(tmp_path / "a")), sounds.file(str(tmp_path / "b"))
    assert short.cycle == 2
    assert short.samples[:4].tolist() == [1, 2, 1, 2]
    assert (empty.ready, empty.cycle) == (True, 0)


async def test_the_loader_works_beside(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    sounds = Sounds()
    good, bad = sounds.file(str(tmp_path / "a")), sounds.file(str(tmp_path / "none"))
    await until(lambda: good.ready and bad.failed)
    assert sounds.file(str(tmp_path / "a")) is good
    (tmp_path / "none").write_bytes(bytes(10))
    again = sounds.file(str(tmp_path / "none"))
    assert again is not bad
    await until(lambda: again.ready)
    sounds.close()


def test_the_cache_forgets_the_longest_unused(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(10_000))
    sounds = Sounds(background=False, cache_bytes=21_000)
    a, b = sounds.file(str(tmp_path / "a")), sounds.file(str(tmp_path / "b"))
    sounds.file(str(tmp_path / "a"))
    sounds.file(str(tmp_path / "c"))
    assert sounds.file(str(tmp_path / "a")) is a
    assert sounds.file(str(tmp_path / "b")) is not b


def test_tones_and_keys_have_their_lengths() -> None:
    assert len(render_tone(Tone(parts=[((440, 480), 2000), ((), 4000)]))) == 48_000
    assert len(render_tone(Tone(parts=[((425,), 0)]))) == 8000
    assert len(render_tone(Tone(parts=[]))) == 0
    assert len(render_keys(Digits(digits="1wW2", on_ms=50, off_ms=30))) == 8 * (80 + 500 + 1000 + 80)


def test_what_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="too long"):
        render_tone(Tone(parts=[((440,), 60_001), ((), 1)]))
    monkeypatch.setattr("trunkline.media.engine.sounds.MAX_SOUND_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(12))
    with pytest.raises(ValueError, match="too long"):
        read_pcm(str(tmp_path / "a"))

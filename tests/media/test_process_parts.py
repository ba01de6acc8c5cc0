"""Parts of the media process, in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.media.helpers import config
from trunkline.media import native, protocol
from trunkline.media.process import MAX_FAILED, STATS_EVERY, MediaProcess


@pytest.fixture
def process(tmp_path: Path) -> Iterator[MediaProcess]:
    process = MediaProcess(config(tmp_path, legs=4), native.load())
    yield process
    process.close()
    process.ports.close()


def test_an_error_in_a_tick_is_survived_and_many_in_a_row_are_not(
    process: MediaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        raise ZeroDivisionError

    first = process.engine.state.tick + 1
    with monkeypatch.context() as patch:
        patch.setattr(process.engine, "tick", fail)
        for number in range(first, first + MAX_FAILED - 1):
            process._advance(number)
        assert process.engine.state.tick == first + MAX_FAILED - 2
    process._advance(first + MAX_FAILED)
    with monkeypatch.context() as patch:
        patch.setattr(process.engine, "tick", fail)
        for number in range(MAX_FAILED - 1):
            process._advance(number)
        with pytest.raises(ZeroDivisionError):
            process._advance(first)


def test_statistics_are_told_every_five_seconds(process: MediaProcess) -> None:
    told = []
    number = process.engine.state.tick + 1
    for _ in range(2 * STATS_EVERY):
        process.engine.tick(number)
        process._housekeeping(number)
        told += [event for event in process.engine.events if isinstance(event, protocol.Stats)]
        process.engine.events.clear()
        number += 1
    assert len(told) == 2
    assert told[0].helper in ("compiled", "fallback")
    assert len(told[0].tick_us) == len(protocol.TICK_BOUNDS_US) + 1


def test_missed_ticks_are_counted(process: MediaProcess) -> None:
    following = process._tick(process.engine.state.tick - 10)
    assert process.stats.skipped >= 10
    assert process.stats.ticks == 1
    assert sum(process.stats.tick_us) == 1
    assert following == process.engine.state.tick + 1

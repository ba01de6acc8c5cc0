import os

import numpy as np
import pytest

from trunkline.media.engine import record_ring
from trunkline.media.engine.record_ring import ACTIVE, AUDIO, FRAME, START, STOP, RecordRing, RingMismatch


def frames(count: int, value: int) -> np.ndarray:
    return np.full((count, FRAME), value, np.int16)


def test_frames_and_controls_come_out_in_order_in_another_mapping() -> None:
    writer, fd = RecordRing.create(4, 16)
    reader = RecordRing(fd)
    slot = writer.open({"recording": "RE1", "leg": "CA1"})
    assert writer.put(np.array([slot]), np.array([0]), frames(1, 5), frames(1, -7)) == 1
    writer.control(slot, STOP, FRAME, {"why": "digit", "digit": "#"})
    taken = reader.take()
    assert taken["kind"].tolist() == [START, AUDIO, STOP]
    assert taken["sample"].tolist() == [0, 0, FRAME]
    assert taken[1]["inbound"].tolist() == [5] * FRAME
    assert taken[1]["outbound"].tolist() == [-7] * FRAME
    assert reader.details(taken[2]) == {"why": "digit", "digit": "#"}
    assert reader.details(taken[1]) == {}
    reader.release(3)
    assert len(reader.take()) == 0
    os.close(fd)


def test_what_was_not_released_is_taken_again_by_the_next_reader() -> None:
    writer, fd = RecordRing.create(4, 16)
    slot = writer.open({"recording": "RE1"})
    writer.put(np.array([slot]), np.array([0]), frames(1, 1), frames(1, 1))
    first = RecordRing(fd)
    assert len(first.take()) == 2
    second = RecordRing(fd)
    assert [(a.slot, a.state, a.description["recording"]) for a in second.active()] == [(slot, ACTIVE, "RE1")]
    assert len(second.take()) == 2


def test_a_full_ring_drops_frames_and_keeps_controls() -> None:
    writer, _fd = RecordRing.create(2, 4)
    slot = writer.open({"recording": "RE1"})
    slots = np.full(5, slot)
    assert writer.put(slots, np.arange(5) * FRAME, frames(5, 1), frames(5, 1)) == 3
    assert writer.dropped == 2
    writer.control(slot, STOP, 5 * FRAME, {"why": "stopped"})
    assert writer.held == 4
    writer.release(4)
    writer.flush()
    (entry,) = writer.take()
    assert (entry["kind"], entry["sample"]) == (STOP, 5 * FRAME)


def test_put_wraps_around() -> None:
    writer, _fd = RecordRing.create(2, 8)
    slot = writer.open({"recording": "RE1"})
    writer.put(np.full(5, slot), np.arange(5), frames(5, 1), frames(5, 1))
    writer.release(6)
    values = np.repeat(np.arange(6, dtype=np.int16)[:, None], FRAME, axis=1)
    assert writer.put(np.full(6, slot), np.arange(6), values, values) == 6
    seen: list[int] = []
    while len(taken := writer.take()):
        seen += taken["inbound"][:, 0].tolist()
        writer.release(len(taken))
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_completed_recording_is_told_once_and_its_slot_is_used_again() -> None:
    writer, fd = RecordRing.create(1, 8)
    reader = RecordRing(fd)
    slot = writer.open({"recording": "RE1"})
    assert writer.open({"recording": "RE2"}) == -1
    generation = reader.active()[0].generation
    assert reader.complete(slot, generation, {"duration_ms": 20, "gaps": [[0, 20]]})
    assert not reader.complete(slot, generation, {})
    assert writer.finished() == [(slot, {"recording": "RE1"}, {"duration_ms": 20, "gaps": [[0, 20]]})]
    writer.free(slot)
    assert writer.finished() == []
    assert writer.open({"recording": "RE2"}) == slot
    assert not reader.complete(slot, generation, {})


def test_too_long_descriptions_are_refused_and_too_long_results_lose_their_gaps() -> None:
    ring, _fd = RecordRing.create(1, 8)
    assert ring.open({"x": "y" * record_ring.DESCRIPTION_BYTES}) == -1
    slot = ring.open({"recording": "RE1"})
    assert ring.complete(slot, ring.active()[0].generation, {"peak": 3, "gaps": [[i, 20] for i in range(2000)]})
    assert ring.result(slot) == {"peak": 3, "gaps": []}


def test_foreign_memory_is_refused() -> None:
    fd = os.memfd_create("x")
    os.write(fd, b"\1" * 4096)
    with pytest.raises(RingMismatch):
        RecordRing(fd)

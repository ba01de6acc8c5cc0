import os

import numpy as np
import pytest

from trunkline.media import protocol
from trunkline.media.engine import state as state_module
from trunkline.media.engine.state import State, StateMismatch
from trunkline.media.native.interface import MISSING

SIZES = {"legs": 3, "slots": 5, "recordings": 4}


def test_a_second_mapping_goes_on_with_the_same_legs() -> None:
    first, fd = State.create(**SIZES, epoch=77)
    assert not first.taken_over
    first.active[1] = 1
    first.timestamp[1] = 2**32 - 1
    first.ring[1, :3] = (1, 2, 3)
    first.done = 12
    first.tick = 5
    assert first.next_event() == 78
    assert first.describe_leg(1, protocol.Open(leg="CA1", slot=2))
    second = State(fd, **SIZES, epoch=99)
    assert second.taken_over
    assert (second.epoch, second.done, second.tick, second.next_event()) == (77, 12, 5, 79)
    assert second.active.tolist() == [0, 1, 0]
    assert second.timestamp[1] == 2**32 - 1
    assert second.ring[1, :3].tolist() == [1, 2, 3]
    assert b"CA1" in second.leg_description(1)
    os.close(fd)


def test_fields_do_not_overlap_and_are_all_declared() -> None:
    state, _ = State.create(**SIZES)
    names = [name for name, _, _ in state._fields()]
    assert set(names) == set(State.__annotations__)
    for value, name in enumerate(names):
        if name != "detector":
            getattr(state, name).fill(value % 200)
    for value, name in enumerate(names):
        if name != "detector":
            assert (getattr(state, name) == value % 200).all(), name


def test_a_cleared_row_is_as_new() -> None:
    state, _ = State.create(**SIZES)
    blank = {
        name: getattr(state, name)[0].copy() for name, *_ in state._fields() if not name.startswith(("slot_", "rec_"))
    }
    blank["ring"] = np.full_like(blank["ring"], MISSING)  # written to with the first leg: 8 KB that few rows need
    state.peer[2] = 1
    state.ring[2] = 5
    state.detector[2]["run"] = 3
    state.clear(2)
    for name, value in blank.items():
        assert np.array_equal(getattr(state, name)[2], value), name


def test_other_layouts_and_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fd = State.create(**SIZES)
    with pytest.raises(StateMismatch):
        State(fd, legs=4, slots=5, recordings=4)
    monkeypatch.setattr(state_module, "LAYOUT", state_module.LAYOUT + 1)
    with pytest.raises(StateMismatch):
        State(fd, **SIZES)


def test_descriptions_that_are_too_long_are_refused() -> None:
    state, _ = State.create(**SIZES)
    assert not state.describe_play(0, protocol.Play(leg="x" * state_module.PLAY_BYTES, play="p", items=[]))
    assert state.play_description(0) == b""
    assert state.describe_play(0, protocol.Play(leg="x", play="p", items=[]))
    assert state.describe_play(0, None)
    assert state.play_description(0) == b""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import concat, gsm7
from trunkline.sms.concat import Assembly, Group, Part


def part(
    sequence: int,
    total: int = 3,
    *,
    reference: int = 7,
    payload: bytes | None = None,
    at: int = 1000,
    source: str = "15550001",
    width: concat.Width = 8,
) -> Part:
    octets = b"<%d>" % sequence if payload is None else payload
    return Part(source, "15550002", reference, total, sequence, width, 0, octets, at)


def decode(_: Part, octets: bytes) -> str:
    return gsm7.decode(octets)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_any_order_gives_the_text_once(order: tuple[int, ...]) -> None:
    assembly = Assembly()
    outcomes = [assembly.receive(part(number)) for number in order]
    assert [o.verdict for o in outcomes] == ["held", "held", "complete"]
    assert [o.finished for o in outcomes[:2]] == [[], []]
    (group,) = outcomes[2].finished
    assert group.complete
    assert concat.text_of(group, decode) == "<1><2><3>"
    assert len(assembly) == 0


def test_duplicates_are_recognised_before_and_after_completion() -> None:
    assembly = Assembly()
    verdicts = [assembly.receive(part(n)).verdict for n in (1, 1, 2, 3, 3, 1)]
    assert verdicts == ["held", "duplicate", "held", "complete", "duplicate", "duplicate"]
    assert len(assembly) == 0


@pytest.mark.parametrize(
    "other",
    [part(2, reference=8), part(2, 4), part(2, source="15550009"), part(2, width=16)],
)
def test_each_field_of_the_key_separates_messages(other: Part) -> None:
    assembly = Assembly()
    assembly.receive(part(1))
    assert assembly.receive(other).verdict == "held"
    assert len(assembly) == 2


def test_a_reference_used_again_flushes_what_was_held() -> None:
    assembly = Assembly()
    assembly.receive(part(1, payload=b"old"))
    outcome = assembly.receive(part(1, payload=b"new"))
    assert outcome.verdict == "held"
    assert [concat.text_of(g, decode) for g in outcome.finished] == ["old"]
    assembly.receive(part(2))
    (group,) = assembly.receive(part(3)).finished
    assert concat.text_of(group, decode) == "new<2><3>"


def test_time_limit_flushes_the_parts_that_came() -> None:
    assembly = Assembly(time_limit_ms=100)
    assembly.receive(part(1, at=1000))
    assembly.receive(part(3, at=1090))
    assert assembly.next_due_ms() == 1100
    assert assembly.due(1099) == []
    (group,) = assembly.due(1100)
    assert (group.complete, group.missing) == (False, [2])
    assert concat.text_of(group, decode) == "<1><3>"
    assert assembly.next_due_ms() is None


def test_a_late_part_after_the_time_limit_starts_again() -> None:
    assembly = Assembly(time_limit_ms=100)
    for number in (1, 2, 3):
        assembly.receive(part(number))
    assert assembly.receive(part(1, at=1101)).verdict == "held"


def test_an_overdue_group_is_flushed_by_the_next_part() -> None:
    assembly = Assembly(time_limit_ms=100)
    assembly.receive(part(1, at=1000))
    outcome = assembly.receive(part(1, reference=9, at=2000))
    assert [g.missing for g in outcome.finished] == [[2, 3]]


def test_the_number_of_groups_is_bounded() -> None:
    assembly = Assembly(max_groups=2)
    assert assembly.receive(part(1, reference=1)).finished == []
    assert assembly.receive(part(1, reference=2)).finished == []
    outcome = assembly.receive(part(1, reference=3))
    assert [g.key[2] for g in outcome.finished] == [1]
    assert len(assembly) == 2


def test_groups_survive_storage_and_restart() -> None:
    group = concat.add(None, part(2, payload=b"\x00\xff"))
    assert group is not None
    stored = msgspec.msgpack.encode(group)
    assembly = Assembly()
    assembly.restore([msgspec.msgpack.decode(stored, type=Group)])
    assert assembly.receive(part(2, payload=b"\x00\xff")).verdict == "duplicate"
    assembly.receive(part(1))
    (restored,) = assembly.receive(part(3)).finished
    assert restored.parts[2].payload == b"\x00\xff"


def test_an_escape_pair_split_by_the_sender_comes_out_whole() -> None:
    assembly = Assembly()
    assembly.receive(part(1, 2, payload=b"a\x1b"))
    (group,) = assembly.receive(part(2, 2, payload=b"<b")).finished
    assert concat.text_of(group, decode) == "a[b"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.binary(max_size=1))))
def test_every_new_payload_is_held_or_delivered_exactly_once(sent: list[tuple[int, int, int, bytes]]) -> None:
    assembly = Assembly(max_groups=3)
    accepted: list[Part] = []
    delivered: list[Part] = []
    for sequence, total, reference, payload in sent:
        if sequence > total:
            continue
        item = part(sequence, total, reference=reference, payload=payload)
        outcome = assembly.receive(item)
        if outcome.verdict != "duplicate":
            accepted.append(item)
        delivered += [p for g in outcome.finished for p in g.parts.values()]
    delivered += [p for g in assembly.due(1 << 50) for p in g.parts.values()]
    key = repr
    assert sorted(map(key, delivered)) == sorted(map(key, accepted))
    assert len(assembly) == 0

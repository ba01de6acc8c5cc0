import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import udh
from trunkline.sms.udh import Concat, Ports


@pytest.mark.parametrize(
    ("width", "reference", "octets"),
    [(8, 0xAB, "050003AB0302"), (16, 0xABCD, "060804ABCD0302")],
)
def test_concat_header_octets(width: int, reference: int, octets: str) -> None:
    header = udh.concat_header(reference, 3, 2, width)  # type: ignore[arg-type]
    assert header == bytes.fromhex(octets)
    parsed, body = udh.parse(header + b"rest")
    assert parsed.concat == Concat(reference, 3, 2, width)  # type: ignore[arg-type]
    assert (body, parsed.octets) == (b"rest", len(header))


def test_reference_wraps_to_its_width() -> None:
    assert udh.concat_header(0x1FF, 2, 1)[3] == 0xFF
    assert udh.concat_header(0x1FFFF, 2, 1, 16)[3:5] == b"\xff\xff"


def test_language_makes_the_header_nine_octets() -> None:
    header = udh.concat_header(1, 2, 1, language=1)
    assert len(header) == 9
    assert udh.parse(header)[0].single_shift == 1


def test_ports_and_unknown_elements_are_kept() -> None:
    elements = [(0x70, b"xyz"), (udh.PORTS_16, bytes.fromhex("23F40000")), (udh.PORTS_8, b"\x01\x02"), (0x25, b"\x03")]
    parsed, body = udh.parse(udh.build(elements))
    assert list(parsed.elements) == elements
    assert parsed.ports == Ports(1, 2, 8)
    assert parsed.locking_shift == 3
    assert body == b""
    assert udh.parse(udh.build(elements[:2]))[0].ports == Ports(0x23F4, 0, 16)


@pytest.mark.parametrize("concat", [(0, 1), (2, 0), (2, 3)])
def test_impossible_concat_is_ignored(concat: tuple[int, int]) -> None:
    parsed, body = udh.parse(bytes((5, 0, 3, 9, *concat)) + b"x")
    assert parsed.concat is None
    assert body == b"x"


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x05\x00", b"\x05\x00\x03\x01", b"\xff\x00\x03\x01\x02\x01"])
def test_truncated_headers_leave_an_empty_body(payload: bytes) -> None:
    parsed, body = udh.parse(payload)
    assert body == b""
    assert parsed.octets <= len(payload)


def test_whole_elements_before_a_truncated_one_count() -> None:
    assert udh.parse(b"\xff\x00\x03\x01\x02\x01\x70\x09x")[0].concat == Concat(1, 2, 1, 8)


@given(st.binary(max_size=300))
def test_parsing_any_octets_never_raises(payload: bytes) -> None:
    parsed, body = udh.parse(payload)
    assert parsed.octets + len(body) == len(payload)
    assert sum(2 + len(data) for _, data in parsed.elements) <= max(0, parsed.octets - 1)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=5), st.binary(max_size=20))
def test_build_and_parse_round_trip(elements: list[tuple[int, bytes]], body: bytes) -> None:
    parsed, rest = udh.parse(udh.build(elements) + body)
    assert (list(parsed.elements), rest) == (elements, body)


def test_too_long_headers_are_refused() -> None:
    with pytest.raises(udh.HeaderTooLongError):
        udh.build([(1, b"x" * 138)])

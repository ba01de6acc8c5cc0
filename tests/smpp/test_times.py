import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.smpp import times
from trunkline.smpp.times import TimeFormatError

NOW = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("quarters", "text"),
    [(0, "231114221320000+"), (4, "231114231320004+"), (-20, "231114171320020-"), (22, "231115034320022+")],
)
def test_absolute(quarters: int, text: str) -> None:
    assert times.absolute(NOW, quarters) == text
    assert times.parse(text, 0) == NOW


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "000000000000000R"),
        (60, "000000000100000R"),
        (3600, "000000010000000R"),
        (14400, "000000040000000R"),
        (2 * 86400 + 5, "000002000005000R"),
        (31 * 86400, "000101000000000R"),
        (365 * 86400, "010000000000000R"),
    ],
)
def test_relative(seconds: int, text: str) -> None:
    assert times.relative(seconds) == text
    assert times.parse(text, NOW) == NOW + 1000 * seconds


@given(st.integers(946684800_0, 4102444799_0 - 432000), st.integers(-48, 48))
def test_absolute_round_trips_to_the_tenth(tenths: int, quarters: int) -> None:
    ms = max(tenths * 100, 946684800_000 + 43_200_000)
    assert times.parse(times.absolute(ms, quarters), 0) == ms


@given(st.integers(0, times.MAX_RELATIVE_S))
def test_relative_round_trips(seconds: int) -> None:
    assert times.parse(times.relative(seconds), NOW) == NOW + 1000 * seconds


def test_empty_is_the_default() -> None:
    assert times.parse("", NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "231114221320000",
        "231114221320000X",
        "231314221320000+",
        "230230000000000+",
        "231114221320049+",
        "٢" * 15 + "+",
    ],
)
def test_bad_times(text: str) -> None:
    with pytest.raises(TimeFormatError):
        times.parse(text, NOW)


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{15}[-+R]", fullmatch=True))
def test_parsing_raises_nothing_else(text: str) -> None:
    try:
        times.parse(text, NOW)
    except TimeFormatError:
        pass


@pytest.mark.parametrize(("ms", "quarters"), [(-1, 0), (NOW, 49), (1 << 60, 0), (4_200_000_000_000, 0)])
def test_absolute_refuses_what_it_cannot_write(ms: int, quarters: int) -> None:
    with pytest.raises(TimeFormatError):
        times.absolute(ms, quarters)


@pytest.mark.parametrize("seconds", [-1, times.MAX_RELATIVE_S + 1])
def test_relative_refuses_what_it_cannot_write(seconds: int) -> None:
    with pytest.raises(TimeFormatError):
        times.relative(seconds)

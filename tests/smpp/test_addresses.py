import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.smpp import addresses
from trunkline.smpp.addresses import AddressError, Scheme


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("+15550001234", (1, 1, "15550001234")),
        ("15550001234", (1, 1, "15550001234")),
        ("+4512345", (1, 1, "4512345")),
        ("12345", (3, 0, "12345")),
        ("Trunkline", (5, 0, "Trunkline")),
        ("My Shop 24", (5, 0, "My Shop 24")),
        ("elevenchars", (5, 0, "elevenchars")),
    ],
)
def test_address(value: str, expected: tuple[int, int, str]) -> None:
    assert addresses.address(value) == expected


@pytest.mark.parametrize("value", ["", "twelve chars", "naïve", "tab\t", "+", "1" * 21])
def test_addresses_that_cannot_travel(value: str) -> None:
    with pytest.raises(AddressError):
        addresses.address(value)


def test_a_route_overrides_each_kind() -> None:
    scheme = Scheme(international=(0, 1), short_code=(6, 9), alphanumeric=(5, 1), plus=True)
    assert addresses.address("+15550001234", scheme) == (0, 1, "+15550001234")
    assert addresses.address("12345", scheme) == (6, 9, "12345")
    assert addresses.address("Shop", scheme) == (5, 1, "Shop")


@pytest.mark.parametrize(
    ("ton", "value", "expected"),
    [
        (1, "15550001234", "+15550001234"),
        (0, "15550001234", "+15550001234"),
        (0, "0015550001234", "+15550001234"),
        (0, "+15550001234", "+15550001234"),
        (2, "5550001234", "5550001234"),
        (3, "12345", "12345"),
        (0, "12345", "12345"),
        (5, "12345678901", "12345678901"),
        (5, "Shop", "Shop"),
    ],
)
def test_number(ton: int, value: str, expected: str) -> None:
    assert addresses.number(ton, value) == expected


@given(st.integers(0, 255), st.text(max_size=30))
def test_any_received_address_is_taken(ton: int, value: str) -> None:
    assert addresses.number(ton, value).lstrip("+").endswith(value.lstrip("+0")) or not value.isdecimal()

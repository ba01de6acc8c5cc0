"""Host headers, path prefixes, formats and proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api import address
from trunkline.api.respond import Format


@pytest.mark.parametrize(
    ("raw", "product"),
    [
        (b"api.twilio.com", "api"),
        (b"API.Twilio.com:443", "api"),
        (b"messaging.twilio.com", "messaging"),
        (b"messaging.sydney.au1.twilio.com", "messaging"),
        (b"lookups.example.org:8443", "lookups"),
        (b"monitor.localhost", "monitor"),
        (b"localhost:8080", ""),
        (b"messaging:8080", ""),  # a container's bare name
        (b"127.0.0.1:8080", ""),
        (b"[::1]:8080", ""),
        (b"sms.example.com", ""),
    ],
)
def test_products_of_hosts(raw: bytes, product: str) -> None:
    assert address.parse_host(raw) == (raw.decode(), product)


@pytest.mark.parametrize("raw", [b"", b"a b", b"a/b", b"a:b", b'a"', b"a" * 300, b"x:123456", b"\xff", b"a\n", b"a@b"])
def test_malformed_hosts(raw: bytes) -> None:
    assert address.parse_host(raw) is None


@pytest.mark.parametrize(
    ("path", "host", "product", "segments", "prefix", "format_"),
    [
        ("/2010-04-01/Accounts.json", "", "api", ["2010-04-01", "Accounts"], "", Format.JSON),
        ("/2010-04-01/Accounts", "api", "api", ["2010-04-01", "Accounts"], "", Format.XML),
        ("/2010-04-01/Accounts.xml", "api", "api", ["2010-04-01", "Accounts"], "", Format.XML),
        ("/2010-04-01/Accounts.csv", "api", "api", ["2010-04-01", "Accounts"], "", Format.CSV),
        ("/2010-04-01/Accounts", "messaging", "api", ["2010-04-01", "Accounts"], "", Format.XML),
        ("/2010-04-01/A/x.y", "", "api", ["2010-04-01", "A", "x.y"], "", Format.XML),
        ("/2010-04-01/A/.json", "", "api", ["2010-04-01", "A", ".json"], "", Format.XML),
        ("/v1/Services", "messaging", "messaging", ["v1", "Services"], "", Format.JSON),
        ("/messaging/v1/Services", "", "messaging", ["v1", "Services"], "/messaging", Format.JSON),
        ("/lookups/v2/PhoneNumbers/x", "api", "lookups", ["v2", "PhoneNumbers", "x"], "/lookups", Format.JSON),
        ("/v1/Services", "", "api", ["v1", "Services"], "", Format.JSON),
        ("/", "", "api", [""], "", Format.JSON),
    ],
)
def test_locate(path: str, host: str, product: str, segments: list[str], prefix: str, format_: Format) -> None:
    assert address.locate(path, host) == (product, segments, prefix, format_)


@given(st.text(max_size=100), st.sampled_from(["", "api", "messaging"]))
def test_locate_takes_any_path(path: str, product: str) -> None:
    assert address.locate("/" + path, product).product


def test_the_client_is_the_nearest_untrusted_hop() -> None:
    proxies = address.Proxies(("10.0.0.0/8", "::1"))
    header = {b"x-forwarded-for": b"203.0.113.9, 198.51.100.7, 10.1.1.1"}
    assert proxies.client("10.0.0.1", header) == "198.51.100.7"
    assert proxies.client("::1", header) == "198.51.100.7"
    assert proxies.client("192.0.2.1", header) == "192.0.2.1"
    assert proxies.client("10.0.0.1", {}) == "10.0.0.1"
    assert not proxies.trusts("garbage")
    assert not address.Proxies()
    with pytest.raises(ValueError, match="does not appear"):
        address.Proxies(("not a network",))

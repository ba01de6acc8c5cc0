"""The cookie jar of a conversation."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.webhooks.cookies import CookieJar

NOW = 1_700_000_000_000


def jar(*headers: str, host: str = "app.x.test", path: str = "/sms/in?q=1") -> CookieJar:
    made = CookieJar()
    made.store(host, path, headers, NOW)
    return made


def sent(made: CookieJar, url: str = "https://app.x.test/sms/in", now: int = NOW) -> str:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return made.header(scheme, host, "/" + path, now)


def test_what_was_set_is_sent_back() -> None:
    assert sent(jar("a=1; Path=/", "b=x=y; HttpOnly; Path=/")) == "a=1; b=x=y"


def test_the_newest_value_counts() -> None:
    made = jar("a=1", "b=1")
    made.store("app.x.test", "/sms/in", ["a=2"], NOW)
    assert sorted(sent(made).split("; ")) == ["a=2", "b=1"]


@pytest.mark.parametrize(
    ("header", "url", "expected"),
    [
        ("a=1", "https://app.x.test/sms", "a=1"),
        ("a=1", "https://app.x.test/smsx", ""),
        ("a=1", "https://app.x.test/", ""),
        ("a=1; Path=/sms", "https://app.x.test/sms/out", "a=1"),
        ("a=1; Path=/", "https://b.app.x.test/", ""),
        ("a=1; Path=/; Domain=.x.test", "https://other.x.test/", "a=1"),
        ("a=1; Path=/; Domain=x.test", "https://evil-x.test/", ""),
        ("a=1; Path=/; Domain=test", "https://app.x.test/", ""),
        ("a=1; Path=/; Domain=y.test", "https://y.test/", ""),
        ("a=1; Path=/; Secure", "http://app.x.test/", ""),
        ("a=1; Path=/; Secure", "https://app.x.test/", "a=1"),
    ],
)
def test_where_a_cookie_goes(header: str, url: str, expected: str) -> None:
    assert sent(jar(header), url) == expected


@pytest.mark.parametrize(
    "header",
    ["a=1; Path=/; Max-Age=60", "a=1; Path=/; Expires=Tue, 14 Nov 2023 22:14:20 GMT"],
)
def test_expiry(header: str) -> None:
    made = jar(header)
    assert sent(made, now=NOW + 59_000) == "a=1"
    assert sent(made, now=NOW + 61_000) == ""


def test_a_cookie_can_be_taken_back() -> None:
    made = jar("a=1; Path=/")
    made.store("app.x.test", "/", ["a=; Path=/; Max-Age=0"], NOW)
    assert made.cookies == []


@pytest.mark.parametrize("header", ["", "a", "=1", "a b=1", "a=\x01", "a=ü", "a=" + "x" * 5000])
def test_what_is_not_valid_is_ignored(header: str) -> None:
    assert jar(header).cookies == []


def test_bounds() -> None:
    made = CookieJar()
    for n in range(200):
        made.store("x.test", "/", [f"c{n}={'v' * 1000}; Path=/"], NOW)
    assert len(made.cookies) == 50
    assert made.cookies[-1].name == "c199"
    assert len(sent(made, "https://x.test/")) <= 8192


def test_a_jar_can_be_stored() -> None:
    made = jar("a=1; Path=/; Secure")
    again = msgspec.json.decode(msgspec.json.encode(made), type=CookieJar)
    assert sent(again) == "a=1"


@given(st.lists(st.text(max_size=80), max_size=5))
def test_no_header_raises(headers: list[str]) -> None:
    made = jar(*headers)
    assert "\n" not in sent(made)
    assert sent(made).isascii()

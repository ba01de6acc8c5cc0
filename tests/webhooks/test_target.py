"""URLs taken apart: what is signed, requested and connected to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.webhooks.failures import Failure, HostRefused, InvalidUrl
from trunkline.webhooks.http import build_request
from trunkline.webhooks.target import target


@pytest.mark.parametrize(
    ("url", "signed", "host", "port", "path", "host_header"),
    [
        ("https://x.test/a?b=c#rc=1", "https://x.test/a?b=c", "x.test", 443, "/a?b=c", "x.test"),
        ("http://x.test", "http://x.test/", "x.test", 80, "/", "x.test"),
        ("https://x.test?b=c", "https://x.test/?b=c", "x.test", 443, "/?b=c", "x.test"),
        ("https://x.test/a?", "https://x.test/a?", "x.test", 443, "/a?", "x.test"),
        ("https://x.test:443/a", "https://x.test/a", "x.test", 443, "/a", "x.test"),
        ("https://x.test:80/a", "https://x.test:80/a", "x.test", 80, "/a", "x.test:80"),
        ("https://X.Test:8443/A", "https://X.Test:8443/A", "x.test", 8443, "/A", "X.Test:8443"),
        ("https://u:p%40@x.test/a", "https://u:p%40@x.test/a", "x.test", 443, "/a", "x.test"),
        ("http://[2001:DB8::1]:81/", "http://[2001:DB8::1]:81/", "2001:db8::1", 81, "/", "[2001:DB8::1]:81"),
        ("https://x.test/ü b", "https://x.test/%C3%BC%20b", "x.test", 443, "/%C3%BC%20b", "x.test"),
        ("https://bücher.test/", "https://xn--bcher-kva.test/", "xn--bcher-kva.test", 443, "/", "xn--bcher-kva.test"),
        (
            "https://bücher.test:81/",
            "https://xn--bcher-kva.test:81/",
            "xn--bcher-kva.test",
            81,
            "/",
            "xn--bcher-kva.test:81",
        ),
    ],
)
def test_parts(url: str, signed: str, host: str, port: int, path: str, host_header: str) -> None:
    made = target(url)
    assert (made.url, made.host, made.port, made.path, made.host_header) == (signed, host, port, path, host_header)


def test_userinfo_is_unquoted_and_never_shown() -> None:
    made = target("https://us%3Aer:p%40ss@x.test:81/a")
    assert (made.user, made.password) == ("us:er", "p@ss")
    assert made.shown == "https://us:er:***@x.test:81/a"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.test/a",
        "/a",
        "ftp://x.test/",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "https://x.test:0/",
        "https://x.test:99999/",
        "https://x.test:a/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://x..test/",
        "https://-x.test/",
        "https://" + "a" * 64 + ".test/",
        "https://" + "a." * 130 + "test/",
        "https://x.test/a\r\nX: y",
        "https://x.test\\@y.test/",
        "https://x test/",
        "https://x.test/" + "a" * 5000,
    ],
)
def test_urls_that_cannot_be_requested(url: str) -> None:
    with pytest.raises(InvalidUrl):
        target(url)


def test_underscores_in_host_names_are_refused() -> None:
    with pytest.raises(HostRefused, match="underscore"):
        target("https://my_host.test/")
    assert target("https://x.test/my_path").path == "/my_path"


@given(st.text(max_size=80).map("https://x.test/".__add__) | st.text(max_size=80))
def test_whatever_is_accepted_can_be_sent(url: str) -> None:
    try:
        made = target(url)
    except Failure:
        return
    assert build_request("GET", made.path, made.host_header, []).count(b"\r\n") == 3

"""Relative URLs of a document."""

from __future__ import annotations

import pytest

from trunkline.twiml import resolve


@pytest.mark.parametrize(
    ("base", "reference", "expected"),
    [
        ("https://a.test/x/y?q=1", "z", "https://a.test/x/z"),
        ("https://a.test/x/y?q=1", "/z?r=2", "https://a.test/z?r=2"),
        ("https://a.test/x/y?q=1", "?r=2", "https://a.test/x/y?r=2"),
        ("https://a.test/x/y?q=1", "", "https://a.test/x/y?q=1"),
        ("https://a.test/x/y?q=1", " \n", "https://a.test/x/y?q=1"),
        ("https://a.test/x", "//b.test/y", "https://b.test/y"),
        ("https://a.test/x", "http://c.test/y", "http://c.test/y"),
        ("https://u:p@a.test:8443/x", "y", "https://u:p@a.test:8443/y"),
        ("https://a.test/x", "y#rc=2", "https://a.test/y#rc=2"),
        (None, "https://a.test/", "https://a.test/"),
        (None, "/relative", None),
        (None, "", None),
        ("https://a.test/x", "ftp://a.test/y", None),
        ("https://a.test/x", "javascript:alert(1)", None),
        ("https://a.test/x", "http://[::1", None),
        ("https://a.test/x", "http:///path", None),
    ],
)
def test_resolve(base: str | None, reference: str, expected: str | None) -> None:
    assert resolve(base, reference) == expected

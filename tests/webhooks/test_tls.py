"""The certificate's name, checked by us when no SNI is sent."""

from __future__ import annotations

import pytest

from trunkline.webhooks.tls import matches


@pytest.mark.parametrize(
    ("kind", "name", "host", "expected"),
    [
        ("DNS", "x.test", "x.test", True),
        ("DNS", "X.Test", "x.test", True),
        ("DNS", "x.test", "x.test.", True),
        ("DNS", "x.test", "y.x.test", False),
        ("DNS", "*.x.test", "y.x.test", True),
        ("DNS", "*.x.test", "x.test", False),
        ("DNS", "*.x.test", "z.y.x.test", False),
        ("DNS", "*.test", "x.test", False),
        ("DNS", "*", "x", False),
        ("DNS", "y*.x.test", "yz.x.test", False),
        ("DNS", "127.0.0.1", "127.0.0.1", False),
        ("IP Address", "127.0.0.1", "127.0.0.1", True),
        ("IP Address", "127.0.0.1", "127.0.0.2", False),
        ("IP Address", "2001:DB8:0:0:0:0:0:1", "2001:db8::1", True),
        ("IP Address", "nonsense", "127.0.0.1", False),
        ("email", "x.test", "x.test", False),
    ],
)
def test_names(kind: str, name: str, host: str, expected: bool) -> None:
    assert matches({"subjectAltName": ((kind, name),)}, host) is expected


def test_a_certificate_without_names_is_for_nobody() -> None:
    assert not matches({"subject": ((("commonName", "x.test"),),)}, "x.test")

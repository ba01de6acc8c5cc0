"""The Replaces header: RFC 3891 section 6.1."""

import pytest

from trunkline.sip.message import MalformedMessage, Request
from trunkline.sip.replaces import Replaces, replaces_of


def invite(*values):
    return Request.make("INVITE", "sip:a@b", headers=[("Replaces", value) for value in values])


def test_what_is_replaced():
    assert replaces_of(invite()) is None
    assert replaces_of(invite("98732@x.example;from-tag=r33th4x0r;to-tag=ff87ff")) == Replaces(
        "98732@x.example", "ff87ff", "r33th4x0r", early_only=False
    )
    found = replaces_of(invite("1;to-tag=a;from-tag=b;early-only"))
    assert found is not None
    assert found.early_only


@pytest.mark.parametrize(
    "values",
    [("1",), ("1;to-tag=a",), (";to-tag=a;from-tag=b",), ("1;to-tag=a;from-tag=b",) * 2, ('1;to-tag="a;from-tag=b',)],
)
def test_what_is_none(values):
    with pytest.raises(MalformedMessage):
        replaces_of(invite(*values))

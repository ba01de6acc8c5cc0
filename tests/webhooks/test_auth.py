"""Basic and Digest, against the RFCs' own examples."""

from __future__ import annotations

from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.webhooks.auth import Login, authorization, challenges, choose

REALM = "http-auth@example.org"
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, expected: str) -> None:
    header = f'Digest realm="{REALM}", qop="auth, auth-int", algorithm={algorithm}, nonce="{NONCE}", opaque="{OPAQUE}"'
    login = choose([header])
    assert login is not None
    value = authorization(login, "Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE)
    assert value is not None
    assert f'response="{expected}"' in value
    ((scheme, fields),) = challenges([value])
    assert scheme == "digest"
    assert fields["username"] == "Mufasa"
    assert (fields["nc"], fields["cnonce"], fields["opaque"]) == ("00000001", CNONCE, OPAQUE)


def test_without_qop_as_in_rfc_2069() -> None:
    login = choose(['Digest realm="r", nonce="n"'])
    assert login is not None
    value = authorization(login, "u", "p", "POST", "/x", "c")
    first, second = md5(b"u:r:p").hexdigest(), md5(b"POST:/x").hexdigest()
    expected = md5(f"{first}:n:{second}".encode()).hexdigest()
    assert value is not None
    assert f'response="{expected}"' in value
    assert "qop" not in value


def test_basic() -> None:
    assert (
        authorization(Login("basic"), "Aladdin", "open sesame", "GET", "/", "") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )


@pytest.mark.parametrize(
    ("headers", "scheme", "algorithm"),
    [
        (['Basic realm="x"'], "basic", ""),
        (["Basic"], "basic", ""),
        (['Basic realm="x", Digest realm="y", nonce="n"'], "digest", "md5"),
        (
            ['Digest realm="y", nonce="n", algorithm=MD5', 'Digest realm="y", nonce="n", algorithm=SHA-256'],
            "digest",
            "sha-256",
        ),
        (['Negotiate, Basic realm="a, Digest b"'], "basic", ""),
        (['Digest realm="y", nonce="n", algorithm=MD5-sess, qop="auth"'], "digest", "md5-sess"),
    ],
)
def test_the_strongest_is_chosen(headers: list[str], scheme: str, algorithm: str) -> None:
    login = choose(headers)
    assert login is not None
    assert (login.scheme, login.algorithm) == (scheme, algorithm)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Negotiate",
        "Bearer realm=x",
        'Digest realm="x"',
        'Digest realm="x", nonce="n", algorithm=MD4',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="\u00fc", nonce="n"',
        "Basic " + "a" * 5000,
    ],
)
def test_what_cannot_be_answered(header: str) -> None:
    assert choose([header]) is None


def test_quotes_are_escaped() -> None:
    login = choose([r'Digest realm="a\"b", nonce="n"'])
    assert login is not None
    assert login.realm == 'a"b'
    value = authorization(login, 'u"', "p", "GET", "/", "c")
    assert value is not None
    assert r'username="u\"", realm="a\"b"' in value
    assert authorization(login, "ü", "p", "GET", "/", "c") is None


@given(st.text(max_size=200))
def test_no_header_raises(header: str) -> None:
    login = choose([header])
    if login is not None:
        value = authorization(login, "u", "p", "GET", "/", "c")
        assert value is not None
        assert value.isascii()

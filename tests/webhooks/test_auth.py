"""Basic and Digest, against the RFCs' own examples."""

from __future__ import annotations

import time
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.webhooks import auth
from trunkline.webhooks.auth import MAX_CHALLENGE_HEADERS, Login, authorization, challenges, choose

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


@pytest.mark.parametrize(
    "beginning", ["Basic a=1", "Basic", "Basic a", "Basic a=", "Basic ,", 'Basic a="', "Basic a=1,", ""]
)
@pytest.mark.parametrize("filling", [" ", "\t", "a", ", ", "a ", "=", '\\"', "-"])
def test_a_long_header_is_read_in_little_time(monkeypatch: pytest.MonkeyPatch, beginning: str, filling: str) -> None:
    """On the event loop, so in a time that grows with its length only: with the square of it, minutes for this one."""
    length = 80_000
    monkeypatch.setattr(auth, "MAX_CHALLENGE_CHARACTERS", length)
    header = (beginning + filling * length)[: length - 1] + "!"
    began = time.process_time()
    challenges([header])
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "header", ['Basic  realm = "x" ,  Digest\trealm=y,nonce =n', ' , Basic realm="x", , Digest realm=y , nonce= n']
)
def test_white_space_does_not_matter(header: str) -> None:
    found = challenges([header])
    assert [scheme for scheme, _ in found][:1] == ["basic"]
    assert found[0][1]["realm"] == "x"


def test_headers_behind_the_first_few_are_not_looked_at() -> None:
    digest = 'Digest realm="y", nonce="n"'
    login = choose(["Basic"] * (MAX_CHALLENGE_HEADERS - 1) + [digest])
    assert login is not None
    assert login.scheme == "digest"
    login = choose(["Basic"] * MAX_CHALLENGE_HEADERS + [digest])
    assert login is not None
    assert login.scheme == "basic"

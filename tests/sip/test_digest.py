"""Digest authentication, by the RFCs' own examples."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.sip import digest as d
from trunkline.sip.digest import Freshness, Nonces, answer, challenge, ha1, parse_challenge, parse_credentials, verify
from trunkline.sip.errors import MalformedMessage

RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616_section_3_9_1(algorithm: str, response: str) -> None:
    asked = parse_challenge(RFC_7616.format(algorithm=algorithm))
    assert asked.qop == ("auth", "auth-int")
    value = answer(asked, "Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE, 1)
    given_ = parse_credentials(value)
    assert given_.response == response
    assert (given_.qop, given_.nc, given_.opaque) == ("auth", 1, asked.opaque)
    stored = {algorithm: ha1(algorithm, "Mufasa", asked.realm, "Circle of Life")}
    assert verify(given_, stored, "GET")
    assert not verify(given_, stored, "PUT")


@pytest.mark.skipif("SHA-512-256" not in d.ALGORITHMS, reason="this OpenSSL lacks SHA-512/256")
def test_rfc_7616_section_3_9_2() -> None:
    # As errata 4897 corrects it.
    asked = parse_challenge(
        'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", '
        'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", charset=UTF-8, userhash=true'
    )
    cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"
    given_ = parse_credentials(answer(asked, "Jäsøn Doe", "Secret, or not?", "GET", "/doe.json", cnonce, 1))
    assert given_.username == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert given_.response == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"


def test_rfc_2617_section_3_5() -> None:
    given_ = parse_credentials(
        'Digest username="Mufasa",realm="testrealm@host.com",nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",\r\n '
        'uri="/dir/index.html",qop=auth,nc=00000001,cnonce="0a4f113b",'
        'response="6629fae49393a05397450978507c4ef1",opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert given_.algorithm == "MD5"
    assert verify(given_, {"MD5": ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")}, "GET")
    assert not verify(given_, {"MD5": ha1("MD5", "Mufasa", "testrealm@host.com", "circle of life")}, "GET")
    assert not verify(given_, {"SHA-256": ha1("SHA-256", "Mufasa", "testrealm@host.com", "Circle Of Life")}, "GET")


def test_rfc_2069_without_qop() -> None:
    a1, a2 = (hashlib.md5(text).hexdigest() for text in (b"u:r:p", b"REGISTER:sip:h"))
    expected = hashlib.md5(f"{a1}:n:{a2}".encode()).hexdigest()
    value = answer(parse_challenge('Digest realm="r", nonce="n"'), "u", "p", "REGISTER", "sip:h", "c", 1)
    given_ = parse_credentials(value)
    assert (given_.response, given_.qop, given_.nc) == (expected, "", 0)
    assert "cnonce" not in value
    assert verify(given_, {"MD5": a1}, "REGISTER")


@pytest.mark.parametrize("algorithm", [name + suffix for name in d.ALGORITHMS for suffix in ("", "-sess")])
@pytest.mark.parametrize("qop", [("auth",), ("auth-int",), ()])
def test_both_ends_agree(algorithm: str, qop: tuple[str, ...]) -> None:
    asked = parse_challenge(challenge('re"alm', "n0", algorithm, qop, stale=True))
    assert (asked.realm, asked.algorithm, asked.qop, asked.stale) == ('re"alm', algorithm, qop, True)
    given_ = parse_credentials(answer(asked, 'u"\\ser', "pass", "INVITE", "sip:b@h", "c0", 0x1F, b"body"))
    assert given_.username == 'u"\\ser'
    assert given_.nc == (0x1F if qop else 0)
    base = algorithm.removesuffix("-sess")
    stored = {base: ha1(base, 'u"\\ser', 're"alm', "pass")}
    assert verify(given_, stored, "INVITE", b"body")
    assert verify(given_, stored, "INVITE", b"other") == (qop != ("auth-int",))
    assert not verify(given_, {base: "0" * 32}, "INVITE", b"body")


def test_what_cannot_be_answered() -> None:
    for value in ('Digest realm="r", nonce="n", algorithm=SHA-3', 'Digest realm="r", nonce="n", qop="strange"'):
        asked = parse_challenge(value)
        assert not asked.answerable
        with pytest.raises(ValueError, match="cannot answer"):
            answer(asked, "u", "p", "INVITE", "sip:h", "c", 1)
    given_ = parse_credentials('Digest username="u",realm="r",nonce="n",uri="x",response="0",algorithm=SHA-3')
    assert not verify(given_, {"SHA-3": "x"}, "INVITE")


@pytest.mark.parametrize(
    "value",
    [
        "", "Digest", "Basic abc", "Digest realm", 'Digest realm="r', 'Digest realm="r" nonce="n"', 'Digest nonce="n"',
        "Digest " + "a=b," * 40, 'Digest realm="r",nonce="n",username="u",uri="x"',
        'Digest username="u",realm="r",nonce="n",uri="x",response="0",qop=auth,cnonce="c",nc=1',
        'Digest username="u",realm="r",nonce="n",uri="x",response="0",qop=auth,nc=00000001',
        "Digest " + "a" * 30_000, 'Digest a="' + "\\" * 30_000,
    ],
)  # fmt: skip
def test_malformed_values(value: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_credentials(value)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='Digest realm="nonce,\\uri:rsp\x00é', max_size=60))
def test_any_text_is_taken_or_malformed(text: str) -> None:
    for start in ("", "Digest ", 'Digest username="u",realm="r",nonce="n",uri="x",response="é",'):
        for read in (parse_challenge, parse_credentials):
            try:
                value = read(start + text)
            except MalformedMessage:
                continue
            if isinstance(value, d.Credentials):
                assert not verify(value, {"MD5": "0" * 32}, "INVITE")


NOW_S = 1_700_000_000.5


def test_a_nonce_is_ours_for_its_source_and_time() -> None:
    nonces, elsewhere = Nonces(b"secret"), Nonces(b"secret")
    nonce = nonces.make(NOW_S, "192.0.2.1", "r")
    assert nonce != nonces.make(NOW_S, "192.0.2.1", "r")
    for node in (nonces, elsewhere):
        assert node.check(nonce, NOW_S + d.NONCE_LIFETIME_S, "192.0.2.1", "r") is Freshness.FRESH
        assert node.check(nonce, NOW_S + d.NONCE_LIFETIME_S + 1, "192.0.2.1", "r") is Freshness.STALE
        assert node.check(nonce, NOW_S, "192.0.2.2", "r") is Freshness.FORGED
        assert node.check(nonce, NOW_S, "192.0.2.1", "s") is Freshness.FORGED
    assert Nonces(b"other").check(nonce, NOW_S, "192.0.2.1", "r") is Freshness.FORGED
    for forged in (
        "",
        "0" * len(nonce),
        "é" * len(nonce),
        nonce[:-1] + ("0" if nonce[-1] != "0" else "1"),
        " " * len(nonce),
    ):
        assert nonces.check(forged, NOW_S, "192.0.2.1", "r") is Freshness.FORGED


def test_a_count_is_good_for_one_use() -> None:
    nonces = Nonces(b"secret")
    nonce = nonces.make(NOW_S, "a", "r")
    assert [nonces.use(nonce, nc) for nc in (1, 1, 2, 5, 4, 6)] == [True, False, True, True, False, True]
    plain = nonces.make(NOW_S, "a", "r")
    assert [nonces.use(plain, 0), nonces.use(plain, 0)] == [True, False]


def test_what_is_kept_is_bounded_and_never_lets_a_replay_in() -> None:
    nonces = Nonces(b"secret", max_tracked=3)
    made = [nonces.make(NOW_S + second, "a", "r") for second in range(5)]
    assert all(nonces.use(nonce, 1) for nonce in made)
    # Two counts were dropped: their nonces are stale now, the others still counted.
    fresh = [nonces.check(nonce, NOW_S + 5, "a", "r") for nonce in made]
    assert fresh == [Freshness.STALE] * 2 + [Freshness.FRESH] * 3
    assert not any(nonces.use(nonce, 1) for nonce in made[2:])
    nonces.forget_old(NOW_S + d.NONCE_LIFETIME_S + 4)
    assert not nonces.use(made[4], 1)
    assert nonces.check(made[3], NOW_S + d.NONCE_LIFETIME_S + 4, "a", "r") is Freshness.STALE

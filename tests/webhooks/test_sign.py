"""Signatures: Twilio's published vectors, and the official validator as judge."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator, get_signature_algorithm

from trunkline.webhooks.sign import HMAC_SHA256, Signer, signer, with_body_hash

PARAMS = [
    ("To", "+18005551212"),
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
]
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
HASHED = "https://mycompany.com/myapp.php?bodySHA256=5ccde7145dfb8f56479710896586cb9d5911809d83afbe34627818790db0aec9"


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        (URL, PARAMS, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (HASHED, [], "bz08+n07nApCcdckWZ6FpIblNgo="),
        ("wss://example.com/stream", [], "KG4JbhDlv15BMlxSTOWKt9btbgg="),
    ],
)
def test_published_vectors(url: str, params: list[tuple[str, str]], expected: str) -> None:
    assert Signer("12345").sign(url, params) == expected


def test_body_hash() -> None:
    body = b'{"a": 1}'
    url = with_body_hash("https://x.test/hook?a=1#rc=2", body)
    assert url.startswith("https://x.test/hook?a=1&bodySHA256=")
    assert url.endswith("#rc=2")
    url = with_body_hash("https://x.test/hook", body)
    assert RequestValidator("secret").validate(url, body.decode(), Signer("secret").sign(url))
    assert not RequestValidator("secret").validate(url, '{"a": 2}', Signer("secret").sign(url))


def test_shared_keys_sign_with_sha256_and_say_so() -> None:
    made = signer("shared", HMAC_SHA256, "key1")
    assert made.settings_header == "key=key1,algorithm=HMAC_SHA256"
    algorithm = get_signature_algorithm(made.settings_header)
    assert RequestValidator("shared").validate(URL, dict(PARAMS), made.sign(URL, PARAMS), algorithm)
    assert signer("token").settings_header == ""


def test_repeated_parameters_count_once_per_value() -> None:
    class Multi(dict[str, list[str]]):
        def getlist(self, name: str) -> list[str]:
            return self[name]

    pairs = [("A", "2"), ("A", "1"), ("A", "2"), ("B", "")]
    judged = RequestValidator("t").compute_signature("https://x.test/", Multi(A=["2", "1", "2"], B=[""]))
    assert Signer("t").sign("https://x.test/", pairs) == judged


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(NAMES, NAMES, max_size=15), st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_the_validator_agrees(params: dict[str, str], secret: str) -> None:
    url = "https://example.com:8443/hook?x=%20y"
    assert RequestValidator(secret).compute_signature(url, params) == Signer(secret).sign(url, list(params.items()))


@pytest.mark.parametrize(
    "url",
    ["https://user:pass@x.test/a", "https://x.test:8443/a", "http://x.test:80/a", "https://x.test/a?b=%C3%BC&c="],
)
def test_urls_the_validator_accepts(url: str) -> None:
    assert RequestValidator("t").validate(url, dict(PARAMS), Signer("t").sign(url, PARAMS))


def test_the_prepared_key_is_reused_and_gives_the_same_each_time() -> None:
    assert signer("a") is signer("a")
    assert signer("a").sign(URL, PARAMS) == signer("a").sign(URL, PARAMS) != signer("b").sign(URL, PARAMS)


def test_a_callback_is_signed_within_its_budget() -> None:
    params = [
        ("SmsSid", "SM" + "0" * 32),
        ("SmsStatus", "delivered"),
        ("MessageStatus", "delivered"),
        ("To", "+14155550100"),
        ("MessageSid", "SM" + "0" * 32),
        ("AccountSid", "AC" + "0" * 32),
        ("From", "+14155550101"),
        ("ApiVersion", "2010-04-01"),
    ]
    made = signer("0" * 32)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(500):
            made.sign(URL, params)
        best = min(best, (time.perf_counter() - started) / 500)
    assert best < 8e-6

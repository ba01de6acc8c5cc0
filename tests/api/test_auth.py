"""Logins, subaccounts, keys, revocation and the limit on failures."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.harness import (
    CHILD,
    CHILD_TOKEN,
    MAIN_KEY,
    MESSAGES,
    OTHER,
    PARENT,
    PEPPER,
    SECONDARY,
    SECRET,
    STANDARD_KEY,
    TEST,
    TEST_TOKEN,
    TOKEN,
    FakeDirectory,
    Harness,
)
from trunkline.api import respond
from trunkline.api.auth import Authenticator
from trunkline.api.limits import ApiLimits
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model.account import ApiKey
from trunkline.model.errors import ApiError
from trunkline.storage.secrets import Secrets


async def whoami(request: Request, app: Any) -> Response:
    return respond.json(
        {
            "account": request.account.sid,
            "account_sid": request.account_sid,
            "key": request.principal.key and request.principal.key.sid,
            "test": request.principal.is_test,
        }
    )


def harness(**options: Any) -> Harness:
    base = "/2010-04-01/Accounts"
    return Harness(
        [
            Route("api", "GET", base, whoami),
            Route("api", "POST", base, whoami),
            Route("api", "GET", base + "/{Sid}", whoami),
            Route("api", "POST", base + "/{Sid}", whoami),
            Route("api", "GET", base + "/{AccountSid}/Keys", whoami),
            Route("api", "GET", base + "/{AccountSid}/Messages", whoami),
            Route("api", "POST", base + "/{AccountSid}/Messages", whoami, test_credentials=True),
            Route("messaging", "GET", "/v1/Services", whoami),
        ],
        **options,
    )


def messages(sid: str) -> str:
    return f"/2010-04-01/Accounts/{sid}/Messages.json"


@pytest.mark.parametrize("auth", [(PARENT, TOKEN), (PARENT, SECONDARY), (MAIN_KEY, SECRET), (STANDARD_KEY, SECRET)])
async def test_good_logins(auth: tuple[str, str]) -> None:
    api = harness()
    for _ in range(2):  # the second is remembered
        reply = await api.get(messages(PARENT), auth=auth)
        assert reply.status == 200
        assert reply.json["account"] == PARENT
        assert reply.json["key"] == (auth[0] if auth[0].startswith("SK") else None)


@pytest.mark.parametrize(
    "auth",
    [
        (PARENT, "wrong"),
        (PARENT, ""),
        (PARENT, TOKEN + "x"),
        (CHILD, ""),  # a secondary token that was never made
        (OTHER, ""),  # an empty token never logs in
        (OTHER, "\x00" * 32),
        ("AC" + "9" * 32, TOKEN),
        ("AC" + "9" * 32, "\x00" * 32),
        (MAIN_KEY, "wrong"),
        ("SK" + "9" * 32, SECRET),
        (PARENT, "ü"),
        (TEST, TOKEN),
    ],
)
async def test_bad_logins_all_look_the_same(auth: tuple[str, str]) -> None:
    reply = await harness().get(messages(PARENT), auth=auth)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Basic realm="Twilio API"'
    assert reply.json == {
        "code": 20003,
        "detail": "Your AccountSid or AuthToken was incorrect.",
        "message": "Authenticate",
        "more_info": "https://www.twilio.com/docs/errors/20003",
        "status": 401,
    }


async def test_messages_for_no_and_unreadable_credentials() -> None:
    api = harness()
    assert (await api.get(messages(PARENT), auth=None)).json["message"].endswith("No credentials provided")
    assert (await api.get(messages(PARENT), auth=("joe", "x"))).json["message"].endswith("invalid username")
    for header in ("Basic !!!", "Basic", "Basic " + base64.b64encode(b"nocolon").decode()):
        reply = await api.get(messages(PARENT), auth=None, headers={"Authorization": header})
        assert (reply.status, reply.json["message"]) == (401, "Authentication Error - invalid username")
    bearer = await api.get(messages(PARENT), auth=None, headers={"Authorization": "Bearer x"})
    assert bearer.status == 401


@given(st.binary(max_size=60))
def test_any_header_is_a_401(header: bytes) -> None:
    authenticator = Authenticator(FakeDirectory(), PEPPER, lambda: 0.0, ApiLimits(failed_logins=10**9))
    for value in (header, b"Basic " + header, b"Basic " + base64.b64encode(header)):
        with pytest.raises(ApiError) as caught:
            authenticator.authenticate(value, "x")
        assert caught.value.status == 401


async def test_parent_acts_on_its_subaccount_only() -> None:
    api = harness()
    for auth in ((PARENT, TOKEN), (MAIN_KEY, SECRET), (STANDARD_KEY, SECRET)):
        reply = await api.get(messages(CHILD), auth=auth)
        assert (reply.json["account"], reply.json["account_sid"]) == (CHILD, CHILD)
    assert (await api.get(messages(CHILD), auth=(CHILD, CHILD_TOKEN))).status == 200
    assert (await api.get(messages(PARENT), auth=(CHILD, CHILD_TOKEN))).status == 401
    assert (await api.get(messages(OTHER))).status == 401
    assert (await api.get(messages("AC" + "9" * 32))).status == 401


async def test_account_resource() -> None:
    api = harness()
    assert (await api.get(f"/2010-04-01/Accounts/{CHILD}.json")).json["account"] == CHILD
    for sid, auth in ((OTHER, (PARENT, TOKEN)), (PARENT, (CHILD, CHILD_TOKEN)), ("nonsense", (PARENT, TOKEN))):
        reply = await api.get(f"/2010-04-01/Accounts/{sid}.json", auth=auth)
        assert (reply.status, reply.code) == (404, 20404)


async def test_standard_keys_stay_out_of_accounts_and_keys() -> None:
    api = harness()
    for path in (
        "/2010-04-01/Accounts.json",
        f"/2010-04-01/Accounts/{PARENT}.json",
        f"/2010-04-01/Accounts/{PARENT}/Keys.json",
    ):
        refused = await api.get(path, auth=(STANDARD_KEY, SECRET))
        assert (refused.status, refused.code, refused.json["message"]) == (403, 20003, "Permission Denied")
        assert (await api.get(path, auth=(MAIN_KEY, SECRET))).status == 200


async def test_suspended_and_closed_subaccounts() -> None:
    api = harness()
    api.directory.set_status(CHILD, "suspended")
    own = await api.get(messages(CHILD), auth=(CHILD, CHILD_TOKEN))
    assert (own.status, own.code) == (403, 20005)
    assert (await api.get(messages(CHILD))).status == 200
    sending = await api.post(messages(CHILD))
    assert (sending.status, sending.code) == (403, 20005)
    assert (await api.post(f"/2010-04-01/Accounts/{CHILD}.json")).status == 200  # to wake it up
    api.directory.set_status(CHILD, "closed")
    assert (await api.get(messages(CHILD), auth=(CHILD, CHILD_TOKEN))).status == 401


async def test_test_credentials() -> None:
    api = harness()
    reply = await api.post(messages(TEST), auth=(TEST, TEST_TOKEN))
    assert reply.json == {"account": PARENT, "account_sid": TEST, "key": None, "test": True}
    other = await api.get(messages(TEST), auth=(TEST, TEST_TOKEN))
    assert (other.status, other.code) == (403, 20008)
    assert (await api.post(messages(PARENT), auth=(TEST, TEST_TOKEN))).status == 401
    assert (await api.post(messages(CHILD), auth=(TEST, TEST_TOKEN))).status == 401
    assert (await api.post(messages(TEST))).status == 401


async def test_newer_products_take_the_account_from_the_login() -> None:
    reply = await harness().get("/v1/Services", host="messaging.twilio.com", auth=(CHILD, CHILD_TOKEN))
    assert reply.json["account_sid"] == CHILD


async def test_revocation_counts_as_soon_as_the_directory_knows() -> None:
    api = harness()
    assert (await api.get(messages(PARENT), auth=(MAIN_KEY, SECRET))).status == 200
    del api.directory.keys[MAIN_KEY]
    api.directory.generation += 1
    assert (await api.get(messages(PARENT), auth=(MAIN_KEY, SECRET))).status == 401
    api.directory.accounts[PARENT].auth_token = "new"
    api.directory.generation += 1
    assert (await api.get(messages(PARENT))).status == 401
    assert (await api.get(messages(PARENT), auth=(PARENT, "new"))).status == 200


async def test_failures_are_limited_per_source() -> None:
    api = harness(limits=ApiLimits(failed_logins=3, failed_login_window_seconds=60))
    assert (await api.get(MESSAGES + ".json")).status == 200
    for _ in range(3):
        assert (await api.get(MESSAGES + ".json", auth=(PARENT, "x"))).status == 401
    blocked = await api.get(MESSAGES + ".json", auth=(PARENT, SECONDARY))
    assert (blocked.status, blocked.code, blocked.headers["retry-after"]) == (429, 20429, "61")
    assert (await api.get(MESSAGES + ".json")).status == 200  # remembered from before
    assert (await api.get(MESSAGES + ".json", auth=(PARENT, SECONDARY), client="192.0.2.2")).status == 200
    api.clock.ms += 60_001
    assert (await api.get(MESSAGES + ".json", auth=(PARENT, "x"))).status == 401


async def test_missing_credentials_are_no_failed_login() -> None:
    api = harness(limits=ApiLimits(failed_logins=1))
    for _ in range(3):
        assert (await api.get(MESSAGES + ".json", auth=None)).status == 401


def test_remembered_logins_are_bounded() -> None:
    directory = FakeDirectory()
    authenticator = Authenticator(directory, PEPPER, lambda: 0.0, ApiLimits(credential_cache=2))
    for padding in range(5):
        header = b"Basic " + b" " * padding + base64.b64encode(f"{PARENT}:{TOKEN}".encode())
        assert authenticator.authenticate(header, "x").sid == PARENT
    assert len(authenticator._verified) == 2


def test_key_secrets_are_hashed_as_the_store_does() -> None:
    secrets = Secrets((b"k" * 32,))
    key = ApiKey(sid=MAIN_KEY, account_sid=PARENT, secret_hash=secrets.hash_secret(SECRET))
    directory = FakeDirectory()
    directory.keys[MAIN_KEY] = key
    authenticator = Authenticator(directory, secrets.pepper, lambda: 0.0)
    header = b"Basic " + base64.b64encode(f"{MAIN_KEY}:{SECRET}".encode())
    assert authenticator.authenticate(header, "x").key is key

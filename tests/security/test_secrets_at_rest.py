"""What lies on the disk and what is written to the log tells nobody a token, a password or a login."""

import json
import stat
import time
from urllib.parse import urlencode

from tests.security.conftest import HTTP_CARRIER, Target
from tests.security.raw import basic, request
from tests.security.test_isolation import FORM, call, made

URL_PASSWORD = "userinfo-password-0123"
HOOK = f"http://hook:{URL_PASSWORD}@127.0.0.1:9/status"


def used(target: Target) -> list[bytes]:
    """Use every kind of secret, rightly and wrongly; the secrets."""
    account, numbers = target.tenants[0]
    base = f"/2010-04-01/Accounts/{account.sid}"
    key = made(call(target, account, "POST", f"{base}/Keys.json"))
    form = {"To": numbers[1].phone_number, "From": numbers[0].phone_number, "Body": "hi", "StatusCallback": HOOK}
    sent = made(call(target, account, "POST", f"{base}/Messages.json", form))
    replayed = basic(account.sid, account.auth_token) + FORM + b"Idempotency-Key: once\r\n"
    with target.raw() as raw:
        raw.send(request("POST", f"{base}/Keys.json", replayed, urlencode({"FriendlyName": "x"}).encode()))
        second = made(raw.reply())
    for header in (b"Bearer carrier-callback-token", b"Bearer wrong"):
        with target.raw() as raw:
            raw.send(
                request(
                    "POST",
                    "/connectors/web/receipt?token=carrier-callback-token",
                    b"Authorization: " + header + b"\r\n",
                    b"{",
                )
            )
            raw.reply()
    with target.raw() as raw:
        raw.send(request("GET", "/metrics", b"Authorization: Bearer metrics-token-0123\r\n"))
        assert raw.reply().status == 200
    until = time.monotonic() + 10
    while json_status(target, base, sent["sid"]) not in ("delivered", "undelivered", "failed"):
        assert time.monotonic() < until
        time.sleep(0.05)
    return [
        secret.encode()
        for secret in (
            account.auth_token, account.test_auth_token, key["secret"], second["secret"], HTTP_CARRIER["password"],
            HTTP_CARRIER["callback_token"], "metrics-token-0123", target.tenants[1].account.auth_token,
        )
    ]  # fmt: skip


def json_status(target: Target, base: str, sid: str) -> str:
    """A message's status."""
    return str(json.loads(call(target, target.tenants[0].account, "GET", f"{base}/Messages/{sid}.json").body)["status"])


def test_no_secret_lies_in_the_clear(target: Target) -> None:
    secrets = used(target)
    files = [path for path in target.server.data.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"database.db", "queue.db", "archive.db"} <= names
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content, f"{secret!r} lies in {path.name}"
    log = target.server.log.read_bytes()
    for secret in [*secrets, URL_PASSWORD.encode()]:
        assert secret not in log, secret
    assert b"Basic " not in log


def test_only_the_owner_reads_the_data(target: Target) -> None:
    data = target.server.data
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for path in data.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, f"{path}: {mode:o}"


def test_the_metrics_ask_for_their_token(target: Target) -> None:
    for header in (
        b"",
        b"Authorization: Bearer \r\n",
        b"Authorization: Bearer metrics-token-012\r\n",
        b"Authorization: \xff\r\n",
    ):
        with target.raw() as raw:
            raw.send(request("GET", "/metrics", header))
            assert raw.reply().status == 401


def test_carriers_doors_ask_for_their_token(target: Target) -> None:
    for path in ("receipt", "inbound"):
        for query in ("", "?token=", "?token=wrong", "?token=carrier-callback-token0"):
            with target.raw() as raw:
                raw.send(
                    request(
                        "POST", f"/connectors/web/{path}{query}", b"Content-Type: application/json\r\n", b'{"id":"1"}'
                    )
                )
                assert raw.reply().status == 401, query


def test_forwarded_headers_are_not_believed(target: Target) -> None:
    """Neither in links nor as the address whose failed logins are counted."""
    account = target.tenants[0].account
    spoof = b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 8.8.8.8\r\n"
    spoof += b"Forwarded: host=evil.example\r\n"
    with target.raw() as raw:
        raw.send(request("GET", "/messaging/v1/Services", spoof + basic(account.sid, account.auth_token)))
        reply = raw.reply()
    assert reply.status == 200
    assert b"evil.example" not in reply.body
    assert b"https://localhost" not in reply.body


def test_errors_tell_nothing_of_the_inside(target: Target) -> None:
    account = target.tenants[0].account
    for path in (
        "/nowhere",
        "/2010-04-01/Accounts/AC/x.json",
        f"/2010-04-01/Accounts/{account.sid}/Messages/SM{'0' * 32}.json",
    ):
        with target.raw() as raw:
            raw.send(request("GET", path, basic(account.sid, account.auth_token)))
            body = raw.reply().body.lower()
        for word in (b"traceback", b"sqlite", b"apsw", b"python", b".py", str(target.server.folder).encode().lower()):
            assert word not in body


def test_failed_logins_are_limited_and_others_are_not_locked_out(target: Target) -> None:
    """After 600 failures in a minute an address gets 429; a login that was good before still works from it."""
    source = "127.0.0.7"  # the other tests' address keeps its budget
    account = target.tenants[1].account
    path = f"/2010-04-01/Accounts/{account.sid}.json"
    good = request("GET", path, basic(account.sid, account.auth_token))
    statuses = set()
    with target.raw(source) as raw:
        raw.send(good)
        assert raw.reply().status == 200
        for _ in range(700):
            raw.send(request("GET", path, basic(account.sid, "guess")))
            statuses.add(raw.reply().status)
            if 429 in statuses:
                break
        assert statuses == {401, 429}
        raw.send(good)
        assert raw.reply().status == 200

"""Basic authentication, and which account a login may act on.

Logins: account SID with primary or secondary auth token; API key SID with its secret; the SID and token of an
account's test credentials. A parent may act on its subaccounts' paths; never the other way. Standard API keys may
not touch /Accounts and /Keys.

A verified Authorization header is remembered by its SHA-256 until the directory's `generation` changes, so a
revocation counts as soon as the directory knows it. Failures are limited per source address (429), with remembered
logins exempt: a neighbour behind the same NAT cannot lock a working client out.
Source: RFC 7617.
"""

import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from trunkline.api.limits import ApiLimits
from trunkline.cluster.failed_logins import FailedLogins
from trunkline.model.account import Account, ApiKey
from trunkline.model.errors import ApiError

NO_CREDENTIALS = "Authentication Error - No credentials provided"
MAX_ENCODED = 1024
"""Longest credentials that `username` looks into, bytes."""
INVALID_USERNAME = "Authentication Error - invalid username"


class Directory(Protocol):
    """Accounts and keys as this node knows them now (a local snapshot: nothing here waits)."""

    @property
    def generation(self) -> int:
        """Changes with every change of an account or key."""

    def account(self, sid: str) -> Account | None:
        """The account with this SID."""

    def test_account(self, sid: str) -> Account | None:
        """The account whose test credentials have this SID."""

    def api_key(self, sid: str) -> ApiKey | None:
        """The API key with this SID."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who made the request."""

    account: Account
    """The account that logged in; of test credentials the account they belong to."""
    sid: str
    """The account SID that the login stands for: the account's, or that of its test credentials."""
    key: ApiKey | None = None
    is_test: bool = False

    @property
    def is_main(self) -> bool:
        """Whether it may use /Accounts and /Keys: an auth token or a main key."""
        return self.key is None or self.key.main


class Authenticator:
    """Checks logins. `pepper` is what `trunkline.storage.secrets` hashes API key secrets with (HMAC-SHA256: they
    are random, so a fast hash will do); `monotonic` counts seconds."""

    def __init__(
        self, directory: Directory, pepper: bytes, monotonic: Callable[[], float], limits: ApiLimits | None = None
    ) -> None:
        self._directory = directory
        self._pepper = pepper
        self._limits = limits or ApiLimits()
        limits = self._limits
        self.failures = FailedLogins(
            limits.failed_logins, limits.failed_login_window_seconds, limits.failed_login_sources, monotonic
        )
        self._verified: dict[bytes, Principal] = {}
        self._generation = directory.generation

    def authenticate(self, header: bytes | None, source: str, *, final: bool = True) -> Principal:
        """The principal of an Authorization header; raises 20003 (401), 20005 (403) or 20429. A failure counts when it
        is `final`."""
        if header is None:
            raise ApiError.unauthorized(NO_CREDENTIALS)
        if self._generation != self._directory.generation:
            self._generation = self._directory.generation
            self._verified.clear()
        digest = hashlib.sha256(header).digest()
        principal = self._verified.get(digest)
        if principal is not None:
            return principal
        if (left := self.failures.left_s(source)) > 0:
            _too_many(left)
        try:
            principal = self._verify(header)
        except ApiError as error:
            if final and error.status == 401:
                self.failures.record(source)
            raise
        if len(self._verified) >= self._limits.credential_cache:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = principal
        return principal

    def authorise(self, principal: Principal, account_sid: str, method: str) -> Account:
        """The account that `account_sid` names, if the principal may act on it; raises 20003 (401) or 20005.

        A suspended or closed subaccount can still be read by its parent.
        """
        if account_sid == principal.sid:
            return principal.account
        account = None if principal.is_test else self._directory.account(account_sid)
        if account is None or account.owner_account_sid != principal.account.sid:
            raise ApiError.unauthorized()
        if account.status != "active" and method != "GET":
            raise ApiError.of(20005, account=account_sid)
        return account

    def subject(self, principal: Principal, account_sid: str) -> Account:
        """The account that the resource /Accounts/{Sid} shows or changes: suspended ones too; raises 20404."""
        if account_sid == principal.sid:
            return principal.account
        account = None if principal.is_test else self._directory.account(account_sid)
        if account is None or account.owner_account_sid != principal.account.sid:
            raise ApiError.not_found(f"/2010-04-01/Accounts/{account_sid}.json")
        return account

    def anonymous(self, sid: str, path: str) -> Account:
        """The account whose public files are asked for without a login; raises 20404."""
        account = self._directory.account(sid)
        if account is None or account.status == "closed":
            raise ApiError.not_found(path)
        return account

    def _verify(self, header: bytes) -> Principal:
        username, password = self._credentials(header)
        if username.startswith("SK"):
            return self._verify_key(username, password)
        if username.startswith("AC"):
            return self._verify_account(username, password)
        raise ApiError.unauthorized(INVALID_USERNAME)

    def _credentials(self, header: bytes) -> tuple[str, bytes]:
        scheme, _, encoded = header.partition(b" ")
        if scheme.lower() != b"basic" or len(header) > self._limits.authorization_bytes:
            raise ApiError.unauthorized(NO_CREDENTIALS)
        try:
            username, colon, password = binascii.a2b_base64(encoded.strip(), strict_mode=True).partition(b":")
        except binascii.Error:
            raise ApiError.unauthorized(INVALID_USERNAME) from None
        if not colon:
            raise ApiError.unauthorized(INVALID_USERNAME)
        return username.decode("latin-1"), password

    def _verify_account(self, sid: str, token: bytes) -> Principal:
        account = self._directory.account(sid)
        is_test = False
        if account is None:
            account = self._directory.test_account(sid)
            is_test = account is not None
        if account is None:
            hmac.compare_digest(token, _NOBODY)  # an unknown SID takes as long as a wrong token
            raise ApiError.unauthorized()
        if is_test:
            good = _equal(token, account.test_auth_token)
        else:
            primary = _equal(token, account.auth_token)
            good = _equal(token, account.secondary_auth_token) or primary
        if not good:
            raise ApiError.unauthorized()
        _must_be_active(account)
        return Principal(account, sid, is_test=is_test)

    def _verify_key(self, sid: str, secret: bytes) -> Principal:
        key = self._directory.api_key(sid)
        account = None if key is None else self._directory.account(key.account_sid)
        hashed = hmac.digest(self._pepper, secret, "sha256").hex()
        stored = "" if key is None else key.secret_hash
        if not _equal(hashed.encode("ascii"), stored) or account is None:
            raise ApiError.unauthorized()
        _must_be_active(account)
        return Principal(account, account.sid, key)


def username(header: bytes | None) -> str:
    """Who an Authorization header says that he is; empty when it cannot be read."""
    scheme, _, encoded = (header or b"").partition(b" ")
    if scheme.lower() != b"basic" or len(encoded) > MAX_ENCODED:
        return ""
    try:
        return binascii.a2b_base64(encoded.strip(), strict_mode=True).partition(b":")[0].decode("latin-1")
    except binascii.Error:
        return ""


_NOBODY = b"\x00" * 32


def _equal(given: bytes, kept: str) -> bool:
    """Constant-time comparison; nothing equals an empty secret."""
    same = hmac.compare_digest(given, kept.encode("utf-8") if kept else _NOBODY)
    return same and bool(kept)


def _must_be_active(account: Account) -> None:
    if account.status == "active":
        return
    if account.status == "suspended":
        raise ApiError.of(20005, account=account.sid)
    raise ApiError.unauthorized()


def refuse_standard_key(principal: Principal) -> None:
    """Raise 20003 (403) for a standard API key."""
    if not principal.is_main:
        raise ApiError.forbidden()


def _too_many(seconds: float) -> NoReturn:
    raise ApiError.of(20429, headers=(("Retry-After", str(int(seconds) + 1)),))

"""Logins of the users of SIP domains: digest challenges, and what answers them.

Nobody learns which users there are: a user who does not exist is verified against digests that nobody has, and every
wrong login gets the same answer. `check` keeps nothing; what was right is counted by `use`, so that a request which
merely comes again can be told from a nonce that is replayed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from trunkline.model.clock import Clock
from trunkline.model.sip_domain import Ha1
from trunkline.sip import digest
from trunkline.sip.digest import Credentials, Freshness, Nonces
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.message import Request
from trunkline.voice.guesses import Guesses

MAX_TRIED: Final = 4
"""Credentials of one request that are looked at for ours: proxies on the way have theirs."""
OLD_NONCES_S: Final = 60
"""How often counts of nonces that are too old by now are dropped."""


class Asked(Exception):
    """Credentials are wanted: the values of WWW-Authenticate or Proxy-Authenticate, the favourite first."""

    def __init__(self, challenges: list[str]) -> None:
        super().__init__("credentials are wanted")
        self.challenges = challenges


class Refused(Exception):
    """A request is not taken; `status` is what to answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class WrongLogin(Exception):
    """The credentials are those of nobody."""


class Login(NamedTuple):
    """Credentials that were right."""

    username: str
    nonce: str
    nc: int


class Logins:
    """See the module. `failed` is told the source of each wrong login, `succeeded` of each right one."""

    def __init__(
        self,
        realm: str,
        secret: bytes,
        clock: Clock,
        algorithms: Sequence[str] = ("MD5",),
        failed: Callable[[str], None] = lambda host: None,
        succeeded: Callable[[str], None] = lambda host: None,
        guesses: Guesses | None = None,
    ) -> None:
        self.realm = realm
        self._clock = clock
        self._nonces = Nonces(secret)
        self._algorithms = tuple(algorithms)
        self.failed = failed
        self.succeeded = succeeded
        self._guesses = guesses or Guesses(0, 0, clock.monotonic)
        self._forget_s = 0.0
        self._nobody = Ha1(secrets.token_hex(16), secrets.token_hex(32), realm)

    def check(self, request: Request, host: str, known: Callable[[str], Sequence[Ha1]], header: str) -> Login:
        """Who sends a request, by its credentials in `header`; `known` gives a user's passwords.

        Raises Asked, WrongLogin.
        """
        credentials = self._ours(request, header)
        if credentials is None:
            raise self._asked(host)
        freshness = self._nonces.check(credentials.nonce, self._clock.now_ms() / 1000, host, self.realm)
        if freshness is Freshness.FORGED:
            raise self._asked(host)
        user = f"{credentials.username}@{request.request_uri.bare_host.lower()}"
        passwords = [one for one in known(credentials.username) if one.realm == self.realm] or [self._nobody]
        if self._guesses.exhausted(user, host):
            passwords = [self._nobody]
        right = False
        for password in passwords:
            right |= digest.verify(credentials, password.by_algorithm, request.method, request.body)
        if not right:
            self._guesses.wrong(user, host)
            self.failed(host)
            raise WrongLogin(f"wrong login of {credentials.username[:60]!r}")
        if freshness is Freshness.STALE:
            raise self._asked(host, stale=True)
        self._guesses.right(user, host)
        self.succeeded(host)
        return Login(credentials.username, credentials.nonce, credentials.nc)

    def turn_away(self, request: Request, host: str, header: str) -> None:
        """What is for nobody gets the answers of a wrong login: a challenge, then a refusal. Raises Asked, Refused."""
        try:
            self.check(request, host, lambda name: (), header)
        except WrongLogin as wrong:
            raise Refused(403, str(wrong)) from None

    def use(self, login: Login, host: str) -> None:
        """Count a login. Raises Asked when its count was used before."""
        now_s = self._clock.now_ms() / 1000
        if now_s >= self._forget_s:
            self._forget_s = now_s + OLD_NONCES_S
            self._nonces.forget_old(now_s)
        if not self._nonces.use(login.nonce, login.nc):
            raise self._asked(host, stale=True)

    def _ours(self, request: Request, header: str) -> Credentials | None:
        for value in request.headers.all(header)[:MAX_TRIED]:
            try:
                credentials = digest.parse_credentials(value)
            except MalformedMessage:
                continue
            if credentials.realm == self.realm:
                return credentials
        return None

    def _asked(self, host: str, *, stale: bool = False) -> Asked:
        now_s = self._clock.now_ms() / 1000
        return Asked(
            [
                digest.challenge(self.realm, self._nonces.make(now_s, host, self.realm), algorithm, stale=stale)
                for algorithm in self._algorithms
            ]
        )

"""Digest authentication, both ways (RFC 7616 as RFC 8760 brings it to SIP; clients without qop as RFC 3261 22.4).

Nonces need no store: each is a time and a serial number under an HMAC over these, the source and the realm, so that
every node with the secret can check it. What is kept, bounded, is how far each nonce in use has been counted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import quote_string, unquote_string

NONCE_LIFETIME_S: Final = 300
MAX_TRACKED_NONCES: Final = 100_000
MAX_AUTH_PARAMS: Final = 32
_MAC_BYTES: Final = 16
_TIME_BYTES: Final = 5
_SERIAL_BYTES: Final = 4
_NONCE_HEX: Final = 2 * (_TIME_BYTES + _SERIAL_BYTES + _MAC_BYTES)

_HASHES: Final[dict[str, str]] = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
"""hashlib's names by those of IANA's registry; each has a -sess variant."""
ALGORITHMS: Final = tuple(name for name, ours in _HASHES.items() if ours in hashlib.algorithms_available)


class Challenge(msgspec.Struct, frozen=True):
    """One WWW-Authenticate or Proxy-Authenticate value."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    """As the registry spells it; another one is kept as it came, and cannot be answered."""
    qop: tuple[str, ...] = ()
    """Offered ones, lower case; empty: RFC 2069's way."""
    opaque: str = ""
    stale: bool = False
    userhash: bool = False

    @property
    def answerable(self) -> bool:
        """Whether `answer` can."""
        known = self.algorithm.removesuffix("-sess") in ALGORITHMS
        return known and (not self.qop or "auth" in self.qop or "auth-int" in self.qop)


class Credentials(msgspec.Struct, frozen=True):
    """One Authorization or Proxy-Authorization value."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = "MD5"
    qop: str = ""
    cnonce: str = ""
    nc: int = 0
    """0 without qop."""
    opaque: str = ""


class Freshness(StrEnum):
    FRESH = "fresh"
    STALE = "stale"
    """Ours, but too old or counted already: challenge again with stale=true."""
    FORGED = "forged"


def challenge(
    realm: str,
    nonce: str,
    algorithm: str = "SHA-256",
    qop: tuple[str, ...] = ("auth",),
    stale: bool = False,
    opaque: str = "",
) -> str:
    """The value of a WWW-Authenticate or Proxy-Authenticate header."""
    parts = [f"Digest realm={quote_string(realm)}", f'nonce="{nonce}"', f"algorithm={algorithm}"]
    if qop:
        parts.append(f'qop="{",".join(qop)}"')
    if opaque:
        parts.append(f"opaque={quote_string(opaque)}")
    if stale:
        parts.append("stale=true")
    return ", ".join(parts)


def parse_challenge(value: str) -> Challenge:
    """Raises MalformedMessage (400) for what is no digest challenge."""
    params = _auth_params(value)
    if "realm" not in params or "nonce" not in params:
        raise MalformedMessage(400, "Bad challenge")
    return Challenge(
        realm=params["realm"],
        nonce=params["nonce"],
        algorithm=_algorithm(params.get("algorithm", "MD5")),
        qop=tuple(part for raw in params.get("qop", "").split(",") if (part := raw.strip().lower())),
        opaque=params.get("opaque", ""),
        stale=params.get("stale", "").lower() == "true",
        userhash=params.get("userhash", "").lower() == "true",
    )


def parse_credentials(value: str) -> Credentials:
    """Raises MalformedMessage (400) for what are no digest credentials."""
    params = _auth_params(value)
    if not {"username", "realm", "nonce", "uri", "response"} <= params.keys():
        raise MalformedMessage(400, "Bad credentials")
    qop = params.get("qop", "").lower()
    nc = params.get("nc", "")
    if qop and (not _NC(nc) or not params.get("cnonce")):
        raise MalformedMessage(400, "Bad credentials")
    return Credentials(
        username=params["username"],
        realm=params["realm"],
        nonce=params["nonce"],
        uri=params["uri"],
        response=params["response"].lower(),
        algorithm=_algorithm(params.get("algorithm", "MD5")),
        qop=qop,
        cnonce=params.get("cnonce", ""),
        nc=int(nc, 16) if qop else 0,
        opaque=params.get("opaque", ""),
    )


def ha1(algorithm: str, user: str, realm: str, password: str) -> str:
    """What is stored of a password: H(user:realm:password), hex. `algorithm` is one of ALGORITHMS."""
    return _hasher(algorithm)(f"{user}:{realm}:{password}".encode())


def answer(
    challenge: Challenge, user: str, password: str, method: str, uri: str, cnonce: str, nc: int, body: bytes = b""
) -> str:
    """The value of an Authorization or Proxy-Authorization header.

    `cnonce` is random, `nc` counts the requests under this nonce from 1. Prefers qop auth. Raises ValueError unless
    `challenge.answerable`.
    """
    if not challenge.answerable:
        raise ValueError(f"cannot answer {challenge.algorithm} with qop {challenge.qop}")
    algorithm = challenge.algorithm
    qop = "" if not challenge.qop else "auth" if "auth" in challenge.qop else "auth-int"
    secret = ha1(algorithm.removesuffix("-sess"), user, challenge.realm, password)
    shown = user
    if challenge.userhash:
        shown = _hasher(algorithm)(f"{user}:{challenge.realm}".encode())
    credentials = Credentials(shown, challenge.realm, challenge.nonce, uri, "", algorithm, qop, cnonce, nc)
    parts = [
        f"Digest username={quote_string(shown)}",
        f"realm={quote_string(challenge.realm)}",
        f"nonce={quote_string(challenge.nonce)}",
        f"uri={quote_string(uri)}",
        f'response="{_response(credentials, secret, method, body)}"',
        f"algorithm={algorithm}",
    ]
    if qop or algorithm.endswith("-sess"):
        parts.append(f"cnonce={quote_string(cnonce)}")
    if qop:
        parts += [f"qop={qop}", f"nc={nc:08x}"]
    if challenge.opaque:
        parts.append(f"opaque={quote_string(challenge.opaque)}")
    if challenge.userhash:
        parts.append("userhash=true")
    return ", ".join(parts)


def verify(credentials: Credentials, ha1_by_algorithm: Mapping[str, str], method: str, body: bytes = b"") -> bool:
    """Whether the response is right, in constant time. `ha1_by_algorithm` is by the names without -sess.

    Check the realm, and the nonce with `Nonces`, besides. The digest URI is not compared with the Request-URI: proxies
    may rewrite the latter (RFC 3261 section 22.4).
    """
    secret = ha1_by_algorithm.get(credentials.algorithm.removesuffix("-sess"))
    if secret is None or credentials.algorithm.removesuffix("-sess") not in ALGORITHMS:
        return False
    if credentials.qop not in ("", "auth", "auth-int"):
        return False
    expected = _response(credentials, secret, method, body)
    return hmac.compare_digest(expected.encode(), credentials.response.encode())


class Nonces:
    """Makes and checks nonces. Times are seconds of any clock that all nodes share."""

    def __init__(
        self, secret: bytes, lifetime_s: int = NONCE_LIFETIME_S, max_tracked: int = MAX_TRACKED_NONCES
    ) -> None:
        self._secret = secret
        self._lifetime_s = lifetime_s
        self._max_tracked = max_tracked
        self._serial = 0
        self._counted: dict[str, int] = {}  # highest nc by nonce, oldest use first
        self._floor_s = -1  # nonces made then or before are stale: their counts were dropped

    def make(self, now_s: float, source: str, realm: str) -> str:
        """A nonce for this source (an address) and realm."""
        self._serial = (self._serial + 1) % 2 ** (8 * _SERIAL_BYTES)
        stamp = int(now_s).to_bytes(_TIME_BYTES, "big") + self._serial.to_bytes(_SERIAL_BYTES, "big")
        return stamp.hex() + self._mac(stamp, source, realm)

    def check(self, nonce: str, now_s: float, source: str, realm: str) -> Freshness:
        """Whether it was made here for them, and lately."""
        if len(nonce) != _NONCE_HEX or not nonce.isascii():
            return Freshness.FORGED
        try:
            stamp = bytes.fromhex(nonce[: 2 * (_TIME_BYTES + _SERIAL_BYTES)])
        except ValueError:
            return Freshness.FORGED
        if len(stamp) != _TIME_BYTES + _SERIAL_BYTES:
            return Freshness.FORGED
        if not hmac.compare_digest(self._mac(stamp, source, realm), nonce[2 * len(stamp) :]):
            return Freshness.FORGED
        made_s = int.from_bytes(stamp[:_TIME_BYTES], "big")
        # A clock of another node may be a little ahead.
        young = abs(int(now_s) - made_s) <= self._lifetime_s and made_s > self._floor_s
        return Freshness.FRESH if young else Freshness.STALE

    def use(self, nonce: str, nc: int) -> bool:
        """Count one use of a nonce that was checked, with credentials that were verified.

        False when that count was used before: challenge again with stale=true. Without qop (`nc` 0) a nonce is good
        for one use.
        """
        count = nc or 1
        if count <= self._counted.get(nonce, 0):
            return False
        self._counted.pop(nonce, None)
        while len(self._counted) >= self._max_tracked:
            dropped = next(iter(self._counted))
            del self._counted[dropped]
            self._floor_s = max(self._floor_s, int(dropped[: 2 * _TIME_BYTES], 16))
        self._counted[nonce] = count
        return True

    def forget_old(self, now_s: float) -> None:
        """Drop the counts of nonces that are stale by now; call it now and then."""
        oldest_s = int(now_s) - self._lifetime_s
        self._counted = {
            nonce: count for nonce, count in self._counted.items() if int(nonce[: 2 * _TIME_BYTES], 16) >= oldest_s
        }

    def _mac(self, stamp: bytes, source: str, realm: str) -> str:
        text = stamp + source.encode() + b"\x00" + realm.encode()
        return hmac.digest(self._secret, text, "sha256")[:_MAC_BYTES].hex()


def _hasher(algorithm: str) -> Callable[[bytes], str]:
    name = _HASHES[algorithm.removesuffix("-sess")]
    return lambda data: hashlib.new(name, data, usedforsecurity=False).hexdigest()


def _response(credentials: Credentials, secret: str, method: str, body: bytes) -> str:
    """RFC 7616 section 3.4.1; `secret` is H(user:realm:password)."""
    digest = _hasher(credentials.algorithm)
    c = credentials
    if c.algorithm.endswith("-sess"):
        secret = digest(f"{secret}:{c.nonce}:{c.cnonce}".encode())
    what = f"{method}:{c.uri}"
    if c.qop == "auth-int":
        what += ":" + digest(body)
    counted = f"{c.nonce}:{c.nc:08x}:{c.cnonce}:{c.qop}" if c.qop else c.nonce
    return digest(f"{secret}:{counted}:{digest(what.encode())}".encode())


def _algorithm(text: str) -> str:
    """As the registry spells it."""
    upper = text.upper()
    if upper.endswith("-SESS"):
        return upper.removesuffix("-SESS") + "-sess"
    return upper


_NC: Final = re.compile(r"[0-9a-fA-F]{8}").fullmatch
_PARAM: Final = re.compile(
    r'[\s,]*([A-Za-z0-9*_.!%+`\'~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)\s*(?=,|\Z)', re.DOTALL
).match


def _auth_params(value: str) -> dict[str, str]:
    """The parameters of a digest header, names in lower case; of a repeated one the first counts."""
    scheme, _, rest = value.strip().partition(" ")
    rest = rest.strip(" \t,")
    if scheme.lower() != "digest" or not rest:
        raise MalformedMessage(400, "Not a digest header")
    params: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAM(rest, at)
        if match is None or len(params) >= MAX_AUTH_PARAMS:
            raise MalformedMessage(400, "Bad digest header")
        params.setdefault(match[1].lower(), unquote_string(match[2]))
        at = match.end()
    return params

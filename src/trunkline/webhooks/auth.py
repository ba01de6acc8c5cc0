"""Answers to a 401: Basic (RFC 7617) and Digest (RFC 7616) with the credentials of the webhook's URL."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

import msgspec

MAX_CHALLENGE_CHARACTERS: Final = 4096
MAX_CHALLENGE_HEADERS: Final = 16
"""Of one answer; what comes behind them is not looked at."""

# Digest algorithm -> hash, the strongest first.
_ALGORITHMS: Final = {"sha-512-256": "sha512_256", "sha-256": "sha256", "md5": "md5"}
# Runs are possessive (`*+`): white space that is given back piece by piece costs the square of its length and more, and
# a header is read on the event loop. Nothing here may follow a run and begin with what the run takes.
_CHALLENGE: Final = re.compile(
    r"""\s*+,?\s*+(?:(?P<scheme>[A-Za-z][A-Za-z0-9-]*+)(?=\s++[A-Za-z0-9!#$%&'*+.^_`|~-]++\s*+=|\s*+(?:,|$))\s*+
    |(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]++)\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,"]*+)))""",
    re.VERBOSE,
)
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")


class Login(msgspec.Struct):
    """A challenge that was answered: kept for the conversation, so that later requests answer it unasked.

    `scheme` is `basic` or `digest`; `count` is how often the nonce has been used (RFC 7616 `nc`).
    """

    scheme: str
    realm: str = ""
    nonce: str = ""
    opaque: str | None = None
    algorithm: str = ""
    qop: str = ""
    count: int = 0
    stale: bool = False


def challenges(headers: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The challenges of WWW-Authenticate headers: scheme and parameters, names in lower case."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers[:MAX_CHALLENGE_HEADERS]:
        if len(header) > MAX_CHALLENGE_CHARACTERS:
            continue
        position = 0
        while position < len(header):
            match = _CHALLENGE.match(header, position)
            if match is None or match.end() == position:
                break
            position = match.end()
            if match["scheme"] is not None:
                found.append((match["scheme"].lower(), {}))
            elif found:
                quoted = match["quoted"]
                value = match["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1][1].setdefault(match["name"].lower(), value)
    return found


def choose(headers: Sequence[str]) -> Login | None:
    """The strongest challenge we can answer, None when there is none."""
    logins = [login for scheme, params in challenges(headers) if (login := _login(scheme, params)) is not None]
    order = [*_ALGORITHMS, ""]
    return min(logins, key=lambda login: order.index(login.algorithm.removesuffix("-sess")), default=None)


def _login(scheme: str, params: dict[str, str]) -> Login | None:
    if scheme == "basic":
        return Login("basic")
    algorithm = params.get("algorithm", "MD5").lower()
    realm, nonce, opaque = params.get("realm", ""), params.get("nonce", ""), params.get("opaque")
    if scheme != "digest" or algorithm.removesuffix("-sess") not in _ALGORITHMS or not nonce:
        return None
    if not _PRINTABLE.fullmatch(realm + nonce + (opaque or "")):
        return None
    offered = [word.strip().lower() for word in params.get("qop", "").split(",") if word.strip()]
    if offered and "auth" not in offered:
        return None
    stale = params.get("stale", "").lower() == "true"
    return Login("digest", realm, nonce, opaque, algorithm, "auth" if offered else "", 0, stale)


def authorization(login: Login, user: str, password: str, method: str, path: str, cnonce: str) -> str | None:
    """The Authorization header; counts the use of the nonce. None when the user cannot be written in it.

    `cnonce` is fresh randomness in hex.
    """
    if login.scheme == "basic":
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")
    if not _PRINTABLE.fullmatch(user):
        return None
    login.count += 1
    count = f"{login.count:08x}"
    name = login.algorithm.removesuffix("-sess")
    secret = _hash(name, f"{user}:{login.realm}:{password}")
    if login.algorithm.endswith("-sess"):
        secret = _hash(name, f"{secret}:{login.nonce}:{cnonce}")
    request = _hash(name, f"{method}:{path}")
    middle = f"{login.nonce}:{count}:{cnonce}:{login.qop}" if login.qop else login.nonce
    fields = [
        f"username={_quoted(user)}",
        f"realm={_quoted(login.realm)}",
        f"nonce={_quoted(login.nonce)}",
        f"uri={_quoted(path)}",
        f"algorithm={login.algorithm.upper().replace('-SESS', '-sess')}",
        f'response="{_hash(name, f"{secret}:{middle}:{request}")}"',
    ]
    if login.qop:
        fields += [f"qop={login.qop}", f"nc={count}", f'cnonce="{cnonce}"']
    elif login.algorithm.endswith("-sess"):
        fields.append(f'cnonce="{cnonce}"')
    if login.opaque is not None:
        fields.append(f"opaque={_quoted(login.opaque)}")
    return "Digest " + ", ".join(fields)


def _hash(name: str, text: str) -> str:
    # MD5 is what the server asks for; it protects nothing here that TLS does not.
    return hashlib.new(_ALGORITHMS[name], text.encode(), usedforsecurity=False).hexdigest()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""X-Twilio-Signature: how a receiver knows that a request comes from us.

The signature is base64(HMAC(secret, URL + parameters)). Four forms (contract of Twilio's request validators):

- form POST: the URL, then every distinct (name, value) pair sorted by name and value, name and value joined;
- GET: the URL with its query, nothing appended;
- any other body: the URL with `bodySHA256=<hex>` in its query (`with_body_hash`), nothing appended;
- WebSocket: the wss:// URL, nothing appended.

The URL is the one configured, to the byte, without its fragment of connection overrides.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Final

SIGNATURE_HEADER: Final = "X-Twilio-Signature"
SETTINGS_HEADER: Final = "X-Twilio-Webhooks-Signature-Settings"
HMAC_SHA1: Final = "HMAC_SHA1"
HMAC_SHA256: Final = "HMAC_SHA256"

_DIGESTS: Final = {HMAC_SHA1: "sha1", HMAC_SHA256: "sha256"}
_CACHED_SIGNERS: Final = 1024  # secrets whose prepared key is kept


class Signer:
    """One secret, prepared: the key schedule is computed once and copied for each signature.

    `secret` is the account's auth token (HMAC_SHA1), or the secret of a shared key; then `settings_header`
    tells receivers which (its value for SETTINGS_HEADER, empty for the auth token).
    """

    __slots__ = ("_key", "settings_header")

    def __init__(self, secret: str, algorithm: str = HMAC_SHA1, key_id: str = "") -> None:
        self._key = hmac.new(secret.encode(), digestmod=_DIGESTS[algorithm])
        self.settings_header = f"key={key_id},algorithm={algorithm}" if key_id else ""

    def sign(self, url: str, params: Iterable[tuple[str, str]] = ()) -> str:
        """The header's value. `params` are the form parameters of a POST, in any order."""
        text = url + "".join([name + value for name, value in sorted(set(params))]) if params else url
        mac = self._key.copy()
        mac.update(text.encode("utf-8", "replace"))
        return b2a_base64(mac.digest(), newline=False).decode("ascii")


@lru_cache(maxsize=_CACHED_SIGNERS)
def signer(secret: str, algorithm: str = HMAC_SHA1, key_id: str = "") -> Signer:
    """The Signer of a secret, from a bounded cache.

    Raises KeyError for an unknown algorithm.
    """
    return Signer(secret, algorithm, key_id)


def with_body_hash(url: str, body: bytes) -> str:
    """The URL to request and to sign when the body is not a form: `bodySHA256` added to its query."""
    bare, mark, fragment = url.partition("#")
    joint = "&" if "?" in bare else "?"
    return f"{bare}{joint}bodySHA256={sha256(body).hexdigest()}{mark}{fragment}"

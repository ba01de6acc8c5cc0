"""Secrets at rest: sealing with a master key (AES-256-GCM), and keyed hashes of what need not be read back.

The master key comes from the settings or the environment, else from a key file in the data folder. Several keys may be
given: the first seals, all of them open and verify, so that a key can be rotated without downtime. Hashes cannot be
made anew without the secret, so the *last* (oldest) key hashes: API keys live as long as it stays in the list.
"""

import base64
import binascii
import hmac
import os
import secrets as randomness
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
"""96 bits, NIST SP 800-38D section 8.2.2; random nonces allow 2**32 seals a key."""
ENVIRONMENT = "TRUNKLINE_MASTER_KEY"
KEY_FILE = "master.key"
MAX_KEYS = 16
"""Keys that may be accepted at once."""
VERSION = "v1"
MAKE_ONE = "make one with `openssl rand -hex 32`"


class BadMasterKey(Exception):
    """The master key is malformed, unsafe or missing; the text is one line for the operator."""


class CannotOpen(Exception):
    """A sealed value was made with a key that is not here, or was tampered with."""


class _Key:
    """One master key and what is derived from it."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise BadMasterKey(f"a master key has {KEY_BYTES} bytes, this one {len(key)}")
        self.id = hmac.digest(key, b"trunkline key id", "sha256").hex()[:8]
        self.aead = AESGCM(hmac.digest(key, b"trunkline seal", "sha256"))
        self.mac = hmac.digest(key, b"trunkline hash", "sha256")


class Secrets:
    """Seals with the first of `keys`, hashes with the last, opens and verifies with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not 1 <= len(keys) <= MAX_KEYS:
            raise BadMasterKey(f"1 to {MAX_KEYS} master keys are needed, {len(keys)} were given")
        self._keys = [_Key(key) for key in keys]
        self._by_id = {key.id: key for key in self._keys}

    def seal(self, clear: str, context: str = "") -> str:
        """`v1:<key id>:<base64 of nonce and ciphertext>`. `context` says where it belongs and must be given again."""
        key = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        sealed = key.aead.encrypt(nonce, clear.encode(), context.encode())
        return f"{VERSION}:{key.id}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, context: str = "") -> str:
        """What was sealed. Raises CannotOpen."""
        version, _, rest = sealed.partition(":")
        key_id, _, text = rest.partition(":")
        key = self._by_id.get(key_id)
        if version != VERSION or key is None:
            raise CannotOpen(f"no master key with the id {key_id[:8]!r} is configured: add the one that sealed this")
        try:
            raw = base64.b64decode(text, validate=True)
            return key.aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise CannotOpen("a sealed value was damaged or moved") from error

    def sealed_with_first(self, sealed: str) -> bool:
        """Whether the value needs no resealing after a key rotation."""
        return sealed.startswith(f"{VERSION}:{self._keys[0].id}:")

    @property
    def pepper(self) -> bytes:
        """The HMAC key of `hash_secret`; the same before and after a rotation."""
        return self._keys[-1].mac

    def hash_secret(self, secret: str) -> str:
        """Hex HMAC-SHA256 under `pepper`; for secrets of at least 128 random bits."""
        return hmac.digest(self.pepper, secret.encode(), "sha256").hex()

    def verify_secret(self, secret: str, hashed: str) -> bool:
        """Whether `hashed` is the hash of `secret` under any key (constant time each)."""
        return any(
            hmac.compare_digest(hmac.digest(key.mac, secret.encode(), "sha256").hex().encode(), hashed.encode())
            for key in self._keys
        )


def parse_key(text: str) -> bytes:
    """A master key written in hex or base64 (standard or URL-safe). Raises BadMasterKey."""
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
        key = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadMasterKey(f"a master key is neither hex nor base64: {MAKE_ONE}") from error
    if len(key) != KEY_BYTES:
        raise BadMasterKey(f"a master key has {KEY_BYTES} bytes, this one {len(key)}: {MAKE_ONE}")
    return key


def parse_keys(text: str) -> list[bytes]:
    """Keys separated by commas or white space, the sealing one first."""
    return [parse_key(word) for word in text.replace(",", " ").split()]


def has_own_keys(configured: str = "") -> bool:
    """Whether the keys come from the settings or the environment, not from the key file."""
    return bool(configured or os.environ.get(ENVIRONMENT))


def load_secrets(folder: Path, configured: str = "") -> Secrets:
    """The keys from `configured`, else the environment, else `master.key` in `folder` (made when absent)."""
    text = configured or os.environ.get(ENVIRONMENT, "")
    if not text:
        path = folder / KEY_FILE
        if not path.exists():
            _write_keys(path, [randomness.token_bytes(KEY_BYTES)], new=True)
        if path.stat().st_mode & 0o007:
            raise BadMasterKey(f"{path} may be read by everyone: chmod 600 it")
        text = path.read_text()
    return Secrets(parse_keys(text))


def rotate_key_file(folder: Path) -> Secrets:
    """Put a new key first into the key file; the old ones still open. Then reseal the database."""
    path = folder / KEY_FILE
    keys = [randomness.token_bytes(KEY_BYTES), *parse_keys(path.read_text())]
    if len(keys) > MAX_KEYS:
        raise BadMasterKey(f"{path} holds {MAX_KEYS} keys already: drop the oldest")
    _write_keys(path, keys, new=False)
    return Secrets(keys)


def _write_keys(path: Path, keys: Sequence[bytes], *, new: bool) -> None:
    """Write the key file durably, readable by its owner only. A new one never replaces one that came in between."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, "".join(key.hex() + "\n" for key in keys).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        if new:
            os.link(draft, path)
            draft.unlink()
        else:
            os.replace(draft, path)
    except FileExistsError:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

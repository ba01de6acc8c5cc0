"""SIDs: two letters and 32 lower-case hex digits.

The hex part, called the *key*, is 12 digits of Unix milliseconds, 2 of virtual shard and 18 (72 bits) of
randomness, so that a SID alone tells when and in which shard its resource was made, and keys sort by creation
time. A message scheduled with an Idempotency-Key has a SID that is up to the key's life older than itself. Foreign SIDs
of the same shape (imported from Twilio) are accepted wherever only identity matters.
"""

import os
import re
import time
from collections.abc import Callable
from hashlib import sha256

SHARDS = 256
"""Virtual shards, fixed for ever (DESIGN: "256 virtual shards")."""

_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}\Z")

ACCOUNT = "AC"
ADDRESS = "AD"
API_KEY = "SK"
CALL = "CA"
RECORDING = "RE"
APPLICATION = "AP"
MEDIA = "ME"
MESSAGE_SMS = "SM"
MESSAGE_MMS = "MM"
MESSAGING_SERVICE = "MG"
NOTIFICATION = "NO"
PHONE_NUMBER = "PN"
SHORT_CODE = "SC"
ALPHA_SENDER = "AI"
SIP_CREDENTIAL = "CR"
SIP_CREDENTIAL_LIST = "CL"
SIP_DOMAIN = "SD"
SIP_IP_ACCESS_CONTROL_LIST = "AL"
SIP_IP_ADDRESS = "IP"
SIP_ORIGINATION_URL = "OU"
SIP_TRUNK = "TK"
USAGE_TRIGGER = "UT"
WEBHOOK = "WH"

_pool = b""
_taken = 0
_POOL_BYTES = 9 * 455
"""Random bytes drawn at once (one getrandom call serves 455 SIDs)."""


def _random_hex() -> str:
    """18 hex digits of OS randomness."""
    global _pool, _taken
    if _taken >= len(_pool):
        _pool, _taken = os.urandom(_POOL_BYTES), 0
    chunk = _pool[_taken : _taken + 9]
    _taken += 9
    return chunk.hex()


def _forget_pool() -> None:
    """A forked child must not repeat its parent's randomness."""
    global _pool, _taken
    _pool, _taken = b"", 0


os.register_at_fork(after_in_child=_forget_pool)


_shards: Callable[[str], int] | None = None


def use_shards(source: Callable[[str], int] | None) -> None:
    """Have `source` say, from now on and for this process, in which shard what is new is made, by its SID's two letters
    ("" of a key alone). None: all in 0."""
    global _shards
    _shards = source


def new_key(now_ms: int | None = None, shard: int | None = None) -> str:
    """A fresh key; `now_ms` is Unix milliseconds (default: the wall clock), `shard` the virtual shard (default: what
    the source given to `use_shards` says, whose errors are the caller's)."""
    if shard is None:
        shard = 0 if _shards is None else _shards("")
    return f"{time.time_ns() // 1_000_000 if now_ms is None else now_ms:012x}{shard:02x}{_random_hex()}"


def new_sid(prefix: str, now_ms: int | None = None, shard: int | None = None) -> str:
    """A fresh SID with the two-letter `prefix` (see `new_key`)."""
    if shard is None and _shards is not None:
        shard = _shards(prefix)
    return prefix + new_key(now_ms, shard)


def derived_sid(prefix: str, parent: str, name: str) -> str:
    """The SID of what `parent` brings about as its `name`: always the same, in the parent's time and shard."""
    return prefix + parent[2:16] + sha256(f"{parent}/{name}".encode()).hexdigest()[:18]


def is_sid(value: str, *prefixes: str) -> bool:
    """Whether `value` has the form of a SID, with one of `prefixes` if any are given."""
    return _SID.match(value) is not None and (not prefixes or value[:2] in prefixes)


def created_ms(sid: str) -> int:
    """Unix milliseconds at which the SID's resource was made, as its key says."""
    return int(sid[2:14], 16)


def shard_of(sid: str) -> int:
    """The virtual shard (0..255) that the SID's key names."""
    return int(sid[14:16], 16)

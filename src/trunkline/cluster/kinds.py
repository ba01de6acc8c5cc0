"""Which parts of the queue messages lie in and which calls, where nodes have different roles.

By default every partition holds both. With `cluster.voice_partitions` the last so many hold calls alone and the others
messages alone, so that each has an owner of the role for it. Resources that are neither lie with the messages.
"""

import re
from typing import Final

from trunkline.model.sid import CALL, SHARDS, shard_of
from trunkline.storage.partitions import home

MESSAGING, VOICE = "messaging", "voice"
_OF_MESSAGES: Final = re.compile(r"/2010-04-01/Accounts/[^/]+/Messages/?")
_OF_CALLS: Final = re.compile(r"/2010-04-01/Accounts/[^/]+/Calls/?")
_FLIGHT: Final = re.compile(r"/((?:SM|MM|CA)[0-9a-f]{32})(?:/|$)")


def made_by(path: str) -> str:
    """The role that a POST to a path of the API needs: VOICE, MESSAGING, or "" for any."""
    if _OF_CALLS.fullmatch(path):
        return VOICE
    return MESSAGING if _OF_MESSAGES.fullmatch(path) else ""


def role_of(prefix: str) -> str:
    """The role that what a SID's two letters name needs."""
    return VOICE if prefix == CALL else MESSAGING


class Kinds:
    """See the module."""

    def __init__(self, partitions: int, voice: int = 0) -> None:
        """`voice`: as many partitions hold calls alone; 0: all hold both."""
        self.partitions = partitions
        self.voice = voice
        self._first = partitions - voice if voice else 0

    def fits(self, partition: int, role: str) -> bool:
        """Whether what a role makes lies in a partition."""
        return not self.voice or not role or (partition >= self._first) == (role == VOICE)

    def of(self, role: str) -> range:
        """The partitions that hold what a role makes."""
        if not self.voice or not role:
            return range(self.partitions)
        return range(self._first, self.partitions) if role == VOICE else range(self._first)

    def into(self, shard: int, role: str) -> int:
        """The shard itself if its partition holds what a role makes; else another one, always the same."""
        partition = shard % self.partitions
        if self.fits(partition, role):
            return shard
        fitting = self.of(role)
        moved = shard - partition + fitting[shard // self.partitions % len(fitting)]
        return moved if moved < SHARDS else moved - self.partitions

    def home(self, account: str, key: str, path: str) -> int:
        """The shard (0..255) that judges an account's Idempotency-Key for a path: of the message or call that the path
        names, if it names one; else by the key."""
        flight = _FLIGHT.search(path)
        return shard_of(flight[1]) if flight is not None else self.into(home(account, key), made_by(path))

"""Which work is followed: by account, by percent (always the same by its SID), by number."""

import msgspec

PARTS = 10_000
"""A percentage is told to a hundredth."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nothing given means all."""

    accounts: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    """Senders or recipients."""
    percent: float = 100.0

    def takes(self, sid: str, account: str, sender: str, to: str) -> bool:
        """Whether the work with this SID is followed."""
        if self.accounts and account not in self.accounts:
            return False
        if self.numbers and sender not in self.numbers and to not in self.numbers:
            return False
        return self.percent >= 100 or int(sid[-8:], 16) % PARTS < self.percent * (PARTS // 100)

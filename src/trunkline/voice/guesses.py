"""How often a user's password may be guessed: from one address, and from all together.

Counted are wrong logins that answered a challenge of ours, so that nobody can have another locked out by forged
datagrams. Past the limit a login is not looked at for the rest of the window, and gets the answer of a wrong one. Who
was right lately from an address is asked no less there, whatever others try from elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_USERS: Final = 10_000
"""Users and addresses that are remembered, of each kind; the oldest leave first."""
MAX_NAME: Final = 128
"""Characters of a name that count."""
ELSEWHERE: Final = 10
"""How many times as many wrong logins all addresses together have."""
RIGHT_S: Final = 24 * 3600.0
"""How long it counts that a user was right from an address."""

Key = tuple[str, str]


class Guesses:
    """See the module. `most` wrong logins in `window_s`, 0: no limit; `now` is monotonic seconds."""

    def __init__(self, most: int, window_s: float, now: Callable[[], float]) -> None:
        self._most = most
        self._window_s = window_s
        self._now = now
        self._wrong: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._right: OrderedDict[Key, float] = OrderedDict()

    def exhausted(self, user: str, host: str) -> bool:
        """Whether no more logins of the user are looked at, from this address."""
        if not self._wrong or not self._most:
            return False
        user, now = user[:MAX_NAME], self._now()
        if self._count((user, host), now) >= self._most:
            return True
        return self._count((user, ""), now) >= self._most * ELSEWHERE and self._right.get((user, host), 0.0) <= now

    def wrong(self, user: str, host: str) -> None:
        """A wrong login."""
        user, now = user[:MAX_NAME], self._now()
        for key in ((user, host), (user, "")):
            count, end = self._wrong.pop(key, (0, 0.0))
            if end <= now:
                count, end = 0, now + self._window_s
            self._wrong[key] = count + 1, end
        while len(self._wrong) > 2 * MAX_USERS:
            self._wrong.popitem(last=False)

    def right(self, user: str, host: str) -> None:
        """A right one."""
        key = user[:MAX_NAME], host
        self._wrong.pop(key, None)
        self._right.pop(key, None)
        self._right[key] = self._now() + RIGHT_S
        if len(self._right) > MAX_USERS:
            self._right.popitem(last=False)

    def _count(self, key: Key, now: float) -> int:
        count, end = self._wrong.get(key, (0, 0.0))
        return count if end > now else 0

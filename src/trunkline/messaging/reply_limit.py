"""The end of loops: two numbers of ours whose TwiML answers each other would keep each other talking for ever.

Twilio refuses more than 15 replies within 30 seconds between two of its numbers (14107); so do we.
"""

from collections import OrderedDict
from typing import Final

MAX_REPLIES: Final = 15
"""Replies from one number to another in one window."""
WINDOW_MS: Final = 30_000
MAX_PAIRS: Final = 10_000
"""Pairs that are counted at once; the longest unused is forgotten first."""


class ReplyLimit:
    """Counts replies between pairs of numbers, in memory, in fixed windows."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def take(self, sender: str, recipient: str, now_ms: int) -> bool:
        """Whether one more reply may go; it is counted if so."""
        pair = (sender, recipient)
        began_ms, count = self._pairs.pop(pair, (now_ms, 0))
        if not 0 <= now_ms - began_ms < WINDOW_MS:
            began_ms, count = now_ms, 0
        allowed = count < MAX_REPLIES
        self._pairs[pair] = began_ms, count + allowed
        if len(self._pairs) > MAX_PAIRS:
            self._pairs.popitem(last=False)
        return allowed

"""TLS handshakes of those who connect: how many may be under way, in all and of one network, and how many a second.

One costs us a millisecond of CPU and its peer next to nothing, so that who begins many is held back before a byte of
his is read. Of all together the oldest gives way: an honest one is quick (`transport_stream.HANDSHAKE_S` at most).
"""

from collections import OrderedDict
from typing import Final, Protocol

MAX_HANDSHAKES: Final = 200
"""Under way at once."""
MAX_OF_NETWORK: Final = 50
"""Of one network (an IPv4 address, 64 bits of an IPv6 one) under way at once."""
PER_SECOND: Final = 50.0
"""That a network may begin a second, for long."""
BURST: Final = 200.0
"""That it may begin at once after a pause: an office whose phones come back."""
MAX_NETWORKS: Final = 10_000
"""Networks remembered; the longest unheard leaves first."""


class Shaking(Protocol):
    """trunkline.sip.transport_stream.Connection."""

    @property
    def network(self) -> str: ...

    def abort(self) -> None: ...


class Handshakes:
    """See the module. `len()` are those under way."""

    def __init__(self) -> None:
        self._under_way: dict[Shaking, None] = {}
        self._of: dict[str, int] = {}
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, connection: Shaking, now: float) -> bool:
        """Count one, unless its network has begun too many. `now` is monotonic seconds."""
        network = connection.network
        if self._of.get(network, 0) >= MAX_OF_NETWORK or not self._take(network, now):
            return False
        self._under_way[connection] = None
        self._of[network] = self._of.get(network, 0) + 1
        return True

    def _take(self, network: str, now: float) -> bool:
        tokens, at = self._tokens.pop(network, (BURST, now))
        tokens = min(BURST, tokens + (now - at) * PER_SECOND)
        self._tokens[network] = (tokens - 1 if tokens >= 1 else tokens), now
        if len(self._tokens) > MAX_NETWORKS:
            self._tokens.popitem(last=False)
        return tokens >= 1

    def end(self, connection: Shaking) -> None:
        """One has ended; does nothing for one that was not counted."""
        if connection not in self._under_way:
            return
        del self._under_way[connection]
        left = self._of[connection.network] - 1
        if left:
            self._of[connection.network] = left
        else:
            del self._of[connection.network]

    def crowded(self) -> Shaking | None:
        """The one that gives way when there are too many; None: there is room."""
        return next(iter(self._under_way)) if len(self._under_way) > MAX_HANDSHAKES else None

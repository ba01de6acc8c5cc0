"""The carriers' ids that this process gave to flights last, so that an ordinary receipt asks no server."""

from collections import OrderedDict
from collections.abc import Sequence

MAX_CARRIER_IDS = 50_000
"""Ids remembered (about 0.3 KB each); the oldest leave first."""

Place = tuple[int, str, str]
"""(flight id, account, SID)."""


class CarrierIds:
    """What the queue has committed; asked before the queue is."""

    def __init__(self, limit: int = MAX_CARRIER_IDS) -> None:
        self._limit = limit
        self._places: OrderedDict[tuple[str, str], Place] = OrderedDict()

    def remember(self, pairs: Sequence[tuple[str, str]], place: Place) -> None:
        """These (connector, carrier id) pairs lead to a flight from now on."""
        places = self._places
        for pair in pairs:
            places[pair] = place
            places.move_to_end(pair)
        while len(places) > self._limit:
            places.popitem(last=False)

    def find(self, connector: str, carrier_id: str) -> Place | None:
        """Where a receipt belongs; None: the queue may know."""
        return self._places.get((connector, carrier_id))

    def forget(self, before: int) -> None:
        """The queue forgets ids of flights below the id `before`."""
        places = self._places
        while places and next(iter(places.values()))[0] < before:
            places.popitem(last=False)

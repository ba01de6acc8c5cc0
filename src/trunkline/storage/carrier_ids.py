"""The carriers' ids that this process gave to flights last, so that an ordinary receipt asks no server.

Keys and values are such that the garbage collector does not look at them: there are many, and they live long.
"""

import threading
from collections.abc import Sequence

import msgspec

MAX_CARRIER_IDS = 50_000
"""Ids remembered (about 0.3 KB each); the oldest leave first."""

_Key = str
"""Connector, NUL, carrier's id."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a receipt belongs."""

    flight: int
    account: str
    sid: str


class CarrierIds:
    """What the queue has stored; asked before the queue is. Told on any thread."""

    def __init__(self, limit: int = MAX_CARRIER_IDS) -> None:
        self._limit = limit
        self._places: dict[_Key, Place] = {}
        self._changing = threading.Lock()

    def remember(self, pairs: Sequence[tuple[str, str]], place: Place) -> None:
        """These (connector, carrier id) pairs lead to a flight from now on."""
        places = self._places
        with self._changing:
            for connector, carrier_id in pairs:
                places[f"{connector}\0{carrier_id}"] = place
            while len(places) > self._limit:
                del places[next(iter(places))]

    def find(self, connector: str, carrier_id: str) -> tuple[int, str, str] | None:
        """(flight id, account, SID) that a receipt belongs to; None: the queue may know."""
        place = self._places.get(f"{connector}\0{carrier_id}")
        return (place.flight, place.account, place.sid) if place else None

    def forget(self, before: int) -> None:
        """The queue forgets ids of flights below the id `before`."""
        places = self._places
        with self._changing:
            while places:
                oldest = next(iter(places))
                if places[oldest].flight >= before:
                    return
                del places[oldest]

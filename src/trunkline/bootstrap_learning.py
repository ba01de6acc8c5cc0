"""Wiring of learning mode's feed: the taps of a node, set while somebody learns from it."""

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.learning.feed import Feed
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.settings import Settings


def feed_of(node: Any, settings: Settings) -> Feed:
    """The feed of a node whose parts are made."""

    def switch(on: bool) -> None:
        node.inflight.watch = feed.stepped if on else None
        for connector in _writers(node.connectors):
            connector.watch = feed.submitted if on else None
        if node.voice is not None:
            node.voice.flights.watch = feed.call_ended if on else None
            node.voice.services.watch = feed.fetched if on else None

    def bound(address: str) -> str:
        number = node.directory.number(address)
        return "" if number is None else number.connector

    avoid: Callable[[], frozenset[str]] = lambda: node.outbound.avoid  # noqa: E731
    feed = Feed(settings.data_path, settings.learning, switch=switch, bound=bound, avoid=avoid)
    return feed


def _writers(connectors: Mapping[str, Any]) -> list[SmppConnector]:
    """The connectors that tell what they write: a leased one only where this node holds it."""
    inner = (getattr(one, "real", one) for one in connectors.values())
    return [one for one in inner if isinstance(one, SmppConnector)]

"""What every system under test is to the harness."""

from typing import Protocol

from bench.sink import Sample

TEXT = "K=%s Your code is 481516. It is good for ten minutes; we never ask for it by phone or mail."
"""One segment of GSM-7; the SMSC counts by the key."""


class Gateway(Protocol):
    """A gateway that takes messages by HTTP and submits them to an SMSC on 127.0.0.1."""

    name: str
    port: int
    """Where it takes messages."""

    @property
    def roots(self) -> list[int]:
        """Its processes, whose descendants count as well."""
        ...

    def start(self) -> None:
        """Start it and wait until it takes requests. Raises Failed."""
        ...

    def stop(self) -> None:
        """End it."""
        ...

    def request(self, key: str, number: int, sink_url: str) -> bytes:
        """The HTTP request that sends message `number` and asks for callbacks to `sink_url`."""
        ...

    def is_final(self, url: bytes, body: bytes) -> bool:
        """Whether a callback says that its message was delivered."""
        ...

    def counters(self) -> dict[str, float]:
        """What it counts itself, as far as that explains the figures."""
        ...

    def genuine(self, url: str, sample: Sample) -> bool | None:
        """Whether a callback to `url` (scheme and authority) is signed rightly; None: this gateway signs nothing."""
        ...


def recipient(number: int) -> str:
    """The digits of message `number`'s recipient: a number of New York's, never the same twice within a million."""
    return f"1212{2_000_000 + number % 1_000_000}"

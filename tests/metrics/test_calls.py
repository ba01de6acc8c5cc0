"""What /metrics says of calls."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from trunkline.media.protocol import TICK_BOUNDS_US, Stats
from trunkline.metrics import of_calls
from trunkline.model.call import Direction

LINES = [SimpleNamespace(trunk="acme", kind="gateway", what="sip:acme.example", up=False)]


def page(stats: Stats | None, *, available: bool = True) -> list[str]:
    def call(direction: Direction) -> Any:
        return SimpleNamespace(record=SimpleNamespace(direction=direction), status="in-progress")

    voice = SimpleNamespace(
        trunks=SimpleNamespace(status=SimpleNamespace(lines=lambda: LINES)),
        services=SimpleNamespace(
            live={"CA1": call(Direction.INBOUND), "CA2": call(Direction.INBOUND), "CA3": call(Direction.OUTBOUND_DIAL)}
        ),
        inbound=SimpleNamespace(counters={"taken": 2, "refused-403": 5}),
        sip=SimpleNamespace(stack=SimpleNamespace(metrics={"retransmissions": 3})),
        media=SimpleNamespace(available=available, stats=stats),
        registrations=SimpleNamespace(counters={"challenged": 7}, stand=lambda: 4),
        spending=SimpleNamespace(counters={"spend-hour": 6}),
        bans=SimpleNamespace(counters={"scanner": 3}, listed=lambda: [1, 2]),
    )

    class Calls:
        def collect(self) -> Iterator[Any]:
            yield from of_calls(voice)

    registry = CollectorRegistry()
    registry.register(Calls())
    return generate_latest(registry).decode().splitlines()


def test_calls_and_where_they_came_from() -> None:
    lines = page(None, available=False)
    assert 'trunkline_calls{direction="inbound"} 2.0' in lines
    assert 'trunkline_calls{direction="outbound-dial"} 1.0' in lines
    assert 'trunkline_call_legs{status="in-progress"} 3.0' in lines
    assert 'trunkline_calls_offered_total{what="refused-403"} 5.0' in lines
    assert 'trunkline_sip_total{what="retransmissions"} 3.0' in lines
    assert 'trunkline_registers_total{what="challenged"} 7.0' in lines
    assert "trunkline_registrations 4.0" in lines
    assert "trunkline_sip_banned 2.0" in lines
    assert 'trunkline_calls_over_limit_total{what="spend-hour"} 6.0' in lines
    assert 'trunkline_sip_bans_total{what="scanner"} 3.0' in lines
    assert "trunkline_media_up 0.0" in lines
    assert 'trunkline_trunk_up{kind="gateway",trunk="acme",what="sip:acme.example"} 0.0' in lines
    assert not [line for line in lines if "media_legs" in line]


def test_the_media_process() -> None:
    ticks = [0] * (len(TICK_BOUNDS_US) + 1)
    ticks[0], ticks[-1] = 7, 2
    stats = Stats(legs=3, skipped=4, tick_us=ticks, tick_sum_us=500_000, packets_foreign=9, helper="compiled")
    lines = page(stats)
    assert "trunkline_media_legs 3.0" in lines
    assert "trunkline_media_compiled 1.0" in lines
    assert "trunkline_media_ticks_skipped_total 4.0" in lines
    assert "trunkline_media_packets_foreign_total 9.0" in lines
    assert 'trunkline_media_tick_seconds_bucket{le="0.0005"} 7.0' in lines
    assert 'trunkline_media_tick_seconds_bucket{le="0.1"} 7.0' in lines
    assert 'trunkline_media_tick_seconds_bucket{le="+Inf"} 9.0' in lines
    assert "trunkline_media_tick_seconds_sum 0.5" in lines

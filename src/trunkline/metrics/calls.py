"""What is measured of calls: SIP, trunks, the media process."""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from trunkline.media.protocol import TICK_BOUNDS_US, Stats


def of_calls(voice: Any) -> Iterator[Any]:
    """What SIP and the media process have counted."""
    legs = GaugeMetricFamily("trunkline_calls", "Legs of calls that have not ended", labels=["direction"])
    for direction, count in Counter(str(call.record.direction) for call in voice.services.live.values()).items():
        legs.add_metric([direction], count)
    yield legs
    statuses = GaugeMetricFamily("trunkline_call_legs", "The same legs by status", labels=["status"])
    for status, count in Counter(str(call.status) for call in voice.services.live.values()).items():
        statuses.add_metric([status], count)
    yield statuses
    yield _labelled("trunkline_calls_offered", "INVITEs that came in, by what became of them", voice.inbound.counters)
    yield _labelled("trunkline_registers", "REGISTERs, by what became of them", voice.registrations.counters)
    yield GaugeMetricFamily("trunkline_registrations", "Contacts of phones registered now", voice.registrations.stand())
    yield GaugeMetricFamily("trunkline_sip_banned", "Addresses that are banned now", len(voice.bans.listed()))
    yield _labelled("trunkline_sip_bans", "Addresses banned, by what they did last", voice.bans.counters)
    yield _labelled("trunkline_calls_over_limit", "Calls refused or cut by fraud limits", voice.spending.counters)
    yield _labelled("trunkline_sip", "What the SIP stack has counted", voice.sip.stack.metrics)
    yield from of_trunks(voice.trunks.status.lines())
    yield GaugeMetricFamily("trunkline_media_up", "Whether there is a media process", float(voice.media.available))
    if voice.media.stats is not None:
        yield from of_media(voice.media.stats)


def of_trunks(lines: list[Any]) -> Iterator[Any]:
    """How registrations at carriers and their gateways stand."""
    up = GaugeMetricFamily("trunkline_trunk_up", "Whether it is up or registered", labels=["trunk", "kind", "what"])
    for line in lines:
        up.add_metric([line.trunk, line.kind, line.what], float(line.up))
    yield up


def of_media(stats: Stats) -> Iterator[Any]:
    """What the media process tells every five seconds, counted since it started."""
    compiled = float(stats.helper == "compiled")
    yield GaugeMetricFamily("trunkline_media_compiled", "Whether the media helper is compiled", compiled)
    yield GaugeMetricFamily("trunkline_media_legs", "Legs in the media process", stats.legs)
    counters = {
        "ticks_skipped": ("Ticks of 20 ms that were missed: each is a gap in every call", stats.skipped),
        "packets_received": ("RTP packets that came in", stats.packets_received),
        "packets_sent": ("RTP packets that left", stats.packets_sent),
        "packets_not_authentic": ("SRTP packets dropped as not authentic", stats.packets_not_authentic),
        "packets_replayed": ("SRTP packets dropped as repetitions", stats.packets_replayed),
        "packets_fenced": ("RTP packets not sent because this host's lease had run out", stats.packets_fenced),
        "packets_foreign": ("RTP packets dropped because of their source, stream or form", stats.packets_foreign),
        "send_errors": ("RTP packets that could not be sent", stats.send_errors),
        "recorded_dropped": ("Frames of recordings lost because the recorder was away", stats.recorded_dropped),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(f"trunkline_media_{name}", text, value)
    ends = [str(bound / 1e6) for bound in TICK_BOUNDS_US] + ["+Inf"]
    ticks = stats.tick_us or [0] * len(ends)
    buckets = list(zip(ends, map(float, accumulate(ticks)), strict=False))
    yield HistogramMetricFamily(
        "trunkline_media_tick_seconds", "Time that ticks took", buckets=buckets, sum_value=stats.tick_sum_us / 1e6
    )


def _labelled(name: str, text: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["what"])
    for what, count in counts.items():
        family.add_metric([what], count)
    return family

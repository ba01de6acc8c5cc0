"""What `trunkline top` shows, from two scrapes of `/metrics`: rates, depths and percentiles, all nodes together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

Labels = tuple[tuple[str, str], ...]
Row = tuple[str, ...]
NONE: Final = "-"
STAGE_COLUMNS: Final = ("line", "stage", "per s", "errors/s", "in flight", "p50", "p99", "wait p99")
WAITING_COLUMNS: Final = ("waits", "how many", "first late by")
BIND_COLUMNS: Final = ("carrier", "binds up", "binds down", "can send", "room")
CALL_COLUMNS: Final = ("calls", "now", "per s")
MEDIA_COLUMNS: Final = ("media", "legs", "ticks late", "late/s", "tick p99")
NODE_COLUMNS: Final = ("node", "ready", "partitions", "lease age", "CPU", "memory")


class Table(NamedTuple):
    """One table to show; without rows it is left out."""

    columns: Sequence[str]
    rows: Sequence[Row]


class Scrape:
    """One answer of `/metrics`, or several added up. `at`: seconds, of any clock that only goes on."""

    def __init__(self, at: float, values: Mapping[str, Mapping[Labels, float]]) -> None:
        self.at = at
        self.values = values

    @classmethod
    def parse(cls, text: str, at: float) -> "Scrape":
        """Raises ValueError for what is not Prometheus' text format."""
        from prometheus_client.parser import text_string_to_metric_families  # late: other commands need not wait

        values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at, values)

    @classmethod
    def add_up(cls, scrapes: Sequence["Scrape"]) -> "Scrape":
        """Several nodes as one."""
        values: dict[str, dict[Labels, float]] = {}
        for scrape in scrapes:
            for name, samples in scrape.values.items():
                sums = values.setdefault(name, {})
                for labels, value in samples.items():
                    sums[labels] = sums.get(labels, 0.0) + value
        return cls(max((scrape.at for scrape in scrapes), default=0.0), values)

    def get(self, metric: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for have, value in self.values.get(metric, {}).items() if wanted <= set(have))

    def by(self, metric: str, label: str) -> dict[str, float]:
        """The samples of a metric, added up by one label."""
        found: dict[str, float] = {}
        for labels, value in self.values.get(metric, {}).items():
            name = dict(labels).get(label, "")
            found[name] = found.get(name, 0.0) + value
        return found

    def buckets(self, metric: str, **labels: str) -> list[tuple[float, float]]:
        """A histogram's cumulative counts by upper bound, ascending."""
        wanted, found = set(labels.items()), dict[float, float]()
        for have, value in self.values.get(f"{metric}_bucket", {}).items():
            if wanted <= set(have):
                bound = float(dict(have)["le"])
                found[bound] = found.get(bound, 0.0) + value
        return sorted(found.items())


class Window:
    """What happened between two scrapes."""

    def __init__(self, before: Scrape, now: Scrape) -> None:
        self.before = before
        self.now = now
        self.seconds = max(now.at - before.at, 1e-9)

    def rate(self, metric: str, **labels: str) -> float:
        """Events a second of a counter; a node that began anew counts from 0."""
        return max(0.0, self.now.get(metric, **labels) - self.before.get(metric, **labels)) / self.seconds

    def percentile(self, share: float, metric: str, **labels: str) -> float | None:
        """Of a histogram, seconds: of this window, else (nothing happened) since the start; None: nothing yet."""
        now = self.now.buckets(metric, **labels)
        before = dict(self.before.buckets(metric, **labels))
        inside = [(bound, count - before.get(bound, 0.0)) for bound, count in now]
        if inside and inside[-1][1] > 0 and all(count >= 0 for _, count in inside):
            return percentile(inside, share)
        return percentile(now, share)


def percentile(cumulative: Sequence[tuple[float, float]], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear inside a bucket; the last bound for what is longer."""
    if not cumulative or cumulative[-1][1] <= 0:
        return None
    rank = share * cumulative[-1][1]
    below, under = 0.0, 0.0
    for bound, count in cumulative:
        if count >= rank:
            if bound == float("inf"):
                return below
            inside = count - under
            return below + (bound - below) * ((rank - under) / inside if inside else 1.0)
        below, under = bound, count
    return below


def tables(before: Mapping[str, Scrape], now: Mapping[str, Scrape | None]) -> Iterator[Table]:
    """Everything, by node's URL; None: it does not answer."""
    there = {url: scrape for url, scrape in now.items() if scrape is not None}
    known = [url for url in there if url in before]
    window = Window(Scrape.add_up([before[url] for url in known]), Scrape.add_up([there[url] for url in known]))
    yield Table(NODE_COLUMNS, [_node(url, before.get(url), scrape) for url, scrape in now.items()])
    yield Table(STAGE_COLUMNS, list(_stages(window)))
    yield Table(WAITING_COLUMNS, list(_waiting(window.now)))
    yield Table(BIND_COLUMNS, list(_binds(window.now)))
    yield Table(CALL_COLUMNS, list(_calls(window)))
    if "trunkline_media_legs" in window.now.values:
        late = window.now.get("trunkline_media_ticks_skipped_total")
        tick = window.percentile(0.99, "trunkline_media_tick_seconds")
        legs = f"{window.now.get('trunkline_media_legs'):.0f}"
        yield Table(
            MEDIA_COLUMNS,
            [("engine", legs, f"{late:.0f}", per_s(window.rate("trunkline_media_ticks_skipped_total")), time(tick))],
        )


def _node(url: str, before: Scrape | None, now: Scrape | None) -> Row:
    if now is None:
        return url, "no answer", NONE, NONE, NONE, NONE
    partitions, lease, cpu = NONE, NONE, NONE
    if "trunkline_partition_owned" in now.values:
        mine = now.by("trunkline_partition_owned", "partition")
        partitions = f"{sum(mine.values()):.0f} of {len(mine)}"
        lease = time(now.get("trunkline_lease_age_seconds"))
    if before is not None:
        cpu = f"{100 * Window(before, now).rate('process_cpu_seconds_total'):.0f} %"
    memory = f"{now.get('process_resident_memory_bytes') / (1 << 20):.0f} MB"
    return url, "yes" if now.get("trunkline_ready") else "no", partitions, lease, cpu, memory


def _stages(window: Window) -> Iterator[Row]:
    yield (
        "api", "request", per_s(window.rate("trunkline_http_seconds_count")),
        per_s(window.rate("trunkline_http_seconds_count", status="5xx")), NONE,
        time(window.percentile(0.5, "trunkline_http_seconds")),
        time(window.percentile(0.99, "trunkline_http_seconds")), NONE,
    )  # fmt: skip
    for labels, count in window.now.values.get("trunkline_stage_seconds_count", {}).items():
        one = dict(labels)
        inside = window.now.get("trunkline_stage_in_flight", **one)
        if not count and not inside:
            continue
        yield (
            one["line"], one["stage"], per_s(window.rate("trunkline_stage_seconds_count", **one)),
            per_s(window.rate("trunkline_stage_errors_total", **one)), f"{inside:.0f}",
            time(window.percentile(0.5, "trunkline_stage_seconds", **one)),
            time(window.percentile(0.99, "trunkline_stage_seconds", **one)),
            time(window.percentile(0.99, "trunkline_stage_wait_seconds", **one)),
        )  # fmt: skip


def _waiting(now: Scrape) -> Iterator[Row]:
    late = now.by("trunkline_lane_late_seconds", "kind")
    for kind, count in sorted(now.by("trunkline_lane_waiting", "kind").items()):
        yield f"lane {kind}", f"{count:.0f}", time(late.get(kind))
    yield "callbacks owed", f"{now.get('trunkline_callbacks_owed'):.0f}", NONE
    yield "callbacks under way", f"{now.get('trunkline_callbacks_under_way'):.0f}", NONE


def _binds(now: Scrape) -> Iterator[Row]:
    room = now.by("trunkline_connector_room", "connector")
    for name, can_send in sorted(now.by("trunkline_connector_up", "connector").items()):
        up = now.get("trunkline_smpp_binds", connector=name, state="up")
        down = now.get("trunkline_smpp_binds", connector=name, state="down")
        yield name, f"{up:.0f}", f"{down:.0f}", "yes" if can_send else "no", f"{room.get(name, 0):.0f}"


def _calls(window: Window) -> Iterator[Row]:
    now = window.now
    if "trunkline_calls_offered_total" not in now.values and "trunkline_calls" not in now.values:
        return
    begun = window.rate("trunkline_stage_seconds_count", line="call", stage="accept")
    yield "legs", f"{sum(now.by('trunkline_calls', 'direction').values()):.0f}", per_s(begun)
    for status, count in sorted(now.by("trunkline_call_legs", "status").items()):
        yield f"  {status}", f"{count:.0f}", NONE


def per_s(rate: float) -> str:
    """A rate, short."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def time(seconds: float | None) -> str:
    """A time in the unit that fits it."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def shown(all_tables: Iterable[Table]) -> list[Table]:
    """Those with something in them."""
    return [table for table in all_tables if table.rows]

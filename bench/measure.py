"""One measured run: drive a load through a gateway, wait for the callbacks, count what went where."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from bench.gateway import Gateway
from bench.load import Load
from bench.processes import Failed, Meter
from bench.sink import Sink
from bench.smsc import Smsc

WARM_UP = 300
"""Messages before the measurement, so that what happens once is not counted."""
WARM_UP_S = 20.0
BIND_S = 15.0
SETTLE_S = 6.0
"""Without a new callback for so long, the rest will not come."""
POLL_S = 0.05
MEMORY_EVERY_S = 0.5
QUIET_S = 0.5
QUIET_CPU_S = 0.02
"""A system has finished when it used no more than this in QUIET_S; what it puts off is work as well."""
QUIET_LIMIT_S = 10.0


class Times(msgspec.Struct, frozen=True):
    """A distribution, milliseconds."""

    count: int = 0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Tally(msgspec.Struct, frozen=True):
    """What became of the messages."""

    lost: int
    """Accepted, but never submitted."""
    untold: int
    """Accepted and submitted, but no final callback came."""
    unasked: int
    """Submitted though not accepted (the answer was lost, or it was refused)."""
    duplicates: int
    """Submits beyond the first of their key."""
    repeated_callbacks: int
    """Final callbacks beyond the first of their key."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures."""

    gateway: str
    requests: int
    accepted: int
    statuses: dict[str, int]
    tally: Tally
    accepted_per_s: float
    submitted_per_s: float
    delivered_per_s: float
    """Messages whose final callback came, by the time from the first request to the last of these callbacks."""
    request_to_accept: Times
    request_to_submit: Times
    submit_to_callback: Times
    cpu_s_per_1000: float
    main_thread_cpu_s_per_1000: float
    """The part of it in the gateway's main threads: for Trunkline the event loop, without the stores' writers."""
    harness_cpu_s_per_1000: float
    counters_per_message: dict[str, float]
    """What the gateway counted itself: writes and commits of the stores."""
    pss_mb: float
    """Peak of all processes together."""
    processes: int
    callbacks: int
    signatures: int
    """Callbacks whose signature was checked."""
    forged: int
    """Those of them that were signed wrongly."""
    smsc: dict[str, int]


def times_of(spans_ns: Iterable[int]) -> Times:
    """Percentiles (nearest rank) of nanoseconds."""
    values = sorted(spans_ns)
    if not values:
        return Times()
    rank = [values[min(len(values) - 1, int(len(values) * share))] for share in (0.5, 0.99, 1.0)]
    return Times(len(values), *(round(value / 1e6, 2) for value in rank))


def per_s(began: int, ends: Iterable[int]) -> float:
    """Events a second from `began` to the last of them."""
    values = list(ends)
    span = (max(values, default=began) - began) / 1e9
    return round(len(values) / span, 1) if span > 0 else 0.0


def tally(prefix: str, load: Load, seen: Mapping[str, list[int]], sink: Sink) -> Tally:
    """Compare what was accepted with what the SMSC saw (key -> [first time, how often]) and the callbacks."""
    accepted = {f"{prefix}-{message}" for message in load.accepted}
    submitted = {key: times for key, (_, times) in seen.items() if key.startswith(prefix + "-")}
    return Tally(
        lost=sum(key not in submitted for key in accepted),
        untold=sum(key in submitted and key not in sink.final for key in accepted),
        unasked=sum(key not in accepted for key in submitted),
        duplicates=sum(times - 1 for times in submitted.values()),
        repeated_callbacks=sink.repeated,
    )


async def bound(smsc: Smsc) -> None:
    """Wait until somebody is bound to the SMSC. Raises Failed."""
    deadline = time.monotonic() + BIND_S
    while not (await smsc.later("/stats"))["sessions"]:
        if time.monotonic() > deadline:
            raise Failed("the gateway does not bind to the SMSC")
        await asyncio.sleep(POLL_S)


async def told(sink: Sink, wanted: Callable[[], int], limit_s: float) -> None:
    """Wait for so many final callbacks, as long as more come, `limit_s` at most."""
    began = changed = time.monotonic()
    last = -1
    while (count := len(sink.final)) < wanted():
        now = time.monotonic()
        if count != last:
            last, changed = count, now
        if now - changed > SETTLE_S or now - began > limit_s:
            return
        await asyncio.sleep(POLL_S)


async def warm_up(gateway: Gateway, smsc: Smsc, sink: Sink) -> None:
    """Send some messages and forget them. Raises Failed when one of them does not arrive."""
    load = Load(gateway.port, lambda message: gateway.request(f"warm-{message}", message, sink.url))
    await load.closed(WARM_UP, 8, WARM_UP_S)
    await told(sink, lambda: WARM_UP, WARM_UP_S)
    if len(sink.final) < WARM_UP:
        answers = f"{dict(load.statuses)} {load.refusal!r}"
        raise Failed(f"{gateway.name}: {len(sink.final)} of {WARM_UP} messages arrived; answers {answers}")
    sink.forget()
    await smsc.later("/reset")


async def quiet(meter: Meter) -> None:
    """Wait until the system has done what it put off."""
    deadline = time.monotonic() + QUIET_LIMIT_S
    before = meter.cpu_s()
    while time.monotonic() < deadline:
        await asyncio.sleep(QUIET_S)
        now = meter.cpu_s()
        if now - before <= QUIET_CPU_S:
            return
        before = now


async def watch(meter: Meter) -> None:
    """Sample the memory for ever."""
    while True:
        meter.memory_mb()
        await asyncio.sleep(MEMORY_EVERY_S)


class Run:
    """A run of `gateway` with `smsc`: `drive` sends with the load it is given. `wait_s` bounds the wait for callbacks;
    0: nobody waits, and losses tell nothing."""

    def __init__(self, gateway: Gateway, smsc: Smsc, prefix: str = "m", wait_s: float = 60.0) -> None:
        self.gateway = gateway
        self.smsc = smsc
        self.prefix = prefix
        self.wait_s = wait_s
        self.seen: dict[str, list[int]] = {}
        """Key -> [monotonic ns of its first submit, times taken], when measured."""
        self.counters: dict[str, float] = {}

    async def measure(self, drive: Callable[[Load], Awaitable[None]]) -> Result:
        """The figures. Raises Failed."""
        async with Sink(self.gateway.is_final) as sink:
            await bound(self.smsc)
            await warm_up(self.gateway, self.smsc, sink)
            return await self.drive(sink, drive)

    async def drive(self, sink: Sink, drive: Callable[[Load], Awaitable[None]]) -> Result:
        """`measure` without preparations."""
        gateway = self.gateway
        prefix, url = self.prefix, sink.url
        load = Load(gateway.port, lambda message: gateway.request(f"{prefix}-{message}", message, url))
        meter = Meter(gateway.roots)
        watcher = asyncio.create_task(watch(meter))
        counters = await asyncio.to_thread(gateway.counters)
        own = time.process_time()
        try:
            await drive(load)
            if self.wait_s:
                await told(sink, lambda: len(load.accepted), self.wait_s)
                await quiet(meter)
            used = meter.cpu_s(), meter.main_thread_cpu_s(), time.process_time() - own
            meter.memory_mb()
            now = await asyncio.to_thread(gateway.counters)
        finally:
            watcher.cancel()
        accepted = len(load.accepted) or 1
        self.counters = {name: round((value - counters.get(name, 0)) / accepted, 3) for name, value in now.items()}
        self.seen = await self.smsc.later("/times")
        return self.result(load, sink, meter, used, await self.smsc.later("/stats"))

    def result(
        self, load: Load, sink: Sink, meter: Meter, used: tuple[float, float, float], smsc: dict[str, int]
    ) -> Result:
        """Put it together."""
        began = load.began[0]
        prefix = self.prefix
        submitted = {m: self.seen[key][0] for m in load.accepted if (key := f"{prefix}-{m}") in self.seen}
        final = {m: sink.final[key] for m in submitted if (key := f"{prefix}-{m}") in sink.final}
        thousands = len(load.accepted) / 1000 or 1.0
        verdicts = [v for sample in sink.samples if (v := self.gateway.genuine(sink.url, sample)) is not None]
        return Result(
            gateway=self.gateway.name,
            requests=len(load.began),
            accepted=len(load.accepted),
            statuses={str(status): count for status, count in load.statuses.items()}
            | ({"no answer": len(load.unknown)} if load.unknown else {}),
            tally=tally(prefix, load, self.seen, sink),
            accepted_per_s=per_s(began, load.accepted.values()),
            submitted_per_s=per_s(began, submitted.values()),
            delivered_per_s=per_s(began, final.values()),
            request_to_accept=times_of(at - load.began[m] for m, at in load.accepted.items()),
            request_to_submit=times_of(at - load.began[m] for m, at in submitted.items()),
            submit_to_callback=times_of(at - submitted[m] for m, at in final.items()),
            cpu_s_per_1000=round(used[0] / thousands, 3),
            main_thread_cpu_s_per_1000=round(used[1] / thousands, 3),
            harness_cpu_s_per_1000=round(used[2] / thousands, 3),
            counters_per_message=self.counters,
            pss_mb=round(meter.peak_mb, 1),
            processes=meter.processes,
            callbacks=sink.total,
            signatures=len(verdicts),
            forged=verdicts.count(False),
            smsc=smsc,
        )

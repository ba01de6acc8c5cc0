"""The archive at size: landing rate, and the latency of fetches and pages, with and without a running roll-up.

    python bench/archive.py [--documents 5000000] [--accounts 1000] [--folder DIR] [--keep]

Half of the documents belong to one big account, the rest to the others evenly. Everything lands through
`SegmentedArchive.land` and is rolled up by `roll`, as in service.
"""

import argparse
import asyncio
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from trunkline.model.clock import SystemClock
from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.storage.archive import Document
from trunkline.storage.engines.sqlite.archive import SqliteRecent

BATCH = 500
"""Documents landed at once."""
STEP_MS = 20
"""Between two messages: 50 a second."""
TEXT = (
    "the quick brown fox jumps over lazy dogs and your code is ready now please confirm appointment tomorrow at noon "
    "reply yes or stop to end thank you order shipped track parcel delivery window between gate opens flight delayed"
)
WORDS = TEXT.split()
DOC = (
    '{"v":1,"sid":"%(sid)s","account_sid":"%(account)s","direction":"outbound-api","from":"+15551230000","to":"%(to)s",'
    '"body":"%(body)s","created_ms":%(ms)d,"updated_ms":%(done)d,"sent_ms":%(sent)d,"price":"0.0075","price_unit":"USD",'
    '"token":"%(a)s","connector":"carrier-a","route":"default","tried":[{"at_ms":%(sent)d,"connector":"carrier-a",'
    '"sender":"+15551230000","outcome":"submitted","trace":"s1/%(number)d"}],"segments":[{"id":"%(b)s",'
    '"state":"delivered"}],"kind":"message","status":"delivered","webhooks":[%(sent_hook)s,%(done_hook)s]}'
)
HOOK = (
    '{"kind":"status","state":"delivered","tries":1,"attempts":[{"at_ms":%(at)d,"url":"https://app.example.com/status",'
    '"method":"POST","params":{"AccountSid":"%(account)s","From":"+15551230000","To":"%(to)s","MessageSid":"%(sid)s",'
    '"MessageStatus":"%(status)s","SmsSid":"%(sid)s","SmsStatus":"%(status)s","ApiVersion":"2010-04-01"},'
    '"headers":{"X-Twilio-Signature":"%(a)s","I-Twilio-Idempotency-Token":"%(b)s"},"status":200,'
    '"response_headers":{"content-type":"text/plain"},"response_body":"ok","duration_ms":12}]}'
)


class Generator:
    """Makes documents with increasing creation times, and remembers some to ask for."""

    def __init__(self, documents: int, accounts: int, rng: random.Random) -> None:
        self.first_ms = time.time_ns() // 1_000_000 - documents * STEP_MS
        self.accounts = ["AC" + rng.randbytes(16).hex() for _ in range(accounts)]
        self.samples: list[tuple[str, str]] = []
        self.rare: list[tuple[str, str]] = []
        self._rng = rng
        self._number = 0

    def batch(self, count: int) -> list[Document]:
        return [self._document() for _ in range(count)]

    def _document(self) -> Document:
        rng, number = self._rng, self._number
        self._number += 1
        ms = self.first_ms + number * STEP_MS
        account = self.accounts[0] if number & 1 else self.accounts[rng.randrange(len(self.accounts))]
        values = {
            "sid": f"SM{ms:012x}00{rng.getrandbits(72):018x}",
            "account": account,
            "to": f"+1415{rng.randrange(10**7):07d}",
            "body": " ".join(rng.choices(WORDS, k=14)),
            "ms": ms,
            "sent": ms + 90,
            "done": ms + 900,
            "number": number,
            "a": f"{rng.getrandbits(128):032x}",
            "b": f"{rng.getrandbits(128):032x}",
        }
        values["sent_hook"] = HOOK % (values | {"at": ms + 100, "status": "sent"})
        values["done_hook"] = HOOK % (values | {"at": ms + 910, "status": "delivered"})
        if rng.random() < 0.002:
            self.samples.append((account, values["sid"]))
            if account == self.accounts[0]:
                self.rare.append((account, values["to"]))
        return Document(sid=values["sid"], account=account, kind="message", rev=4, body=(DOC % values).encode())


async def fill(archive: SegmentedArchive, generator: Generator, documents: int) -> None:
    """Land and roll up by turns; prints the rates."""
    landing = rolling = 0.0
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    made = 0.0
    since = 0
    for start in range(0, documents, BATCH):
        began = time.perf_counter()
        batch = generator.batch(min(BATCH, documents - start))
        middle = time.perf_counter()
        await archive.land(batch)
        landing += time.perf_counter() - middle
        made += middle - began
        since += len(batch)
        if since >= archive.limits.segment_rows:
            since = 0
            began = time.perf_counter()
            await archive.roll()
            rolling += time.perf_counter() - began
            print(f"  {start + BATCH:>9,} documents", file=sys.stderr)
    began = time.perf_counter()
    await archive.roll(force=True)
    rolling += time.perf_counter() - began
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu - made
    print(f"landed {documents:,} in {landing:.0f} s ({landing / documents * 1e6:.1f} us each, one batch at a time)")
    print(f"rolled up in {rolling:.0f} s ({rolling / documents * 1e6:.1f} us each); serving process {cpu:.0f} s of CPU")


async def timed(name: str, count: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Print the latency percentiles of so many calls, one after the other."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        await call(number)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
    print(f"  {name:<44} n={count:<5} p50 {p50:8.1f} ms   p99 {p99:8.1f} ms   max {times[-1]:8.1f} ms")


async def measure(archive: SegmentedArchive, generator: Generator, rng: random.Random, count: int) -> None:
    """The latencies of the reads that the API makes."""
    big, some = generator.accounts[0], generator.accounts

    async def get(_: int) -> None:
        account, sid = rng.choice(generator.samples)
        document = await archive.get(account, sid)
        assert document is not None
        assert document.sid == sid

    async def page(account: str, before: str, filters: dict[str, object]) -> None:
        assert await archive.page(account, "message", before=before, limit=50, filters=filters)

    def middle() -> str:
        return rng.choice(generator.samples)[1][2:]

    await get(0)
    await page(big, "", {})
    await timed("get by SID", count, get)
    await timed("newest page of 50, big account", count, lambda _: page(big, "", {}))
    await timed("newest page of 50, small account", count, lambda _: page(rng.choice(some[1:]), "", {}))
    await timed("page of 50 somewhere, big account", count, lambda _: page(big, middle(), {}))
    few = max(count // 20, 5)
    await timed("page Status=delivered", few, lambda _: page(big, "", {"status": "delivered"}))
    await timed(
        "page To=(rare number), big account", few, lambda _: page(big, "", {"to": rng.choice(generator.rare)[1]})
    )

    def day(_: int) -> Awaitable[None]:
        sent = int(rng.choice(generator.samples)[1][2:14], 16)
        return page(big, "", {"sent_ge_ms": sent, "sent_lt_ms": sent + 86_400_000})

    await timed("page DateSent=(some day), big account", few, day)


async def analyses(archive: SegmentedArchive, generator: Generator) -> None:
    """Sums and SQL."""
    await archive.usage([generator.accounts[1]], 0, 1 << 60, "all")
    await timed(
        "usage of a small account, by day", 5, lambda _: archive.usage(generator.accounts[1:2], 0, 1 << 60, "day")
    )
    await timed(
        "usage of the big account, by month", 5, lambda _: archive.usage(generator.accounts[:1], 0, 1 << 60, "month")
    )
    await timed("usage of all accounts", 3, lambda _: archive.usage([], 0, 1 << 60, "all"))
    sql = "select status, count(*), sum(price) from messages group by 1"
    await timed("query: group by status", 3, lambda _: archive.query(sql))
    sql = "select count(*) from messages where body like '%parcel%'"
    await timed("query: like over all bodies", 1, lambda _: archive.query(sql))


def rss_mb(pid: int | None) -> int:
    if pid is None:
        return 0
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) // 1024


async def main(options: argparse.Namespace) -> None:
    folder = Path(options.folder or tempfile.mkdtemp(prefix="trunkline-archive-"))
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    generator = Generator(options.documents + 1_000_000, options.accounts, rng)
    recent = SqliteRecent(folder / "archive.db")
    archive = SegmentedArchive(recent, folder / "segments", SystemClock(), ArchiveLimits(settle_ms=0))
    try:
        await fill(archive, generator, options.documents)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(
            f"{len(await recent.segments())} segments, {size / 1e6:.0f} MB ({size / options.documents:.0f} bytes each)"
        )
        print("at rest:")
        await measure(archive, generator, rng, options.reads)
        print(f"while {archive.limits.segment_rows:,} documents roll up:")
        for _ in range(archive.limits.segment_rows // BATCH):
            await archive.land(generator.batch(BATCH))
        rolling = asyncio.create_task(archive.roll(force=True))
        await asyncio.sleep(1)
        await measure(archive, generator, rng, options.reads)
        print("  (the roll-up had ended by then)" if rolling.done() else "  (the roll-up was still running)")
        await rolling
        print("analyses:")
        await analyses(archive, generator)
        print("compaction after 100 deletions:")
        for account, sid in rng.sample(generator.samples, 100):
            await archive.delete(account, sid)
        began = time.perf_counter()
        print(f"  {await archive.compact()} in {time.perf_counter() - began:.1f} s")
        workers = {"serving": os.getpid(), "read": archive.read_worker.pid, "analysis": archive.analysis_worker.pid}
        print("memory:", ", ".join(f"{name} {rss_mb(pid)} MB" for name, pid in workers.items()))
    finally:
        await archive.close()
        if not options.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=5_000_000)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--reads", type=int, default=400, help="reads per kind")
    parser.add_argument("--folder", default="", help="where to build it (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    asyncio.run(main(parser.parse_args()))

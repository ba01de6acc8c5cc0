"""The serving process is killed again and again while it lands, rolls up and merges."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.postflight.harness import ALICE, archive_at

ROOT = Path(__file__).parents[2]
ROUNDS = 3
CHILD = """
import asyncio, sys
from pathlib import Path
from tests.postflight.harness import NOW, archive_at, message
from trunkline.postflight.archive import ArchiveLimits
from trunkline.storage.engines.postgres import recent
from trunkline.storage.manifest import ArchiveBusy

recent.CLAIM_S, recent.RENEW_S = 0.5, 0.1  # a killed node's claim is over soon

async def main(path, number):
    async with archive_at(path, limits=ArchiveLimits(settle_ms=0, segment_rows=3000)) as archive:
        async def upkeep():
            while True:
                try:
                    await archive.roll(force=True)
                    await archive.merge()
                except ArchiveBusy:
                    await asyncio.sleep(0.05)
        task = asyncio.create_task(upkeep())
        while not task.done():
            await archive.land([message(NOW - 10_000_000 + (number + i) * 10, number + i) for i in range(50)])
            number += 50
            print(number, flush=True)
            await asyncio.sleep(0.005)
        await task

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def killed_after(path: Path, first: int, seconds: float) -> int:
    """Run a child until then; the number of documents whose landing it had acknowledged."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(path), str(first), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    acknowledged = int(await child.stdout.readline())
    asyncio.get_running_loop().call_later(seconds, child.kill)
    async for line in child.stdout:
        acknowledged = int(line)
    await child.wait()
    assert child.returncode == -9, "it ended by itself"
    return acknowledged


@pytest.mark.slow
async def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    there = 0
    for _ in range(ROUNDS):
        acknowledged = await killed_after(tmp_path, there, random.uniform(2, 5))
        async with archive_at(tmp_path) as archive:
            seen: list[str] = []
            before = ""
            while page := await archive.page(ALICE, "message", before=before, limit=1000, filters={}):
                seen.extend(document.sid for document in page)
                before = page[-1].sid[2:]
            _, rows = await archive.query("select count(*), count(distinct sid) from messages")
        there = len(seen)
        assert rows == [[there, there]]
        assert len(set(seen)) == there
        assert acknowledged <= there <= acknowledged + 50, "at most the batch under way was committed unseen"

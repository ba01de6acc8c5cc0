"""A node as a process of its own: takes partition 0 and writes as fast as it can; tells each write that was committed.

    python -m tests.storage.engines.postgres.partition_owner DSN NODE [again]

Lines: `own EPOCH`, `ack SID`, `lost`. With `again` it takes the partition back whenever it has lost it.
"""

import asyncio
import sys

from trunkline.model.sid import new_sid
from trunkline.storage.engines.postgres.partitions import PostgresPartitions
from trunkline.storage.queue import Flight
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.unavailable import NotOwned, StoreUnavailable

ACCOUNT = "AC" + "a" * 32
WRITERS = 8


def tell(*words: object) -> None:
    print(*words, flush=True)


async def write(node: ShardedQueue) -> None:
    while True:
        epoch = node.epoch_of(0)
        sid = new_sid("SM", shard=0)
        await node.accept(Flight(sid=sid, account=ACCOUNT, status="queued", lane="l", record=b"%d" % epoch))
        tell("ack", sid)


async def main(dsn: str, name: str, again: bool) -> None:
    node = ShardedQueue(PostgresPartitions([dsn], 4, node=name), name)
    while True:
        try:
            await node.own(0)
            tell("own", node.epoch_of(0))
        except StoreUnavailable:  # the other one takes it just now and has ended our session; a node tries again, too
            await asyncio.sleep(0.05)
            continue
        outcomes = await asyncio.gather(*(write(node) for _ in range(WRITERS)), return_exceptions=True)
        for outcome in outcomes:
            if not isinstance(outcome, NotOwned):
                tell("wrong", repr(outcome))
        tell("lost")
        if not again:
            return
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["again"]))

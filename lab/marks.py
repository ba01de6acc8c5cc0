"""Which messages their own records call in doubt. (That a message went out twice is the carrier's word, not ours.)"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from lab.cluster import Lab
from trunkline.bootstrap import open_archive
from trunkline.settings import load
from trunkline.storage.unavailable import StoreUnavailable

LANDING_S = 30.0
POLL_S = 1.0


class Marks:
    """Looked up once for the messages of a run."""

    def __init__(self, found: frozenset[str]) -> None:
        self._found = found

    @classmethod
    async def read(cls, lab: Lab, sids: Sequence[str]) -> "Marks":
        """Ask every node's archive for these messages, until each has landed, LANDING_S at most."""
        missing, found = set(sids), set[str]()
        deadline = time.monotonic() + LANDING_S
        while missing and time.monotonic() < deadline:
            for zone in lab.nodes:
                await cls._ask(lab, lab.node(zone).folder / "trunkline.toml", missing, found)
            await asyncio.sleep(POLL_S)
        return cls(frozenset(found))

    @staticmethod
    async def _ask(lab: Lab, file: Path, missing: set[str], found: set[str]) -> None:
        assert lab.customer is not None
        with contextlib.suppress(StoreUnavailable):
            archive = open_archive(load(file, {}))
            try:
                for sid in list(missing):
                    document = await archive.get(lab.customer.sid, sid)
                    if document is not None:
                        missing.discard(sid)
                        if orjson.loads(document.body).get("in_doubt"):
                            found.add(sid)
            finally:
                await archive.close()

    def marked(self, sid: str) -> bool:
        """Whether the message's record says that it was in doubt."""
        return sid in self._found

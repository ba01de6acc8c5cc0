"""Which messages their own records call in doubt. (That a message went out twice is the carrier's word, not ours.)"""

import contextlib
from collections.abc import Sequence

import orjson

from lab.cluster import Lab
from trunkline.bootstrap import open_archive
from trunkline.settings import load
from trunkline.storage.unavailable import StoreUnavailable


class Marks:
    """Looked up once for the messages of a run."""

    def __init__(self, found: frozenset[str]) -> None:
        self._found = found

    @classmethod
    async def read(cls, lab: Lab, sids: Sequence[str]) -> "Marks":
        """Ask every node's archive for these messages."""
        found: set[str] = set()
        for zone in lab.nodes if sids and lab.customer else ():
            file = lab.node(zone).folder / "trunkline.toml"
            with contextlib.suppress(StoreUnavailable):
                archive = open_archive(load(file, {}))
                try:
                    for sid in sids:
                        document = await archive.get(lab.customer.sid if lab.customer else "", sid)
                        if document is not None and orjson.loads(document.body).get("in_doubt"):
                            found.add(sid)
                finally:
                    await archive.close()
        return cls(frozenset(found))

    def marked(self, sid: str) -> bool:
        """Whether the message's record says that it was in doubt."""
        return sid in self._found

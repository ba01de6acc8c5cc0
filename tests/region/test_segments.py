"""Landed documents of two regions: segments in one shared folder, manifests in databases that follow each other."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.objects import shared_folder
from tests.postflight.harness import ALICE, LIMITS, NOW, FakeClock, messages, sids
from tests.postgres import needs_postgres
from tests.region.regions import Regions, caught_up
from trunkline.postflight.archive import SegmentedArchive
from trunkline.region.promotion import begin, promote
from trunkline.storage.engines.postgres.recent import PostgresRecent

pytestmark = [needs_postgres, pytest.mark.slow]


async def test_both_regions_segments_are_read_in_whichever_is_active(tmp_path):
    regions = await asyncio.to_thread(Regions, tmp_path)
    location = shared_folder(tmp_path / "segments")
    servers = {"one": regions.one, "two": regions.two}
    everything = []

    @asynccontextmanager
    async def node(name):
        recent = PostgresRecent(servers[name].dsn("records"))
        archive = SegmentedArchive(recent, tmp_path / name, FakeClock(), LIMITS, objects=location)
        try:
            yield archive
        finally:
            await archive.close()

    async def serves(name, first_ms):
        """A reign: all that there is can be read, from what both have written; more lands, and is rolled up."""
        async with node(name) as archive:
            landed = messages(40, first_ms=first_ms)
            await archive.land(landed)
            everything.extend(landed)
            assert await archive.roll(force=True) == 40
            found = await archive.page(ALICE, "message", limit=999, filters={})
            assert sids(found) == sids(reversed(everything))
            for document in everything[::20]:
                assert await archive.get(ALICE, document.sid) == document
            count = len(everything)
            assert (await archive.query("select count(*), count(distinct sid) from messages"))[1] == [[count, count]]

    try:
        await asyncio.to_thread(begin, regions.ways("one"))
        await serves("one", NOW - 9_000_000)
        await asyncio.to_thread(caught_up, regions)
        await asyncio.to_thread(promote, regions.ways("two"))
        await serves("two", NOW - 6_000_000)
        await asyncio.to_thread(regions.follow_again, regions.one, regions.two, "one")
        await asyncio.to_thread(promote, regions.ways("one"))
        await serves("one", NOW - 3_000_000)
    finally:
        regions.close()

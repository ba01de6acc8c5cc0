"""Epochs in an object store."""

import pytest

from trunkline.region.records import Epoch, Handover
from trunkline.region.witness import HANDOVERS, Witness
from trunkline.storage.objects import Location, Objects
from trunkline.storage.unavailable import StoreUnavailable

FIRST = Epoch(epoch=1, region="one", since_ms=5)
SECOND = Epoch(epoch=2, region="two", since_ms=6, former="one", planned=True, drain_s=3.5)


@pytest.fixture
def objects(tmp_path):
    return Objects(Location(url=f"file://{tmp_path}", prefix="lab"))


def test_the_newest_epoch_counts_and_each_is_claimed_once(objects):
    witness = Witness(objects)
    assert witness.newest() is None
    assert witness.claim(FIRST)
    assert not witness.claim(Epoch(epoch=1, region="two", since_ms=5))
    assert witness.newest() == FIRST
    assert witness.after(FIRST) == FIRST
    assert witness.claim(SECOND)
    assert witness.newest() == SECOND
    assert witness.after(FIRST) == SECOND


def test_a_store_that_has_forgotten_is_no_witness(objects, tmp_path):
    with pytest.raises(StoreUnavailable, match="does not have epoch 1"):
        Witness(objects).after(FIRST)
    Witness(objects).claim(Epoch(epoch=1, region="other", since_ms=5))
    with pytest.raises(StoreUnavailable, match="does not have epoch 1"):
        Witness(objects).after(FIRST)


def test_how_an_epoch_began_is_kept_beside_it(objects):
    witness = Witness(objects)
    witness.claim(FIRST)
    witness.keep(Handover(epoch=FIRST, positions=(), at_ms=7))
    assert [one.name for one in objects.names(HANDOVERS)] == [f"{HANDOVERS}/0000000001"]
    assert witness.newest() == FIRST

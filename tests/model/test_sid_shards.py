"""In which shard what is new is made, and that a SID tells it."""

import pytest

from trunkline.model.sid import derived_sid, is_sid, new_key, new_sid, shard_of, use_shards


@pytest.fixture(autouse=True)
def _reset():
    yield
    use_shards(None)


def test_without_a_source_all_is_made_in_shard_0():
    assert shard_of(new_sid("SM")) == 0


def test_the_source_is_asked_for_each_and_an_argument_goes_before_it():
    shards, asked = iter([255, 16]), []
    use_shards(lambda prefix: asked.append(prefix) or next(shards))
    first, second, third = new_sid("SM"), new_sid("CA", 5, shard=7), "SM" + new_key()
    assert [shard_of(sid) for sid in (first, second, third)] == [255, 7, 16]
    assert all(map(is_sid, (first, second, third)))
    with pytest.raises(StopIteration):
        new_sid("SM")
    assert asked == ["SM", "", "SM"]


def test_what_a_parent_brings_about_stays_in_its_shard():
    assert shard_of(derived_sid("ME", new_sid("SM", shard=0xAB), "media/0")) == 0xAB

"""Which partitions are for what, where nodes have different roles."""

import pytest

from trunkline.cluster.kinds import MESSAGING, VOICE, Kinds, made_by, role_of
from trunkline.storage.partitions import home

AC = "AC" + "a" * 32
MESSAGES, CALLS = f"/2010-04-01/Accounts/{AC}/Messages", f"/2010-04-01/Accounts/{AC}/Calls"


def test_by_default_every_partition_holds_both() -> None:
    kinds = Kinds(6)
    assert list(kinds.of(VOICE)) == list(kinds.of(MESSAGING)) == list(range(6))
    assert all(kinds.into(shard, role) == shard for shard in range(256) for role in (MESSAGING, VOICE, ""))
    assert kinds.home(AC, "key", CALLS) == kinds.home(AC, "key", MESSAGES) == home(AC, "key")


@pytest.mark.parametrize(("partitions", "voice"), [(2, 1), (6, 2), (7, 3), (64, 63), (64, 1), (5, 4)])
def test_what_lies_in_the_wrong_part_has_a_stand_in_in_the_right_one(partitions: int, voice: int) -> None:
    kinds = Kinds(partitions, voice)
    assert [one for one in range(partitions) if kinds.fits(one, VOICE)] == list(range(partitions - voice, partitions))
    for role in (MESSAGING, VOICE):
        moved = [kinds.into(shard, role) for shard in range(256)]
        assert all(0 <= shard < 256 and kinds.fits(shard % partitions, role) for shard in moved)
        assert {shard % partitions for shard in moved} == set(kinds.of(role)), "none is left out"
        assert all(kinds.into(shard, role) == shard for shard in moved)


def test_a_key_is_judged_with_what_it_makes_or_changes() -> None:
    kinds = Kinds(4, 2)
    for number in range(50):
        assert kinds.home(AC, f"k{number}", CALLS) % 4 in (2, 3)
        assert kinds.home(AC, f"k{number}", MESSAGES) % 4 in (0, 1)
        assert kinds.home(AC, f"k{number}", f"/2010-04-01/Accounts/{AC}/Queues") % 4 in (0, 1, 2, 3)
    sid = "CA" + "0" * 12 + "ab" + "1" * 18
    assert kinds.home(AC, "key", f"{CALLS}/{sid}") == 0xAB
    assert kinds.home(AC, "key", f"{CALLS}/{sid}/Recordings") == 0xAB
    assert kinds.home(AC, "key", f"{MESSAGES}/SM{sid[2:]}") == 0xAB


def test_what_needs_which_role() -> None:
    assert (made_by(CALLS), made_by(MESSAGES), made_by(f"{CALLS}/CAx"), made_by("/v1/Services")) == (
        VOICE, MESSAGING, "", "",
    )  # fmt: skip
    assert (role_of("CA"), role_of("SM"), role_of("UT")) == (VOICE, MESSAGING, MESSAGING)

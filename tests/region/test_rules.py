"""What a node makes of what it sees."""

import pytest

from trunkline.region.records import Epoch, Handover, Position, Server, lsn_text
from trunkline.region.rules import Role, Witnessed, judge

FIRST = Epoch(epoch=1, region="one", since_ms=1)
SECOND = Epoch(epoch=2, region="two", since_ms=2, former="one")
AWAY = Witnessed(None, "the object store cannot be used")


def server(*, standby=False, epoch=1, region="one"):
    return Server(
        host="h", port="1", standby=standby, read_only=False, lsn=1, received=1, region=region if epoch else "",
        epoch=epoch,
    )  # fmt: skip


def both(one, other=None):
    return {"queue0": one, "database": other or one}


PRIMARY, STANDBY = server(), server(standby=True)
SILENT = {"queue0": None, "database": None}


@pytest.mark.parametrize(
    ("name", "own", "others", "witnessed", "role"),
    [
        ("one", both(PRIMARY), {}, Witnessed(FIRST), Role.ACTIVE),
        ("two", both(STANDBY), {}, Witnessed(FIRST), Role.STANDBY),
        # Its own databases call it active; the witness knows better.
        ("one", both(PRIMARY), {}, Witnessed(SECOND), Role.REPLACED),
        ("one", both(PRIMARY, STANDBY), {}, Witnessed(SECOND), Role.REPLACED),
        ("one", both(STANDBY), {}, Witnessed(SECOND), Role.STANDBY),
        # The epoch is claimed; the databases do not have it yet.
        ("two", both(STANDBY), {}, Witnessed(SECOND), Role.COMING),
        ("two", both(PRIMARY), {}, Witnessed(SECOND), Role.COMING),
        ("two", both(server(epoch=2, region="two"), PRIMARY), {}, Witnessed(SECOND), Role.COMING),
        ("two", both(server(epoch=2, region="two")), {}, Witnessed(SECOND), Role.ACTIVE),
        # One database that fails over is no reason to stop.
        ("one", {"queue0": None, "database": PRIMARY}, {}, Witnessed(FIRST), Role.ACTIVE),
        ("one", SILENT, {}, Witnessed(FIRST), Role.UNKNOWN),
        # Nobody was active yet.
        ("one", both(server(epoch=0)), {"two": both(STANDBY)}, Witnessed(None), Role.FIRST),
        ("one", both(server(epoch=0)), {"two": SILENT}, Witnessed(None), Role.FIRST),
        ("one", both(server(epoch=0)), {}, Witnessed(FIRST), Role.FIRST),
        ("two", both(server(standby=True, epoch=0)), {"one": both(PRIMARY)}, Witnessed(None), Role.STANDBY),
        ("two", both(server(epoch=0)), {"one": both(PRIMARY)}, Witnessed(None), Role.REPLACED),
        # The witness is away: all other regions' databases must say that they follow.
        ("one", both(PRIMARY), {"two": both(STANDBY)}, AWAY, Role.ACTIVE),
        ("one", both(PRIMARY), {"two": SILENT}, AWAY, Role.UNKNOWN),
        ("one", both(PRIMARY), {"two": {"queue0": STANDBY, "database": None}}, AWAY, Role.UNKNOWN),
        ("one", both(PRIMARY), {"two": both(STANDBY), "three": SILENT}, AWAY, Role.UNKNOWN),
        ("one", both(PRIMARY), {"two": both(server(epoch=2, region="two"))}, AWAY, Role.REPLACED),
        # Promoted, and its epoch not yet written.
        ("one", both(PRIMARY), {"two": both(PRIMARY)}, AWAY, Role.UNKNOWN),
        ("two", both(STANDBY), {"one": SILENT}, AWAY, Role.STANDBY),
        ("one", both(server(epoch=0)), {"two": both(STANDBY)}, AWAY, Role.UNKNOWN),
    ],
)  # fmt: skip
def test_judgement(name, own, others, witnessed, role):
    found = judge(name, own, others, witnessed)
    assert found.role is role
    assert found.text
    assert "\n" not in found.text


def test_a_region_that_comes_back_is_told_what_to_do():
    assert judge("one", both(PRIMARY), {}, Witnessed(SECOND)).text == (
        "region one was replaced: two is active in epoch 2; make its databases standbys of two's"
        " (docs/howto/regions.md)"
    )


@pytest.mark.parametrize(
    ("missing", "lost_s"), [((0, 0), 0.0), ((0, 5), 3.0), ((-1, -1), 3.0), ((0, -1), 3.0)]
)  # fmt: skip
def test_what_a_promotion_may_have_lost_is_what_the_furthest_behind_lacks(missing, lost_s):
    positions = tuple(
        Position(database=str(place), lsn=1, beat=1, beat_ms=1, silent_s=1.0 + 2 * place, missing_bytes=one)
        for place, one in enumerate(missing)
    )
    assert Handover(epoch=SECOND, positions=positions, at_ms=9).lost_s == lost_s


def test_positions_are_written_as_postgresql_does():
    assert lsn_text((0x16 << 32) + 0xB374D848) == "16/B374D848"

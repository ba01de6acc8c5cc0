"""Two regions with real databases: handed over, lost, come back."""

import threading

import msgspec
import psycopg
import pytest

from tests.postgres import needs_postgres
from tests.region.regions import ACCOUNT, Regions, accept, caught_up, dsns, until
from trunkline.bootstrap_region import former
from trunkline.region import databases
from trunkline.region.beats import Beats
from trunkline.region.compare import Side, compare
from trunkline.region.promotion import CannotPromote, begin, promote
from trunkline.region.rules import Role, Witnessed, judge
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = [needs_postgres, pytest.mark.slow]


@pytest.fixture
def regions(tmp_path):
    made = Regions(tmp_path)
    begin(made.ways("one"))
    caught_up(made)
    yield made
    made.close()


def standing(regions, name):
    ways = regions.ways(name)
    return judge(
        name, databases.look_at(ways.own), {n: databases.look_at(o) for n, o in ways.others.items()},
        Witnessed(regions.witness.newest()),
    )  # fmt: skip


def compared(regions, handover):
    with Side(dsns(regions.two)) as here, Side(dsns(regions.one)) as there:
        return compare(here, there, "one", handover, lambda account, sid: False, 1)


def test_the_first_region_is_active_and_the_other_one_is_its_standby(regions):
    assert standing(regions, "one").role is Role.ACTIVE
    assert standing(regions, "two").role is Role.STANDBY
    assert begin(regions.ways("one")).epoch == 1  # once more is the same
    with pytest.raises(CannotPromote, match="another region was first"):
        begin(regions.ways("two"))


def test_a_heartbeat_is_counted_once_and_followed(regions):
    ours, theirs = (Beats(dsns(regions.one), lambda: True, 0.05) for _ in range(2))
    try:
        until(lambda: databases.look(regions.two.dsn("records"), "database").beat >= 2, "no heartbeat comes over")
    finally:
        ours.close()
        theirs.close()
    seen = databases.look(regions.one.dsn("records"), "database")
    assert seen.beat <= ours.counted["database"] + theirs.counted["database"] <= seen.beat + 2
    assert seen.takes_writes
    assert seen.beat_ms > 0


def test_the_promoted_region_knows_when_the_former_one_was_last_heard_of(regions):
    first = regions.witness.newest()
    assert former(regions.one.dsn("records"), first) is None
    beats = Beats(dsns(regions.one), lambda: True, 0.05)
    until(lambda: databases.look(regions.two.dsn("queue"), "queue0").beat >= 1, "no heartbeat comes over")
    until(lambda: databases.look(regions.two.dsn("records"), "database").beat >= 1, "no heartbeat comes over")
    beats.close()
    regions.one.end()
    handover = promote(regions.ways("two"), lost=True, wait=False)
    epoch, seen_ms = handover.epoch, min(one.beat_ms for one in handover.positions)
    assert former(regions.two.dsn("records"), epoch) == (epoch.since_ms, seen_ms)
    assert 0 < seen_ms <= epoch.since_ms
    told = msgspec.structs.replace(epoch, former="", since_ms=0)  # as the other regions' databases know it
    assert former(regions.two.dsn("records"), told) == (epoch.since_ms, seen_ms)


def test_a_handover_in_order_loses_nothing_and_fences_the_former_region(regions):
    stop = threading.Event()
    accepted = []
    node = psycopg.connect(regions.one.dsn("queue"), autocommit=True, application_name="queue p00")

    def work():
        for number in range(1000, 100_000):
            try:
                key = f"{number:032x}"
                node.execute(
                    "insert into p00.flight values (%s,%s,%s,%s,'message','queued',0,'',0,0,'')",
                    (number, ACCOUNT, key, "SM" + key),
                )
            except psycopg.Error:
                break
            accepted.append("SM" + key)
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: len(accepted) > 50, "nothing is accepted")
    handover = promote(regions.ways("two", drain_s=0.3))
    thread.join(60)
    assert stop.is_set()
    assert [one.missing_bytes for one in handover.positions] == [0, 0]
    assert handover.lost_s == 0
    assert compared(regions, handover).flights == []
    found = regions.two.sql("select sid from p00.flight", "queue")
    assert {sid for (sid,) in found} >= set(accepted)
    assert standing(regions, "two").role is Role.ACTIVE
    former = standing(regions, "one")
    assert former.role is Role.REPLACED
    assert "region one was replaced: two is active in epoch 2" in former.text
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        accept(regions.one, 5)
    assert accept(regions.two, 5)  # the fence was not inherited


def test_what_a_lost_region_had_alone_is_counted_exactly(regions):
    before = accept(regions.one, *range(1, 40))
    caught_up(regions)
    regions.two.sql("select pg_wal_replay_pause()")
    regions.one.sql("alter system set max_wal_senders = 0")  # the link is cut: nothing more comes over
    regions.one.end()
    regions.one.start()
    regions.one.settings["max_wal_senders"] = "0"
    regions.one.end()
    regions.one.start()
    after = accept(regions.one, *range(40, 60)) + accept(regions.one, 60, 61, schema="p01")
    with psycopg.connect(regions.one.dsn("records")) as connection:
        connection.execute(
            "insert into archive_documents values (%s, %s, 'SM', 'message', 1, '', '', 'delivered', 1, 1, '', 0, '')",
            (ACCOUNT, f"{77:032x}"),
        )
    with psycopg.connect(regions.one.dsn("queue")) as connection:
        connection.execute(
            "insert into p00.replay values (%s,'POST','/x','k','','done',0,201,'','',%s,9000000000000)",
            (ACCOUNT, after[0]),
        )
        connection.execute(
            "insert into p00.owed values (1, 40, %s, %s, 'status', '', 1, 0, 0, 'owed', '', '')", (after[0], ACCOUNT)
        )
    regions.one.end()
    regions.two.sql("select pg_wal_replay_resume()")
    with pytest.raises(CannotPromote, match="say --lost"):
        promote(regions.ways("two"))
    slept = []
    handover = promote(regions.ways("two", sleep=slept.append), lost=True)
    assert sum(slept) > 25  # whatever still ran there had alone_s to stop
    assert {one.missing_bytes for one in handover.positions} == {-1}
    assert accept(regions.two, 1000)
    regions.one.start()
    found = compared(regions, handover)
    assert {one.sid for one in found.flights} == {*after, "SM" + f"{77:032x}"}
    assert not {one.sid for one in found.flights} & set(before)
    assert found.by_status == {"message delivered": 1, "message queued": 22}
    assert (found.keys, found.callbacks) == (1, 1)
    assert standing(regions, "one").role is Role.REPLACED
    with pytest.raises(CannotPromote, match="does not follow two"):
        promote(regions.ways("one"), lost=True)


def test_a_promotion_that_was_interrupted_goes_on_with_its_epoch(regions):
    def broken(_: float) -> None:
        raise KeyboardInterrupt

    regions.one.end()
    with pytest.raises(KeyboardInterrupt):
        promote(regions.ways("two", sleep=broken), lost=True)
    waiting = standing(regions, "two")
    assert waiting.role is Role.COMING
    assert "run `trunkline region promote` again" in waiting.text
    handover = promote(regions.ways("two"), lost=True, wait=False)
    assert handover.epoch.epoch == 2
    assert standing(regions, "two").role is Role.ACTIVE
    with pytest.raises(CannotPromote, match="active already"):
        promote(regions.ways("two"), lost=True)
    assert databases.handovers(regions.two.dsn("records")) == [handover]


def test_a_handover_that_ends_as_a_loss_waits_for_those_who_were_told_to_finish(regions):
    """Whoever heard of the epoch at the last moment of being alone may go on for `drain_s`."""
    with psycopg.connect(regions.one.dsn("queue"), autocommit=True, application_name="queue p00"):

        def broken(_: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            promote(regions.ways("two", sleep=broken, drain_s=60.0))
    regions.one.end()
    slept = []
    handover = promote(regions.ways("two", sleep=slept.append), lost=True)
    assert (handover.epoch.epoch, handover.epoch.planned) == (2, True)
    assert sum(slept) > 85


def test_and_back_again(regions):
    promote(regions.ways("two"))
    regions.follow_again(regions.one, regions.two, "one")
    assert standing(regions, "one").role is Role.STANDBY
    accept(regions.two, 7)
    handover = promote(regions.ways("one"))
    assert handover.epoch.epoch == 3
    assert standing(regions, "one").role is Role.ACTIVE
    assert standing(regions, "two").role is Role.REPLACED
    assert regions.one.sql("select count(*) from p00.flight", "queue") == [(1,)]


def test_a_promotion_whose_command_fails_can_be_repeated(regions):
    ways = regions.ways("two", command="false {name} {host}")
    with pytest.raises(databases.StoreUnavailable, match="promote_command"):
        promote(ways)
    assert promote(ways._replace(command="")).epoch.epoch == 2


def test_a_promotion_that_came_to_nothing_is_taken_back(regions):
    with pytest.raises(databases.StoreUnavailable, match="promote_command"):
        promote(regions.ways("two", command="false"))
    assert standing(regions, "one").role is Role.REPLACED
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        accept(regions.one, 1)
    handover = promote(regions.ways("one"))
    assert (handover.epoch.epoch, handover.lost_s) == (3, 0)
    assert standing(regions, "one").role is Role.ACTIVE
    assert accept(regions.one, 1)
    caught_up(regions)
    assert standing(regions, "two").role is Role.STANDBY


def test_two_that_promote_at_once_do_not_get_one_epoch(regions):
    newest = regions.witness.newest()
    ways = regions.ways("two")

    class Late:
        """Reads, and then somebody else is faster."""

        def newest(self):
            return newest

        def claim(self, epoch):
            return False

    with pytest.raises(CannotPromote, match="somebody else has begun epoch 2"):
        promote(ways._replace(witness=Late()))
    assert standing(regions, "one").role is Role.ACTIVE


def test_a_region_is_compared_by_its_primary_fenced_or_not_and_never_by_a_standby(regions):
    handover = promote(regions.ways("two"), lost=True, wait=False)  # it still answers, and is fenced
    assert databases.look(regions.one.dsn("queue"), "queue0").read_only
    assert compared(regions, handover).flights == []
    with pytest.raises(StoreUnavailable, match="needs a primary"), Side({"queue0": "host=/nowhere dbname=queue"}):
        pass


def test_a_standby_is_not_compared(regions):
    with pytest.raises(StoreUnavailable, match="needs a primary"), Side(dsns(regions.two)):
        pass

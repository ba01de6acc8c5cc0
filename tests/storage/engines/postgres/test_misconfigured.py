"""What an operator gets wrong about three PostgreSQL servers, told by the doctor and refused at the start, in one line:
real servers, one of which is away, follows asynchronously, lies in another's zone, or may not be looked at.
"""

import time
from collections.abc import Iterator

import pytest

from tests.postgres import USER, PostgresServer, needs_postgres
from trunkline.storage.engines.postgres.queue import PostgresQueue
from trunkline.storage.engines.postgres.survey import survey
from trunkline.storage.survives import CannotSurvive, Survives

pytestmark = [needs_postgres, pytest.mark.slow]
ZONES = {"a": "a", "b": "b", "c": "c"}
WAIT_S = 60.0
BOTH = "ANY 1 (b, c)"


class Trio:
    """A primary named `a` and its standbys `b` and `c`."""

    def __init__(self) -> None:
        self.primary = PostgresServer({"cluster_name": "a"}).create().start()
        self.standbys = {}
        for name in ("b", "c"):
            self.standbys[name] = PostgresServer({"hot_standby": "on"}).follow(self.primary, name).start()

    def listed(self, names: str) -> None:
        """Set whom commits wait for, and wait until it holds with both standbys there."""
        self.primary.sql(f"alter system set synchronous_standby_names = '{names}'")
        self.primary.sql("select pg_reload_conf()")
        wanted = [("async" if one not in names else "quorum",) for one in ("b", "c")]
        self.until("select sync_state from pg_stat_replication order by application_name", wanted)

    def until(self, statement: str, wanted: list[tuple[str, ...]]) -> None:
        end = time.monotonic() + WAIT_S
        while (found := self.primary.sql(statement)) != wanted:
            assert time.monotonic() < end, f"{statement}: {found}, not {wanted}"
            time.sleep(0.05)

    def said(self, dsn: str = "", **zones: str) -> list[str]:
        """The doctor's lines that are not `ok`, about one database for everything."""
        dsn = dsn or self.primary.dsn("postgres")
        lines = survey([dsn], dsn, 1, Survives.ZONE, ZONES | zones)
        return [f"{one.verdict}: {one.text.partition(': ')[2]}" for one in lines if one.verdict != "ok"]

    def close(self) -> None:
        for server in (*self.standbys.values(), self.primary):
            server.close()


@pytest.fixture(scope="module")
def trio() -> Iterator[Trio]:
    made = Trio()
    yield made
    made.close()


def refused(dsn: str, **zones: str) -> str:
    """The line with which a node does not start."""
    with pytest.raises(CannotSurvive) as error:
        PostgresQueue(dsn, survives=Survives.ZONE, zones=ZONES | zones)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_asynchronous_standbys(trio: Trio) -> None:
    trio.listed("")
    says = "synchronous_standby_names is empty: a zone lost takes what only its primary has"
    assert refused(trio.primary.dsn("postgres")).endswith(says)
    assert trio.said() == [f"bad: {says}"] * 2
    trio.listed("ANY 1 (b)")
    assert "warn: c follows asynchronously: if it takes over, acknowledged messages are lost" in trio.said()


def test_two_standbys_in_one_zone_and_one_beside_the_primary(trio: Trio) -> None:
    trio.listed(BOTH)
    assert trio.said() == []
    assert "warn: 2 of its servers are in b: losing that loses them together" in trio.said(c="b")
    says = "a commit may be confirmed by b alone, which storage.zones does not place in another zone than the primary"
    assert refused(trio.primary.dsn("postgres"), b="a").endswith(says)
    assert trio.said(b="a") == [f"bad: {says}"] * 2


def test_a_standby_that_is_away(trio: Trio) -> None:
    trio.listed(BOTH)
    trio.standbys["c"].end()
    trio.until("select application_name from pg_stat_replication", [("b",)])
    assert set(trio.said()) == {"warn: c is listed as a standby and does not follow: one server less may be lost"}
    trio.standbys["b"].end()
    trio.until("select application_name from pg_stat_replication", [])
    says = "a commit waits for 1 standbys and 0 are connected: it would wait without end"
    assert trio.said() == [f"bad: {says}"] * 2
    for standby in trio.standbys.values():
        standby.start()
    trio.listed(BOTH)


def test_a_user_that_may_not_see_the_standbys(trio: Trio) -> None:
    trio.listed(BOTH)
    for statement in ("create role node login", "create database own owner node encoding 'UTF8' template template0"):
        assert trio.primary.sql(statement) == []
    dsn = trio.primary.dsn("own").replace(f"user={USER}", "user=node")
    says = "the user node may not see the standbys: GRANT pg_read_all_stats TO node"
    assert refused(dsn).endswith(says)
    assert trio.said(dsn) == [f"bad: {says}"] * 2
    assert trio.primary.sql("grant pg_read_all_stats to node") == []
    assert trio.said(dsn) == []

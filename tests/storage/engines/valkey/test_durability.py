"""Which servers are refused, and how many replicas a write waits for."""

import pytest

from trunkline.storage.engines.valkey.durability import Server, check
from trunkline.storage.engines.valkey.servers import Address, BadUrl, Target
from trunkline.storage.survives import CannotSurvive, Survives

PRIMARY = Address("10.0.0.1", 6379)
SAFE = {
    "min-replicas-to-write": "1", "min-replicas-max-lag": "3", "appendonly": "yes", "appendfsync": "everysec",
}  # fmt: skip
ZONES = {"10.0.0.1:6379": "eu/a", "10.0.0.2": "eu/b", "10.0.0.3": "us/c"}


def server(*replicas, version="7.0.15", **settings):
    own = {**SAFE, **{name.replace("_", "-"): value for name, value in settings.items()}}
    return Server(PRIMARY, {"redis_version": version}, own, tuple(Address(one, 6379) for one in replicas))


def test_a_process_needs_nothing():
    assert check(Server(PRIMARY, {"redis_version": "7.2.4"}, {}), Survives.PROCESS, {}) == 0


@pytest.mark.parametrize(
    ("changed", "wanted", "says"),
    [
        ({"version": "5.0.7"}, Survives.PROCESS, "6.2 or newer"),
        ({}, Survives.POWER, "appendfsync is everysec"),
        ({"appendonly": "no", "appendfsync": "always"}, Survives.POWER, "appendonly is no"),
        ({"min_replicas_to_write": "0"}, Survives.HOST, "min-replicas-to-write is 0"),
        ({"min_replicas_max_lag": "0"}, Survives.HOST, "min-replicas-max-lag is 0"),
        ({"min_replicas_max_lag": "60"}, Survives.HOST, "min-replicas-max-lag is 60"),
    ],
)
def test_settings_that_do_not_keep_it(changed, wanted, says):
    with pytest.raises(CannotSurvive, match=says) as refusal:
        check(server("10.0.0.2", "10.0.0.3", **changed), wanted, ZONES)
    assert "\n" not in str(refusal.value)


def test_a_server_that_does_not_tell_is_refused():
    with pytest.raises(CannotSurvive, match=r"\+config\|get"):
        check(Server(PRIMARY, {"redis_version": "7.0.0"}, {}), Survives.HOST, {})


def test_power_is_synced_writes():
    assert check(server(appendfsync="always"), Survives.POWER, {}) == 0


def test_no_replica_is_no_host():
    with pytest.raises(CannotSurvive, match="has no replica"):
        check(server(), Survives.HOST, {})


def test_replicas_on_the_primarys_host_do_not_count():
    with pytest.raises(CannotSurvive, match=r"does not place 10\.0\.0\.1:6379"):
        check(server("10.0.0.1"), Survives.HOST, {})
    assert check(server("10.0.0.2"), Survives.HOST, {}) == 1


@pytest.mark.parametrize(
    ("replicas", "wanted", "needed"),
    [
        (["10.0.0.2", "10.0.0.3"], Survives.HOST, 1),
        (["10.0.0.2", "10.0.0.3"], Survives.ZONE, 1),
        (["10.0.0.2", "10.0.0.3"], Survives.REGION, 2),
        (["10.0.0.3"], Survives.REGION, 2),  # the one beside the primary may come back, and confirm alone
    ],
)
def test_more_replicas_than_lie_beside_the_primary(replicas, wanted, needed):
    assert check(server(*replicas, min_replicas_to_write="2"), wanted, ZONES) == needed


def test_a_zone_whose_replicas_nobody_placed():
    with pytest.raises(CannotSurvive, match="another zone"):
        check(server("10.0.0.8"), Survives.ZONE, ZONES)
    with pytest.raises(CannotSurvive, match="min-replicas-to-write is 1"):
        check(server("10.0.0.2", "10.0.0.8"), Survives.ZONE, ZONES)


def test_what_a_server_says_is_read():
    info = (
        b"# Server\r\nredis_version:7.0.15\r\nrun_id:r1\r\n# Replication\r\nmaster_replid:m1\r\nconnected_slaves:2\r\n"
        b"slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n"
        b"slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r\n"
    )
    read = Server.of(PRIMARY, [info, [b"min-replicas-to-write", b"1"], {b"appendonly": b"no"}])
    assert read.replicas == (Address("10.0.0.2", 6379),)
    assert read.identity == ("r1", "m1")
    assert read.settings == {"min-replicas-to-write": "1", "appendonly": "no"}
    assert Server.of(PRIMARY, [info, ValueError("NOPERM"), ValueError("NOPERM")]).settings == {}


def test_urls():
    target = Target.read("rediss://me:p%40ss@a:1,b/3", tls_ca="ca.pem")
    assert (target.hosts, target.db, target.tls) == ((Address("a", 1), Address("b", 6379)), 3, True)
    assert (target.username, target.password) == ("me", "p@ss")
    with_sentinels = Target.read("redis://:secret@/1", ["s1", "[::1]:5"], "trunkline")
    assert with_sentinels.sentinels == (Address("s1", 26379), Address("::1", 5))
    assert (with_sentinels.hosts, with_sentinels.password, with_sentinels.db) == ((), "secret", 1)
    assert Target.read("", ["s1"], "x").hosts == ()


@pytest.mark.parametrize("url", ["", "http://a", "redis://", "redis://user:secret@host:port/0", "redis://a/secret"])
def test_wrong_urls_are_refused_without_being_shown(url):
    with pytest.raises(BadUrl) as refusal:
        Target.read(url)
    assert "secret" not in str(refusal.value)

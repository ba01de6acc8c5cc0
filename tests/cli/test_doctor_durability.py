"""The doctor's table of what survives what."""

import orjson
import pytest

from tests.redis import RedisServer, needs_redis
from trunkline.cli.doctor_durability import kept
from trunkline.settings import load

SMPP = '[[connectors]]\nname = "acme"\nkind = "smpp"\nhost = "smsc.example"\nsystem_id = "x"\npassword = "hidden"\n'
CLUSTER = """
[sip]
enabled = true
[storage]
engine = "postgres"
queue = "host=a"
database = "host=a"
survives = "zone"
[memory]
engine = "valkey"
url = "redis://me:hidden@/0"
sentinels = ["s1", "s2", "s3"]
survives = "zone"
[objects]
url = "s3://bucket/folder"
survives = "region"
"""


def table(tmp_path, text):
    file = tmp_path / "trunkline.toml"
    file.write_text(text)
    return {row.data: row for row in kept(load(file, {}))}


def test_one_machine(tmp_path):
    rows = table(tmp_path, "[sip]\nenabled = true\n" + SMPP)
    assert rows["accepted messages, callbacks owed"].survives == "process, power"
    assert rows["calls under way: dialog, position"][2:4] == ("journal, unsynced", "process")
    assert rows["carrier acme"].engine == "SMPP smsc.example:2775"
    assert "messages wait" in rows["carrier acme"].otherwise
    assert {"DNS", "speech", "customers' web servers"} <= rows.keys()
    assert "object store" not in rows


def test_a_cluster(tmp_path):
    rows = table(tmp_path, CLUSTER + SMPP)
    assert rows["accepted messages, callbacks owed"].survives == "process, power, host, zone"
    assert rows["accepted messages, callbacks owed"].otherwise.endswith("more than one zone is lost at once")
    dialogs = rows["calls under way: dialog, position"]
    assert dialogs.engine == "Valkey, behind Sentinel"
    assert dialogs.survives == "process, host, zone"  # not power: replicas hold it in memory
    assert "region" in rows["media, recordings"].survives
    assert rows["leases, who owns what"].otherwise.startswith("no takeover")
    assert "old documents" in rows["object store"].otherwise
    assert "hidden" not in str(rows)


def test_every_kind_of_data_says_what_is_lost(tmp_path):
    for text in (SMPP, CLUSTER):
        assert all(all(row) for row in table(tmp_path, text).values())


@needs_redis
@pytest.mark.parametrize(
    ("survives", "code", "says"), [("process", 0, "ok\tmemory\tprimary"), ("host", 1, "bad\tmemory\t")]
)
def test_the_server_is_asked(trunkline, tmp_path, survives, code, says):
    server = RedisServer({"min-replicas-max-lag": "5"}).start()
    try:
        file = tmp_path / "valkey.toml"
        text = f'[sip]\nenabled = true\n[memory]\nengine = "valkey"\nurl = "{server.url}"\nsurvives = "{survives}"\n'
        file.write_text(text)
        ran = trunkline("--config", str(file), "doctor", "durability")
        assert ran.code == code
        assert says in ran.out
        told = orjson.loads(trunkline("--config", str(file), "doctor", "durability", "--json").out)
        assert told["findings"][0]["check"] == "memory"
        assert any(row["engine"] == "Valkey" for row in told["data"])
    finally:
        server.close()

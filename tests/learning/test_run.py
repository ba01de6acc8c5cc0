"""Learning runs beside a real server: planted faults are caught, and nothing of them is felt or seen outside."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.server import Server
from tests.learning import planted
from trunkline.learning import run, runs, shares
from trunkline.learning.tally import Tally

pytestmark = pytest.mark.slow
LIMIT_S = 900.0
POLL_S = 0.1
TEXTS = ["hello", "with € in it", "7 is the text", "x" * 300, "ünïcödé ☃", "last"]


def isolated() -> bool:
    """Whether this machine lets us have namespaces."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"], capture_output=True, check=False
    )
    return done.returncode == 0


if not isolated():
    pytest.skip("no user namespaces here", allow_module_level=True)


class World(NamedTuple):
    """A server between a customer and two carriers."""

    folder: Path
    server: Server
    tenant: Tenant
    smsc: Carrier

    def learn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`trunkline learn ...`"""
        command = [sys.executable, "-m", "trunkline", "--config", str(self.folder / "trunkline.toml"), "learn"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)

    def start(self, name: str, *arguments: str) -> None:
        """Begin a run, and wait until the node feeds it."""
        done = self.learn("start", name, *arguments)
        assert done.returncode == 0, done.stderr
        self.until(name, lambda tally: tally.nodes > 0)

    def until(self, name: str, is_so: Callable[[Tally], bool]) -> Tally:
        """What a run has found, once it is so."""
        end = time.monotonic() + LIMIT_S
        while not is_so(tally := runs.found(self.server.data, name)[1]):
            log = (self.server.data / "learning" / name / run.LOG_FILE).read_text()[-2000:]
            assert time.monotonic() < end, f"{msgspec.json.encode(tally).decode()} {log}"
            time.sleep(POLL_S)
        return tally

    def send(self, text: str, to: str = "+12025550123") -> None:
        """One message of the customer's."""
        form = {"To": to, "From": self.tenant.numbers[0].phone_number, "Body": text}
        form["StatusCallback"] = "http://127.0.0.1:9/status"
        account = self.tenant.account
        login = base64.b64encode(f"{account.sid}:{account.auth_token}".encode()).decode()
        request = urllib.request.Request(
            f"{self.server.base_url}/2010-04-01/Accounts/{account.sid}/Messages.json",
            urllib.parse.urlencode(form).encode(),
            {"Authorization": f"Basic {login}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 201

    def submits(self) -> int:
        """What the carrier's own ledger has."""
        control = self.smsc._control
        with urllib.request.urlopen(f"{control}/stats", timeout=30) as answer:
            stats = json.load(answer)
        return int(stats.get("submits", 0))

    def processes(self, name: str) -> list[int]:
        """Those of a run, the keeper first."""
        found, waiting = [], [runs.pid_of(self.server.data / "learning" / name)]
        while waiting:
            pid = waiting.pop(0)
            found.append(pid)
            waiting += [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found[1:]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("learn")
    smsc = Carrier()
    settings = {
        "profile": "development",
        "messaging": {"long_code_mps": 0},
        "learning": {"work_s": 5.0},
        "connectors": [smsc.connector(password="hush-hush"), smsc.connector(name="second")],
        "routes": [
            {"name": "us", "connector": "carrier", "prefixes": ["+1"]},
            {"name": "de", "connector": "second", "prefixes": ["+49"]},
        ],
    }
    server = Server(folder, settings)
    tenant = server.seed(lambda database, clock: make_tenant(database, clock))
    server.start()
    yield World(folder, server, tenant, smsc)
    server.stop()
    smsc.close()


def wrong_routes(world: World) -> Path:
    file = world.folder / "wrong.toml"
    file.write_text('[[routes]]\nname = "all"\nconnector = "second"\nprefixes = ["+1", "+49"]\n')
    return file


def same(world: World) -> Path:
    file = world.folder / "same.toml"
    file.write_text("[webhooks]\nper_host = 3\n")
    return file


def faulty(world: World, name: str) -> list[str]:
    shutil.copy(planted.__file__, world.folder)
    return ["--candidate", f"smpp=planted:{name}", "--path", str(world.folder)]


def test_a_candidate_that_does_the_same_agrees(world: World) -> None:
    world.start("same", "--candidate", str(same(world)))
    for text in TEXTS:
        world.send(text)
        world.send(text, "+4930555012")
    tally = world.until("same", lambda tally: tally.counts["pdu"].agree >= 12)
    told = world.learn("report", "same", "--minimum", "12", "--more", "1000")
    world.learn("stop", "same")
    assert told.returncode == 0, told.stdout
    assert told.stdout.splitlines()[-1].startswith(f"same ({same(world)}) agrees: ")
    for aspect in ("route", "segments", "pdu", "status", "callbacks"):
        assert tally.counts[aspect].agree >= 12
        assert tally.counts[aspect].disagree == tally.counts[aspect].unclear == 0
    assert world.learn("report", "same", "--minimum", "5000").returncode == 1
    assert world.learn("report", "nobody").returncode == 2


def test_a_planted_routing_bug_is_caught(world: World) -> None:
    world.start("routing", "--candidate", str(wrong_routes(world)))
    world.send("to the states")
    world.send("to Germany", "+4930555012")
    world.until("routing", lambda tally: tally.counts["route"].disagree >= 2 and tally.counts["pdu"].agree >= 1)
    told = world.learn("report", "routing", "--minimum", "1")
    world.learn("stop", "routing")
    assert told.returncode == 1
    assert 'production  ["us","carrier"]\n  candidate   ["all","second"]' in told.stdout
    assert "route: " in told.stdout.splitlines()[-1]


def test_a_planted_encoding_bug_is_caught(world: World) -> None:
    world.start("encoding", *faulty(world, "BadlyEncoding"))
    for text in TEXTS:
        world.send(text)
    tally = world.until(
        "encoding", lambda tally: tally.counts["pdu"].agree + tally.counts["pdu"].disagree >= len(TEXTS)
    )
    told = world.learn("report", "encoding", "--minimum", "1", "--more", "1000")
    world.learn("stop", "encoding")
    assert tally.counts["pdu"].disagree == 1  # the one with the euro sign
    assert tally.counts["route"].disagree == 0
    (sample,) = [one for one in tally.samples if one.aspect == "pdu"]
    assert "1b65" in sample.production  # the euro sign
    assert "1b65" not in sample.candidate
    assert told.returncode == 1


def test_a_whole_version_is_followed(world: World, tmp_path: Path) -> None:
    sources = Path(run.__file__).parents[2]
    shutil.copytree(sources, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    routing = tmp_path / "src" / "trunkline" / "messaging" / "outbound.py"
    text = routing.read_text()
    assert "return candidates[0]" in text
    routing.write_text(text.replace("return candidates[0]", "return self.router.routes[-1]"))
    world.start("version", "--version", str(tmp_path))
    world.send("to the states")
    world.send("to Germany", "+4930555012")
    tally = world.until("version", lambda tally: tally.counts["route"].agree + tally.counts["route"].disagree >= 2)
    world.learn("stop", "version")
    assert tally.counts["route"].agree >= 1
    (sample, *_) = [one for one in tally.samples if one.aspect == "route"]
    assert (sample.production, sample.candidate) == ('["us","carrier"]', '["de","second"]')


@pytest.mark.parametrize("fault", ["Crashing", "Raising", "Spinning", "Hoarding"])
def test_a_candidate_that_breaks_is_caught_and_not_felt(world: World, fault: str) -> None:
    name = fault.lower()
    before = world.submits()
    world.start(name, *faulty(world, fault))
    for text in TEXTS[:3]:
        world.send(text)  # answered, whatever the candidate does
    world.until(name, lambda tally: tally.candidate.deaths + tally.candidate.errors > 0)
    world.until(name, lambda tally: tally.control.done >= 3)  # the rest of the run goes on
    told = world.learn("report", name, "--minimum", "1")
    world.learn("stop", name)
    tally = runs.found(world.server.data, name)[1]
    assert any(one.aspect == "errors" for one in tally.samples)
    assert told.returncode == 1
    assert world.submits() == before + 3


def test_a_candidate_that_does_not_start_is_told_at_once(world: World) -> None:
    done = world.learn("start", "absent", *faulty(world, "Absent"))
    assert done.returncode == 1
    assert "the candidate does not start; LookupError: no such thing" in done.stderr


def test_nothing_gets_out(world: World) -> None:
    outside = world.folder / planted.OUTSIDE
    outside.write_text(f"{world.smsc.port}\n{world.server.data}\n{world.server.pid}\n{world.folder / 'trunkline.toml'}")
    before = world.submits()
    world.start("escaping", *faulty(world, "Escaping"))
    world.send("tell")
    tally = world.until("escaping", lambda tally: tally.counts["pdu"].disagree > 0)
    inside = world.processes("escaping")
    assert len(inside) >= 3  # the keeper, the candidate, the control
    for pid in inside:
        assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
        interfaces = [line.split(":")[0].strip() for line in Path(f"/proc/{pid}/net/dev").read_text().split("\n")[2:]]
        assert set(filter(None, interfaces)) == {"lo"}
        for table in ("tcp", "udp"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                assert all(end.startswith(("0100007F:", "00000000:")) for end in line.split()[1:3])
        assert b"hush-hush" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert "hush-hush" not in (world.server.data / "learning" / "escaping" / run.RUN_FILE).read_text()
    world.learn("stop", "escaping")
    assert world.submits() == before + 1  # production's own
    (sample,) = [one for one in tally.samples if one.aspect == "pdu"]
    written = b"".join(bytes.fromhex(one) for one in msgspec.json.decode(sample.candidate)["carrier"])
    assert b"connect 111" in written  # refused: there is nobody
    assert b"'work'" in written
    assert b"sqlite" not in written  # of the data folder there is only what the learner made itself
    assert b"process False" in written
    assert b"secrets 0 False" in written  # of the settings, which hold the password, nothing is left
    assert b"file 30" in written  # read-only


def test_a_learner_that_is_killed_is_not_felt(world: World) -> None:
    world.start("killed", "--candidate", str(same(world)))
    keeper = world.processes("killed")[0]
    inside = world.processes("killed")
    os.kill(keeper, signal.SIGKILL)
    before = world.submits()
    for text in TEXTS:
        world.send(text)
    end = time.monotonic() + LIMIT_S
    while world.submits() < before + len(TEXTS) + 1 or any(Path(f"/proc/{pid}/exe").exists() for pid in inside):
        assert time.monotonic() < end
        time.sleep(POLL_S)
    assert "was killed" in world.learn("status", "killed").stdout
    world.learn("stop", "killed")
    assert not any(group.exists() for group in shares.groups_of(world.server.data / "learning" / "killed"))


def test_a_learner_that_stands_still_is_shed(world: World) -> None:
    world.start("still", "--candidate", str(same(world)))
    keeper = world.processes("still")[0]
    os.kill(keeper, signal.SIGSTOP)
    before = world.submits()
    for _ in range(30):
        for text in TEXTS:
            world.send(text * 4)
    end = time.monotonic() + LIMIT_S
    while world.submits() < before + 30 * len(TEXTS):  # and more: some are of several segments
        assert time.monotonic() < end
        time.sleep(POLL_S)
    os.kill(keeper, signal.SIGCONT)
    world.send("again")
    world.until("still", lambda tally: tally.work > 0)
    world.learn("stop", "still")

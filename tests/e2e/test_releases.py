"""A release of each risk class, from its plan to production, on real nodes: `trunkline release` and `trunkline promote`
move them by `trunkline upgrade`, and judge canaries by what customers are really answered.

Three environments of two nodes each, every node a server under its supervisor, on one PostgreSQL and a Redis of each
environment's own. What is released are commits of a repository that holds this very project.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.release_move import installed
from tests.e2e.releases import copy_tree
from tests.e2e.restart_load import Requests, eventually
from tests.e2e.server import Server
from tests.e2e.test_cluster import LEASE_S
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import RedisServer, needs_redis
from tests.release.repo import ADA, BO, Repo, approvers, key_file
from trunkline.bootstrap_processes import ORDERS_SOCKET, socket_path
from trunkline.cli import main
from trunkline.release.risk import shipped
from trunkline.settings import load
from trunkline.supervisor.orders import give

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
LADDER = (("integration", ""), ("staging", "integration"), ("production", "staging"))
ZONES = ("a", "b")
CANARY = ("--canary", "zone=a")
WATCH_S = 8
LEAST = 20
"""Requests by which a canary is judged; customers make more."""
SURE = 1e-6
"""So unlikely must a difference be by chance: canary and others share two cores with everything else."""
MOVE = Path(__file__).with_name("release_move.py")
CONSTANT = "import os, time\nwhile time.process_time() < 0.1: pass\nos._exit(0)"
"""What `performance` times: it costs every version the same."""
HANDLER = "return await endpoint.route.handler(request, self._services)\n\n    async def _once"
FAILS = """if 'production' in str(sys.argv) and time.time_ns() % 3 == 0:
            raise RuntimeError('planted')
        """
SLOW = "await asyncio.sleep(1.0)\n        "


class Environment:
    """Its nodes and their customers."""

    def __init__(self, folder: Path, name: str, postgres: PostgresServer, carrier: Carrier) -> None:
        self.name = name
        self.memory = RedisServer().start()
        objects = folder / f"{name}-objects"
        objects.mkdir()
        storage = {
            "engine": "postgres", "queue": [postgres.database()], "database": postgres.database(), "partitions": 2,
        }  # fmt: skip
        self._tables: list[dict[str, Any]] = []
        self.nodes: list[Server] = []
        for number, zone in enumerate(ZONES):
            own = folder / f"{name}-{number}"
            own.mkdir()
            tables: dict[str, Any] = {
                "profile": name,
                "server": {
                    "supervisor": "yes", "port": free_port(), "host": "127.0.0.1", "metrics_token": "m" * 32,
                    "public_url": "https://sms.example.com",
                },
                "messaging": {"long_code_mps": 0},
                "storage": storage,
                "memory": {"engine": "valkey", "url": self.memory.url},
                "objects": {"url": f"file://{objects}"},
                "security": {"master_key": "0123456789abcdef" * 4},
                "node": {"name": own.name, "zone": zone, "address": f"127.0.0.1:{free_port()}"},
                "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
                "connectors": [carrier.connector(window=10, password="p" * 8)],
                "release": {
                    "move": f"'{sys.executable}' '{MOVE}' '{folder}' {{name}} {{version}}", "watch_s": WATCH_S,
                    "minimum": LEAST, "significance": SURE,
                },
            }  # fmt: skip
            self._tables.append(tables)
            self.nodes.append(Server(own, tables))
        self.tenant: Tenant = self.nodes[0].seed(make_tenant)

    @property
    def config(self) -> str:
        """Of the node at which the operator sits."""
        return str(self.nodes[0].folder / "trunkline.toml")

    def trusts(self, key: str) -> None:
        """Take the evidence that is signed by this key."""
        tables = self._tables[0]
        tables["release"] = {**tables["release"], "trusted_key": key}
        Server(self.nodes[0].folder, tables)  # writes the file, no more

    def start(self, python: Path) -> None:
        for node in self.nodes:
            node.python = str(python)
            node.start()

    def versions(self) -> list[str]:
        """The commit that each node's process is of."""
        found = []
        for node in self.nodes:
            path = socket_path(load(node.folder / "trunkline.toml", {}), ORDERS_SOCKET)
            (status,) = give(path, {"do": "status"}, 20.0)
            python = next(child["python"] for child in status["children"] if child["name"] == "node")
            found.append(Path(python).parents[1].name)
        return found

    def customers(self) -> "Customers":
        return Customers(self)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.memory.close()


class Customers:
    """Of both nodes of an environment, while it is entered."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __enter__(self) -> "Customers":
        account, (number, _) = self._environment.tenant
        form = {"From": number.phone_number, "To": "+12125550100", "Body": "Released"}
        who = (account.sid, str(account.auth_token), form)
        self.loads = [[Requests(node.port, *who) for _ in range(2)] for node in self._environment.nodes]
        eventually(lambda: all(one.waits for loads in self.loads for one in loads), "traffic")
        return self

    def __exit__(self, *_: object) -> None:
        for loads in self.loads:
            for one in loads:
                one.stop()

    def go_on(self) -> None:
        """Wait until each has had some more messages accepted."""
        ones = [one for loads in self.loads for one in loads]
        before = [len(one.accepted) for one in ones]
        eventually(lambda: all(len(one.accepted) > n + 3 for one, n in zip(ones, before, strict=True)), "traffic")

    @property
    def failed(self) -> list[list[str]]:
        """What failed at each node."""
        return [[text for one in loads for text in one.failed] for loads in self.loads]


class Stage:
    """The operator, the repository and the environments."""

    def __init__(self, folder: Path, postgres: PostgresServer, carrier: Carrier) -> None:
        self.folder = folder
        self.repo = Repo(folder / "repo")
        copy_tree(folder / "repo")
        ada, bo = key_file(folder / "ada"), key_file(folder / "bo")
        first = {"risk.toml": shipped() + approvers(ada, bo), "README.md": "one\n", "Makefile": "all:\n"}
        self.base = self.repo.commit(first)
        self.released: set[str] = set()
        """Environments in which something has been released."""
        self.environments = {name: Environment(folder, name, postgres, carrier) for name, _ in LADDER}

    def start(self, capsys: pytest.CaptureFixture[str]) -> None:
        """All nodes on the first version, and each environment trusting the one below."""
        python = installed(self.folder, self.base)
        for name, below in LADDER:
            if below:
                self.environments[name].trusts(self.run(capsys, below, "release", "key").strip())
            self.environments[name].start(python)

    def run(self, capsys: pytest.CaptureFixture[str], environment: str, *words: str, code: int = 0) -> str:
        """A command; what it said."""
        status = main(["--config", self.environments[environment].config, *words])
        shown = capsys.readouterr()
        assert status == code, (words, shown.out + shown.err)
        return shown.out + shown.err

    def source(self, name: str) -> str:
        return (self.repo.folder / name).read_text()

    def close(self) -> None:
        for environment in self.environments.values():
            environment.close()


class Walk:
    """One change on its way up."""

    def __init__(self, stage: Stage, capsys: pytest.CaptureFixture[str], files: dict[str, str], signers: str) -> None:
        self.stage, self._capsys, self._signers = stage, capsys, signers
        self.head = stage.repo.commit(files)
        self._repo = ("--repo", str(stage.repo.folder), "--by", "ops@example.com")

    def run(self, environment: str, *words: str, code: int = 0) -> str:
        return self.stage.run(self._capsys, environment, *words, code=code)

    def start(self, environment: str, *words: str, code: int = 0) -> str:
        return self.run(environment, "release", "start", "last", *self._repo, *words, code=code)

    def promote(self, environment: str, below: str, code: int = 0) -> str:
        file = str(self.stage.folder / f"{below}.jsonl")
        self.run(below, "release", "evidence", "last", "--export", file)
        return self.run(environment, "promote", file, *self._repo, code=code)

    def planned(self, environment: str, below: str) -> str:
        """What the plan says, which is made below all others and taken up from there."""
        if below:
            return self.promote(environment, below)
        return self.plan(environment)

    def plan(self, environment: str) -> str:
        first = () if environment in self.stage.released else ("--base", self.stage.base)
        return self.run(environment, "release", "plan", *first, *self._repo)

    def pass_gates(self, environment: str, shown: str, canary: tuple[str, ...]) -> list[str]:
        """Show what is missing, one after the other; each time a start before that is refused. What it was."""
        missing = [line.split("\t")[1] for line in shown.splitlines() if line.startswith("shut\t")]
        for gate in missing:
            refused = self.start(environment, *canary, code=1)
            assert "may not start" in refused
            assert gate in refused
            if gate == "approval":
                for name in self._signers.split():
                    who = {"ada": ADA, "bo": BO}[name]
                    key = str(self.stage.folder / name)
                    self.run(environment, "release", "approve", "last", "--as", who, "--key", key)
            else:
                rounds = ("--rounds", "4") if gate == "performance" else ()
                script = (sys.executable, "-S", "-c", CONSTANT)
                self.run(environment, "release", "check", "last", *self._repo, *rounds, gate, "--", *script)
        return missing

    def up(self, environment: str, below: str, risk: str) -> list[str]:
        """One rung, with customers at the nodes of whom none may notice. What had to be shown."""
        shown = self.planned(environment, below)
        assert f"is of class {risk}" in shown
        canary = CANARY if risk not in ("content", "configuration") else ()
        missing = self.pass_gates(environment, shown, canary)
        if canary:
            assert "starts with a canary" in self.start(environment, code=1)
        own = self.stage.environments[environment]
        assert self.head not in own.versions()
        with own.customers() as customers:
            assert "is done" in self.start(environment, *canary)
        assert customers.failed == [[], []]
        assert own.versions() == [self.head, self.head]
        self.stage.released.add(environment)
        return missing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    postgres = PostgresServer()
    postgres.settings = {**postgres.settings, "max_connections": "200"}
    postgres.create().start()
    carrier = Carrier(latency_ms=5, receipt_delay_ms=50)
    stage = Stage(tmp_path_factory.mktemp("releases"), postgres, carrier)
    yield stage
    stage.close()
    carrier.close()
    postgres.close()


@pytest.fixture
def stage(made: Stage, capsys: pytest.CaptureFixture[str]) -> Stage:
    """Running, in whatever version the test before has left."""
    if not made.environments["production"].nodes[0].runs:
        made.start(capsys)
    return made


CLASSES = {
    "content": ("README.md", ""),
    "configuration": ("Makefile", ""),
    "route": ("trunkline.toml", ""),
    "handler": ("src/trunkline/metrics/page.py", ""),
    "api": ("src/trunkline/api/respond.py", "ada"),
    "state": ("src/trunkline/inflight/store.py", "ada"),
    "schema": ("src/trunkline/storage/pivots/lint.py", "ada"),
    "money": ("src/trunkline/voice/spending.py", "ada bo"),
}
"""Class -> a file of it, and who signs."""


@pytest.mark.parametrize("risk", CLASSES)
def test_each_class_from_plan_to_production(stage: Stage, capsys: pytest.CaptureFixture[str], risk: str) -> None:
    name, signers = CLASSES[risk]
    new = "[[routes]]\nname = 'a'\n" if risk == "route" else stage.source(name) + "\n# released\n"
    walk = Walk(stage, capsys, {name: new}, signers)
    shown = {environment: walk.up(environment, below, risk) for environment, below in LADDER}
    print(risk, shown)
    stage.base = walk.head


def test_a_skipped_rung_is_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    walk = Walk(stage, capsys, {"README.md": "skipped\n"}, "")
    before = stage.environments["production"].versions()
    walk.up("integration", "", "content")
    assert "was shown in integration: into production goes" in walk.promote("production", "integration", code=1)
    walk.plan("production")
    assert "promotion not done in staging" in walk.start("production", code=1)
    assert stage.environments["production"].versions() == before
    walk.up("staging", "integration", "content")
    walk.up("production", "staging", "content")
    stage.base = walk.head


def goes_back(walk: Walk, environment: str, below: str, because: str) -> None:
    """The canary is worse; every node has the version of before, and customers see nothing more of the other."""
    own = walk.stage.environments[environment]
    walk.pass_gates(environment, walk.planned(environment, below), CANARY)
    with own.customers() as customers:
        shown = walk.start(environment, *CANARY, code=1)
        assert because in shown
        assert own.versions() == [walk.stage.base, walk.stage.base]
        counts = [len(failed) for failed in customers.failed]
        customers.go_on()
    assert [len(failed) for failed in customers.failed] == counts
    assert counts[1] == 0, "only the canary's customers were touched"
    assert "rolled back" in walk.run(environment, "release", "status", "last")


def test_a_canary_that_fails_requests_in_production_rolls_itself_back(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    text = stage.source("src/trunkline/api/asgi.py")
    assert text.count(HANDLER) == 1
    bad = text.replace(HANDLER, FAILS + HANDLER).replace("import os\n", "import os\nimport sys\n", 1)
    walk = Walk(stage, capsys, {"src/trunkline/api/asgi.py": bad}, "ada")
    walk.up("integration", "", "api")
    walk.up("staging", "integration", "api")
    goes_back(walk, "production", "staging", "more requests fail")
    undone = Walk(stage, capsys, {"src/trunkline/api/asgi.py": text}, "ada")
    for environment, below in LADDER[:2]:
        undone.up(environment, below, "api")
    stage.base = undone.head


def test_a_slow_canary_rolls_itself_back_and_goes_no_further_up(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    text = stage.source("src/trunkline/api/asgi.py")
    walk = Walk(stage, capsys, {"src/trunkline/api/asgi.py": text.replace(HANDLER, SLOW + HANDLER)}, "ada")
    goes_back(walk, "integration", "", "more requests take longer")
    assert "is not done in integration, but rolled back" in walk.promote("staging", "integration", code=1)
    stage.repo.commit({"src/trunkline/api/asgi.py": text})

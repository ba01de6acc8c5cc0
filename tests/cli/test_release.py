"""A change of each class from its plan to production, by the commands alone; nodes are small servers with a version."""

import http.server
import itertools
import sys
import threading
from pathlib import Path

import pytest

from tests.release.repo import ADA, BO, Repo, approvers, key_file
from trunkline.cli import main
from trunkline.release.risk import shipped
from trunkline.release.steps import Node

MOVE = """
import pathlib, sys
name, version = sys.argv[1:]
file = pathlib.Path(__file__).parent / f"{name}.version"
if (file.parent / f"{name}.stuck").exists():
    sys.exit("this node is stuck")
file.write_text(version)
"""
CONSTANT = "import os, time\nwhile time.process_time() < 0.05: pass\nos._exit(0)"
"""What `performance` times: it costs every version the same, whatever else the machine does."""
BAD = "bad.py"
"""A version that has this file fails requests."""


class FakeNode(threading.Thread):
    """Answers 100 requests between two looks at its metrics; of a bad version a third fails."""

    def __init__(self, folder: Path, name: str, repo: Repo) -> None:
        super().__init__(daemon=True)
        self.file = folder / f"{name}.version"
        self.answered = self.failed = 0
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = node.metrics(repo) if self.path == "/metrics" else "{}"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.start()

    def run(self) -> None:
        self.server.serve_forever(0.05)

    @property
    def version(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    def metrics(self, repo: Repo) -> str:
        self.answered += 100
        if self.version and BAD in repo.git("ls-tree", "--name-only", self.version).split():
            self.failed += 33
        lines = ["# TYPE trunkline_http_seconds histogram"]
        for status, count in (("2xx", self.answered - self.failed), ("5xx", self.failed)):
            for bound in ("1.0", "+Inf"):
                lines.append(f'trunkline_http_seconds_bucket{{le="{bound}",status="{status}"}} {count}')
            lines.append(f'trunkline_http_seconds_count{{status="{status}"}} {count}')
            lines.append(f'trunkline_http_seconds_sum{{status="{status}"}} 1')
        return "\n".join(lines) + "\n"


class Stage:
    """Three environments of three nodes each, and a repository."""

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self._capsys = folder, capsys
        self.repo = Repo(folder / "repo")
        ada, bo = key_file(folder / "ada"), key_file(folder / "bo")
        rules = shipped().replace('checks = ["performance", "soak"]', 'checks = ["soak"]') + approvers(ada, bo)
        self.base = self.repo.commit({"risk.toml": rules, "README.md": "one\n", "Makefile": "all:\n"})
        (folder / "move.py").write_text(MOVE)
        self.nodes: dict[str, list[FakeNode]] = {}
        trusted = ""
        for name in ("integration", "staging", "production"):
            (folder / name).mkdir()
            self._write(name, trusted)
            trusted = self.run(name, "release", "key").strip()
            self.nodes[name] = [FakeNode(folder, f"{name}-{number}", self.repo) for number in range(3)]
        monkeypatch.setattr("trunkline.cli.release.nodes_of", lambda settings: self._nodes(settings.profile))

    def _write(self, name: str, trusted: str) -> None:
        (self.folder / f"{name}.toml").write_text(f"""
profile = "{name}"
[data]
path = "{self.folder / name}"
[security]
master_key = "{"0123456789abcdef" * 4}"
[server]
public_url = "https://sms.example.com"
[release]
move = "'{sys.executable}' -S '{self.folder / "move.py"}' {{name}} {{version}}"
watch_s = 0.05
ready_s = 30
minimum = 100
trusted_key = "{trusted}"
[[connectors]]
name = "carrier"
kind = "smpp"
host = "127.0.0.1"
system_id = "x"
password = "{"p" * 8}"
""")

    def _nodes(self, environment: str) -> list[Node]:
        ports = (node.server.server_address[1] for node in self.nodes[environment])
        return [
            Node(f"{environment}-{number}", f"z{number}", "127.0.0.1", f"http://127.0.0.1:{port}")
            for number, port in enumerate(ports)
        ]

    def run(self, environment: str, *arguments: str, code: int = 0) -> str:
        found = main(["--config", str(self.folder / f"{environment}.toml"), *arguments])
        shown = self._capsys.readouterr()
        assert found == code, shown.out + shown.err
        return shown.out + shown.err

    def release(self, environment: str, command: str, *arguments: str, code: int = 0) -> str:
        repo = (
            () if command in ("approve", "status", "evidence") else ("--repo", str(self.repo.folder), "--by", "ops@x")
        )
        before = [arguments[0]] if command in ("check", "start", "abort", "approve") else []
        return self.run(environment, "release", command, *before, *repo, *arguments[len(before) :], code=code)

    def check(self, environment: str, name: str, code: int = 0, script: str = "") -> str:
        script = script or (CONSTANT if name == "performance" else "print('fine')")
        rounds = ("--rounds", "4") if name == "performance" else ()
        command = [sys.executable, "-S", "-c", script]
        return self.release(environment, "check", "last", *rounds, name, "--", *command, code=code)

    def approve(self, environment: str, *who: str) -> None:
        for name in who:
            address = {"ada": ADA, "bo": BO}[name]
            self.release(environment, "approve", "last", "--as", address, "--key", str(self.folder / name))

    def promote(self, environment: str, below: str, code: int = 0) -> str:
        file = self.folder / f"{below}.jsonl"
        self.release(below, "evidence", "last", "--export", str(file))
        return self.run(environment, "promote", str(file), "--repo", str(self.repo.folder), "--by", "ops@x", code=code)

    def versions(self, environment: str) -> set[str]:
        return {node.version for node in self.nodes[environment]}


@pytest.fixture
def stage(tmp_path, monkeypatch, capsys):
    made = Stage(tmp_path, monkeypatch, capsys)
    yield made
    for node in itertools.chain(*made.nodes.values()):
        node.server.shutdown()
        node.server.server_close()


slow = pytest.mark.slow
WALKS = [
    ("content", {"README.md": "two\n"}, ()),
    pytest.param("configuration", {"Makefile": "all: x\n"}, (), marks=slow),
    pytest.param("route", {"trunkline.toml": '[[routes]]\nname = "a"\n'}, (), marks=slow),
    pytest.param("handler", {"src/a.py": "a = 1\n"}, (), marks=slow),
    pytest.param("api", {"src/trunkline/api/a.py": "a = 1\n"}, ("ada",), marks=slow),
    pytest.param("state", {"src/trunkline/inflight/a.py": "a = 1\n"}, ("ada",), marks=slow),
    pytest.param("schema", {"src/trunkline/storage/pivots/a.py": "a = 1\n"}, ("ada",), marks=slow),
    ("money", {"src/trunkline/voice/spending.py": "a = 1\n"}, ("ada", "bo")),
]
CANARY = {"route", "handler", "api", "state", "schema", "money"}


@pytest.mark.parametrize(("name", "files", "signers"), WALKS)
def test_each_class_from_plan_to_production(stage, name, files, signers):
    head = stage.repo.commit(files)
    for environment, below in (("integration", ""), ("staging", "integration"), ("production", "staging")):
        planned = stage.release("integration", "plan", "--base", stage.base) if not below else ""
        shown = planned or stage.promote(environment, below)
        assert f"is of class {name}" in shown
        missing = [line.split("\t")[1] for line in shown.splitlines() if line.startswith("shut\t")]
        canary = ("--canary", "zone=z1") if name in CANARY else ()
        for check in missing:
            refused = stage.release(environment, "start", "last", *canary, code=1)
            assert "may not start" in refused
            assert check in refused
            if check == "approval":
                stage.approve(environment, *signers)
            else:
                stage.check(environment, check)
        if canary:
            assert "starts with a canary" in stage.release(environment, "start", "last", code=1)
        assert "is done" in stage.release(environment, "start", "last", *canary)
        assert stage.versions(environment) == {head}
    assert stage.versions("production") == {head}


def test_a_bad_canary_rolls_itself_back_and_goes_no_further_up(stage):
    stage.repo.commit({BAD: "a = 1\n", "src/a.py": "x"})
    stage.release("integration", "plan", "--base", stage.base)
    for check in ("tests", "performance", "learning"):
        stage.check("integration", check)
    stage.approve("integration", "ada")
    shown = stage.release("integration", "start", "last", "--canary", "34", code=1)
    assert "more requests fail" in shown
    assert stage.versions("integration") <= {stage.base, ""}
    assert "rolled back" in stage.release("integration", "status", "last")
    assert "is not done in integration, but rolled back" in stage.promote("staging", "integration", code=1)


def test_a_node_that_takes_no_version_rolls_the_release_back(stage):
    stage.repo.commit({"README.md": "two\n"})
    stage.release("integration", "plan", "--base", stage.base)
    (stage.folder / "integration-1.stuck").touch()
    assert "this node is stuck" in stage.release("integration", "start", "last", code=1)
    assert stage.versions("integration") <= {stage.base, ""}


def test_rungs_cannot_be_skipped_nor_evidence_be_made_up(stage):
    stage.repo.commit({"README.md": "two\n"})
    stage.release("integration", "plan", "--base", stage.base)
    assert "is not done in integration, but open" in stage.promote("staging", "integration", code=1)
    stage.release("integration", "start", "last")
    assert "was shown in integration: into production goes" in stage.promote("production", "integration", code=1)
    stage.release("production", "plan", "--base", stage.base)
    assert "promotion not done in staging" in stage.release("production", "start", "last", code=1)
    file = stage.folder / "forged.jsonl"
    stage.release("integration", "evidence", "last", "--export", str(file))
    file.write_bytes(file.read_bytes().replace(b'"content"', b'"contents"'))
    assert "not what was signed" in stage.run("staging", "promote", str(file), code=1)
    stage._write("staging", key_file(stage.folder / "other"))
    assert "not signed by integration's key" in stage.promote("staging", "integration", code=1)


def test_declaring_less_is_refused_and_more_is_not(stage):
    stage.repo.commit({"src/a.py": "a = 1\n"})
    assert "is of class handler, not content" in stage.release(
        "integration", "plan", "--base", stage.base, "--declare", "content", code=1
    )
    assert "is of class money" in stage.release("integration", "plan", "--base", stage.base, "--declare", "money")


def test_nobody_signs_off_their_own_change(stage):
    stage.repo.commit({"src/trunkline/api/a.py": "a = 1\n"}, by=ADA)
    stage.release("integration", "plan", "--base", stage.base)
    key = ("--key", str(stage.folder / "ada"))
    assert "nobody signs off their own" in stage.release("integration", "approve", "last", "--as", ADA, *key, code=1)
    assert "may not approve" in stage.release("integration", "approve", "last", "--as", BO, *key, code=1)


def test_checks_are_of_exactly_that_commit_and_a_failed_one_shuts_the_gate(stage):
    stage.repo.commit({"Makefile": "all: x\n"})
    stage.release("integration", "plan", "--base", stage.base)
    assert "failed" in stage.check("integration", "tests", code=1, script="raise SystemExit(3)")
    assert "tests failed" in stage.release("integration", "start", "last", code=1)
    stage.check("integration", "tests")
    (stage.repo.folder / "Makefile").write_text("changed\n")
    assert "check that out, without changes" in stage.check("integration", "tests", code=1)
    assert "is no check" in stage.check("integration", "hope", code=1)


@slow
def test_performance_compares_both_versions_in_turns(stage):
    busy = "sum(range({}))\n"
    stage.repo.commit({"cost.py": busy.format(10), "Makefile": "all: x\n"})
    base = stage.repo.git("rev-parse", "HEAD")
    stage.repo.commit({"cost.py": busy.format(30_000_000)})
    stage.release("integration", "plan", "--base", base)
    shown = stage.check("integration", "performance", code=1, script="exec(open('cost.py').read())")
    assert "performance: failed" in shown
    assert stage.repo.git("worktree", "list").count("\n") == 0


def test_what_can_be_seen(stage):
    assert "there is no release yet" in stage.release("integration", "status", "last", code=1)
    assert "say --base" in stage.release("integration", "plan", code=1)
    stage.repo.commit({"README.md": "two\n"})
    stage.release("integration", "plan", "--base", stage.base)
    stage.release("integration", "start", "last")
    assert "differs in nothing" in stage.release("integration", "plan", code=1)
    stage.repo.commit({"README.md": "three\n"})
    stage.release("integration", "plan")  # from what runs here
    rows = stage.release("integration", "status").splitlines()
    assert [row.split("\t")[2] for row in rows[1:]] == ["open", "done"]
    assert "is open" in stage.release("integration", "abort", "last", code=1)
    assert "planned" in stage.release("integration", "evidence", "last")


def test_nobody_chooses_what_his_change_is_compared_with(stage):
    """A money change below a harmless one would go up with that one's class."""
    stage.repo.commit({"README.md": "two\n"})
    stage.release("integration", "plan", "--base", stage.base)
    stage.release("integration", "start", "last")
    runs = stage.repo.git("rev-parse", "HEAD")
    money = stage.repo.commit({"src/trunkline/voice/spending.py": "a = 1\n"})
    stage.repo.commit({"README.md": "three\n"})
    assert "is not what runs here" in stage.release("integration", "plan", "--base", money, code=1)
    assert "is of class money" in stage.release("integration", "plan", "--base", runs)


def test_a_plan_that_another_release_has_overtaken_does_not_start(stage):
    stage.repo.commit({"README.md": "two\n"})
    stage.release("integration", "plan", "--base", stage.base)
    overtaken = stage.release("integration", "status").splitlines()[1].split("\t")[0]
    stage.repo.commit({"README.md": "three\n"})
    stage.release("integration", "plan", "--base", stage.base)
    stage.release("integration", "start", "last")
    assert "plan it anew" in stage.release("integration", "start", overtaken, code=1)

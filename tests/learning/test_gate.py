"""A learning report is what opens the gate `learning` of a release."""

import sys
from pathlib import Path

import pytest

from tests.cli.test_learn import differing, ended
from tests.release.repo import Repo
from trunkline.cli import main
from trunkline.release.risk import shipped


def test_a_report_opens_the_gate_or_keeps_it_shut(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    repo, data, file = Repo(tmp_path / "repo"), tmp_path / "data", tmp_path / "trunkline.toml"
    base = repo.commit({"risk.toml": shipped(), "trunkline.toml": '[[routes]]\nname = "a"\nconnector = "one"\n'})
    repo.commit({"trunkline.toml": '[[routes]]\nname = "a"\nconnector = "two"\n'})
    file.write_text(f'profile = "development"\n[data]\npath = "{data}"\n')
    data.mkdir()
    ended(data, "good")
    differing(data, "bad")

    def release(*words: str) -> tuple[int, str]:
        code = main(["--config", str(file), "release", *words])
        return code, capfdbinary.readouterr().out.decode()

    def learned(name: str) -> tuple[int, str]:
        report = [sys.executable, "-m", "trunkline", "--config", str(file), "learn", "report", name]
        return release("check", "last", "learning", "--repo", str(tmp_path / "repo"), "--by", "ada", "--", *report)

    code, told = release("plan", "--base", base, "--repo", str(tmp_path / "repo"), "--by", "ada")
    assert (code, "is of class route" in told) == (0, True)
    code, told = learned("bad")
    assert code == 1
    assert told.splitlines()[-1].endswith("route: 2 of 150 differ")
    assert "learning" in release("status", "last")[1]
    code, told = learned("good")
    assert code == 0
    assert told.splitlines()[-1].endswith("agrees: 150 compared, route 150/150; 0 shed")
    assert "agrees: 150 compared" in release("evidence", "last")[1]

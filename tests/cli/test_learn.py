"""`trunkline learn` over runs that have ended; tests/learning/test_run.py starts real ones."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from trunkline.learning import run, runs
from trunkline.learning.run import Run
from trunkline.learning.sampling import Sampling
from trunkline.learning.tally import Count, Tally
from trunkline.settings.learning import Learning

COMMIT = "c0ffee" + "0" * 34


def ended(data: Path, name: str, **more: object) -> Tally:
    """A run with what it has found."""
    folder = data / "learning" / name
    folder.mkdir(parents=True)
    run.write(folder, run.RUN_FILE, Run(name, "new.toml", COMMIT, 0, Sampling(), Learning(), []))
    tally = Tally(**{"state": "stopped", "work": 150, **more})
    tally.counts["route"] = Count(agree=150)
    run.write(folder, run.TALLY_FILE, tally)
    return tally


def differing(data: Path, name: str) -> None:
    folder = data / "learning" / name
    tally = ended(data, name)
    tally.counts["route"] = Count(agree=148, disagree=2)
    tally.note("route", "SM7", ["us", "carrier"], ["all", "second"], 0, 9)
    run.write(folder, run.TALLY_FILE, tally)


def test_a_report_is_a_gate(data: Path, account: str, trunkline: Command) -> None:
    ended(data, "good")
    differing(data, "bad")
    good, bad = trunkline("learn", "report", "good"), trunkline("learn", "report", "bad")
    assert (good.code, bad.code) == (0, 1)
    assert good.out.splitlines()[-1] == "good (new.toml) agrees: 150 compared, route 150/150; 0 shed"
    assert bad.out.splitlines()[-1].endswith("; route: 2 of 150 differ")
    assert 'route SM7\n  production  ["us","carrier"]\n  candidate   ["all","second"]\n' in bad.out
    assert trunkline("learn", "report", "bad", "--expect", "route").code == 0
    assert trunkline("learn", "report", "good", "--minimum", "151").code == 1


def test_a_report_may_insist_on_a_version(data: Path, account: str, trunkline: Command) -> None:
    ended(data, "good")
    assert trunkline("learn", "report", "good", "--commit", "c0ffee").code == 0
    refused = trunkline("learn", "report", "good", "--commit", "dead")
    assert refused.code == 2
    assert f"good follows {COMMIT}, not dead" in refused.err


@pytest.mark.parametrize("words", [["nobody"], ["../x"], ["good", "--expect", "luck"], []])
def test_misuse_is_told_from_disagreement(data: Path, account: str, trunkline: Command, words: list[str]) -> None:
    ended(data, "good")
    assert trunkline("learn", "report", *words).code == 2


def test_runs_are_listed_and_removed(data: Path, account: str, trunkline: Command) -> None:
    assert trunkline("learn", "list").rows == []
    ended(data, "good")
    differing(data, "bad")
    ended(data, "killed", state="learning")
    assert trunkline("learn", "list").rows == [
        ["bad", "new.toml", "stopped", "150", "2"],
        ["good", "new.toml", "stopped", "150", "0"],
        ["killed", "new.toml", "was killed", "150", "0"],
    ]
    assert "state                stopped" in trunkline("learn", "status", "good").out
    assert trunkline("learn", "stop", "good").out == "good was not running\n"
    assert trunkline("learn", "stop", "bad", "--remove").code == 0
    assert runs.names(data) == ["good", "killed"]
    assert trunkline("learn", "stop", "nobody").code == 1


def test_what_cannot_be_started_is_told(data: Path, account: str, trunkline: Command) -> None:
    for words, why in (
        (["new"], "no candidate"),
        (["New"], "no candidate"),
        (["NEW", "--version", "."], "no Trunkline that can learn"),
        (["new", "--candidate", "absent.toml"], "cannot be read"),
    ):
        ran = trunkline("learn", "start", *words)
        assert ran.code == 1
        assert why in ran.err


def test_nothing_is_learned_without_a_node(trunkline: Command) -> None:
    ran = trunkline("learn", "start", "new", "--candidate", "new.toml")
    assert (ran.code, "there is no data in" in ran.err) == (1, True)

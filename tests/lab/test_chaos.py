"""A short chaos run: one node, one fault, all zeros."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab.plan import HOME
from lab.system import ROOT

from lab import report
from tests.lab.conftest import needs_root

pytestmark = [needs_root, pytest.mark.slow]

RUN_S = 300.0


def test_a_primary_that_crashes_costs_nothing(tmp_path: Path) -> None:
    name = f"tc{os.getpid() % 100000}"
    options = ["--name", name, "--small", "--nodes", "1", "--runs", "1", "--calls", "3", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "lab", "chaos", "--faults", "kill-postgres", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)
    shutil.rmtree(HOME / name, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = report.read(tmp_path)
    assert run.messages.accepted > 100
    assert (run.messages.lost, run.messages.callbacks_lost, run.messages.wrong_final) == (0, 0, 0)
    assert json.loads((tmp_path / "kill-postgres-1.jsonl").read_text())["at"] > 0

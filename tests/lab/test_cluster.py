"""The whole lab, started and removed; also after it was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.made import exists, processes_in, started
from lab.plan import HOME
from lab.system import ROOT

from tests.lab.conftest import needs_root

pytestmark = [needs_root, pytest.mark.slow]

NAME = f"tt{os.getpid() % 100000}"
UP_S = 120.0


def lab(what: str, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lab", what, "--name", NAME, "--small", "--nodes", "0", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_up(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    deadline = time.monotonic() + UP_S
    text = ""
    while time.monotonic() < deadline and (line := child.stdout.readline()):
        text += line
        if line.strip().endswith(" up"):
            return
    raise AssertionError(text)


def left() -> list[str]:
    """What is there of the lab."""
    hosts = ["hub", "out", *(f"{zone}-{kind}" for zone in "abc" for kind in ("store", "node"))]
    spaces = [name for host in hosts if exists(name := f"{NAME}-{host}")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{NAME}/" in line]
    return spaces + mounts


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    subprocess.run([sys.executable, "-m", "lab", "stop", "--name", NAME], cwd=ROOT, check=True, capture_output=True)
    shutil.rmtree(HOME / NAME, ignore_errors=True)


def test_interrupted_it_leaves_nothing() -> None:
    child = lab("cluster", "--disks")
    until_up(child)
    assert len(left()) > 8
    pids = processes_in(f"{NAME}-a-store")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert left() == []
    assert not [pid for pid in pids if started(pid)]


def test_killed_it_is_cleaned_up_by_the_next() -> None:
    child = lab("cluster", "--disks")
    until_up(child)
    child.kill()
    child.communicate()
    pids = processes_in(f"{NAME}-b-store")
    assert pids
    following = lab("cluster", "--once")
    text, _ = following.communicate(timeout=UP_S)
    assert following.returncode == 0, text
    assert "an earlier lab had left" in text
    assert left() == []
    assert not [pid for pid in pids if started(pid)]


def test_two_of_one_name_do_not_run() -> None:
    child = lab("cluster")
    until_up(child)
    second = lab("cluster", "--once")
    text, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "runs already" in text
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert left() == []

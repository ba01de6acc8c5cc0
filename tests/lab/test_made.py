"""What a lab made is removed, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.made import Made
from lab.system import Failed, run

from lab import made, throttle
from tests.lab.conftest import needs_root

SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


def sleeper() -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    return child


def test_a_process_is_known_by_its_pid_and_its_start(tmp_path: Path) -> None:
    own, foreign = sleeper(), sleeper()
    try:
        with Made(tmp_path) as things:
            things.note("pid", own.pid, made.started(own.pid))
            things.note("pid", foreign.pid, made.started(foreign.pid) + 1)
            assert things.remove() == [f"process {own.pid}"]
            assert own.wait(5) == -9
            assert foreign.poll() is None
            assert list(things.things()) == []
    finally:
        for child in (own, foreign):
            child.kill()
            child.wait()


def test_nothing_is_started_where_there_is_no_process() -> None:
    child = sleeper()
    child.kill()
    assert made.started(child.pid) == 0 or child.wait() == -9
    child.wait()
    assert made.started(child.pid) == 0
    assert made.started(os.getpid()) > 0


def test_a_second_lab_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with Made(tmp_path), pytest.raises(Failed, match="runs already"), Made(tmp_path):
        pass
    with Made(tmp_path):
        pass


def test_a_slow_disk_is_quick_again_before_anything_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, done = sleeper(), []

    def end(device: str, group: str) -> None:
        done.append((device, group, own.poll()))
        raise Failed("the device has gone")

    monkeypatch.setattr(throttle, "end", end)
    try:
        with Made(tmp_path) as things:
            things.note("pid", own.pid, made.started(own.pid))
            things.note("slow", "7:9 tt-slow")
            assert things.remove() == [f"process {own.pid}"]
        assert done == [("7:9", "tt-slow", None)]
    finally:
        own.kill()
        own.wait()


def test_a_half_written_line_is_no_thing(tmp_path: Path) -> None:
    with Made(tmp_path) as things:
        things.note("netns", "tt-none")
        with (tmp_path / "made.jsonl").open("a") as file:
            file.write('["mount", "/x')
        assert [thing.name for thing in things.things()] == ["tt-none"]
        assert things.remove() == []


@needs_root
def test_namespaces_go_with_what_runs_in_them(tmp_path: Path) -> None:
    name, foreign = f"tt{os.getpid() % 100000}-m", f"tt{os.getpid() % 100000}-f"
    run("ip", "netns", "add", foreign)
    try:
        with Made(tmp_path) as things:
            things.note("netns", name)
            run("ip", "netns", "add", name)
            child = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "--", "sleep", "60"])
            while child.pid not in made.processes_in(name):
                assert child.poll() is None
            assert things.remove() == [f"namespace {name}"]
            assert child.wait(5) == -9
            assert not made.exists(name)
            assert made.exists(foreign)
    finally:
        run("ip", "netns", "del", foreign)

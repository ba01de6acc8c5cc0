"""A soak of a real server: quiet when nothing grows, loud when something does."""

import textwrap

import msgspec
import pytest

from trunkline.cli import main
from trunkline.testing.soak import Point, Result, _own_bytes, compared, problems

LEAK = """
    import os, sys, threading, time
    if "serve" in sys.orig_argv or "dev" in sys.orig_argv:
        kept = []
        def leak():
            while True:
                time.sleep(0.05)
                kept.append(os.urandom(200_000))
        threading.Thread(target=leak, daemon=True).start()
"""


def result(points=(), **changes):
    given = {
        "version": "1", "minutes": 1.0, "accepted": 100, "refused": 0, "untold": 0, "calls": 1, "calls_failed": 0,
        "cpu_s_per_1000": 1.0, "memory_mb": 100.0, "disk_bytes_per_message": 1000.0, "problems": (),
    }  # fmt: skip
    return Result(points=tuple(points), **{**given, **changes})


def points(**grow):
    base = {"memory_mb": 100.0, "files": 100, "threads": 10, "p50_ms": 5.0, "p99_ms": 20.0, "cpu_ms": 3.0}
    return [
        Point(at_s=float(n), **{name: value + type(value)(grow.get(name, 0) * n) for name, value in base.items()})
        for n in range(60)
    ]


@pytest.mark.parametrize(
    ("grow", "said"),
    [
        ({}, ""),
        ({"memory_mb": 1}, "memory_mb"),
        ({"files": 1}, "files"),
        ({"p99_ms": 5}, "p99_ms"),
        ({"cpu_ms": 0.05}, "cpu_ms"),
        ({"p50_ms": 0.2}, ""),
    ],
)
def test_what_grows_is_named(grow, said):
    assert [line.split()[0] for line in problems(result(points(**grow)))] == ([said] if said else [])


def test_what_was_lost_is_named():
    assert len(list(problems(result(points(), refused=1, untold=1, calls_failed=1)))) == 3


def test_a_sentence_that_a_pause_broke_is_no_failure_but_many_are():
    assert list(problems(result(calls=199, calls_unheard=1))) == []
    assert "was not heard" in next(problems(result(calls=150, calls_unheard=50)))


def test_files_that_are_mapped_are_nobodys_memory():
    rollup = "0-1 ---p 0 00:00 0 [rollup]\nRss: 90 kB\nPss: 80 kB\nPss_Anon: 5 kB\nPss_File: 70 kB\nPss_Shmem: 2 kB\n"
    assert _own_bytes(rollup + "SwapPss: 1 kB\n") == 8 * 1024
    assert _own_bytes("0-1 ---p 0 00:00 0 [rollup]\nPss: 80 kB\n") == 80 * 1024


def test_what_is_worse_than_before_is_named():
    assert list(compared(result(), result())) == []
    assert [line.split()[0] for line in compared(result(memory_mb=130.0), result())] == ["memory_mb"]


def test_a_result_that_cannot_be_read_is_refused(tmp_path, capsys):
    (tmp_path / "soak-1.json").write_text("{}")
    assert main(["soak", "--results", str(tmp_path)]) == 1
    assert "no result of a soak" in capsys.readouterr().err


@pytest.mark.slow
def test_a_planted_leak_is_caught_and_without_it_nothing_grows(tmp_path, monkeypatch, capsys):
    run = ["soak", "--minutes", "1.5", "--rate", "20", "--calls", "1", "--results", str(tmp_path / "kept")]
    assert main(run) == 0, capsys.readouterr().out
    assert "nothing grows" in capsys.readouterr().out
    (kept,) = (tmp_path / "kept").glob("soak-*.json")
    assert msgspec.json.decode(kept.read_bytes(), type=Result).untold == 0
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(LEAK))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(run) == 1
    assert "memory_mb grows by" in capsys.readouterr().out

"""Control groups of a learning run, in folders that look like the kernel's."""

from pathlib import Path

import pytest

from trunkline.learning import shares


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """As version 1 has them."""
    for name in ("cpu", "pids", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")
    return tmp_path


def test_each_run_has_groups_of_its_own(first: Path) -> None:
    one, other = (shares.groups_of(Path(f"/data/learning/{name}"), first) for name in ("one", "other"))
    assert [group.parent.name for group in one] == ["cpu", "pids"]
    assert not set(one) & set(other)


def test_groups_are_idle_and_bounded(first: Path) -> None:
    run = Path("/data/learning/one")
    cpu, pids = shares.groups_of(run, first)
    for group, files in ((cpu, ("cpu.shares", "cpu.idle")), (pids, ("pids.max",))):
        group.mkdir()
        for file in files:
            (group / file).write_text("0")
    assert shares.limit(run, first) == [cpu / "cgroup.procs", pids / "cgroup.procs"]
    assert (cpu / "cpu.idle").read_text() == "1"
    assert (pids / "pids.max").read_text() == str(shares.MAX_PROCESSES)
    shares.hurry(run, first)
    assert (cpu / "cpu.idle").read_text() == "0"


def test_the_second_version_has_one_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids")
    (tmp_path / "cgroup.subtree_control").write_text("")
    run = Path("/data/learning/one")
    (procs,) = shares.limit(run, tmp_path)
    assert procs.parent.parent == tmp_path
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +pids"
    shares.release(run, tmp_path)
    assert not procs.parent.exists()


def test_what_is_not_allowed_is_done_without(tmp_path: Path) -> None:
    assert shares.limit(Path("/data/learning/one"), tmp_path / "absent") == []
    shares.release(Path("/data/learning/one"), tmp_path / "absent")


def test_a_session_without_a_group_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "SESSION", tmp_path / "absent" / "autogroup")
    shares.nice_session()
    monkeypatch.setattr(shares, "SESSION", tmp_path / "autogroup")
    shares.nice_session()
    assert (tmp_path / "autogroup").read_text() == "19"

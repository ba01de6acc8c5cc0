import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trunkline.media import native
from trunkline.media.native import build
from trunkline.media.native.build import BuildFailed


def test_the_library_is_built_once_and_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    path = build.library()
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(build, "compiler", lambda: pytest.fail("built again"))
    assert build.library() == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_of_processes_that_need_it_at_once_one_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    built: list[Path] = []

    def slowly(path: Path) -> None:
        built.append(path)
        time.sleep(0.1)
        path.write_bytes(b"")
        path.chmod(0o700)

    monkeypatch.setattr(build, "_build", slowly)
    with ThreadPoolExecutor() as threads:
        paths = {one.result() for one in [threads.submit(build.library) for _ in range(3)]}
    assert paths == set(built)
    assert len(built) == 1


def test_it_can_be_built_beforehand(tmp_path: Path) -> None:
    environment = {**os.environ, "TRUNKLINE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "trunkline.media.native"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert len(list((tmp_path / "cache").glob("media-*.so"))) == 1
    none = subprocess.run(
        command, env={**environment, "TRUNKLINE_CACHE": "/dev/null/x"}, capture_output=True, text=True, check=False
    )
    assert none.returncode == 1
    assert none.stderr.startswith("the media engine's helper in C cannot be built: ")


def test_a_library_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_build", lambda path: path.write_bytes(b""))
    build.library().chmod(0o777)
    with pytest.raises(BuildFailed, match="changed by others"):
        build.library()


def test_without_a_compiler_the_fallback_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert native.load("auto").name == "fallback"
    with pytest.raises(BuildFailed, match="no C compiler"):
        native.load("compiled")


def test_a_compiler_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int main(")
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SOURCES", (broken,))
    with pytest.raises(BuildFailed, match="error"):
        build.library()


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.CHOICE, "fallback")
    assert native.load().name == "fallback"

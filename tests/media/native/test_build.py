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


def test_a_library_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
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

"""Another release of this project beside the one under test: its source from git, in an environment of its own.

`PREVIOUS` in the environment names the commit or tag; without it the newest tag before this one counts, else the commit
with which restarts by handover were documented (no release before it can be upgraded from without a stop).
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import venv
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST = "docs/howto/upgrade.md"
"""It came with the first release that hands over."""
NEEDS = "src/trunkline/supervisor/handover.py"


def _git(*words: str, repo: Path = ROOT) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", "-C", str(repo), *words], capture_output=True, check=False)


def previous_commit() -> str:
    """See the module. Skips the test where there is no history."""
    wanted = os.environ.get("PREVIOUS", "")
    tag = _git("describe", "--tags", "--abbrev=0", "HEAD^").stdout.decode().strip()
    for name in filter(None, (wanted, tag)):
        if _git("cat-file", "-e", f"{name}:{NEEDS}").returncode == 0:
            return _git("rev-parse", "--short", f"{name}^{{commit}}").stdout.decode().strip()
    if wanted:
        pytest.fail(f"PREVIOUS={wanted} is no release that hands over")
    found = _git("log", "--diff-filter=A", "--format=%h", "--", FIRST).stdout.decode().split()
    if not found:
        pytest.skip("the history that holds an earlier release is not here")
    return found[-1]


class Release:
    """One version, installed. `python` is its interpreter, `version` what it calls itself."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        self.version = version
        self.python = folder / "bin" / "python"


def install(folder: Path, stamp: str, commit: str = "", repo: Path = ROOT) -> Release:
    """A commit's source (empty: the working tree's) as a release whose version ends with the stamp. Whatever it needs
    comes from the environment of the tests."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    if commit:
        tree = _git("archive", commit, "src/trunkline", repo=repo)
        assert tree.returncode == 0, tree.stderr
        with tarfile.open(fileobj=BytesIO(tree.stdout)) as archive:
            archive.extractall(folder, filter="data")
    else:
        copy_tree(folder)
    about = folder / "src" / "trunkline" / "__init__.py"
    text, found = re.subn(r'__version__ = "([^"]+)"', rf'__version__ = "\1+{stamp}"', about.read_text())
    assert found == 1
    about.write_text(text)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "release.pth").write_text(f"{folder / 'src'}\n{sysconfig.get_path('purelib')}\n")
    release = Release(folder, re.findall(r'__version__ = "([^"]+)"', about.read_text())[0])
    said = subprocess.run(
        [release.python, "-m", "trunkline", "version"], capture_output=True, text=True, check=True, cwd=folder
    )
    assert said.stdout.strip() == release.version
    return release


def copy_tree(folder: Path) -> None:
    """The working tree's source into a folder."""
    skipped = shutil.ignore_patterns("*.pyc", "__pycache__")
    shutil.copytree(ROOT / "src" / "trunkline", folder / "src" / "trunkline", ignore=skipped)


def running(pid: int) -> str:
    """The interpreter that a process was started with."""
    return (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")[0].decode()

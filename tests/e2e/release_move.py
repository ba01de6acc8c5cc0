"""`release.move` of tests.e2e.test_releases: put a commit of a repository on a node, as an operator's script would.

    python release_move.py FOLDER NODE COMMIT

FOLDER holds `repo`, `versions` and the nodes' own folders. The version is installed into an environment of its own,
where it is not yet; then `trunkline upgrade` hands the node over to it.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.e2e.releases import Release, install

GRACE_S = "0.5"


def installed(folder: Path, commit: str) -> Path:
    """The interpreter of a version."""
    versions = folder / "versions"
    versions.mkdir(exist_ok=True)
    with (versions / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = versions / commit
        if (place / "ready").exists():
            return Release(place, commit).python
        made = install(place, commit[:12], commit, folder / "repo")
        (place / "ready").touch()
        return made.python


def move(folder: Path, node: str, commit: str) -> int:
    """The exit status of the upgrade."""
    python = installed(folder, commit)
    config = folder / node / "trunkline.toml"
    command = [sys.executable, "-m", "trunkline", "--config", str(config), "upgrade", "--python", str(python)]
    return subprocess.run([*command, "--grace", GRACE_S], check=False).returncode


if __name__ == "__main__":
    sys.exit(move(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))

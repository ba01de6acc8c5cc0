"""What a learning run gets of the machine: CPU that nobody else wants, and a bound on its processes.

Niceness alone does not do that: where the kernel groups processes by session (autogroup) or by control group, it only
decides within the group, and a run, being a group of its own, would get as much as the node. So the run's session is
made as nice as can be; and where control groups can be written (root), the run has one that is idle and counted.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MAX_PROCESSES: Final = 64
SESSION: Final = Path("/proc/self/autogroup")
TRIES: Final = 5
"""The kernel takes one change of a session's niceness in a tenth of a second."""
AGAIN_S: Final = 0.15
GONE_S: Final = 20.0
"""How long those who were killed may take to be quite gone."""
FEW: Final = "2"
"""cpu.shares of a group whose kernel knows no idle ones: the least that there is."""


def nice_session() -> None:
    """Make this session's group give way to all others, where there is such a group."""
    for _ in range(TRIES):
        try:
            SESSION.write_text("19")
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(AGAIN_S)
        else:
            return


def groups_of(folder: Path, root: Path = CGROUPS) -> list[Path]:
    """The control groups that a run has where it may have them."""
    name = f"trunkline-learning-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if (root / "cgroup.controllers").is_file():
        return [root / name]
    return [root / one / name for one in ("cpu", "pids") if (root / one / "cgroup.procs").is_file()]


def limit(folder: Path, root: Path = CGROUPS) -> list[Path]:
    """Make a run's control groups, as far as that is allowed; the files that take the ids of its processes."""
    return list(_made(groups_of(folder, root)))


def _made(groups: list[Path]) -> Iterator[Path]:
    for group in groups:
        with suppress(OSError):
            if (group.parent / "cgroup.subtree_control").is_file():
                (group.parent / "cgroup.subtree_control").write_text("+cpu +pids")
            group.mkdir(exist_ok=True)
            for file, value in (("pids.max", str(MAX_PROCESSES)), ("cpu.shares", FEW), ("cpu.idle", "1")):
                if (group / file).exists():
                    with suppress(OSError):
                        (group / file).write_text(value)
            yield group / "cgroup.procs"


def hurry(folder: Path, root: Path = CGROUPS) -> None:
    """Let a run that is to end have CPU for that."""
    for group in groups_of(folder, root):
        for file, value in (("cpu.idle", "0"), ("cpu.shares", "1024")):
            if (group / file).exists():
                with suppress(OSError):
                    (group / file).write_text(value)


def release(folder: Path, root: Path = CGROUPS) -> None:
    """Remove the control groups of a run that has ended."""
    for group in groups_of(folder, root):
        until = time.monotonic() + GONE_S
        while group.exists() and time.monotonic() < until:
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(AGAIN_S)

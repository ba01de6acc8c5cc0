"""Slow disks: the kernel's block layer lets a device write so many times a second; what else is to be written waits.

By the io controller of cgroups. Version 1 (blkio) holds back whatever is written in the root group and in this
process's: the hosts' processes and the kernel's own threads, which write a file system's journal. Version 2 (io.max)
has no limit for the root group; there the processes move into a group of their own, and the journal, which is written
in the name of who waits for it, goes with them. (dm-delay would do it below both, where the kernel has device mapper.)
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from lab.system import Failed, run

GROUPS = Path("/sys/fs/cgroup")
V1, V1_FILE = GROUPS / "blkio", "blkio.throttle.write_iops_device"
V2_CONTROL = "cgroup.subtree_control"


def device(folder: Path) -> str:
    """`major:minor` of what is mounted at a folder. Raises Failed."""
    number = os.stat(folder).st_dev
    if run("findmnt", "-n", "-o", "TARGET", "-T", folder).strip() != str(folder):
        raise Failed(f"{folder} has no file system of its own")
    return f"{os.major(number)}:{os.minor(number)}"


def slow(folder: Path, writes_s: int, pids: Iterable[int], group: str) -> None:
    """Let the device below `folder` write so many times a second. Raises Failed."""
    found = device(folder)
    if V1.is_dir():
        for place in _ours():
            _write(place / V1_FILE, f"{found} {writes_s}")
        return
    if not (GROUPS / "cgroup.controllers").exists():
        raise Failed("a slow disk needs the io controller of cgroups")
    _write(GROUPS / V2_CONTROL, "+io")
    own = GROUPS / group
    own.mkdir(exist_ok=True)
    _write(own / "io.max", f"{found} wiops={writes_s}")
    for pid in pids:
        with contextlib.suppress(Failed):  # it has ended
            _write(own / "cgroup.procs", str(pid))


def quick(folder: Path, group: str) -> None:
    """End that."""
    end(device(folder), group)


def end(found: str, group: str) -> None:
    """The same by the device, be it mounted or not."""
    if V1.is_dir():
        for place in _ours():
            _write(place / V1_FILE, f"{found} 0")
        return
    own = GROUPS / group
    with contextlib.suppress(FileNotFoundError):
        for pid in (own / "cgroup.procs").read_text().split():
            with contextlib.suppress(Failed):
                _write(GROUPS / "cgroup.procs", pid)
        own.rmdir()


def _ours() -> set[Path]:
    """The root group and this process's, of version 1."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = next((path for _, names, path in lines if "blkio" in names.split(",")), "/")
    return {V1, V1 / own.lstrip("/")}


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise Failed(f"{file}: {error.strerror}") from None

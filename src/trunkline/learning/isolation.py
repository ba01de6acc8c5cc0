"""What keeps a learning run away from everything else (Linux).

`unshare` of util-linux gives the keeper a user, network, process, IPC and mount namespace of its own, as pid 1 of it:
when it ends, however it ends, the kernel ends what it has started. `enter` then makes every file read-only, hides the
data folder (with the stores, the keys and the sockets of the node) and /run behind empty folders, and leaves the run's
own folder. The network is an interface `lo` that leads nowhere but to the keeper's sinks. `confine` is for the
processes that run the candidate: bounded memory, only the CPU that nobody else wants, first to go when memory runs out.
"""

import ctypes
import fcntl
import os
import resource
import shutil
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NAMESPACES: Final = ("--user", "--map-root-user", "--net", "--pid", "--ipc", "--mount", "--fork", "--kill-child")
MAX_FILES: Final = 256
"""Descriptors of a process that follows the work."""
MAX_FILE_BYTES: Final = 256 << 20
STORE_BYTES: Final = 128 << 20
"""Memory that the followed work may take as files."""
_MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 4096, 16384, 1 << 18
_MOUNT_SETATTR: Final = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIGKILL: Final = 9
_libc = ctypes.CDLL(None, use_errno=True)


class CannotIsolate(Exception):
    """This machine does not allow it; the text is one line."""


def command(program: list[str]) -> list[str]:
    """The program in namespaces of its own. Raises CannotIsolate."""
    unshare = shutil.which("unshare")
    if unshare is None:
        raise CannotIsolate("`unshare` (util-linux) is not installed: nothing is learned without namespaces of its own")
    return [unshare, *NAMESPACES, *program]


def enter(data: Path, run: Path, hidden: Sequence[str] = ()) -> None:
    """Shut the file system, but for `run` (below `data`); `data` is empty and so are the `hidden` files. Bring `lo` up.
    Raises CannotIsolate."""
    kept = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _set_read_only("/", on=True)
        _mount("proc", "/proc", "proc", 0)
        for file in hidden:
            if Path(file).is_file():
                _mount("/dev/null", file, "", _MS_BIND)
        for folder in (data, Path("/run")):
            if folder.is_dir():
                _mount("none", str(folder), "tmpfs", 0, f"size={STORE_BYTES},mode=700")
        run.mkdir(parents=True)
        _mount(f"/proc/self/fd/{kept}", str(run), "", _MS_BIND)
        _set_read_only(str(run), on=False)
    finally:
        os.close(kept)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        flags = struct.unpack("16sh", fcntl.ioctl(line, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(line, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def yield_to_others(*, idle: bool) -> None:
    """Take only CPU time that is left over; `idle`: only what nobody else wants at all."""
    os.nice(19)
    if idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def confine(memory_bytes: int) -> None:
    """Bound this process and all that it starts."""
    yield_to_others(idle=True)
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    Path("/proc/self/oom_score_adj").write_text("1000")
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None):
        _refused(f"mount of {target}")


def _set_read_only(path: str, *, on: bool) -> None:
    attributes = struct.pack("QQQQ", _MS_RDONLY if on else 0, 0 if on else _MS_RDONLY, 0, 0)
    done = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, attributes, len(attributes))
    if done:
        _refused(f"making {path} {'read-only' if on else 'writable'}")


def _refused(what: str) -> None:
    number = ctypes.get_errno()
    raise CannotIsolate(f"{what}: {os.strerror(number)}; learning needs user namespaces and Linux 5.12")

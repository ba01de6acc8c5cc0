"""What the lab asks of this machine: commands, root, Debian's packages, network namespaces of this process."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND_S = 60.0
"""A command of the system that takes longer has failed."""
INSTALL_S = 600.0
PYTHON = "/usr/bin/python3"
"""Debian's: one in somebody's home cannot be run by the user postgres."""
CLONE_NEWNET = 0x40000000
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor's word, a terminal that was closed."""
PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "etcd": "etcd-server",
    "redis-server": "redis-server",
    "redis-sentinel": "redis-sentinel",
    "haproxy": "haproxy",
}
"""Program -> Debian's package that has it. PostgreSQL's programs are in no PATH, see `postgres_bin`."""
PATRONI = ("patroni[etcd3]>=4.0.4", "psycopg[binary]>=3.2")
"""From Python's package index: Debian 12 has 3.0, which knows no quorum."""


class Failed(Exception):
    """The lab cannot go on; the text is one line for the operator."""


def run(*command: object, check: bool = True, timeout_s: float = COMMAND_S) -> str:
    """What the command says. Raises Failed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{' '.join(words)}: {error}") from None
    if check and done.returncode:
        raise Failed(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Whoever is impatient while things are removed would leave half of them: those signals are ignored meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def need_root() -> None:
    """Raises Failed for others than root."""
    if os.geteuid() != 0:
        raise Failed("the lab makes network namespaces and mounts: run it as root, or by sudo")


def version() -> str:
    """The commit that this folder is of, short, with a `+` where its code differs; empty: no repository."""
    found = run("git", "-C", ROOT, "rev-parse", "--short=7", "HEAD", check=False).strip()
    changed = run("git", "-C", ROOT, "status", "--porcelain", "-uno", "--", "src", "lab", check=False) if found else ""
    return found + ("+" if changed else "")


def program(name: str) -> str | None:
    """Where it is; sbin counts."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")


def postgres_bin() -> Path | None:
    """The folder of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing(*more: str) -> list[str]:
    """Debian's packages that are not there; `more`: programs that are called like their packages."""
    programs = PACKAGES | {name: name for name in more}
    wanted = [package for name, package in programs.items() if program(name) is None]
    return sorted({*wanted, *(() if postgres_bin() else ("postgresql",))})


def need_packages(*more: str) -> Path:
    """Install what is missing; the folder of PostgreSQL's programs. Raises Failed."""
    if wanted := missing(*more):
        done = subprocess.run([ROOT / "scripts/debian.sh", "the lab", *wanted], check=False)
        if done.returncode:
            raise Failed(f"the lab needs {' '.join(wanted)} (Debian's names)")
    found = postgres_bin()
    if found is None:
        raise Failed("the lab needs postgresql (Debian's name)")
    return found


def patroni(folder: Path) -> Path:
    """Patroni's program, from a virtual environment of the lab's own below `folder`. Raises Failed."""
    venv = folder / "venv"
    if not _has_patroni(venv):
        print(f"installing Patroni into {venv}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        if not _can_make_environments():
            run(ROOT / "scripts/debian.sh", "the lab", "python3-venv", timeout_s=INSTALL_S)
        run(PYTHON, "-m", "venv", venv)
        run(venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PATRONI, timeout_s=INSTALL_S)
    return venv / "bin/patroni"


def _has_patroni(venv: Path) -> bool:
    """Whether all of it is there: an installation may have been interrupted."""
    program, python = venv / "bin/patroni", venv / "bin/python"
    return program.exists() and "True" in run(python, "-c", "import patroni, etcd, psycopg; print(True)", check=False)


def _can_make_environments() -> bool:
    return "True" in run(PYTHON, "-c", "import venv, ensurepip; print(True)", check=False)


def enter_network(name: str) -> None:
    """Move this thread, and those that it starts from now on, into a network namespace. Raises Failed."""
    with open(f"/run/netns/{name}", "rb") as file:
        enter(file.fileno())


def enter(descriptor: int) -> None:
    """The same, by an open descriptor. Raises Failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")


def in_network(name: str, command: Sequence[object], user: str = "", resolver: Path | None = None) -> list[str]:
    """The command as it runs inside a network namespace, as another user if named, with a resolv.conf of its own if
    given (seen by it alone)."""
    words = ["nsenter", f"--net=/run/netns/{name}", "--"]
    if resolver is not None:
        bound = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        words += ["unshare", "--mount", "--", "sh", "-c", bound, str(resolver)]
    if user:
        words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    return [*words, *map(str, command)]

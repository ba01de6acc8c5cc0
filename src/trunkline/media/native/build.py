"""Building the helper on demand: its C sources -> a shared library in the user's cache, by source and platform."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

SOURCES: tuple[Path, ...] = tuple(
    Path(__file__).with_name(name) for name in ("helper.c", "tick.c", "keys.c", "codecs.c", "srtp.c")
)
BUILD_TIMEOUT_S: Final = 120
FLAGS: Final = ("-O3", "-std=c11", "-fPIC", "-shared", "-Wall")
COMPILERS: Final = ("cc", "gcc", "clang")


class BuildFailed(Exception):
    """There is no compiler, no place for the library, or the compiler refused."""


def cache_folder() -> Path:
    """Where libraries are kept: $TRUNKLINE_CACHE, else $XDG_CACHE_HOME/trunkline, else ~/.cache/trunkline."""
    given = os.environ.get("TRUNKLINE_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trunkline"


def compiler() -> list[str]:
    """The command of a C compiler; BuildFailed when there is none. The `ziglang` package brings one."""
    for name in COMPILERS:
        found = shutil.which(name)
        if found:
            return [found]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BuildFailed("no C compiler: install gcc, clang or the ziglang package")


def library() -> Path:
    """The built library, building it if need be. Raises BuildFailed.

    The folder must be ours alone: code is loaded from it."""
    source = b"\0".join(path.read_bytes() for path in SOURCES)
    tag = f"{platform.system()}-{platform.machine()}-{platform.libc_ver()[0]}-{FLAGS}".encode()
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(folder)
        path = folder / f"media-{hashlib.sha256(source + tag).hexdigest()[:24]}.so"
        if not path.exists():
            _build_once(path)
        _check_ours(path)
    except OSError as error:
        raise BuildFailed(f"{folder}: {error}") from error
    return path


def _check_ours(path: Path) -> None:
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BuildFailed(f"{path} could be changed by others")


def _build_once(path: Path) -> None:
    """Of several processes that need it at the same time one builds it."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            _build(path)
    finally:
        os.close(folder)


def _build(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as scratch:
        made = Path(scratch) / "helper.so"
        command = [*compiler(), *FLAGS, "-o", str(made), *map(str, SOURCES)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise BuildFailed(f"{command[0]} took longer than {BUILD_TIMEOUT_S} s") from error
        if run.returncode or not made.exists():
            raise BuildFailed(f"{' '.join(command[: -2 - len(SOURCES)])}: {run.stderr.strip()[-500:]}")
        made.chmod(0o700)
        made.replace(path)  # whole or not at all

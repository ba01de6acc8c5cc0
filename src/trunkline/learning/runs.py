"""Starting, finding and ending learning runs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from trunkline.learning import isolation, run, shares
from trunkline.learning.run import FOLDER, Run
from trunkline.learning.tally import Tally

PID_FILE: Final = "pid"
KEEPER: Final = "trunkline.learning.keeper"
START_S: Final = 600.0
"""On a machine that gives it only what it has left."""
STOP_S: Final = 60.0
KEPT: Final = ("PATH", "PYTHONPATH", "LANG")
"""Of the environment, which may hold secrets."""
POLL_S: Final = 0.05
MAX_LOG: Final = 300
"""Characters of a log that an error shows."""


class CannotLearn(Exception):
    """It cannot be done; the text is one line."""


def folder_of(data: Path, name: str) -> Path:
    """Where a run is kept. Raises CannotLearn for what is no name."""
    if not run.NAME.match(name):
        raise CannotLearn(f"{name!r} is no name: lower-case letters, digits, - and _, at most 40")
    return data / FOLDER / name


def names(data: Path) -> list[str]:
    """The runs that there are, ended ones included."""
    folder = data / FOLDER
    return sorted(one.name for one in folder.iterdir() if (one / run.RUN_FILE).is_file()) if folder.is_dir() else []


def found(data: Path, name: str) -> tuple[Run, Tally]:
    """A run and what it has found. Raises CannotLearn."""
    folder = folder_of(data, name)
    try:
        tally = msgspec.json.decode((folder / run.TALLY_FILE).read_bytes(), type=Tally)
        return run.read(folder), tally
    except FileNotFoundError:
        raise CannotLearn(f"there is no learning run {name}: see `trunkline learn list`") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise CannotLearn(f"{folder} cannot be read: {error}") from None


def pid_of(folder: Path) -> int:
    """The process that a run is (unshare's); 0 when it does not run."""
    try:
        pid = int((folder / PID_FILE).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if KEEPER.encode() in words and os.fsencode(folder) in words else 0


def start(data: Path, wanted: Run) -> int:
    """Begin to learn, in a process that outlives this one; its pid. An ended run of this name is replaced. Raises
    CannotLearn."""
    folder = folder_of(data, wanted.name)
    if pid_of(folder):
        raise CannotLearn(f"{wanted.name} is running: `trunkline learn stop {wanted.name}` first")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    run.write(folder, run.RUN_FILE, wanted)
    run.write(folder, run.TALLY_FILE, Tally())
    try:
        program = isolation.command([sys.executable, "-m", KEEPER, str(data), str(folder)])
    except isolation.CannotIsolate as error:
        raise CannotLearn(str(error)) from None
    shares.release(folder)
    groups = shares.limit(folder)

    def join() -> None:
        for group in groups:
            with suppress(OSError):
                group.write_text("0")  # whoever writes it

    with (folder / run.LOG_FILE).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            program,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            preexec_fn=join,
            env={name: os.environ[name] for name in KEPT if name in os.environ},
        )
    (folder / PID_FILE).write_text(str(process.pid))
    until = time.monotonic() + START_S
    while (state := found(data, wanted.name)[1].state) == "starting" and process.poll() is None:
        if time.monotonic() > until:
            break
        time.sleep(POLL_S)
    if state == "starting":
        state = found(data, wanted.name)[1].state
    if state != "learning":
        process.kill()
        process.wait()
        shares.hurry(folder)
        shares.release(folder)
        told = (folder / run.LOG_FILE).read_text(errors="replace").strip()
        told = next((line for line in reversed(told.splitlines()) if not line.startswith(" ")), "")[:MAX_LOG]
        raise CannotLearn(f"{wanted.name} did not begin: {state}; {told}")
    return process.pid


def stop(data: Path, name: str) -> bool:
    """End a run; what it has found stays. Whether it was running. Raises CannotLearn."""
    folder = folder_of(data, name)
    pid = pid_of(folder)
    if not pid:
        found(data, name)
        shares.release(folder)
        return False
    shares.hurry(folder)
    for keeper in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(keeper), signal.SIGTERM)
    until = time.monotonic() + STOP_S
    while pid_of(folder) and time.monotonic() < until:
        time.sleep(POLL_S)
    if pid_of(folder):
        os.kill(pid, signal.SIGKILL)
    shares.release(folder)
    return True


def forget(data: Path, name: str) -> None:
    """Remove an ended run with what it has found. Raises CannotLearn."""
    folder = folder_of(data, name)
    if pid_of(folder):
        raise CannotLearn(f"{name} is running: `trunkline learn stop {name}` first")
    shutil.rmtree(folder, ignore_errors=True)

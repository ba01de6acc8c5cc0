"""What roll-ups remove of dead processes' leftovers, and what they leave alone."""

import os
import subprocess
import sys
from pathlib import Path

from tests.postflight.harness import archive_at, messages, reader_at
from trunkline.postflight.compaction import sweep
from trunkline.postflight.names import SPILL


def dead_process() -> int:
    """The id of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


async def test_sweep_removes_leftovers_only(tmp_path: Path, engine: str) -> None:
    folder = tmp_path / "segments"
    async with archive_at(tmp_path) as archive:
        await archive.land(messages(20))
        await archive.roll(force=True)
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == (2 if engine == "sqlite" else 1), "a segment, and the lock"
    for name in ("orphan.parquet", "half.parquet.part"):
        (folder / name).write_bytes(b"x")
    for process in (dead_process(), os.getpid()):
        (folder / f"{SPILL}{process}").mkdir()
        (folder / f"{SPILL}{process}" / "block.tmp").write_bytes(b"spilled")
    reader = reader_at(tmp_path)
    assert sweep(folder, reader) == 2
    assert {path.name for path in folder.iterdir()} == kept | {f"{SPILL}{os.getpid()}"}
    assert sweep(folder, reader) == 0
    reader.close()

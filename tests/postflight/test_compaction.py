"""What roll-ups remove of dead processes' leftovers, and what they leave alone."""

import os
import subprocess
import sys
from pathlib import Path

from tests.postflight.harness import archive_at, messages
from trunkline.postflight.compaction import sweep
from trunkline.postflight.names import SPILL
from trunkline.storage.engines.sqlite.archive import open_reader


def dead_process() -> int:
    """The id of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


async def test_sweep_removes_leftovers_only(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    async with archive_at(tmp_path) as archive:
        await archive.land(messages(20))
        await archive.roll(force=True)
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == 2, "a segment and the lock"
    for name in ("orphan.parquet", "half.parquet.part"):
        (folder / name).write_bytes(b"x")
    for process in (dead_process(), os.getpid()):
        (folder / f"{SPILL}{process}").mkdir()
        (folder / f"{SPILL}{process}" / "block.tmp").write_bytes(b"spilled")
    reader = open_reader(str(tmp_path / "archive.db"))
    assert sweep(folder, reader) == 2
    assert {path.name for path in folder.iterdir()} == kept | {f"{SPILL}{os.getpid()}"}
    assert sweep(folder, reader) == 0
    reader.close()

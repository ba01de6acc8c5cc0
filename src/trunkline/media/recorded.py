"""Recordings that were finished without their media process: what the recorder found on disk when it started.

The recorder leaves a note beside each such WAV file; whoever owns the recordings reads them (`recovered`) once its
calls are known again, deals with them and removes the folder. No NumPy in here.
"""

from pathlib import Path
from typing import Final

import msgspec

from trunkline.media.protocol import Recorded

SUFFIX: Final = ".spool"
"""Ending of the raw spool of a recording that is not finished."""
NOTE: Final = "recovered.json"
MAX_RECOVERED: Final = 100_000


def note(folder: Path, recorded: Recorded) -> None:
    """Leave word of a recording finished from its spool. Raises OSError."""
    draft = folder / f"{NOTE}.draft"
    draft.write_bytes(msgspec.json.encode(recorded))
    draft.replace(folder / NOTE)


def recovered(spool: Path) -> list[Recorded]:
    """Every such recording under the folder of spools, oldest name first."""
    found: list[Recorded] = []
    for path in sorted(spool.glob(f"*/{NOTE}"))[:MAX_RECOVERED]:
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Recorded))
        except (OSError, msgspec.DecodeError):
            continue  # half-written by a crash: the recorder makes it anew from the spool
    return found

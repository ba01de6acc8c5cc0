"""Recordings that were finished without their media process: what the recorder found on disk when it started.

The recorder leaves a note beside each such WAV file; whoever owns the recordings reads them (`recovered`) once its
calls are known again, deals with them and removes the folder. No NumPy in here.
"""

from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from trunkline.media.protocol import Recorded

SUFFIX: Final = ".spool"
"""Ending of the raw spool of a recording that is not finished."""
EARLIER: Final = ".earlier"
"""Ending of the entries that another host has recorded before, placed by their sample in the whole recording."""
PENDING: Final = ".pending"
"""Ending of a mark: somebody is still gathering them."""
ENTRY_BYTES: Final = 664
"""Size of an entry of a spool (trunkline.media.engine.record_ring.ENTRY, which needs NumPy)."""
SAMPLE_AT: Final = 0
"""Where in an entry its head is: sample (8 bytes, little-endian), slot, generation, kind and length (4 bytes each)."""
SAMPLES_PER_MS: Final = 8
LENGTH_BYTES: Final = 4
MAX_DESCRIPTION: Final = 4096
NOTE: Final = "recovered.json"
MAX_RECOVERED: Final = 100_000


def spool_head(description: dict[str, Any]) -> bytes:
    """How a spool begins."""
    blob = msgspec.json.encode(description)
    return len(blob).to_bytes(LENGTH_BYTES, "big") + blob


def read_head(path: Path) -> tuple[dict[str, Any], int]:
    """Description of a spool, and where its entries begin. Raises OSError, ValueError when it has none (yet)."""
    with path.open("rb") as file:
        return head_of(file)


def head_of(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The same of a spool that was just opened."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "big")
    if not 0 < length <= MAX_DESCRIPTION:
        raise ValueError("the spool has no description")
    try:
        return msgspec.json.decode(file.read(length), type=dict[str, Any]), LENGTH_BYTES + length
    except msgspec.DecodeError as error:
        raise ValueError("the spool has no description") from error


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

"""Schema pivots: a table changes its shape while old and new releases run side by side (docs/design/schema-pivots.md).

`model` says what a pivot is, `steps` walks one through its phases, `lint` refuses statements that would hold up the hot
path, and each other module is a pivot. The engines' parts are in `engines/*/pivots.py` and `engines/*/shapes.py`.
"""

from trunkline.storage.pivots import lane_split
from trunkline.storage.pivots.model import Pivot

PIVOTS: tuple[Pivot, ...] = (lane_split.PIVOT,)
"""The pivots of this release, by their numbers."""
NEWEST = PIVOTS[-1].number
"""What a process of this release can speak."""


def pivot_named(name: str) -> Pivot:
    """A pivot by its name. Raises KeyError."""
    return {pivot.name: pivot for pivot in PIVOTS}[name]

"""Whether a series grows: Theil and Sen's slope, and Mann and Kendall's test.

Theory: memory that leaks grows all the time; memory that fills caches grows and stops. So the first part of a run is
left out, and of the rest a series *grows* when two things hold: its slope (the median of the slopes between all pairs,
which a few outliers do not move) over the whole time is more than what is tolerated, and so many pairs are in rising
order that chance would bring it about less than once in a hundred runs.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

WARM_UP: Final = 0.3
"""Part of a run that is left out."""
CHANCE: Final = 0.01
LEAST: Final = 8
"""Points without which nothing is said."""


class Trend(NamedTuple):
    """What a series did after the warm-up."""

    typical: float
    """Its median."""
    growth: float
    """Slope times duration, in the series' own unit."""
    chance: float
    """That so much rising order comes about by chance."""

    @property
    def begin(self) -> float:
        """What it was at first, by the slope: what growth is compared with, so that it does not excuse itself."""
        return self.typical - self.growth / 2

    def grows(self, tolerated: float) -> bool:
        """Whether it grew by more than that, and not by chance."""
        return self.growth > tolerated and self.chance < CHANCE


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Of (time, value) in the order of time. Too few points: none, with a chance of 1."""
    kept = list(points[int(len(points) * WARM_UP) :])
    if len(kept) < LEAST:
        return Trend(statistics.median(value for _, value in kept) if kept else 0.0, 0.0, 1.0)
    pairs = [(one, other) for place, one in enumerate(kept) for other in kept[place + 1 :]]
    slopes = [(other[1] - one[1]) / (other[0] - one[0]) for one, other in pairs if other[0] > one[0]]
    rising = sum((other[1] > one[1]) - (other[1] < one[1]) for one, other in pairs)
    values = [value for _, value in kept]
    growth = statistics.median(slopes) * (kept[-1][0] - kept[0][0]) if slopes else 0.0
    return Trend(statistics.median(values), growth, _kendall(rising, values))


def _kendall(rising: int, values: Sequence[float]) -> float:
    """One-sided, by the normal approximation with ties."""
    count = len(values)
    ties = sum(same * (same - 1) * (2 * same + 5) for same in Counter(values).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    if variance <= 0 or rising <= 0:
        return 1.0
    return math.erfc((rising - 1) / math.sqrt(2 * variance)) / 2

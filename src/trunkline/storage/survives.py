"""Units of failure, and the promise that a store makes about them."""

from enum import IntEnum


class Survives(IntEnum):
    """What a piece of data outlives. Larger units contain the smaller ones; POWER stands beside them."""

    NOTHING = 0
    PROCESS = 1
    POWER = 2
    """Process and operating system loss on this machine: synced to its disk before it is acknowledged."""
    HOST = 3
    ZONE = 4
    REGION = 5


class CannotSurvive(Exception):
    """An engine, as configured, cannot give what was asked of it; the text is one line for the operator."""

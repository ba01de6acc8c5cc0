"""What `trunkline doctor` says of one look at the machine."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One look at the machine."""

    verdict: str
    """`ok`, `warn` or `bad`; `bad` makes the exit code 1."""
    what: str
    text: str

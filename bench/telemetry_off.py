"""`python -m bench.telemetry_off ...` is `trunkline ...` whose stages count nothing: what telemetry is compared with.

The hand-overs are still called (about 0.1 us each, six a message); what they would do, the clock included, is left out.
"""

import sys
from typing import Any

from trunkline.telemetry import stages


def nothing(*_: Any, **__: Any) -> None:
    """In the place of what is measured."""


def no_parent(*_: Any) -> str:
    """Of `Line.begin`."""
    return ""


def switch_off() -> None:
    """Before anything else is imported that has hold of them."""
    line: Any = stages.Line
    line.begin, line.accepted, line.take_up, line.hand_over = no_parent, nothing, nothing, nothing
    stage: Any = stages.Stage
    stage.left = stage.waited = nothing


if __name__ == "__main__":
    switch_off()
    from trunkline.cli import main

    sys.exit(main())

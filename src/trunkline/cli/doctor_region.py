"""What `trunkline doctor` says of regions: which one is active, and what the loss of it would cost now."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from trunkline.cli.findings import Finding
from trunkline.settings import Settings

if TYPE_CHECKING:
    from trunkline.region.records import Server

SECTION = "region"
LATE_S = 30.0
"""A standby without a new heartbeat for so long is reported."""
VERDICTS = {"active": "ok", "standby": "ok", "first": "ok", "coming": "warn", "unknown": "bad", "replaced": "bad"}


def look_at_regions(settings: Settings) -> Iterator[Finding]:
    """This region's standing, and the lag of each standby."""
    if not settings.regions:
        return
    parts: Any = importlib.import_module("trunkline.bootstrap_region")
    standing = parts.standing(settings)
    yield Finding(VERDICTS[standing.role.value], SECTION, f"{settings.node.region}: {standing.text}")
    if settings.region.alone_s == 0:
        yield Finding(
            "warn", SECTION, "alone_s is 0: cut off from all others, this region goes on beside a promoted one"
        )
    own = parts.databases.look_at(parts.own(settings))
    for other, databases in parts.look_at_others(settings).items():
        for name, seen in databases.items():
            yield _lag(settings.node.region, other, name, own[name], seen)


def _lag(region: str, other: str, name: str, own: "Server | None", seen: "Server | None") -> Finding:
    if seen is None:
        return Finding("bad", SECTION, f"{name} of {other} cannot be reached: neither the lag nor a takeover is known")
    if own is None:
        return Finding("bad", SECTION, f"{name} of {region} cannot be reached")
    if own.standby and seen.takes_writes:
        primary, standby, active = seen, own, other
    elif seen.standby and own.takes_writes:
        primary, standby, active = own, seen, region
    else:
        state = "take writes" if own.takes_writes else "are standbys"
        return Finding("bad", SECTION, f"{name}: those of {region} and {other} both {state}")
    behind, late = max(0, primary.lsn - max(standby.lsn, standby.received)), standby.silent_s
    cost = f"{name}: losing {active} now would lose the last {late:.1f} s at most, {behind} bytes"
    return Finding("warn" if late > LATE_S else "ok", SECTION, cost)

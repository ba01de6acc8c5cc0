"""What a node makes of what it sees: whether its region is the active one. No I/O.

A region's own databases alone cannot say: those of a region that was replaced while it was away still call it active.
So a second voice is needed: the witness, or every other region's databases.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from trunkline.region.records import Epoch, Server


class Role(Enum):
    """What a node may do."""

    ACTIVE = "active"
    FIRST = "first"
    """No region has ever been active: this one may begin."""
    STANDBY = "standby"
    COMING = "coming"
    """It is being promoted: not yet."""
    REPLACED = "replaced"
    """Its databases take writes, but another region has taken its place."""
    UNKNOWN = "unknown"


class Standing(NamedTuple):
    """The judgement, and why in one line."""

    role: Role
    text: str
    epoch: Epoch | None = None


Seen = Mapping[str, Server | None]
"""Database -> what its server said; None: none answered."""


class Witnessed(NamedTuple):
    """What the object store said."""

    epoch: Epoch | None
    failed: str = ""
    """Why it could not be asked; empty: it was."""


def judge(name: str, own: Seen, others: Mapping[str, Seen], witnessed: Witnessed) -> Standing:
    """Whether region `name` is active. `own`: its databases; `others`: those of the other regions."""
    answers = [one for one in own.values() if one is not None]
    if not answers:
        return Standing(Role.UNKNOWN, "none of this region's databases can be reached")
    follows = any(one.standby for one in answers)
    if witnessed.failed:
        return _without_witness(name, answers, follows, others, witnessed.failed)
    epoch = witnessed.epoch
    if epoch is None:
        return _at_first(name, follows, others)
    if epoch.region != name:
        if follows and not all(one.standby for one in answers):
            return Standing(Role.REPLACED, f"{_told(epoch)}; only some of this region's databases follow it", epoch)
        return (
            Standing(Role.STANDBY, f"standby: {_told(epoch)}", epoch)
            if follows
            else Standing(Role.REPLACED, replaced(name, epoch), epoch)
        )
    if not follows and all(one.epoch == epoch.epoch for one in answers):
        return Standing(Role.ACTIVE, f"active: epoch {epoch.epoch}", epoch)
    if not follows and not epoch.former:
        return Standing(Role.FIRST, "the first epoch is not yet in the databases", epoch)
    return Standing(
        Role.COMING, f"epoch {epoch.epoch} of {name} is not complete: run `trunkline region promote` again", epoch
    )


def replaced(name: str, epoch: Epoch) -> str:
    """The one line of a region that came back."""
    return (
        f"region {name} was replaced: {_told(epoch)}; make its databases standbys of {epoch.region}'s"
        " (docs/howto/regions.md)"
    )


def _told(epoch: Epoch) -> str:
    return f"{epoch.region} is active in epoch {epoch.epoch}"


def _at_first(name: str, follows: bool, others: Mapping[str, Seen]) -> Standing:
    if follows:
        return Standing(Role.STANDBY, "standby: no region has been active yet")
    for other, seen in others.items():
        if any(one is not None and one.takes_writes for one in seen.values()):
            return Standing(
                Role.REPLACED, f"the databases of {name} and {other} both take writes: make one follow the other"
            )
    return Standing(Role.FIRST, "no region has been active yet")


def _without_witness(
    name: str, answers: Sequence[Server], follows: bool, others: Mapping[str, Seen], why: str
) -> Standing:
    if follows:
        return Standing(Role.STANDBY, f"standby ({why})")
    mine = max(answers, key=lambda one: one.epoch)
    seen = {region: [one for one in databases.values() if one] for region, databases in others.items()}
    for region, found in seen.items():
        for one in found:
            if one.takes_writes and one.epoch > mine.epoch:
                told = Epoch(epoch=one.epoch, region=one.region or region, since_ms=0)
                return Standing(Role.REPLACED, replaced(name, told), told)
    whole = all(one is not None for databases in others.values() for one in databases.values())
    if whole and mine.region == name and all(one.standby for found in seen.values() for one in found):
        epoch = Epoch(epoch=mine.epoch, region=name, since_ms=0)
        return Standing(Role.ACTIVE, f"active: epoch {mine.epoch}, by the other regions' word ({why})", epoch)
    return Standing(
        Role.UNKNOWN, f"nobody can say whether {name} is still active: {why}, nor do all other regions answer"
    )

"""Making another region the active one. Blocks; runs in the standby region, beside its waiting nodes.

In order, for a region that can be reached (nothing is lost):

1. the epoch is claimed at the witness: the former region's nodes take nothing new, finish, and end;
2. its databases are made read-only, what is still connected is ended, and each primary's position is noted;
3. the standbys here have replayed up to there; 4. they are promoted; 5. the epoch is written into them: nodes open.

Without the former region (`lost`): the epoch, the promotion, a wait of `alone_s` in which whatever still runs there
stops by itself, then 5. A database of it that still answers is fenced all the same. Each step can be repeated: a
promotion that was interrupted goes on with the epoch that it has.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from trunkline.region import databases
from trunkline.region.records import Epoch, Handover, Position, Server, lsn_text
from trunkline.region.rules import Seen
from trunkline.region.witness import Witness
from trunkline.storage.unavailable import StoreUnavailable

POLL_S = 0.2
CATCH_UP_S = 60.0
"""How long the standbys may take to replay the last of a region that is handed over."""
LAST_WORDS_S = 5.0
"""The same of a lost one whose databases still answer."""
MOST_BEHIND_BYTES = 256 << 20
"""A standby that is further behind is not promoted in order: let it catch up first."""
MARGIN = 1.02
"""Clocks of different speed."""


class CannotPromote(Exception):
    """It was not done; one line."""


class Ways(NamedTuple):
    """How it is done here."""

    name: str
    """This region."""
    own: Mapping[str, str]
    """Its databases: `queue0`, ..., `database` -> DSN."""
    others: Mapping[str, Mapping[str, str]]
    """Region -> the same of it."""
    witness: Witness
    alone_s: float
    drain_s: float
    command: str = ""
    say: Callable[[str], None] = lambda line: None
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    sleep: Callable[[float], None] = time.sleep


def promote(ways: Ways, *, lost: bool = False, wait: bool = True) -> Handover:
    """See the module. `lost`: the former region cannot be asked; `wait=False`: it is known to be off. Raises
    CannotPromote, StoreUnavailable."""
    newest = ways.witness.newest()
    if newest is None:
        raise CannotPromote("no region has been active yet: start the nodes of the first one")
    own = databases.look_at(ways.own)
    silent = [name for name, seen in own.items() if seen is None]
    if silent:
        raise CannotPromote(f"{', '.join(silent)} of region {ways.name} cannot be reached")
    if newest.region == ways.name and all(one and one.takes_writes and one.epoch == newest.epoch
                                          for one in own.values()):  # fmt: skip
        raise CannotPromote(f"region {ways.name} is active already: epoch {newest.epoch}")
    if newest.former == ways.name and (back := _take_back(ways, own, newest)) is not None:
        return back
    former = newest.former if newest.region == ways.name else newest.region
    there = dict(ways.others.get(former, {}))
    if not lost:
        _check_standbys(ways, own, newest)
        _check_in_order(own, former, there)
    else:
        _check_standbys(ways, own, newest)
    epoch = newest if newest.region == ways.name else _claim(ways, newest, planned=not lost)
    began = time.monotonic()
    ends = _fence_lost(ways, there) if lost else _fence_in_order(ways, epoch, former, there)
    if lost:
        _catch_up(ways, ends, LAST_WORDS_S)
    elif behind := _catch_up(ways, ends, CATCH_UP_S):
        _give_back(ways, epoch, former, there)
        raise CannotPromote(f"{', '.join(behind)} did not catch up within {CATCH_UP_S:.0f} s: {former} has it back")
    positions = tuple(_position(ways, name, ends) for name in ways.own)
    for name, dsn in databases.clusters(ways.own).items():
        seen = databases.look(dsn, name)
        if seen is None or seen.standby:
            ways.say(f"promoting {name}")
            databases.promote(dsn, name, ways.command)
    promoted = time.monotonic()
    handover = Handover(epoch=epoch, positions=positions, at_ms=ways.now_ms())
    if lost and wait:
        _wait_alone(ways, former, max(began, promoted), epoch)
    _reign(ways, handover)
    return handover


def _take_back(ways: Ways, own: Seen, newest: Epoch) -> Handover | None:
    """Be active again where the other region's promotion was begun and never came to anything: its databases all still
    follow. None: they do not, or do not answer."""
    theirs = databases.look_at(ways.others.get(newest.region, {}))
    if not theirs or not all(one is not None and one.standby for one in theirs.values()):
        return None
    if not all(one is not None and one.takes_writes for one in own.values()):
        return None
    epoch = _claim(ways, newest, planned=False)
    positions = tuple(
        Position(database=name, lsn=one.lsn, beat=one.beat, beat_ms=one.beat_ms, silent_s=one.silent_s, missing_bytes=0)
        for name, one in own.items()
        if one is not None
    )
    handover = Handover(epoch=epoch, positions=positions, at_ms=ways.now_ms())
    _reign(ways, handover)
    return handover


def _check_standbys(ways: Ways, own: Seen, newest: Epoch) -> None:
    """Not those of a region that writes by itself, unless that is this very promotion. Raises CannotPromote."""
    writing = [name for name, one in own.items() if one is not None and one.takes_writes]
    if writing and newest.region != ways.name:
        raise CannotPromote(
            f"{', '.join(writing)} of region {ways.name} does not follow {newest.region}: make it a standby first"
        )


def _check_in_order(own: Seen, former: str, there: Mapping[str, str]) -> None:
    """Whether a handover without loss can be begun. Raises CannotPromote."""
    if not there:
        raise CannotPromote(f"[[regions]] does not name {former}, the active region")
    for name, seen in databases.look_at(there).items():
        here = own[name]
        if seen is None:
            raise CannotPromote(f"{name} of {former} cannot be reached: if that region is lost, say --lost")
        if seen.standby or here is None:
            raise CannotPromote(f"{name} of {former}: no primary answers: if that region is lost, say --lost")
        behind = seen.lsn - max(here.lsn, here.received)
        if here.standby and behind > MOST_BEHIND_BYTES:
            raise CannotPromote(f"{name} is {behind} bytes behind {former}: let it catch up first")
        if here.standby and (here.beat != seen.beat and here.silent_s > CATCH_UP_S):
            raise CannotPromote(f"{name} has not followed {former} for {here.silent_s:.0f} s: see its replication")


def _claim(ways: Ways, newest: Epoch, *, planned: bool) -> Epoch:
    epoch = Epoch(
        epoch=newest.epoch + 1, region=ways.name, since_ms=ways.now_ms(), former=newest.region, planned=planned,
        drain_s=ways.drain_s if planned else 0.0,
    )  # fmt: skip
    if not ways.witness.claim(epoch):
        raise CannotPromote(f"somebody else has begun epoch {epoch.epoch}: see `trunkline region status`")
    ways.say(f"epoch {epoch.epoch}: {ways.name} takes the place of {newest.region}")
    return epoch


def _fence_in_order(ways: Ways, epoch: Epoch, former: str, there: Mapping[str, str]) -> dict[str, int]:
    """Wait for the former region's nodes to end, then see to it that nothing more is committed. Database -> its end."""
    deadline = time.monotonic() + epoch.drain_s
    told = False
    while time.monotonic() < deadline:
        left = sum(databases.sessions(dsn, name) for name, dsn in there.items())
        if not left:
            break
        if not told:
            ways.say(f"waiting for the nodes of {former} to finish, {epoch.drain_s:.0f} s at most")
            told = True
        ways.sleep(POLL_S)
    ends = {}
    for name, dsn in there.items():
        ends[name] = databases.fence(dsn, name)
        ways.say(f"{name} of {former} is read-only; its last position is {lsn_text(ends[name])}")
    return ends


def _fence_lost(ways: Ways, there: Mapping[str, str]) -> dict[str, int]:
    """Fence what still answers of a lost region. Database -> its end."""
    ends = {}
    for name, seen in databases.look_at(there).items():  # all at once: those of a lost region may swallow packets
        if seen is not None and seen.takes_writes:
            try:
                ends[name] = databases.fence(there[name], name)
                ways.say(f"{name} of the lost region still answers: it is read-only now")
            except StoreUnavailable as error:
                ways.say(f"{name} of the lost region answers, but cannot be fenced: {error}")
    return ends


def _progress(seen: Server | None) -> int:
    return -1 if seen is None else max(seen.lsn, seen.received)


def _has(seen: Server | None, end: int) -> bool:
    """Whether it has everything up to there; one that was promoted before had."""
    return seen is not None and (seen.takes_writes or _progress(seen) >= end)


def _catch_up(ways: Ways, ends: Mapping[str, int], patience_s: float) -> list[str]:
    """Wait until the standbys have all of it; returns those that have not."""
    deadline = time.monotonic() + patience_s
    while True:
        seen = {name: databases.look(ways.own[name], name) for name in ends}
        behind = [name for name, end in ends.items() if not _has(seen[name], end)]
        if not behind or time.monotonic() > deadline:
            return behind
        ways.sleep(POLL_S)


def _give_back(ways: Ways, epoch: Epoch, former: str, there: Mapping[str, str]) -> None:
    """The former region is active again: what was done to it is undone."""
    again = Epoch(epoch=epoch.epoch + 1, region=former, since_ms=ways.now_ms(), former=ways.name)
    ways.witness.claim(again)
    for name, dsn in there.items():
        databases.reign(dsn, name, again)


def _position(ways: Ways, name: str, ends: Mapping[str, int]) -> Position:
    seen = databases.look(ways.own[name], name)
    if seen is None:
        raise CannotPromote(f"{name} of region {ways.name} cannot be reached")
    lsn = _progress(seen)
    return Position(
        database=name, lsn=lsn, beat=seen.beat, beat_ms=seen.beat_ms, silent_s=seen.silent_s,
        missing_bytes=max(0, ends[name] - lsn) if name in ends else -1,
    )  # fmt: skip


def _wait_alone(ways: Ways, former: str, since: float, epoch: Epoch) -> None:
    """Until nothing of the former region runs. An epoch that was claimed to hand over in order gives whoever hears of
    it, at the last moment of being alone perhaps, `drain_s` more."""
    left = since + (ways.alone_s + (epoch.drain_s if epoch.planned else 0.0)) * MARGIN - time.monotonic()
    if ways.alone_s == 0:
        ways.say(f"region.alone_s is 0: nodes of {former} that still run do not stop by themselves")
    elif left > 0:
        ways.say(f"waiting {left:.0f} s, in which whatever of {former} still runs stops by itself")
        ways.sleep(left)


def _reign(ways: Ways, handover: Handover) -> None:
    """Write the epoch into the databases, the records' last: with it the nodes open."""
    databases.keep(ways.own["database"], handover)
    for name, dsn in ways.own.items():
        databases.reign(dsn, name, handover.epoch)
    try:
        ways.witness.keep(handover)
    except StoreUnavailable as error:
        ways.say(f"how it went is in the database alone: {error}")
    ways.say(f"{ways.name} is active: epoch {handover.epoch.epoch}")


def begin(ways: Ways) -> Epoch:
    """The first epoch, of a region whose databases take writes. Raises CannotPromote, StoreUnavailable."""
    epoch = ways.witness.newest()
    if epoch is None:
        ways.witness.claim(Epoch(epoch=1, region=ways.name, since_ms=ways.now_ms()))
        epoch = ways.witness.newest()
    if epoch is None or epoch.region != ways.name or epoch.former:
        raise CannotPromote("another region was first")
    for name, dsn in ways.own.items():
        databases.reign(dsn, name, epoch)
    return epoch

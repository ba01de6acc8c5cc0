"""Calls that are up in a region that is lost or handed over, and new ones in the other; by the peers' own ledgers.

Nobody can speak for a call of a lost region: what is known of its dialog lay in that region's memory store. So its
phones hear nothing more, and hang up; what they owe their customer is the last callback, which the other region makes
from the flights that came over.
"""

import asyncio
import contextlib
import time
from http import HTTPStatus
from urllib.parse import parse_qs

import aiohttp
import msgspec
from aiohttp import web

from lab import outside
from lab.calls import POLL_S, TOLD_S, Calls
from lab.cluster import Lab
from lab.ledgers import CALL_FINAL, Webhooks
from lab.node import Customer
from lab.phones import Leg
from lab.plan import Zone

ROUND_S = 2.0
"""Durations are whole seconds, of clocks that are not the peers'."""
RECORDED_S = 60.0
"""How long recordings may take to be complete."""
HEADER_BYTES = 44
"""Of a WAV file without audio."""
STALE_S = 1.0
"""Whatever is heard of a lost region later than that should not have been sent."""


class Ending(msgspec.Struct, frozen=True):
    """What a last callback said."""

    at: float
    status: str
    duration_s: int


class CallWebhooks(Webhooks):
    """The customers' web server, which keeps also how long calls were and who called."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: dict[str, list[Ending]] = {}
        """CallSid -> its last callbacks."""
        self.callers: dict[str, str] = {}
        """Who called -> CallSid."""

    async def _call(self, request: web.Request) -> web.Response:
        form = {name: found[0] for name, found in parse_qs((await request.read()).decode()).items()}
        if form["CallStatus"] in CALL_FINAL:
            ending = Ending(time.monotonic(), form["CallStatus"], int(form.get("CallDuration", 0)))
            self.endings.setdefault(form["CallSid"], []).append(ending)
        return await super()._call(request)

    async def _voice(self, request: web.Request) -> web.Response:
        form = parse_qs((await request.read()).decode())
        self.callers[form["From"][0]] = form["CallSid"][0]
        return await super()._voice(request)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the calls of one region."""

    up: int
    """Calls that were up when it was lost, or was to be handed over."""
    ended: int
    """Of them, those that it hung up in order (a handover)."""
    final: int
    """Of them, those with a last callback."""
    told_s: float = 0.0
    """From the loss until the last of these."""
    short_s: float = 0.0
    """Seconds by which a duration that was told is shorter than the call was, at the most: the lag."""
    untold: list[str] = []
    """SIDs of those without one."""
    wrong: list[str] = []
    """Last callbacks that say something else than `completed`, or twice something different, or a call that went on
    longer than its phone heard anything; calls that were heard of again."""
    new: int = 0
    """Calls placed in the other region afterwards."""
    new_answered: int = 0
    new_final: int = 0
    """Of these, those with `completed` as their only last callback."""
    recordings: int = 0
    """That had begun in the region."""
    recordings_heard: int = 0
    """Of these, those that are complete in the other one, and whose audio it gives."""

    def good(self) -> bool:
        """Whether nothing was told wrong, and calls go well in the other region."""
        answered = self.new == self.new_answered == self.new_final
        return not self.wrong and answered and self.recordings == self.recordings_heard

    def __str__(self) -> str:
        return (
            f"calls: {self.up} up, {self.ended} hung up in order, {self.final} with a last callback within"
            f" {self.told_s} s, short by {self.short_s} s at most; wrong {self.wrong}, untold {self.untold};"
            f" new {self.new}, answered {self.new_answered}, ended well {self.new_final};"
            f" recordings {self.recordings}, heard {self.recordings_heard}"
        )


class RegionCalls(Calls):
    """`async with`: `begin` where the phones are now, `move` to other nodes, `begin` there; then `verdict`."""

    def __init__(self, lab: Lab, webhooks: CallWebhooks) -> None:
        super().__init__(lab, webhooks)
        self._told = webhooks
        self._old: list[Leg] = []
        self._struck = self._quiet = 0.0

    def strike(self) -> None:
        """What is up from now on was lost; at the moment of the loss."""
        self._struck = self._quiet = time.monotonic()
        self._old = [leg for leg in self._calls if leg.up]

    def quiet(self) -> None:
        """From now on nothing may be heard of it; else from its loss on."""
        self._quiet = time.monotonic()

    def move(self, *zones: Zone) -> None:
        """The carrier calls at these nodes from now on."""
        self._phones.turn_to([zone.node for zone in zones])

    def sid(self, leg: Leg) -> str:
        """CallSid of a caller's leg; empty: its platform has never asked."""
        return next((sid for caller, sid in self._told.callers.items() if f":{caller}@" in leg.local), "")

    async def verdict(self, customer: Customer) -> Told:
        """All hang up; wait for the last callbacks, and for recordings."""
        before = {leg.call_id: leg.why for leg in self._old}
        for leg in self._phones.legs.values():
            self._phones.hang_up(leg)
        answered = [leg for leg in self._calls if leg.answered]
        deadline = time.monotonic() + TOLD_S
        while time.monotonic() < deadline and not all(self._told.endings.get(self.sid(leg)) for leg in answered):
            await asyncio.sleep(POLL_S)
        names = {leg.call_id: self.sid(leg) for leg in self._calls}
        at, legs = (self._struck, self._quiet), list(self._phones.legs.values())
        found = judge(self._old, before, at, self._calls, names, self._told.endings, legs)
        sids = [self.sid(leg) for leg in self._old if leg.kind == "recorded"]
        heard = await recordings(customer, sids)
        return msgspec.structs.replace(found, recordings=len(sids), recordings_heard=heard)


async def recordings(customer: Customer, calls: list[str]) -> int:
    """How many of these calls have a recording that is complete, and can be heard; RECORDED_S at most."""
    login = aiohttp.BasicAuth(customer.sid, customer.token)
    deadline, left, heard = time.monotonic() + RECORDED_S, set(calls), 0
    async with aiohttp.ClientSession(f"http://{outside.EDGE}", auth=login, trust_env=False) as session:
        while left and time.monotonic() < deadline:
            for call in list(left):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                    if (complete := await _is_heard(session, f"/2010-04-01/Accounts/{customer.sid}", call)) is not None:
                        left.discard(call)
                        heard += complete
            await asyncio.sleep(1)
    return heard


async def _is_heard(session: aiohttp.ClientSession, account: str, call: str) -> bool | None:
    """Whether a call's recording has audio; None: it is not complete. Raises ClientError, ValueError."""
    async with session.get(f"{account}/Calls/{call}/Recordings.json") as answer:
        found = (await answer.json())["recordings"] if answer.status == HTTPStatus.OK else []
    if not found or found[0]["status"] not in ("completed", "absent"):
        return None
    async with session.get(f"{account}/Recordings/{found[0]['sid']}.wav") as media:
        return media.status == HTTPStatus.OK and len(await media.read()) > HEADER_BYTES


def judge(
    old: list[Leg], before: dict[str, str], at: tuple[float, float], calls: list[Leg], sids: dict[str, str],
    endings: dict[str, list[Ending]], legs: list[Leg],
) -> Told:  # fmt: skip
    """`old`: callers' legs that were up; `at`: when their region was lost, and since when nothing may be heard of it;
    `before`: why they had ended before all hung up; `legs`: theirs and those of whom they were connected with."""
    struck, quiet = at
    new = [leg for leg in calls if leg.began > struck]
    wrong, untold, short, told_s, final = [], [], 0.0, 0.0, 0
    for leg in old:
        sid, found = sids[leg.call_id], endings.get(sids[leg.call_id], [])
        if not found:
            untold.append(sid)
            continue
        final += 1
        told_s = max(told_s, found[0].at - struck)
        last = leg.ended if before[leg.call_id] == "theirs" else struck
        over = found[0].duration_s - (last - leg.answered)
        short = max(short, -over)
        if {one.status for one in found} != {"completed"} or over > ROUND_S or found[0].at < struck:
            wrong.append(f"{sid}: {[(one.status, one.duration_s) for one in found]}, {last - leg.answered:.1f} s")
    for leg in legs:
        heard_again = leg.reinvites or leg.heard > quiet + STALE_S
        if leg.answered and leg.began < struck and leg.why != "theirs" and heard_again:
            wrong.append(f"{leg.call_id}: heard of again {leg.heard - quiet:.1f} s after")
    well = [leg for leg in new if [one.status for one in endings.get(sids[leg.call_id], [])] == ["completed"]]
    return Told(
        up=len(old), ended=sum(why == "theirs" for why in before.values()), final=final, told_s=round(told_s, 1),
        short_s=round(short, 1), untold=untold, wrong=wrong, new=len(new),
        new_answered=sum(bool(leg.answered) for leg in new), new_final=len(well),
    )  # fmt: skip

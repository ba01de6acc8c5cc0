"""Every way in which a call ends, for each kind of call: status, SIP response, callbacks, duration.

The table is the promise: kind of call x how it ends -> last status, SipResponseCode, the CallStatus of each callback,
whether it lasted. A call that lasts does so for LASTS_S by the node's clock.
"""

from typing import NamedTuple

import pytest

from trunkline.media import protocol
from trunkline.model.errors import ApiError
from trunkline.voice.calls import CallChange

from ..messaging.world import AC, eventually
from .lines import APP, OTHER, OURS

LASTS_S = 7
UP = ("initiated", "ringing", "in-progress", "completed")
"""Callbacks of an outgoing call that was answered."""


def rang(last):
    return ("initiated", "ringing", last)


def at_once(last):
    return ("initiated", last)


class Ending(NamedTuple):
    kind: str
    how: str
    status: str
    sip: int
    told: tuple[str, ...]
    lasted: bool = False


TABLE = [
    # received: the number's callback tells of the end alone
    Ending("inbound", "busy", "busy", 486, ("busy",)),
    Ending("inbound", "rejected", "no-answer", 603, ("no-answer",)),
    Ending("inbound", "caller-cancels", "no-answer", 487, ("no-answer",)),
    Ending("inbound", "no-document", "completed", 200, ("completed",), True),
    Ending("inbound", "api-before-answer", "canceled", 480, ("canceled",)),
    Ending("inbound", "far-end", "completed", 200, ("completed",), True),
    Ending("inbound", "near-end", "completed", 200, ("completed",), True),
    Ending("inbound", "api", "completed", 200, ("completed",), True),
    Ending("inbound", "time-limit", "completed", 200, ("completed",), True),
    Ending("inbound", "media-timeout", "completed", 200, ("completed",), True),
    Ending("inbound", "process-death-ringing", "failed", 0, ("failed",)),
    Ending("inbound", "process-death", "completed", 200, ("completed",), True),
    # made by the API
    Ending("api", "busy", "busy", 486, rang("busy")),
    Ending("api", "busy-everywhere", "busy", 600, rang("busy")),
    Ending("api", "declined", "busy", 603, rang("busy")),
    Ending("api", "unavailable", "no-answer", 480, rang("no-answer")),
    Ending("api", "request-timeout", "no-answer", 408, rang("no-answer")),
    Ending("api", "ring-timeout", "no-answer", 487, rang("no-answer")),
    Ending("api", "not-found", "failed", 404, at_once("failed")),
    Ending("api", "server-failure", "failed", 500, at_once("failed")),
    Ending("api", "nobody-there", "no-answer", 408, at_once("no-answer")),
    Ending("api", "canceled-ringing", "canceled", 487, rang("canceled")),
    Ending("api", "completed-ringing", "canceled", 487, rang("canceled")),
    Ending("api", "far-end", "completed", 200, UP, True),
    Ending("api", "near-end", "completed", 200, UP, True),
    Ending("api", "api", "completed", 200, UP, True),
    Ending("api", "time-limit", "completed", 200, UP, True),
    Ending("api", "media-timeout", "completed", 200, UP, True),
    Ending("api", "process-death-ringing", "failed", 0, rang("failed")),
    Ending("api", "process-death", "completed", 200, UP, True),
    # children of <Dial>
    Ending("dial", "busy", "busy", 486, rang("busy")),
    Ending("dial", "declined", "busy", 603, rang("busy")),
    Ending("dial", "unavailable", "no-answer", 480, rang("no-answer")),
    Ending("dial", "ring-timeout", "no-answer", 487, rang("no-answer")),
    Ending("dial", "not-found", "failed", 404, at_once("failed")),
    Ending("dial", "caller-cancels", "canceled", 487, rang("canceled")),
    Ending("dial", "canceled-ringing", "canceled", 487, rang("canceled")),
    Ending("dial", "far-end", "completed", 200, UP, True),
    Ending("dial", "near-end", "completed", 200, UP, True),
    Ending("dial", "api", "completed", 200, UP, True),
    Ending("dial", "time-limit", "completed", 200, UP, True),
    Ending("dial", "media-timeout", "completed", 200, UP, True),
    Ending("dial", "process-death-ringing", "failed", 0, rang("failed")),
    Ending("dial", "process-death", "completed", 200, UP, True),
]

REFUSALS = {
    "busy": (486, True), "busy-everywhere": (600, True), "declined": (603, True), "unavailable": (480, True),
    "request-timeout": (408, True), "not-found": (404, False), "server-failure": (500, False),
}  # fmt: skip
INBOUND = {
    "busy": "<Reject reason='busy'/>",
    "rejected": "<Reject/>",
    "caller-cancels": "<Pause length='60'/><Reject/>",
    "api-before-answer": "<Pause length='60'/><Reject/>",
    "process-death-ringing": "<Pause length='60'/><Reject/>",
}
TALK = "<Gather timeout='60'/>"


class Stage:
    """One call, brought to its end."""

    def __init__(self, lines, ending, monkeypatch):
        self.lines, self.ending = lines, ending
        self.patch = monkeypatch
        self.sid = ""
        self.parent = ""

    async def begin(self):
        lines, ending = self.lines, self.ending
        if ending.how in REFUSALS:
            status, ring = REFUSALS[ending.how]
            lines.phone.refuses(status, ring=ring)
        elif not ending.lasted:
            lines.phone.plan = lines.phone.rings
        if ending.how == "nobody-there":
            lines.net.stacks.pop(lines.phone.address)
        if ending.how == "ring-timeout":
            self.patch.setattr("trunkline.voice.outgoing.RING_EXTRA_S", -0.9)
        await getattr(self, ending.kind)()
        if ending.lasted:
            await lines.until(self.sid, "in-progress")
        elif ending.how not in REFUSALS and ending.told[-2:-1] == ("ringing",):
            await lines.until(self.sid, "ringing", ending.status)

    async def inbound(self):
        lines = self.lines
        lines.number.status_callback = APP + "status"
        await lines.database.update(lines.number)
        if self.ending.how != "no-document":
            lines.web.pages[APP + "in"] = INBOUND.get(self.ending.how, TALK)
        else:
            lines.web.pages[APP + "in"] = TALK
        self.invite = lines.phone.dials(OURS)
        self.sid = (await lines.the_call()).sid
        if not self.ending.lasted:
            await lines.until(self.sid, "ringing", self.ending.status)

    async def api(self):
        self.sid = await self.lines.create(TALK, timeout_s=1, time_limit_s=self.limit)

    async def dial(self):
        lines = self.lines
        limit = f"timeLimit='{self.limit}'" if self.limit else ""
        lines.web.pages[APP + "in"] = (
            f"<Dial timeout='1' {limit}><Number statusCallback='status' "
            f"statusCallbackEvent='initiated ringing answered completed'>{OTHER}</Number></Dial>{TALK}"
        )
        lines.phone.dials(OURS)
        self.parent = (await lines.the_call()).sid
        self.sid = (await eventually(lambda: lines.children(self.parent)))[0].sid

    @property
    def limit(self):
        return LASTS_S if self.ending.how == "time-limit" and self.ending.kind != "inbound" else 0

    async def end(self):
        await getattr(self, "by_" + self.ending.how.replace("-", "_"), self.nothing)()

    async def nothing(self):
        """It ends by itself."""

    async def by_caller_cancels(self):
        if self.ending.kind == "dial":
            self.lines.phone.dialogs[0].bye()
        else:
            self.invite.cancel()

    async def by_api(self):
        await self.lines.calls.update(AC, self.sid, CallChange(status="completed"))

    by_completed_ringing = by_api

    async def by_canceled_ringing(self):
        await self.lines.calls.update(AC, self.sid, CallChange(status="canceled"))

    by_api_before_answer = by_canceled_ringing

    async def by_far_end(self):
        self.lines.phone.hangs_up()

    async def by_near_end(self):
        live = self.lines.services.live[self.parent or self.sid]
        if self.parent:
            self.lines.phone.dialogs[0].bye()
        else:
            live.session.redirect(self.goodbye)

    @property
    def goodbye(self):
        from trunkline.voice.steps import Inline

        return Inline("<Response><Hangup/></Response>")

    by_no_document = by_near_end

    async def by_time_limit(self):
        self.lines.services.live[self.sid].set_time_limit(LASTS_S)

    async def by_media_timeout(self):
        self.lines.media.tell(protocol.TimedOut(leg=self.sid))

    async def by_process_death(self):
        await self.lines.crash()

    by_process_death_ringing = by_process_death


@pytest.mark.parametrize("ending", TABLE, ids=lambda ending: f"{ending.kind}-{ending.how}")
async def test_ending(lines, ending, monkeypatch):
    stage = Stage(lines, ending, monkeypatch)
    await stage.begin()
    before = lines.owed  # a process after a crash has a list of its own
    if ending.lasted:
        lines.clock.offset_ms += LASTS_S * 1000
    await stage.end()
    ended = await lines.until(stage.sid, ending.status)
    if before is not lines.owed:
        lines.owed[:0] = before
    assert ended.sip_response_code == ending.sip
    events = await eventually(lambda: len(found := lines.events(stage.sid)) >= len(ending.told) and found)
    assert tuple(one["CallStatus"] for one in events) == ending.told
    assert [one["SequenceNumber"] for one in events] == [str(number) for number in range(len(events))]
    last = events[-1]
    assert last.get("SipResponseCode", "0") == str(ending.sip)
    assert abs(int(last["CallDuration"]) - (LASTS_S if ending.lasted else 0)) <= 1
    assert abs(ended.duration_s - (LASTS_S if ending.lasted else 0)) <= 1
    assert bool(ended.price) is ending.lasted
    assert stage.sid not in lines.services.live


@pytest.mark.parametrize("how", ["busy", "far-end"])
async def test_an_ended_call_takes_no_update(lines, how, monkeypatch):
    ending = next(one for one in TABLE if (one.kind, one.how) == ("api", how))
    stage = Stage(lines, ending, monkeypatch)
    await stage.begin()
    await stage.end()
    await lines.until(stage.sid, ending.status)
    for change in (CallChange(status="completed"), CallChange(status="canceled"), CallChange(url=APP), CallChange()):
        with pytest.raises(ApiError) as refused:
            await lines.calls.update(AC, stage.sid, change)
        assert refused.value.code == 21220


async def test_a_call_canceled_in_the_queue_tells_nobody_and_is_not_placed(make_lines):
    lines = await make_lines(calls_at_once=1)
    first, second = await lines.create(), await lines.create()
    await lines.until(first, "in-progress")
    await lines.calls.update(AC, second, CallChange(status="canceled"))
    await lines.until(second, "canceled")
    lines.phone.hangs_up()
    await lines.until(first, "completed")
    assert len(lines.phone.invites) == 1
    assert lines.events(second) == []


async def test_a_declined_call_is_no_answer_where_the_operator_says_so(make_lines):
    lines = await make_lines(busy_on_decline=False)
    lines.phone.refuses(603)
    await lines.until(await lines.create(), "no-answer")


async def test_the_reason_of_the_far_end_is_kept(lines):
    lines.phone.refuses(486, headers=[("Reason", 'Q.850;cause=17;text="User busy"')])
    ended = await lines.until(await lines.create(), "busy")
    assert ended.hangup_cause == 'Q.850;cause=17;text="User busy"'


async def test_a_call_in_progress_cannot_be_canceled(lines):
    sid = await lines.create(TALK)
    await lines.until(sid, "in-progress")
    with pytest.raises(ApiError) as refused:
        await lines.calls.update(AC, sid, CallChange(status="canceled"))
    assert refused.value.code == 21220

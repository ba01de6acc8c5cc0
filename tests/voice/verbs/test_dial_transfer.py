"""<Dial referUrl referMethod>: one of the two who talk asks for the other to be connected elsewhere (SIP REFER).

referUrl is requested with ReferTransferTarget, and what it answers is run on the leg that stays.
"""

import pytest

from trunkline.media import protocol

from ...messaging.world import eventually
from ..lines import APP, OTHER, OURS

TARGET = "<sip:+14155550188@pbx.example>"


class Said(list):
    """What the one who asked hears."""

    def hear(self, progress):
        self.append(progress)


@pytest.fixture
async def talking(lines):
    """A call that is connected with a callee; `refer` asks for a transfer from one of the two."""
    lines.web.pages[APP + "refer"] = "<Say>You are transferred</Say><Pause length='9'/>"
    lines.web.pages[APP + "after"] = "<Hangup/>"

    async def begin(attributes=f'referUrl="{APP}refer"'):
        lines.web.pages[APP + "in"] = f'<Dial {attributes} action="{APP}after">{OTHER}</Dial>'
        lines.phone.dials(OURS)
        parent = await lines.the_call()
        bridge = await eventually(lambda: next(iter(lines.media.of(protocol.Bridge)), None))
        lines.heard = Said()
        return parent.sid, bridge.b

    def refer(by_callee):
        dialog = next(one for one in lines.phone.dialogs if one.is_caller is not by_callee)
        dialog.refer(TARGET, lines.heard.hear)
        return dialog

    lines.begin, lines.refer = begin, refer
    return lines


async def test_the_callee_transfers_the_caller(talking):
    parent, child = await talking.begin()
    talking.refer(by_callee=True)
    (params,) = await eventually(lambda: talking.web.params(APP + "refer"))
    assert params["ReferTransferTarget"] == TARGET
    assert params["CallSid"] == parent
    assert params["CallStatus"] == "in-progress"
    assert (await talking.until(child, "completed")).hangup_cause == "transferred"
    assert [(one.response, one.status, one.over) for one in talking.heard][-1] == (202, 200, True)
    await talking.until(parent, "in-progress")
    assert [one.leg for one in talking.media.of(protocol.Unbridge)] == [parent]
    assert talking.web.params(APP + "after") == [], "referUrl takes the action's place"


async def test_the_caller_transfers_the_callee(talking):
    parent, child = await talking.begin()
    talking.refer(by_callee=False)
    (params,) = await eventually(lambda: talking.web.params(APP + "refer"))
    assert (params["ReferTransferTarget"], params["CallSid"], params["ParentCallSid"]) == (TARGET, child, parent)
    assert (await talking.until(parent, "completed")).hangup_cause == "transferred"
    assert talking.heard[-1].status == 200
    await talking.until(child, "in-progress")


async def test_by_get(talking):
    await talking.begin(f'referUrl="{APP}refer" referMethod="GET"')
    talking.refer(by_callee=True)
    await eventually(lambda: talking.web.params(APP + "refer"))
    assert [method for url, method, _ in talking.web.asked if url == APP + "refer"] == ["GET"]


async def test_without_a_refer_url_it_is_declined_with_an_alert(talking):
    parent, child = await talking.begin("")
    talking.refer(by_callee=True)
    await eventually(lambda: talking.heard)
    assert (talking.heard[-1].response, talking.heard[-1].over) == (603, True)
    assert 13802 in await talking.alert_codes()
    await talking.until(child, "in-progress")
    await talking.until(parent, "in-progress")


async def test_a_flood_asks_once(talking):
    parent, _ = await talking.begin()
    dialog = talking.refer(by_callee=True)
    for _ in range(50):
        dialog.request("REFER", [("Refer-To", TARGET)])
    await eventually(lambda: talking.web.params(APP + "refer"))
    assert len(talking.web.params(APP + "refer")) == 1
    await talking.until(parent, "in-progress")


async def test_a_refer_outside_of_a_dial_is_declined(talking):
    talking.web.pages[APP + "in"] = "<Say>hi</Say><Pause length='9'/>"
    talking.phone.dials(OURS)
    await talking.the_call()
    await eventually(lambda: talking.phone.dialogs)
    talking.heard = Said()
    talking.refer(by_callee=False)
    await eventually(lambda: talking.heard)
    assert talking.heard[-1].response == 603

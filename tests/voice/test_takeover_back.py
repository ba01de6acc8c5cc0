"""A node is given a partition back just after it has let go of it: its calls go on, as others of the same name."""

import asyncio

import pytest

from tests.voice.lines import AC, APP
from trunkline.media import protocol
from trunkline.voice import live
from trunkline.voice.takeover import Takeover

from ..messaging.world import eventually


def holds_closes(media):
    """The media process does not come to close anything, until it is told to."""
    held, do = [], media._do
    media._do = lambda command: held.append(command) if isinstance(command, protocol.Close) else do(command)

    def close():
        for command in held:
            do(command)

    return close


@pytest.mark.parametrize("closed", ["before its peer has answered", "after that", "never"])
async def test_a_call_that_comes_back_at_once_goes_on(hosts, monkeypatch, closed):
    monkeypatch.setattr(live, "CLOSED_WAIT_S", 0.1 if closed == "never" else 60.0)
    node = hosts.heir = hosts.lost
    hosts.takeover = Takeover(node.services, node.stack)
    node.web.pages[APP + "done"] = "<Hangup/>"
    (call,) = await hosts.calls(f"<Gather numDigits='1' timeout='60' action='{APP}done'/>")
    await eventually(lambda: not any(flight.pending for flight in node.flights))
    close = holds_closes(node.media)
    assert hosts.takeover.let_go() == 1
    report = await hosts.takeover.take_over(lambda sid: True)
    assert report.legs == 1
    again = hosts.call(call.sid)
    assert again is not call
    assert not again.reached
    if closed.startswith("before"):
        close()
    await asyncio.wait_for(report.settled.wait(), 5)
    if closed.startswith("after"):
        close()
        assert not call.settled.is_set(), "what the media process tells is the other's"
    else:
        await asyncio.wait_for(call.settled.wait(), 5)
    report = await hosts.takeover.settle(node.queue, lambda sid: True)
    assert (report.legs, report.lost) == (0, 0)
    assert again.reached
    assert again.is_up
    assert node.services.live == {call.sid: again}
    assert node.services.counts.account == {AC: 1}
    assert list(node.services.traced.values()) == [again]
    await eventually(lambda: again.session is not None)
    node.media.tell(protocol.Digit(leg=call.sid, digit="5"))
    (params,) = await eventually(lambda: node.web.params(APP + "done"))
    assert params["Digits"] == "5"
    await eventually(lambda: hosts.phone.byes)

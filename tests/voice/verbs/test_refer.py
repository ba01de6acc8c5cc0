"""<Refer>.

| attribute | values | default |
|---|---|---|
| action | URL | none: the next verb |
| method | GET, POST | POST |

Nested: one <Sip>. The action is told ReferCallStatus, ReferSipResponseCode, NotifySipResponseCode.
"""

import asyncio

import pytest

from tests.voice.lines import APP
from tests.voice.verbs.parsing import one
from tests.voice.world import World, until, world
from trunkline.settings import Trunk
from trunkline.voice.verbs.refer import Refer

AGENT = "<Sip>sip:agent@pbx.example?X-Case=7&amp;User-to-User=12%3Bencoding%3Dhex</Sip>"


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Refer><Sip>sip:a@b</Sip></Refer>", Refer(to="sip:a@b"), []),
        (
            "<Refer action='/x' method='GET'><Sip> sips:a@b;x=y?X-A=1 </Sip></Refer>",
            Refer(to="sips:a@b;x=y?X-A=1", action="/x", method="GET"),
            [],
        ),
        ("<Refer method='PUT'><Sip>sip:a@b</Sip></Refer>", Refer(to="sip:a@b"), [12200]),
        ("<Refer/>", None, [12200]),
        ("<Refer><Sip>tel:+15550100</Sip></Refer>", None, [12200]),
        ("<Refer><Sip>agent</Sip></Refer>", None, [12200]),
        ("<Refer><Sip>sip:a@b&gt;;evil=&lt;sip:c@d</Sip></Refer>", None, [12200]),
        (f"<Refer><Sip>sip:{'a' * 3000}@b</Sip></Refer>", None, [12200]),
        ("<Refer><Sip>sip:a@b</Sip><Sip>sip:c@d</Sip></Refer>", None, [12200]),
        ("<Refer><Number>1</Number></Refer>", None, [12200, 12200]),
    ],
)
def test_attributes(twiml: str, expected: Refer | None, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


async def referred(here: World, status: int = 202) -> tuple:
    """A call that is asked to call the agent: the caller, and what it was asked."""
    here.app.answers("/voice", f"<Refer action='/done'>{AGENT}</Refer>")
    here.app.answers("/done", "<Hangup/>")
    caller = here.phone.dials()
    refers: list = []
    caller.on_refer = lambda refer: refers.append(refer) or (status, [])
    await until(lambda: refers, "a REFER")
    return caller, refers[0]


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        ((180, 200), "in-progress", "200"), ((486,), "busy", "486"), ((404,), "failed", "404"),
        ((180, 480), "no-answer", "480"), ((100, 180, 603), "busy", "603"),
    ],
)  # fmt: skip
async def test_the_action_is_told_how_it_went(here: World, told: tuple[int, ...], status: str, code: str) -> None:
    caller, refer = await referred(here)
    assert refer.target == "<sip:agent@pbx.example?X-Case=7&User-to-User=12%3Bencoding%3Dhex>"
    assert "sip:+14155550100" in refer.referred_by
    for one_ in told:
        refer.tell(one_)
    await caller.ended()
    (params,) = here.app.asked("/done")
    assert params["ReferCallStatus"] == status
    assert params["ReferSipResponseCode"] == "202"
    assert params["NotifySipResponseCode"] == code
    assert params["CallStatus"] == "in-progress"


async def test_a_phone_that_refuses(here: World) -> None:
    caller, _ = await referred(here, 405)
    await caller.ended()
    (params,) = here.app.asked("/done")
    assert (params["ReferCallStatus"], params["ReferSipResponseCode"]) == ("failed", "405")
    assert "NotifySipResponseCode" not in params


async def test_a_phone_that_tells_nothing(here: World) -> None:
    here.app.answers("/voice", f"<Refer action='/done'>{AGENT}</Refer>")
    here.app.answers("/done", "<Hangup/>")
    caller = here.phone.dials()
    caller.on_refer = lambda refer: (202, [("Refer-Sub", "false")])
    await caller.ended()
    (params,) = here.app.asked("/done")
    assert "ReferCallStatus" not in params
    assert params["ReferSipResponseCode"] == "202"


async def test_a_caller_that_hangs_up_meanwhile(here: World) -> None:
    caller, refer = await referred(here)
    refer.tell(180)
    await until(lambda: here.call.session is not None, "a session")
    caller.hangs_up()
    await until(lambda: here.app.asked("/done"), "the action")
    (params,) = here.app.asked("/done")
    assert (params["ReferCallStatus"], params["ReferSipResponseCode"]) == ("canceled", "202")
    await here.landed()


@pytest.mark.parametrize("how", ["before the loss was noticed", "before his host knew that he has followed"])
@pytest.mark.parametrize("action", [f"action='{APP}after'", ""])
async def test_a_caller_that_hangs_up_while_his_call_is_taken_over(make_hosts, how: str, action: str) -> None:
    hosts = await make_hosts(trunks=(Trunk(name="carrier", addresses=("127.0.0.2",), refers=True),))
    refers: list = []
    hosts.phone.on_refer = lambda refer: refers.append(refer) or (202, [])
    (call,) = await hosts.calls(f"<Refer {action}>{AGENT}</Refer><Pause length='60'/>")
    await until(lambda: refers, "a REFER")
    await hosts.die()
    if how.startswith("before the loss"):
        hosts.phone.dialogs[0].abandon()
        await hosts.goes_on()
    else:
        report = await hosts.takeover.take_over(lambda sid: True)
        hosts.call().hangup("caller")
        await asyncio.wait_for(report.settled.wait(), 5)
        await hosts.writes()
    await hosts.heir.until(call.sid, "completed")
    if action:
        await until(lambda: hosts.heir.web.params(APP + "after"), "the action")
    told = [(one_["ReferCallStatus"], one_["CallStatus"]) for one_ in hosts.heir.web.params(APP + "after")]
    assert told == ([("canceled", "completed")] if action else [])
    assert len(refers) == 1


async def test_without_an_action_the_next_verb_follows(here: World) -> None:
    here.app.answers("/voice", f"<Refer>{AGENT}</Refer><Redirect>/next</Redirect>")
    here.app.answers("/next", "<Hangup/>")
    caller = here.phone.dials()
    caller.on_refer = lambda refer: (603, [])
    await caller.ended()
    assert "ReferCallStatus" not in here.app.asked("/next")[0]


async def test_a_carrier_is_not_asked_to_call_at_the_operators_cost(tmp_path) -> None:
    async with world(tmp_path, trunks=(Trunk(name="carrier", addresses=("127.0.0.9",)),)) as here:
        here.app.answers("/voice", "<Refer action='/done'><Sip>sip:+19005550100@carrier.example</Sip></Refer>")
        here.app.answers("/done", "<Hangup/>")
        caller = here.phone.dials()
        refers: list = []
        caller.on_refer = lambda refer: refers.append(refer) or (202, [])
        await caller.ended()
        (params,) = here.app.asked("/done")
        assert (params["ReferCallStatus"], params["ReferSipResponseCode"]) == ("failed", "403")
        assert not refers
        assert here.alerts.codes == [13801]

"""<Reject>.

| attribute | values | default |
|---|---|---|
| reason | rejected, busy | rejected |

Only as the first verb (or after leading <Pause>): the call is not answered, and ends `no-answer` or `busy`.
"""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World
from trunkline.media import protocol
from trunkline.voice.verbs.reject import Reject


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Reject/>", Reject(), []),
        ("<Reject reason='busy'/>", Reject(reason="busy"), []),
        ("<Reject reason='tired'/>", Reject(), [13810]),
        ("<Reject><Parameter name='a' value='b'/></Reject>", Reject(), []),
        ("<Reject><Say>x</Say></Reject>", Reject(), [12200]),
    ],
)
def test_attributes(twiml: str, expected: Reject, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


@pytest.mark.parametrize(
    ("twiml", "sip", "status"),
    [
        ("<Reject/>", 603, "no-answer"),
        ("<Reject reason='busy'/><Say>never</Say>", 486, "busy"),
        ("<Pause length='0'/><Reject reason='busy'/>", 486, "busy"),
    ],
)
async def test_the_call_is_not_answered(here: World, twiml: str, sip: int, status: str) -> None:
    here.app.answers("/voice", twiml)
    caller = here.phone.dials()
    await caller.ended()
    assert caller.failed == sip
    stored = await here.landed()
    assert (stored.status, stored.sip_response_code, stored.answered_ms) == (status, sip, 0)
    assert here.media.of(protocol.Open) == []
    assert len(here.media.free) == 100


async def test_later_it_only_hangs_up(here: World) -> None:
    stored = await here.whole("<Say>x</Say><Reject reason='busy'/><Say>never</Say>")
    assert (stored.status, stored.hangup_cause) == ("completed", "hangup")
    assert here.alerts.codes == [12200]

"""<Redirect>.

| attribute | values | default |
|---|---|---|
| method | GET, POST | POST |

Text: an absolute or relative URL; empty: the current document.
"""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World
from trunkline.voice.verbs.redirect import Redirect


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Redirect>/next</Redirect>", Redirect(url="/next"), []),
        ("<Redirect method='get'>x?a=1</Redirect>", Redirect(url="x?a=1", method="GET"), []),
        ("<Redirect/>", Redirect(), []),
        ("<Redirect method='PUT'>/x</Redirect>", Redirect(url="/x"), [13710]),
        ("<Redirect>javascript:alert(1)</Redirect>", None, [12200]),
    ],
)
def test_attributes(twiml: str, expected: Redirect | None, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


async def test_what_follows_is_never_reached(here: World) -> None:
    here.app.answers("/next", "<Say>there</Say>")
    await here.whole("<Redirect method='GET'>/next</Redirect><Say>never</Say>")
    assert [(method, path) for method, path, _ in here.app.requests] == [("POST", "/voice"), ("GET", "/next")]
    assert here.media.plays() == [["there"]]


async def test_as_the_first_verb_it_answers(here: World) -> None:
    here.app.answers("/next", "<Reject/>")
    stored = await here.whole("<Redirect>/next</Redirect>")
    assert here.app.asked("/next")[0]["CallStatus"] == "in-progress"
    assert stored.status == "completed"
    assert here.alerts.codes == [12200]

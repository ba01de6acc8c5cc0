"""Messages that calls send: checked, accepted durably, of direction `outbound-call`."""

import pytest

from trunkline.messaging.from_calls import FromCalls
from trunkline.model.errors import ApiError

from .world import AC, OURS, THEM


async def test_a_message_from_a_call(world) -> None:
    send = FromCalls(world.outbound, world.directory)
    sid, status = await send(AC, OURS, THEM, "from a call", media=(), status_callback="http://app.test/s")
    assert status == "sending"
    assert sid.startswith("SM")
    found = await world.reader.get(AC, sid)
    assert (found.direction, found.from_, found.to, found.body) == ("outbound-call", OURS, THEM, "from a call")
    assert found.status_callback == "http://app.test/s"


@pytest.mark.parametrize(
    ("from_", "to", "code"),
    [("+12025550999", THEM, 21606), (OURS, "nobody", 21211), ("", THEM, 21212)],
)
async def test_refusals(world, from_: str, to: str, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        await FromCalls(world.outbound, world.directory)(AC, from_, to, "x", media=(), status_callback="")
    assert refused.value.code == code

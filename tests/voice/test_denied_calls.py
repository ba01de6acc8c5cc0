"""Calls that an account may not make, whoever starts them: nothing is sent."""

import pytest

from trunkline.model.errors import ApiError
from trunkline.voice.denials import blocked
from trunkline.voice.number_risks import load
from trunkline.voice.permissions import Permissions

from .lines import APP, OURS, THEM

PREMIUM = "+19005550123"


def guard(lines):
    lines.outbound.permissions = Permissions(lines.settings.voice, lines.directory, load(), lines.trunk_settings)
    return lines.outbound.permissions


@pytest.mark.parametrize(("to", "code"), [(PREMIUM, 21215), ("+881612345678", 21215), (THEM, 0)])
async def test_by_the_api(make_lines, to, code):
    lines = await make_lines()
    guard(lines)
    if not code:
        await lines.until(await lines.create(to=to), "in-progress")
        return
    with pytest.raises(ApiError) as refused:
        await lines.create(to=to)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert lines.phone.invites == []


async def test_a_call_that_waited_is_looked_at_again(make_lines):
    lines = await make_lines(calls_at_once=1)
    permissions = guard(lines)
    first = await lines.create()
    await lines.until(first, "in-progress")
    second = await lines.create()
    permissions.denial = lambda account, to: blocked("the limit is reached")
    lines.phone.hangs_up()
    assert (await lines.until(second, "failed")).error_code == 21216
    assert len(lines.phone.invites) == 1


async def test_by_a_dial(make_lines):
    lines = await make_lines()
    guard(lines)
    lines.web.pages[APP + "in"] = f"<Dial>{PREMIUM}</Dial><Hangup/>"
    lines.phone.dials(OURS)
    await lines.until((await lines.the_call()).sid, "completed")
    assert await lines.alert_codes() == [13227]
    assert lines.phone.invites == []

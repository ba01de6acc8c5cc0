"""Transfers by REFER in calls of customers' trunks: TransferMode and TransferCallerId.

| TransferMode | a number | a SIP address |
|---|---|---|
| disable-all | declined | declined |
| sip-only | declined | transferred |
| enable-all | transferred | transferred |
"""

import pytest

from ..messaging.world import eventually
from .lines import OTHER, OURS, THEM, Phone
from .test_customer_trunks import HOST, SPARE, Premises
from .test_denied_calls import guard

NEXT = "+14155550188"


@pytest.fixture
async def premises(lines):
    here = Premises(lines)
    here.spare = Phone(lines.net, SPARE)
    return here


async def terminating(here, **changes):
    """The PBX talks with somebody whom it called; his dialog on the PBX's side, and the call."""
    await here.open(**({"transfer_mode": "enable-all"} | changes))
    here.dials()
    await eventually(lambda: here.pbx.dialogs and here.lines.phone.dialogs)
    return here.pbx.dialogs[0], await here.lines.the_call()


async def originating(here, **changes):
    """The PBX talks with somebody who called it."""
    await here.open("sip:127.0.1.1:5060", **({"transfer_mode": "enable-all"} | changes))
    await here.put_on_it()
    here.lines.phone.dials(OURS)
    await eventually(lambda: here.pbx.dialogs and here.lines.phone.dialogs)
    return here.pbx.dialogs[0], await here.lines.the_call()


async def refers(dialog, target):
    """The last that the one who asks is told: its response, and the status told of the new call."""
    heard = []
    dialog.refer(f"<{target}>", heard.append)
    await eventually(lambda: heard and heard[-1].over)
    return heard[-1].response, heard[-1].status


@pytest.mark.parametrize(("caller_id", "shown"), [("from-transferee", OTHER), ("from-transferor", OURS)])
async def test_whom_a_pbx_called_is_transferred_to_a_number(premises, lines, caller_id, shown):
    dialog, call = await terminating(premises, transfer_caller_id=caller_id)
    assert await refers(dialog, f"sip:{NEXT}@{HOST}") == (202, 200)
    await eventually(lambda: len(lines.phone.invites) == 2)
    invite = lines.phone.invites[1]
    assert invite.request.request_uri.user == NEXT
    assert f"<sip:{shown}@" in invite.request.headers.get("From")
    await eventually(lambda: premises.pbx.byes)
    assert (await lines.until(call.sid, "completed")).hangup_cause == "transferred"
    (child,) = await lines.children(call.sid)
    await lines.until(child.sid, "in-progress")
    lines.phone.dialogs[-1].bye()
    await lines.until(child.sid, "completed")


@pytest.mark.parametrize(("caller_id", "shown"), [("from-transferee", THEM), ("from-transferor", OURS)])
async def test_who_called_a_pbx_is_transferred_to_a_sip_address(premises, lines, caller_id, shown):
    dialog, call = await originating(premises, transfer_mode="sip-only", transfer_caller_id=caller_id)
    assert await refers(dialog, "sip:100@127.0.1.2:5060;transport=udp") == (202, 200)
    (invite,) = await eventually(lambda: premises.spare.invites)
    assert invite.request.uri == "sip:100@127.0.1.2:5060;transport=udp"
    assert f"<sip:{shown}@" in invite.request.headers.get("From")
    await eventually(lambda: premises.pbx.byes and premises.spare.dialogs)
    await lines.until(call.sid, "in-progress")
    premises.spare.hangs_up()
    await lines.until(call.sid, "completed")


@pytest.mark.parametrize(
    ("mode", "target"),
    [
        ("disable-all", f"sip:{NEXT}@{HOST}"), ("disable-all", "sip:100@127.0.1.2:5060"),
        ("sip-only", f"sip:{NEXT}@{HOST}"), ("sip-only", f"tel:{NEXT}"), ("enable-all", f"sip:100@{HOST}"),
        ("enable-all", "sip:100@127.0.1.2:5060?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc"),
        ("enable-all", "tel:+19005550123"),
    ],
)  # fmt: skip
async def test_what_is_not_allowed_is_declined_and_the_call_goes_on(premises, lines, mode, target):
    guard(lines)
    dialog, call = await terminating(premises, transfer_mode=mode)
    assert await refers(dialog, target) == (603, 0)
    await lines.until(call.sid, "in-progress")
    assert len(lines.phone.invites) == 1
    assert premises.spare.invites == premises.pbx.byes == []


async def test_the_carriers_side_transfers_nobody(premises, lines):
    _, call = await terminating(premises)
    assert await refers(lines.phone.dialogs[0], f"sip:{NEXT}@{HOST}") == (603, 0)
    await lines.until(call.sid, "in-progress")


async def test_whom_a_call_was_transferred_to_transfers_it_no_further(premises, lines):
    dialog, call = await originating(premises)
    assert await refers(dialog, "sip:100@127.0.1.2:5060") == (202, 200)
    await eventually(lambda: premises.spare.dialogs)
    assert await refers(premises.spare.dialogs[0], f"tel:{NEXT}") == (603, 0)
    await lines.until(call.sid, "in-progress")

"""Emergency calls: which numbers they are, by which trunk they go, and that nothing holds them back."""

from decimal import Decimal

import pytest

from trunkline.model.errors import ApiError
from trunkline.settings import Trunk
from trunkline.voice import emergency
from trunkline.voice.number_risks import load
from trunkline.voice.permissions import Permissions

from .lines import APP, OURS, SECOND, THEM, Phone
from .office import Office
from .test_customer_trunks import Premises

TRUNKS = (
    Trunk(name="carrier", gateways=("sip:127.0.0.2:5060",), addresses=("127.0.0.2",), price=Decimal("0.01")),
    Trunk(
        name="help", gateways=("sip:127.0.0.3:5060",), prefixes=(), calls_at_once=1, calls_per_second=0.001,
        called_strip=1, called_add="9", called_format="international", country_code="1",
    ),
)  # fmt: skip
GERMAN, AMERICAN = "+493012345678", "+12025550100"


@pytest.mark.parametrize(
    ("text", "caller", "number"),
    [
        ("911", AMERICAN, "911"), ("9-1-1", AMERICAN, "911"), ("+1911", AMERICAN, "911"), ("112", GERMAN, "112"),
        ("+49112", GERMAN, "112"), ("999", "+442071838750", "999"), ("000", "+61212345678", "000"),
        ("911", GERMAN, ""), ("+1911", GERMAN, ""), ("+911", AMERICAN, ""), ("912", AMERICAN, ""), ("", AMERICAN, ""),
        ("911", "", ""), ("911", "alice", ""), ("911" * 30, AMERICAN, ""), ("٩١١", AMERICAN, ""), (THEM, AMERICAN, ""),
    ],
)  # fmt: skip
def test_whose_number_it_is(text, caller, number):
    assert emergency.called(text, caller) == number


def test_what_is_one_somewhere():
    assert emergency.anywhere("911")
    assert emergency.anywhere("112")
    assert not emergency.anywhere("4242")
    assert not emergency.anywhere("+1911")
    assert not emergency.anywhere(THEM)


@pytest.fixture
async def helped(make_lines):
    """A node with a trunk for emergencies, whose phone is `lines.help`, and every limit reached."""
    lines = await make_lines(trunks=TRUNKS, emergency_trunk="help", calls_at_once=1, calls_per_second=0.001)
    lines.help = Phone(lines.net, SECOND)
    permissions = Permissions(lines.settings.voice, lines.directory, load(), TRUNKS)
    permissions._ceiling = frozenset({"DE"})
    lines.outbound.permissions = permissions
    return lines


def used_up(lines):
    """The account has as many calls as it may have, and so has the trunk."""
    lines.outbound.limits.of(lines.number.account_sid).force()
    assert lines.trunks.limit(TRUNKS[1]).begin(lines.clock.monotonic())


async def test_the_api_calls_for_help_past_every_limit(helped):
    used_up(helped)
    sid = await helped.create(to="911")
    stored = await helped.until(sid, "in-progress")
    (invite,) = helped.help.invites
    assert invite.request.request_uri.user == "911", "no number plan changes it"
    assert OURS[1:] in invite.request.headers.get("P-Asserted-Identity")
    assert (stored.to, stored.trunk) == ("911", "help")
    assert helped.phone.invites == []
    helped.help.hangs_up()
    await helped.until(sid, "completed")
    assert helped.outbound.limits.of(helped.number.account_sid).running == 1
    assert helped.trunks.limit(TRUNKS[1]).running == 1


@pytest.mark.parametrize(("from_", "code"), [(THEM, 21210), ("+493012345678", 21211), ("help", 21211)])
async def test_who_calls_for_help_shows_a_number_of_the_account(helped, from_, code):
    with pytest.raises(ApiError) as refused:
        await helped.create(to="911", from_=from_)
    assert refused.value.code == code
    assert helped.help.invites == []


async def test_without_such_a_trunk_they_are_refused(make_lines):
    lines = await make_lines()
    with pytest.raises(ApiError) as refused:
        await lines.create(to="911")
    assert refused.value.code == 21211
    assert not lines.trunks.reach("911")
    assert lines.trunks.ways("911") == []
    lines.web.pages[APP + "in"] = f"<Dial callerId='{OURS}'>911</Dial><Hangup/>"
    lines.phone.dials(OURS)
    await lines.until((await lines.the_call()).sid, "completed")
    assert await lines.alert_codes() == [13223]


async def test_other_calls_never_go_by_that_trunk_for_its_sake(helped):
    assert [way.trunk.name for way in helped.trunks.ways(THEM)] == ["carrier"]
    assert [way.trunk.name for way in helped.trunks.ways("911")] == ["help"]


async def test_a_dial_calls_for_help(helped):
    used_up(helped)
    office = await Office(helped).open("alice")
    helped.web.pages[APP + "domain"] = f"<Dial callerId='{OURS}'>911</Dial>"
    desk = office.desk()
    office.dials(desk, "911")
    call = await helped.the_call()
    await helped.until(call.sid, "in-progress")
    (child,) = await helped.children(call.sid)
    await helped.until(child.sid, "in-progress")
    assert helped.help.invites[0].request.request_uri.user == "911"
    assert f"+{OURS[1:]}" in helped.help.invites[0].request.headers.get("From")
    assert desk.failure is None
    desk.hangs_up()
    await helped.until(call.sid, "completed")


@pytest.mark.parametrize("caller", ["", f"callerId='{THEM}'"])
async def test_a_dial_without_a_number_of_the_account_does_not(helped, caller):
    helped.web.pages[APP + "in"] = f"<Dial {caller}>911</Dial><Hangup/>"
    helped.phone.dials(OURS)
    await helped.until((await helped.the_call()).sid, "completed")
    assert await helped.alert_codes() == [13214]
    assert helped.help.invites == []


async def test_a_pbx_calls_for_help(helped):
    premises = await Premises(helped).open()
    used_up(helped)
    pbx = premises.pbx
    premises.dials("911")
    call = await helped.the_call()
    await helped.until(call.sid, "in-progress")
    assert helped.help.invites[0].request.request_uri.user == "911"
    assert helped.phone.invites == []
    assert pbx.failure is None
    pbx.hangs_up()
    await helped.until(call.sid, "completed")

"""3xx of a trunk's gateway: RFC 3261 section 8.1.3.4, within limits, only where the operator wants it."""

import pytest

from trunkline.settings import Trunk
from trunkline.sip.flow import Target
from trunkline.sip.message import Request, Response
from trunkline.voice.calls import NewCall
from trunkline.voice.redirects import MAX_HOPS, MAX_TARGETS, is_redirect, targets

from ..messaging.world import AC, eventually
from .lines import CARRIER, OTHER, OURS, SECOND, Phone
from .test_denied_calls import guard

THIRD = ("127.0.0.4", 5060)


def moved(*contacts):
    request = Request.make("INVITE", "sip:a@b")
    return Response.make(request, 302, headers=[("Contact", contact) for contact in contacts])


@pytest.mark.parametrize(
    ("contacts", "found"),
    [
        ((), []),
        (("*",), []),
        (("<sip:a@b>;q=0.2, <sip:c@d>;q=0.9", "<sip:e@f>"), ["sip:e@f", "sip:c@d", "sip:a@b"]),
        (("<sip:a@b>", "<sip:a@b>;q=0.1"), ["sip:a@b"]),
        (("<sip:a@b>;q=x", "<sip:c@d>;q=0.1", "<sip:e@f>;q=7"), ["sip:c@d", "sip:a@b", "sip:e@f"]),
        (("<tel:+15550100>", "<http://x.example>", "<mailto:a@b>", "<sips:a@b>"), ["sips:a@b"]),
        (("<sip:a@b?Subject=x&Route=%3Csip:evil%3E>",), ["sip:a@b"]),
        (('"open <sip:a@b>',), []),
        (tuple(f"<sip:{n}@b>" for n in range(50)), [f"sip:{n}@b" for n in range(MAX_TARGETS)]),
        ((", ".join(f"<sip:{n}@b>" for n in range(500)),), []),
    ],
)
def test_targets(contacts, found):
    assert [str(uri) for uri in targets(moved(*contacts))] == found


def test_which_are_redirects():
    assert [status for status in range(300, 400) if is_redirect(status)] == [300, 301, 302]


def trunk(**more):
    return (
        Trunk(name="carrier", gateways=("sip:127.0.0.2:5060",), addresses=("127.0.0.2",), username="u", password="p",
              **more),
    )  # fmt: skip


def place(lines):
    call, _ = lines.calls.create(NewCall(account_sid=AC, to=OTHER, from_=OURS, twiml="<Response><Hangup/></Response>"))
    return call.sid


async def test_it_is_followed_where_the_trunk_says_so(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(302, headers=[("Contact", "<sip:+1999@127.0.0.3:5060>")])
    sid = place(lines)
    await lines.until(sid, "completed")
    (invite,) = second.invites
    assert invite.request.uri == "sip:+1999@127.0.0.3:5060"
    assert (await lines.stored(sid)).to == OTHER


async def test_it_is_not_followed_by_default(make_lines):
    lines = await make_lines(trunks=trunk())
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(302, headers=[("Contact", "<sip:+1999@127.0.0.3:5060>")])
    stored = await lines.until(place(lines), "failed")
    assert stored.sip_response_code == 302
    assert second.invites == []


async def test_the_trunks_login_is_not_for_others(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    second = Phone(lines.net, SECOND)
    second.plan = lambda invite: invite.challenge('Digest realm="x", nonce="1", qop="auth"')
    lines.phone.refuses(302, headers=[("Contact", "<sip:+1999@127.0.0.3:5060>")])
    stored = await lines.until(place(lines), "failed")
    assert stored.sip_response_code == 401
    assert len(second.invites) == 1, "the challenge is not answered"


async def test_another_address_of_the_trunks_own_gateway_gets_its_login(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    (gateway,) = lines.trunks.gateways["carrier"].all
    gateway.reach([Target("UDP", *CARRIER), Target("UDP", *SECOND)], 0.0)
    second = Phone(lines.net, SECOND)
    second.plan = lambda invite: (
        second.picks_up(invite)
        if "Authorization" in invite.request.headers
        else invite.challenge('Digest realm="x", nonce="1", qop="auth"')
    )
    lines.phone.refuses(302, headers=[("Contact", "<sip:+1999@127.0.0.3:5060>")])
    await lines.until(place(lines), "completed")


async def test_targets_are_tried_in_their_order(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    second, third = Phone(lines.net, SECOND), Phone(lines.net, THIRD)
    second.refuses(503)
    lines.phone.refuses(
        302, headers=[("Contact", "<sip:1@127.0.0.4:5060>;q=0.1"), ("Contact", "<sip:1@127.0.0.3:5060>;q=0.5")]
    )
    await lines.until(place(lines), "completed")
    assert len(second.invites) == len(third.invites) == 1


async def test_a_busy_target_ends_it(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    second, third = Phone(lines.net, SECOND), Phone(lines.net, THIRD)
    second.refuses(486)
    lines.phone.refuses(302, headers=[("Contact", "<sip:1@127.0.0.3:5060>, <sip:1@127.0.0.4:5060>;q=0.2")])
    await lines.until(place(lines), "busy")
    assert third.invites == []


async def test_a_carousel_stops(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    second = Phone(lines.net, SECOND)
    count = iter(range(1000))

    def away(invite):
        invite.reject(302, headers=[("Contact", f"<sip:{next(count)}@127.0.0.3:5060>")])

    lines.phone.plan = second.plan = away
    stored = await lines.until(place(lines), "failed")
    assert stored.sip_response_code == 302
    assert len(second.invites) == MAX_HOPS


async def test_a_loop_stops(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))

    def back(invite):
        invite.reject(302, headers=[("Contact", f"<{invite.request.uri}>")])

    lines.phone.plan = back
    await lines.until(place(lines), "failed")
    assert len(lines.phone.invites) == 1


async def test_a_place_that_may_not_be_reached(make_lines):
    lines = await make_lines(trunks=trunk(follow_redirects=True))
    lines.phone.refuses(302, headers=[("Contact", "<sip:1@169.254.169.254>")])
    sid = place(lines)
    await lines.until(sid, "failed")
    await eventually(lambda: len(lines.phone.invites) == 1)


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("+19005550123", "not permitted"), ("+4930123456", "no prefix"), ("911", "an emergency number"),
        ("+14155550111", ""), ("100", ""),
    ],
)  # fmt: skip
async def test_another_number_is_a_call_of_its_own(make_lines, user, why):
    lines = await make_lines(trunks=trunk(follow_redirects=True, prefixes=("+1",)))
    guard(lines)
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(302, headers=[("Contact", f"<sip:{user}@127.0.0.3:5060>")])
    sid = place(lines)
    stored = await lines.until(sid, "completed", "failed")
    assert (stored.status, len(second.invites)) == (("failed", 0) if why else ("completed", 1))
    assert any(why in entry.what for entry in stored.timeline if "redirect" in entry.what) is bool(why)


async def test_numbers_are_read_as_the_trunk_writes_them(make_lines):
    more = {"country_code": "49", "called_format": "international", "called_add": "9"}
    lines = await make_lines(trunks=trunk(follow_redirects=True, prefixes=("+1",), **more))
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(302, headers=[("Contact", "<sip:900493012345@127.0.0.3:5060>")])
    assert (await lines.until(place(lines), "failed")).sip_response_code == 302
    assert second.invites == []

"""Calls over trunks with dialects, several gateways and limits of their own, from INVITE to INVITE."""

import time

import pytest

from trunkline.settings import Gateway, Trunk
from trunkline.voice.trunk_contact import contact_user

from ..messaging.world import eventually
from .lines import APP, OTHER, OURS, SECOND, THEM, Phone

TWO = ("sip:127.0.0.2:5060", "sip:127.0.0.3:5060")
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.c2lnbmF0dXJl"
DIAL = f"<Dial>{THEM}</Dial>"


def carrier(**changes):
    return Trunk(**{"name": "carrier", "gateways": TWO, "addresses": ("127.0.0.2",), **changes})


async def two(make_lines, *trunks, **changes):
    """A node and the phones behind both gateways."""
    lines = await make_lines(trunks=trunks or (carrier(**changes),))
    return lines, Phone(lines.net, SECOND)


# -- failover ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failover", "status"), [(("408", "5xx"), 503), (("408", "5xx"), 408), (("404",), 404), (("4xx",), 403)]
)
async def test_the_next_gateway_is_tried_after_what_the_policy_names(make_lines, failover, status):
    lines, second = await two(make_lines, failover=failover, calls_per_second=1)
    lines.phone.refuses(status)
    sid = await lines.create()
    assert (await lines.until(sid, "in-progress")).trunk == "carrier"
    assert (len(lines.phone.invites), len(second.invites)) == (1, 1)


@pytest.mark.parametrize(
    ("failover", "status", "ring"),
    [
        (("408", "5xx"), 404, False),
        ((), 503, False),
        (("4xx", "5xx"), 486, False),
        (("4xx", "5xx"), 603, False),
        (("4xx", "5xx"), 600, False),
        (("4xx", "5xx"), 480, True),
        (("4xx", "5xx"), 503, True),
    ],
)
async def test_nobody_else_is_called_after_anything_else(make_lines, failover, status, ring):
    lines, second = await two(make_lines, failover=failover)
    lines.phone.refuses(status, ring=ring)
    sid = await lines.create()
    assert (await lines.until(sid, "busy", "no-answer", "failed")).sip_response_code == status
    assert not second.invites


async def test_a_silent_gateway_is_passed_over_soon_and_tried_last_then(make_lines):
    lines, second = await two(make_lines, gateways=("sip:127.0.0.9", TWO[1]), failover_s=0.1)
    began = time.monotonic()
    await lines.until(await lines.create(), "in-progress")
    assert time.monotonic() - began < 0.1 + 0.5  # T1 * 64 would be 1.28 s
    await lines.until(await lines.create(), "in-progress")
    assert [way.host for way in lines.trunks.ways(THEM)] == ["127.0.0.3", "127.0.0.9"]
    assert len(second.invites) == 2
    (first, _) = lines.trunks.gateways["carrier"].all
    assert first.endpoints[0].detail == "no answer to an INVITE"


async def test_a_gateway_that_has_said_anything_is_not_passed_over(make_lines):
    lines, second = await two(make_lines, failover_s=0.05)
    lines.phone.plan = lambda invite: None  # 100 Trying goes out by itself
    sid = await lines.create()
    await eventually(lambda: lines.phone.invites)
    await eventually(lambda: lines.services.live[sid].cancel is not None)
    started = time.monotonic()
    await eventually(lambda: time.monotonic() - started > 0.2)
    assert not second.invites
    lines.phone.picks_up()
    assert (await lines.until(sid, "in-progress")).trunk == "carrier"


async def test_a_gateways_priority_decides(make_lines):
    gateways = (TWO[0], Gateway(uri=TWO[1], priority=1))
    lines, second = await two(make_lines, gateways=gateways)
    await lines.until(await lines.create(), "in-progress")
    assert (len(lines.phone.invites), len(second.invites)) == (0, 1)


# -- numbers and identities ----------------------------------------------------------------------------------


async def test_a_trunk_gets_numbers_as_it_wants_them(make_lines):
    lines, _ = await two(
        make_lines, called_format="international", international_prefix="011", called_add="9", caller_format="e164",
        user_phone=True, identity_headers=("pai", "rpid"), domain="carrier.example", username="acct", password="p",
    )  # fmt: skip
    await lines.until(await lines.create(), "in-progress")
    request = lines.phone.invites[0].request
    assert request.uri == f"sip:9011{THEM[1:]}@carrier.example;user=phone"
    assert request.headers.get("From").startswith(f"<sip:{OURS[1:]}@carrier.example;user=phone>;tag=")
    assert request.headers.get("P-Asserted-Identity") == f"<sip:{OURS[1:]}@carrier.example;user=phone>"
    assert request.headers.get("Remote-Party-ID").endswith(";party=calling;screen=yes;privacy=off")


async def test_numbers_come_in_as_the_trunk_writes_them(make_lines):
    lines, _ = await two(make_lines, country_code="1", national_prefix="1", international_prefix="011")
    lines.web.pages[APP + "in"] = "<Hangup/>"
    lines.phone.dials(OURS[2:], caller=THEM[2:], headers=[("Diversion", f"<tel:{OTHER[1:]}>;reason=no-answer")])
    call = await lines.the_call()
    assert (call.to, call.from_, call.forwarded_from) == (OURS, THEM, OTHER)
    (params,) = lines.web.params(APP + "in")
    assert (params["To"], params["From"], params["ForwardedFrom"]) == (OURS, THEM, OTHER)


async def test_who_passes_a_call_on_says_so_and_nothing_else_crosses_over(make_lines):
    out = Trunk(name="out", gateways=(TWO[1],), diversion="diversion", identity=True)
    lines, second = await two(make_lines, Trunk(name="in", addresses=("127.0.0.2",), gateways=(), prefixes=()), out)
    lines.web.pages[APP + "in"] = DIAL
    secrets = ["10.9.8.7", "leaky.example", "their-agent"]
    lines.phone.dials(
        OURS, caller=OTHER, headers=[
            ("Identity", f"{TOKEN};info=<https://cert.example/c.pem>;alg=ES256;ppt=shaken"),
            ("P-Asserted-Identity", f"<sip:{OTHER}@leaky.example;verstat=TN-Validation-Passed-A>"),
            ("History-Info", f"<sip:{THEM}@leaky.example>;index=1"), ("User-Agent", "their-agent"),
            ("Record-Route", "<sip:10.9.8.7;lr>"), ("P-Charging-Vector", "icid-value=10.9.8.7"),
            ("Subject", "leaky.example"),
        ],
    )  # fmt: skip
    await eventually(lambda: second.invites)
    (params,) = lines.web.params(APP + "in")
    assert (params["StirVerstat"], params["StirPassportToken"]) == ("TN-Validation-Passed-A", TOKEN)
    request = second.invites[0].request
    text = request.encode().decode()
    assert not [secret for secret in secrets if secret in text]
    assert "127.0.0.2" not in text
    assert request.headers.get("Diversion") == f"<sip:{OURS}@us.example>;reason=unconditional;counter=1;privacy=off"
    assert request.headers.get("Identity") == f"{TOKEN};info=<https://cert.example/c.pem>;alg=ES256;ppt=shaken"
    assert f"<sip:{OTHER}@us.example>" in request.headers.get("From")


async def test_a_caller_of_our_own_is_not_passed_on(make_lines):
    out = Trunk(name="out", gateways=(TWO[1],), diversion="history-info", identity=True)
    lines, second = await two(make_lines, Trunk(name="in", addresses=("127.0.0.2",), gateways=(), prefixes=()), out)
    lines.web.pages[APP + "in"] = f"<Dial callerId='{OURS}'>{THEM}</Dial>"
    lines.phone.dials(OURS, caller=OTHER, headers=[("Identity", f"{TOKEN};info=<https://cert.example/c.pem>")])
    await eventually(lambda: second.invites)
    headers = second.invites[0].request.headers
    assert (headers.get("History-Info"), headers.get("Identity")) == ("", "")


async def test_a_withheld_caller_stays_withheld(make_lines):
    out = Trunk(name="out", gateways=(TWO[1],), asserted_number=OURS)
    lines, second = await two(make_lines, Trunk(name="in", addresses=("127.0.0.2",), gateways=(), prefixes=()), out)
    lines.web.pages[APP + "in"] = DIAL
    lines.phone.dials(OURS, caller=OTHER, headers=[("Privacy", "id"), ("P-Asserted-Identity", f"<sip:{OTHER}@x>")])
    await eventually(lambda: second.invites)
    request = second.invites[0].request
    assert OTHER[1:] not in request.encode().decode()
    assert request.headers.get("From").startswith('"Anonymous" <sip:anonymous@anonymous.invalid>')
    assert (request.headers.get("Privacy"), request.headers.get("P-Asserted-Identity")) == (
        "id", f"<sip:{OURS}@us.example>",
    )  # fmt: skip
    assert lines.web.params(APP + "in")[0]["From"] == "+266696687"


async def test_the_callers_name_is_for_numbers_that_look_it_up(make_lines):
    lines, _ = await two(make_lines)
    lines.web.pages[APP + "in"] = "<Hangup/>"
    for lookup in (False, True):
        lines.number.voice_caller_id_lookup = lookup
        await lines.database.update(lines.number)
        await eventually(lambda want=lookup: lines.directory.number(OURS).voice_caller_id_lookup == want)
        lines.phone.stack.invite(
            f"sip:{OURS}@127.0.0.1", from_=f'"Ann Example" <sip:{THEM}@127.0.0.2>', target=("UDP", "127.0.0.1", 5060),
            sdp=b"", listener=lines.phone,
        )  # fmt: skip
        await eventually(lambda count=1 + lookup: len(lines.web.params(APP + "in")) == count)
    assert [params.get("CallerName") for params in lines.web.params(APP + "in")] == [None, "Ann Example"]


# -- coming in -----------------------------------------------------------------------------------------------


async def test_calls_for_a_registered_contact_are_the_trunks(make_lines):
    registered = Trunk(name="reg", register=True, username="u", password="p", gateways=("sip:127.0.0.9",))
    lines, stranger = await two(make_lines, registered)
    lines.inbound.doors.know_contacts(b"secret")
    lines.stack.trace = lines.inbound.doors.tracing(lines.services.trace)
    lines.web.pages[APP + "in"] = "<Hangup/>"
    stranger.dials(contact_user(registered, b"wrong"))
    await eventually(lambda: stranger.failure)
    assert stranger.failure == 401
    user = contact_user(registered, b"secret")
    stranger.stack.invite(
        f"sip:{user}@127.0.0.1", to=f"<sip:{OURS}@carrier.example>", from_=f"<sip:{THEM}@127.0.0.3>",
        target=("UDP", "127.0.0.1", 5060), sdp=b"", listener=stranger,
    )  # fmt: skip
    call = await lines.the_call()
    assert (call.trunk, call.to, call.from_) == ("reg", OURS, THEM)
    await lines.until(call.sid, "completed")
    told = [entry.what for entry in (await lines.stored(call.sid)).timeline if entry.kind == "sip"]
    assert told[0] == "<- INVITE sip:...@127.0.0.1"
    assert not [what for what in told if user in what]


async def test_a_gateway_that_has_its_calls_is_passed_over(make_lines):
    gateways = (Gateway(uri=TWO[0], priority=2, calls_at_once=1), Gateway(uri=TWO[1], priority=1))
    lines, second = await two(make_lines, gateways=gateways, calls_at_once=2)
    await lines.until(await lines.create(), "in-progress")
    await lines.until(await lines.create(), "in-progress")
    assert (len(lines.phone.invites), len(second.invites)) == (1, 1)
    lines.phone.hangs_up()
    await eventually(lambda: len(lines.services.live) == 1)
    await lines.until(await lines.create(), "in-progress")
    assert (len(lines.phone.invites), len(second.invites)) == (2, 1)
    second.hangs_up()
    lines.phone.hangs_up()
    await eventually(lambda: not lines.services.live)
    (gate, none) = (gateway.endpoints[0].limit for gateway in lines.trunks.gateways["carrier"].all)
    assert gate.running == lines.trunks.limit(lines.trunk_settings[0]).running == 0
    assert none is None


async def test_a_gateway_that_declines_gives_its_place_back(make_lines):
    gateways = (Gateway(uri=TWO[0], priority=2, calls_at_once=1), Gateway(uri=TWO[1], priority=1))
    lines, second = await two(make_lines, gateways=gateways)
    lines.phone.refuses(503)
    await lines.until(await lines.create(), "in-progress")
    assert lines.trunks.gate(lines.trunk_settings[0], "127.0.0.2").running == 0
    second.hangs_up()
    await eventually(lambda: not lines.services.live)


async def test_more_than_a_trunk_may_bring_is_refused(make_lines):
    lines, _ = await two(make_lines, inbound_calls_at_once=1)
    lines.web.pages[APP + "in"] = "<Say>hello</Say><Pause length='60'/>"
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.dialogs)
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.failure)
    assert lines.phone.failure == 503
    lines.phone.hangs_up()
    await eventually(lambda: not lines.services.live)
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.dialogs)


async def test_via_contact_and_sdp_name_the_trunks_own_address(make_lines):
    lines, second = await two(
        make_lines, carrier(advertised="203.0.113.9"), Trunk(name="b", gateways=(TWO[1],), prefixes=("+49",))
    )
    lines.stack.advertised = lines.trunks.advertised
    lines.services.media_address = lambda host: lines.trunks.advertised(host) or "127.0.0.1"
    sid = await lines.create()
    await lines.until(sid, "in-progress")
    request = lines.phone.invites[0].request
    assert request.via.host == "203.0.113.9"
    assert request.contact.uri.host == "203.0.113.9"
    assert b"c=IN IP4 203.0.113.9" in request.body
    assert not second.invites

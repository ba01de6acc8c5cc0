"""Customers' SIP trunks: a PBX calls out through its account, and is called at its origination URLs."""

from collections import Counter
from random import Random

import pytest

from trunkline.media import protocol
from trunkline.model.sid import new_sid
from trunkline.model.sip_domain import SipCredential, SipMapping, mapping_sid
from trunkline.model.sip_trunk import CUSTOMER_TRUNK, OriginationUrl, SipTrunk
from trunkline.sip import digest, offer_answer
from trunkline.voice import outgoing
from trunkline.voice.customer_trunks import CustomerTrunks, addresses, in_turn
from trunkline.voice.number_risks import load
from trunkline.voice.permissions import Permissions
from trunkline.voice.trunks import Trunks

from ..messaging.world import AC, eventually
from .lines import APP, NODE, OTHER, OURS, THEM, Phone
from .office import CL, PASSWORD, REALM, Office
from .test_domains import encrypts

HOST = "acme.pstn.localhost"
PBX, SPARE = ("127.0.1.1", 5060), ("127.0.1.2", 5060)


class Premises:
    """An account's trunk on `Lines`, with a PBX (`pbx`) that may log in as `pbx`."""

    def __init__(self, lines):
        self.lines = lines
        self.office = Office(lines)
        lines.inbound._customers = CustomerTrunks(lines.services, self.office.domains, Random(1))
        self.pbx = Phone(lines.net, PBX)

    async def open(self, *urls, lists=(CL,), **changes):
        values = {"sid": new_sid("TK"), "account_sid": AC, "domain_name": HOST, "name": "acme"} | changes
        self.trunk = SipTrunk(**values)
        database = self.lines.database
        await database.insert(self.trunk)
        hashes = {f"ha1_{name.lower().replace('-', '')}": digest.ha1(name, "pbx", REALM, PASSWORD)
                  for name in ("MD5", "SHA-256")}  # fmt: skip
        await database.insert(
            SipCredential(
                sid=new_sid("CR"), account_sid=AC, credential_list_sid=CL, username="pbx", realm=REALM, **hashes
            )
        )
        for one in lists:
            sid = mapping_sid(self.trunk.sid, "calls", one)
            await database.insert(SipMapping(sid=sid, account_sid=AC, owner_sid=self.trunk.sid, list_sid=one))
        for rank, url in enumerate(urls):
            await self.url(url, priority=rank)
        return self

    async def url(self, sip_url, **more):
        values = {"sid": new_sid("OU"), "account_sid": AC, "trunk_sid": self.trunk.sid, "sip_url": sip_url}
        await self.lines.database.insert(OriginationUrl(**(values | more)))

    async def put_on_it(self):
        """The account's number."""
        number = self.lines.number
        number.trunk_sid, number.voice_url = self.trunk.sid, ""
        await self.lines.database.update(number)

    def dials(self, to=OTHER, caller=OURS, password=PASSWORD):
        """A call from the PBX through its trunk."""
        return self.pbx.stack.invite(
            f"sip:{to}@{HOST}", from_=f"<sip:{caller}@{HOST}>", target=("UDP", *NODE),
            sdp=offer_answer.offer(self.pbx.local), listener=self.pbx,
            credentials=("pbx", password) if password else None,
        )  # fmt: skip


@pytest.fixture
async def premises(lines):
    return Premises(lines)


async def refused(phone):
    return await eventually(lambda: phone.failure)


# -- termination --------------------------------------------------------------------------------------------------


async def test_a_pbx_calls_out_and_its_call_ends_with_the_conversation(premises, lines):
    await premises.open()
    premises.dials()
    (invite,) = await eventually(lambda: lines.phone.invites)
    assert f"sip:{OTHER}@" in invite.request.uri
    assert f"<sip:{OURS}@us.example>" in invite.request.headers.get("From")
    await eventually(lambda: premises.pbx.dialogs)
    call = await lines.the_call()
    assert (call.from_, call.to, call.direction) == (OURS, OTHER, "inbound")
    assert call.extra[CUSTOMER_TRUNK]["direction"] == "trunking-terminating"
    assert call.extra[CUSTOMER_TRUNK]["sid"] == premises.trunk.sid
    lines.phone.hangs_up()
    await eventually(lambda: premises.pbx.byes)
    assert (await lines.until(call.sid, "completed")).trunk == ""
    (child,) = await lines.children(call.sid)
    assert (child.trunk, child.direction) == ("carrier", "outbound-dial")
    assert lines.web.asked == []


async def test_a_pbx_hangs_up(premises, lines):
    await premises.open()
    premises.dials()
    await eventually(lambda: premises.pbx.dialogs)
    call = await lines.the_call()
    premises.pbx.hangs_up()
    await eventually(lambda: lines.phone.byes)
    await lines.until(call.sid, "completed")


@pytest.mark.parametrize(("password", "status"), [("", 407), ("wrong", 403)])
async def test_without_its_login_nobody_calls(premises, lines, password, status):
    await premises.open()
    premises.dials(password=password)
    assert await refused(premises.pbx) == status
    assert lines.phone.invites == []


async def test_a_trunk_without_lists_lets_nobody_in(premises, lines):
    await premises.open(lists=())
    premises.dials()
    assert await refused(premises.pbx) == 403


async def test_a_suspended_account_calls_nobody(premises, lines):
    await premises.open()
    account = lines.directory.account(AC)
    account.status = "suspended"
    await lines.database.update(account)
    premises.dials()
    assert await refused(premises.pbx) == 403


@pytest.mark.parametrize("caller", [THEM, "anonymous", "reception"])
async def test_a_pbx_shows_numbers_of_its_account_only(premises, lines, caller):
    await premises.open()
    premises.dials(caller=caller)
    assert await refused(premises.pbx) == 403
    assert await lines.alert_codes() == [32206]
    assert lines.phone.invites == []


async def test_a_pbx_calls_what_its_account_may_call(premises, lines):
    lines.outbound.permissions = Permissions(lines.settings.voice, lines.directory, load())
    await premises.open()
    premises.dials(to="+19005550123")
    assert await refused(premises.pbx) == 403
    assert await lines.alert_codes() == [32205]
    assert lines.phone.invites == []


async def test_a_pbx_calls_numbers_only(premises, lines):
    await premises.open()
    premises.dials(to="reception")
    assert await refused(premises.pbx) == 404
    assert await lines.alert_codes() == [32101]


@pytest.mark.parametrize(("status", "told", "end"), [(486, 486, "busy"), (404, 404, "failed"), (480, 480, "no-answer")])
async def test_a_pbx_learns_why_nobody_picked_up(premises, lines, status, told, end):
    await premises.open()
    lines.phone.refuses(status)
    premises.dials()
    assert await refused(premises.pbx) == told
    call = await lines.the_call()
    assert (await lines.until(call.sid, end)).sip_response_code == told


async def test_calls_are_recorded_as_the_trunk_says(premises, lines):
    await premises.open(recording_mode="record-from-answer-dual", recording_trim="trim-silence")
    premises.dials()
    (command,) = await eventually(lambda: lines.media.of(protocol.Record))
    assert command.channels == 2
    call = await lines.the_call()
    lines.phone.hangs_up()
    await lines.until(call.sid, "completed")
    (recording,) = await lines.recordings_of(call.sid)
    assert (recording.channels, recording.source) == (2, "DialVerb")


async def test_another_process_ends_the_call_with_the_conversation_too(premises, lines):
    await premises.open()
    premises.dials()
    await eventually(lambda: premises.pbx.dialogs)
    call = await lines.the_call()
    await lines.until(call.sid, "in-progress")
    await lines.resume(call.sid)
    lines.phone.hangs_up()
    await eventually(lambda: premises.pbx.byes)
    await lines.until(call.sid, "completed")


# -- origination --------------------------------------------------------------------------------------------------


async def test_a_number_of_a_trunk_rings_at_the_pbx(premises, lines):
    await premises.open("sip:127.0.1.1:5060")
    await premises.put_on_it()
    lines.phone.dials(OURS)
    (invite,) = await eventually(lambda: premises.pbx.invites)
    assert invite.request.uri == f"sip:{OURS}@127.0.1.1:5060"
    assert f"<sip:{THEM}@us.example>" in invite.request.headers.get("From")
    await eventually(lambda: lines.phone.dialogs)
    call = await lines.the_call()
    assert call.extra[CUSTOMER_TRUNK]["direction"] == "trunking-originating"
    premises.pbx.hangs_up()
    await eventually(lambda: lines.phone.byes)
    await lines.until(call.sid, "completed")
    assert lines.web.asked == []


async def test_the_next_url_is_tried_when_one_is_out_of_order(premises, lines):
    spare = Phone(lines.net, SPARE)
    await premises.open("sip:127.0.1.1:5060", "sip://127.0.1.2:5060")
    await premises.put_on_it()
    premises.pbx.refuses(503)
    lines.phone.dials(OURS)
    await eventually(lambda: spare.dialogs)
    assert len(premises.pbx.invites) == 1


async def test_a_pbx_that_says_nothing_is_not_waited_for(premises, lines, monkeypatch):
    monkeypatch.setattr(outgoing, "SILENCE_S", 0.2)
    spare = Phone(lines.net, SPARE)
    await premises.open("sip:127.0.1.9:5060", "sip:127.0.1.2:5060", disaster_recovery_url=APP + "r")
    await premises.put_on_it()
    lines.phone.dials(OURS)
    await eventually(lambda: spare.dialogs and lines.phone.dialogs)
    lines.phone.hangs_up()
    lines.net.stacks.pop(SPARE)
    lines.web.pages[APP + "r"] = "<Hangup/>"
    lines.phone.dials(OURS)
    (params,) = await eventually(lambda: lines.web.params(APP + "r"))
    assert params["DialSipResponseCode"] == "408"


async def test_a_busy_pbx_is_not_called_elsewhere(premises, lines):
    spare = Phone(lines.net, SPARE)
    await premises.open("sip:127.0.1.1:5060", "sip:127.0.1.2:5060", disaster_recovery_url="")
    await premises.put_on_it()
    premises.pbx.refuses(486)
    lines.phone.dials(OURS)
    assert await refused(lines.phone) == 486
    assert spare.invites == []


async def test_disaster_recovery(premises, lines):
    await premises.open("sip:127.0.1.1:5060", disaster_recovery_url=APP + "r", disaster_recovery_method="GET")
    await premises.put_on_it()
    premises.pbx.refuses(503)
    lines.web.pages[APP + "r"] = f"<Dial>{OTHER}</Dial><Say>sorry</Say><Redirect>{APP}end</Redirect>"
    lines.web.pages[APP + "end"] = "<Hangup/>"
    lines.phone.plan = lambda invite: lines.phone.refuses(486) or invite.reject(486)
    lines.phone.dials(OURS)
    call = await lines.the_call()
    await lines.until(call.sid, "completed")
    (url, method, params), (after, _, _) = lines.web.asked
    assert (url, method, after) == (APP + "r", "GET", APP + "end"), "a <Dial> of the application's is any other"
    assert (params["DialCallStatus"], params["DialSipResponseCode"]) == ("failed", "503")


async def test_without_any_url_nobody_can_be_called(premises, lines):
    await premises.open()
    await premises.url("sip:127.0.1.1:5060", enabled=False)
    await premises.put_on_it()
    lines.phone.dials(OURS)
    assert await refused(lines.phone) == 480
    assert await lines.alert_codes() == [32010]


async def test_a_trunk_that_is_gone_or_anothers_does_not_count(premises, lines):
    await premises.open("sip:127.0.1.1:5060", account_sid="AC" + "b" * 32)
    number = lines.number
    number.trunk_sid = premises.trunk.sid
    await lines.database.update(number)
    lines.web.pages[APP + "in"] = "<Hangup/>"
    lines.phone.dials(OURS)
    await lines.until((await lines.the_call()).sid, "completed")
    assert lines.web.params(APP + "in")
    assert premises.pbx.invites == []


def url(sip_url="sip:pbx.example.com", **more):
    return OriginationUrl(**({"sid": new_sid("OU"), "trunk_sid": "TK1", "sip_url": sip_url} | more))


def test_urls_take_turns_by_priority_and_weight():
    random, first = Random(1), Counter()
    urls = [url(friendly_name="a", weight=30), url(friendly_name="b", weight=10), url(friendly_name="z", priority=11)]
    for _ in range(2000):
        order = in_turn(urls, random)
        first[order[0].friendly_name] += 1
        assert order[2].friendly_name == "z"
    assert 1400 < first["a"] < 1600
    assert first["a"] + first["b"] == 2000


def test_the_number_called_is_put_before_each_host():
    urls = [url("sip:pbx.example.com"), url("sip://10.0.0.1:5070;transport=tcp"), url("sip:main@[2001:db8::1]")]
    assert addresses(OURS, urls) == [
        f"sip:{OURS}@pbx.example.com",
        f"sip:{OURS}@10.0.0.1:5070;transport=tcp",
        f"sip:{OURS}@[2001:db8::1]",
    ]


# -- secure trunks, calls a second --------------------------------------------------------------------------------


@pytest.fixture
async def secure(premises, lines, tls):
    """A secure trunk; every message comes by TLS."""
    await premises.open("sip:127.0.1.1:5060", secure=True)
    return premises


async def test_a_secure_trunk_takes_srtp_and_the_carrier_is_none_the_wiser(secure, lines):
    encrypts(secure.pbx)
    secure.dials()
    await eventually(lambda: secure.pbx.dialogs and lines.phone.dialogs)
    assert b"a=crypto:" not in lines.phone.invites[0].offer
    opened = {one.leg: one.srtp for one in lines.media.of(protocol.Open)}
    assert opened[(await lines.the_call()).sid] is not None


async def test_a_secure_trunk_takes_no_plain_audio(secure, lines):
    secure.dials()
    assert await refused(secure.pbx) == 488
    assert await lines.alert_codes() == [32208]
    assert not lines.services.live


async def test_a_secure_trunk_takes_no_call_without_tls(premises, lines):
    await premises.open(secure=True)
    premises.dials()
    assert await refused(premises.pbx) == 403
    assert await lines.alert_codes() == [32209]


async def test_a_pbx_of_a_secure_trunk_is_called_by_tls_with_srtp(secure, lines):
    await secure.put_on_it()
    encrypts(secure.pbx)
    lines.phone.dials(OURS)
    (invite,) = await eventually(lambda: secure.pbx.invites)
    assert invite.request.uri == f"sip:{OURS}@127.0.1.1:5060;transport=tls"
    assert b"RTP/SAVP" in invite.offer
    await eventually(lambda: lines.phone.dialogs)


async def test_a_pbx_of_a_secure_trunk_that_knows_no_srtp_is_not_called_in_the_open(secure, lines):
    await secure.put_on_it()
    secure.pbx.refuses(488)
    lines.phone.dials(OURS)
    assert await refused(lines.phone) == 488
    assert len(secure.pbx.invites) == 1


async def test_a_pbx_starts_as_many_calls_a_second_as_it_may(make_lines):
    lines = await make_lines(trunk_calls_per_second=1)
    premises = await Premises(lines).open()
    premises.dials()
    await eventually(lambda: premises.pbx.dialogs)
    premises.dials()
    assert await refused(premises.pbx) == 503
    assert await lines.alert_codes() == [32001]
    lines.clock.offset_ms += 1000
    premises.dials()
    await eventually(lambda: len(premises.pbx.dialogs) == 2)


@pytest.mark.parametrize(
    "address", ["sip:bob@pbx.example;secure=true", "sip:bob@pbx.example;transport=TCP;Secure=TRUE"]
)
def test_secure_in_a_uri_is_tls_with_srtp(address):
    (way,) = Trunks((), Random(1), 0.0).ways(address)
    assert (str(way.uri), way.transport, way.secure) == ("sip:bob@pbx.example;transport=tls", "TLS", True)


@pytest.mark.parametrize("password", [PASSWORD, ""])
async def test_a_pbx_takes_the_place_of_a_call_of_its_trunk(premises, lines, password):
    await premises.open()
    premises.dials()
    (dialog,) = await eventually(lambda: premises.pbx.dialogs)
    state, spare = dialog.state(), Phone(lines.net, SPARE)
    names = f"{state.call_id};to-tag={state.remote_tag};from-tag={state.local_tag}"
    spare.stack.invite(
        f"sip:{OTHER}@{HOST}", from_=f"<sip:{OURS}@{HOST}>", target=("UDP", *NODE), listener=spare,
        sdp=offer_answer.offer(spare.local), headers=[("Replaces", names)],
        credentials=("pbx", password) if password else None,
    )  # fmt: skip
    if password:
        await eventually(lambda: spare.dialogs and premises.pbx.byes)
    else:
        assert await refused(spare) == 407
        assert premises.pbx.byes == []

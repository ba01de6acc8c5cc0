"""Calls from the phones of SIP domains, and to them."""

import dataclasses

import msgspec
import pytest

from trunkline.media import protocol
from trunkline.sip import offer_answer, sdes
from trunkline.sip.offer_answer import REQUIRED
from trunkline.voice.checkpoints import InviteCheckpoint

from ..messaging.world import AC, eventually
from .lines import APP, NODE, OURS, THEM
from .office import HOST, PASSWORD, Office


@pytest.fixture
async def office(lines):
    return await Office(lines).open("alice", "bob")


async def ended(phone):
    """The status that a call of a phone's was refused with."""
    return await eventually(lambda: phone.failure)


# -- from phones ------------------------------------------------------------------------------------------------------


async def test_a_phone_calls_and_the_domains_url_is_asked(office, lines):
    lines.web.pages[APP + "domain"] = "<Say>hello</Say><Hangup/>"
    phone = office.desk()
    office.dials(phone, "100", headers=[("X-Ticket", "7"), ("User-to-User", "68;encoding=hex"), ("Subject", "no")])
    call = await lines.the_call()
    await lines.until(call.sid, "completed")
    (params,) = lines.web.params(APP + "domain")
    wanted = {
        "From": f"sip:alice@{HOST}", "To": f"sip:100@{HOST}", "Caller": f"sip:alice@{HOST}",
        "Called": f"sip:100@{HOST}", "Direction": "inbound", "CallStatus": "ringing", "AccountSid": AC,
        "SipDomain": HOST, "SipDomainSid": office.domain.sid, "SipSourceIp": "127.0.1.1", "SipUsername": "alice",
        "SipHeader_X-Ticket": "7", "SipHeader_User-to-User": "68;encoding=hex", "SipCallId": call.sip_call_id,
    }  # fmt: skip
    assert {name: params.get(name) for name in wanted} == wanted
    assert "SipHeader_Subject" not in params
    assert call.trunk == ""
    assert lines.inbound.counters == {"challenged": 1, "taken": 1}


async def test_its_method_fallback_and_callback(lines):
    office = await Office(lines).open(
        "alice", voice_method="GET", voice_fallback_url=APP + "back", voice_fallback_method="GET",
        voice_status_callback_url=APP + "status", voice_status_callback_method="GET",
    )  # fmt: skip
    lines.web.pages[APP + "back"] = "<Hangup/>"
    office.dials(office.desk(), "100")
    call = await lines.the_call()
    await lines.until(call.sid, "completed")
    asked = [(url, method) for url, method, _ in lines.web.asked]
    assert asked == [(APP + "domain", "GET"), (APP + "back", "GET")]
    (told,) = lines.events(call.sid)
    assert (told["CallStatus"], told["SipDomain"], told["SipUsername"]) == ("completed", HOST, "alice")


async def test_without_a_login_one_is_asked_for(office, lines):
    phone = office.desk()
    office.dials(phone, "100", password="")
    assert await ended(phone) == 407
    assert not lines.services.live


@pytest.mark.parametrize(("user", "password"), [("alice", "wrong"), ("nobody", "s3cret")])
async def test_a_wrong_login_is_refused(office, lines, user, password):
    phone = office.desk()
    office.dials(phone, "100", user, password)
    assert await ended(phone) == 403
    assert office.failed == ["127.0.1.1"]
    assert await lines.alert_codes() == [32202]
    assert lines.web.asked == []


async def test_who_may_only_register_may_not_call(lines):
    office = await Office(lines).open("alice", lists=("registrations",))
    (phone,) = await office.staffed("alice")
    office.dials(phone, "100")
    assert await ended(phone) == 403


@pytest.mark.parametrize(("prefix", "status"), [(24, 0), (32, 403)])
async def test_an_address_list_alone(lines, prefix, status):
    office = await Office(lines).open(lists=())
    await office.allow("127.0.1.77", prefix)
    lines.web.pages[APP + "domain"] = "<Say>hi</Say><Pause length='60'/>"
    phone = office.desk()
    office.dials(phone, "100", password="wrong" if status else "")
    if status:
        assert await ended(phone) == status
        assert await lines.alert_codes() == [32201]
    else:
        call = await lines.the_call()
        await lines.until(call.sid, "in-progress")
        assert "SipUsername" not in lines.web.params(APP + "domain")[0]


async def test_both_lists_want_both(office, lines):
    await office.allow("127.0.1.1")
    lines.web.pages[APP + "domain"] = "<Hangup/>"
    inside, outside = office.desk(0), office.desk(1)
    office.dials(outside, "100")
    assert await ended(outside) == 403
    office.dials(inside, "100", password="")
    assert await ended(inside) == 407
    inside.failure = None
    office.dials(inside, "100")
    await lines.until((await lines.the_call()).sid, "completed")


async def test_without_lists_nobody_is_let_in(lines):
    office = await Office(lines).open("alice", lists=())
    phone = office.desk()
    office.dials(phone, "100")
    assert await ended(phone) == 403


@pytest.mark.parametrize(
    ("table", "change", "status", "codes"),
    [
        ("domain", {"voice_url": ""}, 404, [11100]),
        ("domain", {"secure": True}, 403, [32209]),
        ("domain", {"account_sid": "AC" + "0" * 32}, 403, []),
        ("account", {"status": "suspended"}, 403, []),
        ("account", {"status": "closed"}, 403, []),
    ],
)
async def test_domains_that_take_no_calls(lines, table, change, status, codes):
    office = await Office(lines).open("alice", **(change if table == "domain" else {}))
    if table == "account":
        lines.directory.account(AC).status = change["status"]
    phone = office.desk()
    office.dials(phone, "100")
    assert await ended(phone) == status
    assert await lines.alert_codes() == codes
    assert not lines.services.live


@pytest.mark.parametrize("host", ["none.sip.localhost", "acme.sip.localhost", "none.pstn.localhost"])
async def test_strangers_do_not_learn_which_domains_there_are(office, lines, host):
    """A domain that does not exist and one with no such user: asked for a login, then refused."""
    asked, wrong = office.desk(0), office.desk(1)
    for phone, credentials, status in ((asked, None, 407), (wrong, ("eve", "guess"), 403)):
        phone.stack.invite(
            f"sip:100@{host}", from_="<sip:eve@example.com>", target=("UDP", *NODE),
            sdp=offer_answer.offer(phone.local), listener=phone, credentials=credentials,
        )  # fmt: skip
        assert await ended(phone) == status
    assert office.failed == ["127.0.1.2"]


async def test_a_phone_reaches_nobody_but_the_application(office, lines):
    """No relay: neither a number nor another user is called because somebody dials it."""
    lines.web.pages[APP + "domain"] = "<Hangup/>"
    alice, bob = await office.staffed("alice", "bob")
    for to in (THEM, "bob", OURS):
        office.dials(alice, to)
    await eventually(lambda: len(lines.web.asked) == 3)
    await eventually(lambda: not lines.services.live)
    assert lines.phone.invites == bob.invites == []


async def test_other_hosts_are_as_before(office, lines):
    phone = office.desk()
    phone.dials(THEM)
    assert await ended(phone) == 403


async def test_a_trunks_address_is_no_login_for_a_domain(office, lines):
    """What a trunk's address may do is call numbers."""
    office.dials(lines.phone, "100", password="")
    assert await ended(lines.phone) == 407


async def test_an_account_with_enough_calls(make_lines):
    lines = await make_lines(calls_at_once=1)
    office = await Office(lines).open("alice")
    lines.web.pages[APP + "domain"] = "<Say>hi</Say><Pause length='60'/>"
    first, second = office.desk(0), office.desk(1)
    office.dials(first, "100")
    await eventually(lambda: first.dialogs)
    office.dials(second, "100")
    assert await ended(second) == 486


# -- to phones --------------------------------------------------------------------------------------------------------


async def test_the_api_calls_a_registered_phone(office, lines):
    (phone,) = await office.staffed("alice")
    phone.plan = phone.rings
    sid = await lines.create(to=f"sip:alice@{HOST}?X-Ticket=7")
    await lines.until(sid, "ringing")
    (invite,) = phone.invites
    assert invite.request.uri == "sip:alice@127.0.1.1:5060"
    assert invite.request.headers.get("To") == f"<sip:alice@{HOST}>"
    assert invite.request.headers.get("X-Ticket") == "7"
    phone.picks_up(ring=False, headers=[("X-Desk", "3"), ("User-to-User", "ab")])
    call = await lines.until(sid, "in-progress")
    assert call.to == f"sip:alice@{HOST}"
    assert call.sip_headers == {"X-Desk": "3", "User-to-User": "ab"}
    phone.hangs_up()
    assert (await lines.until(sid, "completed")).sip_response_code == 200


async def test_all_phones_ring_and_the_first_gets_the_call(office, lines):
    one, two, three = await office.staffed("alice", "alice", "alice")
    for phone in (one, two, three):
        phone.plan = phone.rings
    lines.web.pages[APP + "in"] = f"<Dial action='/dialled'><Sip>sip:alice@{HOST}</Sip></Dial>"
    lines.web.pages[APP + "dialled"] = "<Hangup/>"
    lines.phone.dials(OURS)
    await eventually(lambda: len(one.invites) == len(two.invites) == len(three.invites) == 1)
    two.picks_up(ring=False)
    await eventually(lambda: one.cancels and three.cancels)
    assert one.cancels == ['SIP;cause=200;text="Call completed elsewhere"']
    assert two.cancels == []
    (child,) = await lines.children((await lines.the_call()).sid)
    child = await lines.until(child.sid, "in-progress")  # the others are cancelled before it is stored
    assert child.sip_call_id == two.invites[0].request.call_id
    two.hangs_up()
    params = (await eventually(lambda: lines.web.params(APP + "dialled")))[0]
    assert (params["DialCallStatus"], params["DialBridged"]) == ("completed", "true")
    assert params["DialSipCallId"] == two.invites[0].request.call_id
    assert not lines.services.traced or not lines.services.live


async def test_two_pick_up_at_the_same_moment(office, lines):
    one, two = await office.staffed("alice", "alice")
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    await eventually(lambda: len(one.byes) + len(two.byes) == 1)


@pytest.mark.parametrize(
    ("statuses", "call_status", "code"),
    [
        ((486, 480), "busy", 486),
        ((480, 404), "no-answer", 480),
        ((404, 500), "failed", 404),
        ((603, 0), "busy", 603),  # a 6xx ends it everywhere
        ((500, 503), "failed", 500),
    ],
)
async def test_nobody_takes_it(office, lines, statuses, call_status, code):
    one, two = await office.staffed("alice", "alice")
    two.plan = two.rings
    if statuses[1]:
        two.refuses(statuses[1])
    one.refuses(statuses[0], ring=True)
    sid = await lines.create(to=f"sip:alice@{HOST}")
    call = await lines.until(sid, "busy", "no-answer", "failed")
    assert (call.status, call.sip_response_code) == (call_status, code)
    if not statuses[1]:
        assert two.cancels


async def test_the_caller_gives_up(office, lines):
    one, two = await office.staffed("alice", "alice")
    one.plan, two.plan = one.rings, two.rings
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "ringing")
    await eventually(lambda: one.invites and two.invites)
    assert lines.calls is not None
    lines.services.live[sid].hangup("api")
    await eventually(lambda: one.cancels and two.cancels)


async def test_what_rings_can_be_cancelled_by_another_process(office, lines):
    one, two = await office.staffed("alice", "alice")
    one.plan, two.plan = one.rings, two.rings
    sid = await lines.create(to=f"sip:alice@{HOST}")

    async def kept():
        value = await lines.memory.get(f"call/{sid}/invite")
        saved = msgspec.msgpack.decode(value, type=InviteCheckpoint) if value else None
        return saved if saved is not None and saved.others else None

    saved = await eventually(kept)
    flows = {saved.flow.remote, *(flow.remote for _, flow in saved.others)}
    assert flows == {one.address, two.address}


async def test_nobody_is_registered(office, lines):
    sid = await lines.create(to=f"sip:alice@{HOST}")
    call = await lines.until(sid, "no-answer")
    assert call.sip_response_code == 480
    assert await lines.alert_codes() == [32009]


@pytest.mark.parametrize(
    ("to", "status", "response", "code"),
    [
        (f"sip:alice@{HOST}", "no-answer", "480", 32009),
        (f"sip:{HOST}", "failed", "404", 32223),
        (f"sip:alice@{HOST};transport=tcp", "no-answer", "480", 32009),
    ],
)
async def test_dial_tells_that_nobody_is_registered(office, lines, to, status, response, code):
    lines.web.pages[APP + "in"] = f"<Dial action='/dialled'><Sip>{to}</Sip></Dial>"
    lines.web.pages[APP + "dialled"] = "<Hangup/>"
    lines.phone.dials(OURS)
    params = (await eventually(lambda: lines.web.params(APP + "dialled")))[0]
    assert (params["DialCallStatus"], params["DialSipResponseCode"]) == (status, response)
    assert await lines.alert_codes() == [code]


async def test_another_accounts_domain_is_not_found(lines):
    office = Office(lines)
    await office.open("alice", account_sid=await office.stranger())
    (phone,) = await office.staffed("alice")
    sid = await lines.create(to=f"sip:alice@{HOST}")
    assert (await lines.until(sid, "failed")).sip_response_code == 404
    assert phone.invites == []
    assert await lines.alert_codes() == [32002]


async def test_below_twilios_suffix_it_is_the_same_domain(office, lines):
    (phone,) = await office.staffed("alice")
    sid = await lines.create(to="sip:alice@acme.sip.us1.twilio.com")
    await lines.until(sid, "in-progress")
    assert phone.invites[0].request.headers.get("To") == "<sip:alice@acme.sip.us1.twilio.com>"


async def test_other_sip_addresses_go_to_the_network(office, lines):
    sid = await lines.create(to="sip:bob@127.0.0.2")
    call = await lines.until(sid, "in-progress")
    assert call.sip_call_id == lines.phone.invites[0].request.call_id


async def test_a_phone_behind_a_nat_is_reached_by_its_flow(office, lines):
    phone = office.desk()
    assert await office.register(phone, "alice", contact="<sip:alice@10.0.0.99:5060>") == 200
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    assert phone.invites[0].request.uri == "sip:alice@10.0.0.99:5060"


async def test_in_dialogs_it_is_reached_by_its_flow_too(office, lines):
    """Its Contact is an address that only its NAT knows, or one where nobody listens: ACK and BYE take the flow."""
    phone = office.desk()
    phone.stack.config = dataclasses.replace(phone.stack.config, host="9.9.9.99")
    phone.stack.local = lambda transport, host: phone.address
    assert await office.register(phone, "alice", contact="<sip:alice@9.9.9.99:5060>") == 200
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    (dialog,) = phone.dialogs
    await eventually(lambda: not dialog.state().answer)  # the ACK has come
    lines.services.live[sid].hangup("api")
    await eventually(lambda: phone.byes)


async def test_a_path_is_followed(office, lines):
    phone = office.desk()
    path = "<sip:token@127.0.1.1:5060;lr;ob>"
    assert await office.register(phone, "alice", headers=[("Path", path), ("Supported", "path")]) == 200
    assert office.response.headers.get("Path") == path
    await lines.create(to=f"sip:alice@{HOST}")
    (invite,) = await eventually(lambda: phone.invites)
    assert invite.request.headers.get("Route") == path


async def test_a_device_with_two_flows_rings_once(office, lines):
    one, two = office.desk(0), office.desk(1)
    for number, phone in enumerate((one, two), 1):
        contact = f'<sip:alice@{phone.address[0]}>;+sip.instance="<urn:uuid:1>";reg-id={number}'
        headers = [("Supported", "outbound, path")]
        assert await office.register(phone, "alice", contact=contact, headers=headers) == 200
        lines.clock.offset_ms += 1000
    two.refuses(430)
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    assert [len(phone.invites) for phone in (one, two)] == [1, 1]  # the newer flow is dead, the older works


async def test_a_phone_that_has_left_is_not_called(office, lines):
    (phone,) = await office.staffed("alice")
    assert await office.register(phone, "alice", contact="*", headers=[("Expires", "0")]) == 200
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "no-answer")
    assert phone.invites == []


async def test_a_caller_of_a_domain_may_not_pretend_to_be_a_number(office, lines):
    """Who registers says whatever he likes in From: it is shown to the network only if it is his."""
    lines.web.pages[APP + "domain"] = f"<Dial action='/dialled'>{THEM}</Dial>"
    lines.web.pages[APP + "dialled"] = "<Hangup/>"
    office.dials(office.desk(), "1")
    params = (await eventually(lambda: lines.web.params(APP + "dialled")))[0]
    assert params["DialCallStatus"] == "failed"
    assert lines.phone.invites == []
    assert await lines.alert_codes() == [13214]


async def test_his_own_number_may_be_shown(office, lines):
    lines.web.pages[APP + "domain"] = f"<Dial callerId='{OURS}'>{THEM}</Dial>"
    office.dials(office.desk(), "1")
    (invite,) = await eventually(lambda: lines.phone.invites)
    assert OURS in invite.request.headers.get("From")


async def test_a_node_that_stops_takes_neither_calls_nor_registrations(office, lines):
    lines.inbound.draining = True
    phone = office.desk()
    assert await office.register(phone, "alice") == 503
    assert office.response.headers.get("Retry-After")
    office.dials(phone, "100")
    assert await ended(phone) == 503


# -- secure domains ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def secure(lines, tls):
    """A secure domain."""
    return await Office(lines).open("alice", secure=True)


def encrypts(phone):
    keys = tuple(sdes.make_key(bytes(sdes.KEY_BYTES)) for _ in sdes.SUITES)
    phone.local = msgspec.structs.replace(phone.local, srtp=REQUIRED, srtp_keys=keys)
    return phone


async def test_a_secure_domain_takes_srtp(secure, lines):
    lines.web.pages[APP + "domain"] = "<Say>hi</Say><Pause length='60'/>"
    secure.dials(encrypts(secure.desk()), "100")
    call = await lines.the_call()
    await lines.until(call.sid, "in-progress")
    (opened,) = lines.media.of(protocol.Open)
    assert opened.srtp is not None


async def test_a_secure_domain_takes_no_plain_audio(secure, lines):
    phone = secure.desk()
    secure.dials(phone, "100")
    assert await ended(phone) == 488
    assert await lines.alert_codes() == [32208]
    assert not lines.services.live


async def test_a_call_of_a_secure_domain_stays_encrypted(secure, lines):
    """Neither a re-INVITE nor a phone that takes its place (Replaces) brings the audio into the open."""
    lines.web.pages[APP + "domain"] = "<Say>hi</Say><Pause length='60'/>"
    phone = encrypts(secure.desk())
    secure.dials(phone, "100")
    await lines.until((await lines.the_call()).sid, "in-progress")
    plain = msgspec.structs.replace(phone.local, srtp="off", srtp_keys=(), version=9)
    heard = []
    phone.dialogs[0].reinvite(offer_answer.offer(plain), lambda status, sdp: heard.append(status))
    await eventually(lambda: heard)
    state, other = phone.dialogs[0].state(), secure.desk()
    names = f"{state.call_id};to-tag={state.remote_tag};from-tag={state.local_tag}"
    secure.dials(other, "100", headers=[("Replaces", names)])
    assert (heard, await ended(other)) == ([488], 488)
    assert lines.media.of(protocol.Modify) == []
    third = encrypts(secure.desk())
    secure.dials(third, "100", headers=[("Replaces", names)])
    await eventually(lambda: third.dialogs)
    (changed,) = lines.media.of(protocol.Modify)
    assert changed.srtp.ours != lines.media.of(protocol.Open)[0].srtp.ours


async def taken_over(office, lines, **changes):
    """A phone that asks for our Contact to take the place of another one that talks with us."""
    lines.web.pages[APP + "domain"] = "<Say>hi</Say><Pause length='60'/>"
    phone = office.desk()
    office.dials(phone, "100")
    call = await lines.the_call()
    await lines.until(call.sid, "in-progress")
    state, taker = phone.dialogs[0].state(), office.desk(1)
    names = f"{state.call_id};to-tag={state.remote_tag};from-tag={state.local_tag}"
    values = {"from_": f"<sip:alice@{HOST}>", "credentials": ("alice", PASSWORD)} | changes
    taker.stack.invite(
        state.target, target=("UDP", *NODE), sdp=offer_answer.offer(taker.local), headers=[("Replaces", names)],
        listener=taker, **values,
    )  # fmt: skip
    return phone, taker


async def test_a_phone_takes_a_place_by_our_contact(office, lines):
    phone, taker = await taken_over(office, lines)
    await eventually(lambda: taker.dialogs and phone.byes)


async def test_a_phone_behind_another_name_takes_a_place_from_where_it_is_registered(office, lines):
    assert await office.register(office.desk(1), "alice") == 200
    lines.net.stacks.pop(office.desk(1).address)
    phone, taker = await taken_over(office, lines, from_="<sip:alice@192.0.2.7>")
    await eventually(lambda: taker.dialogs and phone.byes)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"credentials": None}, 407), ({"credentials": ("alice", "wrong")}, 403),
        ({"from_": "<sip:alice@192.0.2.7>"}, 403),
    ],
)  # fmt: skip
async def test_who_does_not_prove_himself_takes_no_place(office, lines, changes, status):
    phone, taker = await taken_over(office, lines, **changes)
    assert await ended(taker) == status
    assert phone.byes == []


async def test_a_phone_registered_in_the_open_gets_no_keys_of_a_domain_that_is_secure_now(office, lines):
    (phone,) = await office.staffed("alice")
    await lines.database.update(msgspec.structs.replace(office.domain, secure=True))
    await eventually(lambda: lines.directory.sip_domain(HOST).secure)
    sid = await lines.create(to=f"sip:alice@{HOST}")
    assert (await lines.until(sid, "failed", "no-answer")).sip_response_code == 480
    assert phone.invites == []


async def test_a_phone_that_insists_on_srtp_is_offered_it_after_it_refused_plain_audio(lines, tls):
    office = await Office(lines).open("alice")
    phone = encrypts(office.desk())
    phone.plan = lambda invite: phone.picks_up(invite) if b"RTP/SAVP" in invite.offer else invite.reject(488)
    assert await office.register(phone, "alice") == 200
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    assert [b"RTP/SAVP" in invite.offer for invite in phone.invites] == [False, True]
    assert lines.media.of(protocol.Open)[-1].srtp is not None


async def test_who_wants_srtp_calls_phones_on_tls_with_it(lines, tls):
    office = await Office(lines).open("alice")
    phone = encrypts(office.desk())
    assert await office.register(phone, "alice") == 200
    sid = await lines.create(to=f"sip:alice@{HOST};secure=true")
    await lines.until(sid, "in-progress")
    assert b"RTP/SAVP" in phone.invites[0].offer


async def test_who_wants_srtp_calls_no_phone_in_the_open(office, lines):
    (phone,) = await office.staffed("alice")
    sid = await lines.create(to=f"sip:alice@{HOST};secure=true")
    assert (await lines.until(sid, "no-answer")).sip_response_code == 480
    assert phone.invites == []
    assert await lines.alert_codes() == [32209]


async def test_phones_of_a_secure_domain_are_offered_srtp_only(secure, lines):
    phone = encrypts(secure.desk())
    assert await secure.register(phone, "alice") == 200
    sid = await lines.create(to=f"sip:alice@{HOST}")
    await lines.until(sid, "in-progress")
    offer = phone.invites[0].offer
    assert b"RTP/SAVP" in offer
    assert b"a=crypto:" in offer

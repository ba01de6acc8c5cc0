"""Calls with SRTP, from the offer to the media process, its re-INVITEs and its recovery."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.voice.test_live import reinvited
from tests.voice.test_recovery import begin, go_on, lose
from tests.voice.world import CALLER, Phone, World, until, world
from trunkline.media import protocol
from trunkline.settings import Sip, Trunk
from trunkline.sip import offer_answer, sdes, sdp
from trunkline.sip.flow import Flow
from trunkline.sip.offer_answer import Local

LONG = "<Say>x</Say><Pause length='600'/>"
KEYS = tuple(sdes.make_key(random.Random(seed).randbytes(sdes.KEY_BYTES)) for seed in (1, 2))
SUITE = sdes.SUITES[0]
OPEN = Sip(srtp_without_tls=True)


def secure(phone: Phone, **changes: Any) -> Local:
    """The phone's side, with SRTP."""
    values = {"session_id": 1, "version": 1, "srtp": "required", "srtp_keys": KEYS, **changes}
    return Local(address=phone.address, port=40_000, **values)  # type: ignore[arg-type]


def over_tls(here: World) -> None:
    """Let what phones send come over TLS."""

    def carry(data: bytes, phone: Phone) -> bool:
        here.stack.receive(data, Flow("TLS", (phone.address, 5060), ("127.0.0.1", 5061), 1))
        return True

    here.carry = carry  # type: ignore[method-assign]


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[World]:
    """Calls come over TLS, with SRTP."""
    async with world(tmp_path) as here:
        over_tls(here)
        here.phone.local = secure(here.phone)

        async def tick() -> None:
            while True:
                here.stack.tick()
                here.phone.stack.tick()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(tick())
        yield here
        task.cancel()


def keys_of(body: bytes) -> list[str]:
    return [line for media in sdp.parse(body).media for line in media.attributes("crypto")]


async def test_an_offer_with_keys_over_tls_is_answered_with_ours(tls: World) -> None:
    caller, call = await tls.up(LONG)
    (opened,) = tls.media.of(protocol.Open)
    agreed = offer_answer.conclude(offer_answer.offer(tls.phone.local), caller.answer, tls.phone.local)
    assert agreed.srtp is not None
    assert opened.srtp == protocol.Srtp(suite=SUITE, ours=agreed.srtp.theirs, theirs=KEYS[0])
    assert any("AES_CM_128_HMAC_SHA1_80" in entry.what for entry in call.record.timeline)


async def test_plain_audio_over_tls_stays_plain(tls: World) -> None:
    tls.phone.local = Local(address=tls.phone.address, port=40_000, session_id=1, version=1)
    await tls.up(LONG)
    assert tls.media.of(protocol.Open)[0].srtp is None


async def test_keys_over_udp_are_not_taken(here: World) -> None:
    here.phone.local = secure(here.phone)
    caller = here.phone.dials()
    await caller.ended()
    assert caller.failed == 488
    assert here.media.commands == []


async def test_keys_over_udp_are_taken_where_the_network_is_trusted(tmp_path: Path) -> None:
    async with world(tmp_path, sip=OPEN) as here:
        here.phone.local = secure(here.phone)
        await here.up(LONG)
        assert here.media.of(protocol.Open)[0].srtp is not None


@pytest.mark.parametrize("with_keys", [True, False])
async def test_a_trunk_that_requires_srtp(tmp_path: Path, with_keys: bool) -> None:
    trunk = Trunk(name="carrier", addresses=("127.0.0.9",), srtp="required")
    async with world(tmp_path, trunks=(trunk,)) as here:
        if with_keys:
            here.phone.local = secure(here.phone)  # over UDP
        else:
            over_tls(here)
        caller = here.phone.dials()
        await caller.ended()
        assert caller.failed == 488
        assert here.media.commands == []
        over_tls(here)
        here.phone.local = secure(here.phone)
        await here.up(LONG)
        assert here.media.of(protocol.Open)[0].srtp is not None


async def test_a_late_offer_of_ours_is_plain_unless_srtp_is_required(tmp_path: Path) -> None:
    for srtp, count in (("off", 0), ("required", 2)):
        trunk = Trunk(name="carrier", addresses=("127.0.0.9",), srtp=srtp)  # type: ignore[arg-type]
        (folder := tmp_path / srtp).mkdir()
        async with world(folder, trunks=(trunk,)) as here:
            over_tls(here)
            here.phone.offers = False
            here.phone.local = secure(here.phone, srtp="optional")
            caller, _ = await here.up(LONG)
            assert len(keys_of(caller.answer)) == count
            await until(lambda here=here: here.media.of(protocol.Modify), "the answer in the ACK")  # type: ignore[misc]
            assert (here.media.of(protocol.Modify)[0].srtp is not None) == bool(count)


async def test_hold_keeps_our_key_and_takes_theirs(tls: World) -> None:
    caller, _ = await tls.up(LONG)
    before = tls.media.of(protocol.Open)[0].srtp
    held = secure(tls.phone, version=2, direction="sendonly")
    status, body = await reinvited(caller, offer_answer.offer(held))
    assert (status, tls.media.of(protocol.Modify)[-1].srtp) == (200, before)
    assert keys_of(body) == keys_of(caller.answer)
    fresh = secure(tls.phone, version=3, srtp_keys=KEYS[::-1])
    await reinvited(caller, offer_answer.offer(fresh))
    after = tls.media.of(protocol.Modify)[-1].srtp
    assert (after.ours, after.theirs) == (before.ours, KEYS[1])


async def test_keys_are_in_no_log_no_webhook_and_no_record(tls: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caller, call = await tls.up(LONG)
    await reinvited(caller, offer_answer.offer(secure(tls.phone, version=2, direction="sendonly")))
    await reinvited(caller, offer_answer.offer(tls.phone.local).replace(b"RTP/SAVP 0 8", b"RTP/SAVP 18"))
    ours = tls.media.of(protocol.Open)[0].srtp.ours
    shown = [repr(call.local), repr(call.record), repr(tls.media.of(protocol.Open)[0])]
    caller.hangs_up()
    stored = await tls.landed()
    shown += [msgspec.json.encode(stored.record).decode() if hasattr(stored, "record") else repr(stored)]
    shown += [caplog.text, repr(tls.app.requests), repr(tls.alerts.raised)]
    for text in shown:
        assert ours not in text
        assert not any(key in text for key in KEYS)
    assert await tls.memory.scan("call/") == []


# -- after the loss of a process


async def test_the_next_process_goes_on_with_the_same_keys(tls: World) -> None:
    await begin(tls)
    caller, _ = await tls.up(LONG)
    before = tls.media.of(protocol.Open)[0].srtp
    await lose(tls)
    await go_on(tls)
    assert len(tls.media.of(protocol.Open)) == 1
    body = tls.call.on_reinvite(offer_answer.offer(secure(tls.phone, version=2, direction="sendonly")))
    assert tls.media.of(protocol.Modify)[-1].srtp == before
    assert keys_of(body) == keys_of(caller.answer)


async def test_a_leg_that_was_never_opened_is_opened_with_its_keys(tls: World) -> None:
    await begin(tls)
    await tls.up(LONG)
    await lose(tls)
    await restart(tls, epoch=1)  # the command never reached the media process
    first, second = tls.media.of(protocol.Open)
    assert first.srtp == second.srtp


async def test_no_key_is_used_again_where_the_indices_are_lost(tls: World) -> None:
    await begin(tls)
    caller, _ = await tls.up(LONG)
    await lose(tls)
    await restart(tls, epoch=2)
    assert len(tls.media.of(protocol.Open)) == 1
    await caller.ended()


async def restart(here: World, epoch: int) -> None:
    """As `go_on`, with the media process's memory."""
    from tests.voice.test_recovery import RUN
    from trunkline.voice.recovery import Recovery

    taken = Recovery(here.services, here.stack, here.inbound, RUN, lambda: epoch)
    await taken.read()
    taken.greeted([])
    taken.resume()


# -- outgoing


def required(offer: bytes) -> bool:
    return b"RTP/SAVP " in offer


async def outgoing(make_lines: Any, srtp: str, *, trusted: bool = True, uri: str = "sip:127.0.0.2:5060") -> Any:
    trunk = Trunk(name="carrier", gateways=(uri,), addresses=("127.0.0.2",), srtp=srtp)  # type: ignore[arg-type]
    lines = await make_lines(trunks=(trunk,))
    if trusted:
        lines.services.settings = msgspec.structs.replace(lines.settings, sip=OPEN)
    lines.phone.local = msgspec.structs.replace(lines.phone.local, srtp="optional", srtp_keys=KEYS)
    return lines


@pytest.mark.parametrize("srtp", ["optional", "required"])
async def test_a_call_goes_out_with_keys(make_lines: Any, srtp: str) -> None:
    lines = await outgoing(make_lines, srtp)
    sid = await lines.create(to=CALLER)
    await lines.until(sid, "in-progress")
    assert required(lines.phone.invites[0].offer)
    opened = lines.media.of(protocol.Open)[0].srtp
    assert opened.theirs == KEYS[0]
    assert opened.ours in keys_of(lines.phone.invites[0].offer)[0]


async def test_who_refuses_optional_keys_is_called_without(make_lines: Any) -> None:
    lines = await outgoing(make_lines, "optional")
    plan = lines.phone.plan
    lines.phone.plan = lambda invite: invite.reject(488) if required(invite.offer) else plan(invite)
    sid = await lines.create(to=CALLER)
    await lines.until(sid, "in-progress")
    assert [required(one.offer) for one in lines.phone.invites] == [True, False]
    assert lines.media.of(protocol.Open)[0].srtp is None


async def test_who_refuses_required_keys_is_not_called(make_lines: Any) -> None:
    lines = await outgoing(make_lines, "required")
    lines.phone.refuses(488)
    sid = await lines.create(to=CALLER)
    assert (await lines.until(sid, "failed")).sip_response_code == 488
    assert len(lines.phone.invites) == 1


@pytest.mark.parametrize(("srtp", "calls"), [("required", 0), ("optional", 1), ("off", 1)])
async def test_keys_do_not_leave_in_the_open(make_lines: Any, srtp: str, calls: int) -> None:
    lines = await outgoing(make_lines, srtp, trusted=False)
    sid = await lines.create(to=CALLER)
    await lines.until(sid, "in-progress" if calls else "failed")
    assert [required(one.offer) for one in lines.phone.invites] == [False] * calls

"""Received messages: to whom, kept once, put together, opt-outs, media, what they owe."""

import asyncio
import random
from decimal import Decimal

import msgspec
import pytest

from tests.storage.partitions import sharded_sqlite
from trunkline.messaging.connectors.base import InboundPart
from trunkline.messaging.inbound import InboundRequest
from trunkline.model.numbers import Application, Media, MessagingService, OptOut, ServiceSender, ShortCode
from trunkline.model.sid import new_sid
from trunkline.settings import Limits, Messaging, Rate, Settings
from trunkline.storage.engines.sqlite.writer import WriterFull

from .world import AC, OURS, THEM, eventually

URL = "https://example.com/sms"


def part(text="hello", **changes):
    return InboundPart(**({"connector": "carrier", "from_": THEM, "to": OURS, "text": text} | changes))


def parts(*texts, reference=7, **changes):
    return [part(text, part=n, total=len(texts), reference=reference, **changes) for n, text in enumerate(texts, 1)]


def request_of(owed):
    return msgspec.json.decode(owed.request, type=InboundRequest)


async def test_message_is_kept_before_the_carrier_is_acknowledged(make_world):
    world = await make_world(sms_url=URL, sms_method="GET", sms_fallback_url="https://example.com/f")
    await world.inbound.receive(part("héllo"))
    (message,) = await world.inbound_messages()
    assert (message.status, message.direction, message.body) == ("received", "inbound", "héllo")
    assert (message.from_, message.to, message.account_sid, message.num_segments) == (THEM, OURS, AC, 1)
    assert message.sid[:2] == "SM"
    (owed,) = world.delivered
    assert (owed.kind, owed.sid, owed.account, owed.host) == ("inbound", message.sid, AC, "https://example.com")
    assert request_of(owed) == InboundRequest(URL, "GET", "https://example.com/f", "POST")
    assert b"llo" not in owed.request


async def test_message_lands_once_its_webhook_is_settled(make_world):
    world = await make_world(sms_url=URL)
    await world.inbound.receive(part())
    now = world.clock.now_ms() + 1
    assert await world.queue.landable(now, 10) == []
    (owed,) = world.delivered
    owed.state = "delivered"
    await world.queue.settle(owed)
    assert [f.status for f, _ in await world.queue.landable(now, 10)] == ["received"]


async def test_number_without_url_owes_nothing(world):
    await world.inbound.receive(part())
    assert len(await world.inbound_messages()) == 1
    assert world.delivered == []


@pytest.mark.parametrize("to", ["+15005550000", "", "x" * 5000])
async def test_unknown_destination_is_acknowledged_and_counted(world, to, caplog):
    await world.inbound.receive(part(to=to))
    await world.inbound.receive(part(to=to))
    assert world.inbound.unknown == 2
    assert await world.inbound_messages() == []
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 300


async def test_a_number_that_is_not_known_here_is_looked_for(world):
    looked = []

    async def look(address):
        looked.append(address)
        if address == "+12025550177":
            await world.give_number(address)

    world.inbound.look = look
    await world.inbound.receive(part(to="12025550177"))
    await world.inbound.receive(part(to="12345"))
    await world.inbound.receive(part())
    assert looked == ["+12025550177", "12345"]
    assert world.inbound.unknown == 1
    assert len(await world.inbound_messages()) == 2


async def test_number_of_a_suspended_account_receives_nothing(world):
    await world.give_account(sid="AC" + "b" * 32, account_sid="AC" + "b" * 32, status="suspended")
    await world.give_number("+12025550177", "AC" + "b" * 32)
    await world.inbound.receive(part(to="+12025550177"))
    assert world.inbound.unknown == 1


async def test_short_code_receives(world):
    code = ShortCode(sid=new_sid("SC"), account_sid=AC, short_code="12345", sms_url=URL)
    await world.database.insert(code)
    await world.inbound.receive(part(to="12345"))
    (message,) = await world.inbound_messages()
    assert message.to == "12345"
    assert request_of(world.delivered[0]).url == URL


async def test_number_written_without_plus_is_found(world):
    await world.inbound.receive(part(to=OURS[1:]))
    (message,) = await world.inbound_messages()
    assert message.to == OURS


async def test_price_is_by_the_inbound_rate(make_world):
    world = await make_world(
        Settings(rates=(Rate(prefix="1415", price=Decimal("0.01"), inbound_price=Decimal("0.0025"), currency="EUR"),))
    )
    await world.inbound.receive(part("x" * 200))
    (message,) = await world.inbound_messages()
    assert (message.num_segments, message.price, message.price_unit) == (2, "0.00500", "EUR")


# -- which webhook ---------------------------------------------------------------------------------------------


async def service(world, number, **changes):
    sid = new_sid("MG")
    await world.database.insert(MessagingService(sid=sid, account_sid=AC, **changes))
    await world.database.insert(
        ServiceSender(sid=number.sid, account_sid=AC, service_sid=sid, kind="phone_number", address=number.phone_number)
    )
    return sid


async def test_application_stands_for_the_number(world):
    await world.database.insert(Application(sid="AP" + "1" * 32, account_sid=AC, sms_url="https://app.example/"))
    await world.give_number("+12025550111", sms_url=URL, sms_application_sid="AP" + "1" * 32)
    await world.inbound.receive(part(to="+12025550111"))
    assert request_of(world.delivered[0]).url == "https://app.example/"


async def test_application_of_another_account_is_ignored(world):
    await world.database.insert(Application(sid="AP" + "1" * 32, account_sid="AC" + "b" * 32, sms_url="https://evil/"))
    await world.give_number("+12025550111", sms_url=URL, sms_application_sid="AP" + "1" * 32)
    await world.inbound.receive(part(to="+12025550111"))
    assert request_of(world.delivered[0]).url == URL


@pytest.mark.parametrize(
    ("inbound_request_url", "on_number", "expected"),
    [
        ("https://service.example/", False, "https://service.example/"),
        ("https://service.example/", True, URL),
        ("", False, None),
        ("", True, URL),
    ],
)
async def test_service_decides(world, inbound_request_url, on_number, expected):
    number = await world.give_number("+12025550111", sms_url=URL)
    sid = await service(world, number, inbound_request_url=inbound_request_url, use_inbound_webhook_on_number=on_number)
    await world.inbound.receive(part(to="+12025550111"))
    (message,) = await world.inbound_messages()
    assert message.messaging_service_sid == sid
    assert [request_of(owed).url for owed in world.delivered] == ([expected] if expected else [])


# -- once --------------------------------------------------------------------------------------------------------


async def test_same_carrier_id_is_the_same_message(make_world):
    world = await make_world(sms_url=URL)
    await asyncio.gather(*(world.inbound.receive(part(carrier_id="c-1")) for _ in range(3)))
    await world.inbound.receive(part(carrier_id="c-2"))
    assert len(await world.inbound_messages()) == len(world.delivered) == 2
    assert world.inbound.duplicates == 2


async def test_same_carrier_id_after_a_crash_is_the_same_message(world):
    await world.inbound.receive(part(carrier_id="c-1"))
    await world.restart()
    await world.inbound.receive(part(carrier_id="c-1"))
    assert len(await world.inbound_messages()) == 1


async def test_same_text_without_carrier_id_is_two_messages(world):
    await world.inbound.receive(part())
    await world.inbound.receive(part())
    assert len(await world.inbound_messages()) == 2


async def test_carrier_id_of_a_sent_message_does_not_swallow_a_received_one(world):
    sent = await world.send()
    stored = await world.until(sent, "sent")
    await world.inbound.receive(part(carrier_id=stored.segments[0].id))
    assert len(await world.inbound_messages()) == 1


async def test_what_could_not_be_stored_is_not_acknowledged(world, monkeypatch):
    def full(*_):
        raise WriterFull("full")

    with monkeypatch.context() as broken:
        broken.setattr(world.queue, "accept_inbound", full)
        with pytest.raises(WriterFull):
            await world.inbound.receive(part())
    assert await world.inbound_messages() == []


# -- long messages -----------------------------------------------------------------------------------------------


async def test_parts_in_any_order_and_twice_make_one_message(world):
    texts = [f"<{n}>" + chr(65 + n) * 50 for n in range(9)]
    wire = parts(*texts) * 2
    random.Random(4).shuffle(wire)
    await asyncio.gather(*(world.inbound.receive(p) for p in wire))
    (message,) = await world.inbound_messages()
    assert message.body == "".join(texts)
    assert message.num_segments == 9


async def test_conversations_do_not_mix(world):
    await world.give_number("+12025550111")
    wire = [
        *parts("a1", "a2"),
        *parts("b1", "b2", from_="+14155550100"),
        *parts("c1", "c2", to="+12025550111"),
        *parts("d1", "d2", reference=8),
        *parts("e1", "e2", reference_width=16),
        *parts("f1", "f2", "f3"),
        *parts("g1", "g2", connector="other"),
    ]
    random.Random(1).shuffle(wire)
    await asyncio.gather(*(world.inbound.receive(p) for p in wire))
    assert sorted(m.body for m in await world.inbound_messages()) == [
        "a1a2", "b1b2", "c1c2", "d1d2", "e1e2", "f1f2f3", "g1g2",
    ]  # fmt: skip


async def test_split_surrogate_pair_comes_out_whole(world):
    first, second = "a\ud83d", "\ude00b"
    for one in parts(first, second, encoding="ucs2"):
        await world.inbound.receive(one)
    (message,) = await world.inbound_messages()
    assert (message.body, message.encoding) == ("a\U0001f600b", "ucs2")


async def test_lone_surrogate_does_not_stop_the_message(world):
    await world.inbound.receive(part("a\ud83d"))
    (message,) = await world.inbound_messages()
    assert message.body == "a\ufffd"


async def test_parts_survive_a_restart(world):
    one, two, three = parts("1", "2", "3")
    await world.inbound.receive(three)
    await world.restart()
    await world.inbound.receive(one)
    await world.restart()
    await world.inbound.receive(three)
    await world.inbound.receive(two)
    (message,) = await world.inbound_messages()
    assert message.body == "123"


async def test_part_repeated_after_its_message_is_finished_makes_no_second_one(world):
    one, two = parts("1", "2")
    await world.inbound.receive(one)
    await world.inbound.receive(two)
    await world.inbound.receive(two)
    await world.restart()
    await world.inbound.receive(two)
    await world.inbound.receive(one)
    world.clock.offset_ms += 400_000
    await world.inbound.flush_due()
    assert [m.body for m in await world.inbound_messages()] == ["12"]


async def test_reference_used_again_makes_two_messages(world):
    for one in (*parts("1", "2"), *parts("3", "4")):
        await world.inbound.receive(one)
    assert [m.body for m in await world.inbound_messages()] == ["12", "34"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("then", "second"),
    [
        ((1, "2", "3", "D"), "123D"),
        ((1, "2", "C", "4"), "12C4"),
        (("A", "2", "3", "4"), "A234"),
        ((1, "B", "3", "D"), "1B3D"),
    ],
)
async def test_another_message_with_parts_in_common(world, restart, then, second):
    for one in (*parts("1", "2", "3", "4"), *parts(*map(str, then))):
        await world.inbound.receive(one)
        if restart:
            await world.restart()
    assert [m.body for m in await world.inbound_messages()] == ["1234", second]
    world.clock.offset_ms += 700_000
    await world.inbound.flush_due()
    await world.inbound._sweep()
    assert len(await world.inbound_messages()) == 2
    assert await world.queue.stale_parts(world.clock.now_ms() + 10**9, 10) == []


@pytest.mark.parametrize("restart", [False, True])
async def test_repeated_part_does_not_get_into_a_message_that_begins_before_it(world, restart):
    old, new = parts("1", "2", "3"), parts("A", "B", "C")
    for one in (*old, old[1], old[2], new[0], new[1], old[0], new[2]):
        await world.inbound.receive(one)
        if restart:
            await world.restart()
    assert [m.body for m in await world.inbound_messages()] == ["123", "ABC"]


async def test_joined_message_that_could_not_be_stored_comes_again(world, monkeypatch):
    one, two, three = parts("1", "2", "C")
    for part_ in (*parts("1", "2", "3"), one, two):
        await world.inbound.receive(part_)

    async def full(*_):
        raise WriterFull("full")

    with monkeypatch.context() as broken:
        broken.setattr(world.queue, "accept_inbound", full)
        with pytest.raises(WriterFull):
            await world.inbound.receive(three)
    await world.restart()
    await world.inbound.receive(three)
    assert [m.body for m in await world.inbound_messages()] == ["123", "12C"]


async def test_reference_used_again_before_the_first_is_whole(world):
    await world.inbound.receive(parts("old", "x")[0])
    for one in parts("new", "y"):
        await world.inbound.receive(one)
    await eventually(lambda: world.inbound.received == 2)
    messages = await world.inbound_messages()
    assert sorted(m.body for m in messages) == ["newy", "old"]
    assert [m.error_code for m in messages if m.body == "old"] == [30009]


async def test_time_limit_delivers_what_came(make_world):
    world = await make_world(Settings(messaging=Messaging(part_window_s=60)), sms_url=URL)
    one, _, three = parts("1", "2", "3")
    await world.inbound.receive(one)
    await world.inbound.receive(three)
    world.clock.offset_ms += 59_000
    await world.inbound.flush_due()
    assert await world.inbound_messages() == []
    world.clock.offset_ms += 2_000
    await world.inbound.flush_due()
    (message,) = await world.inbound_messages()
    assert (message.body, message.num_segments, message.error_code) == ("13", 2, 30009)
    assert len(world.delivered) == 1
    assert await world.alert_codes() == [30009]
    far = world.clock.now_ms() + 10**9
    kept = [p.number for pair in await world.queue.stale_parts(far, 10) for p in await world.queue.parts(*pair)]
    assert kept == [0]


async def test_time_limit_holds_over_a_restart(make_world):
    world = await make_world(Settings(messaging=Messaging(part_window_s=60)))
    await world.inbound.receive(parts("1", "2")[0])
    world.clock.offset_ms += 61_000
    await world.restart()
    await world.inbound.flush_due()
    assert [m.body for m in await world.inbound_messages()] == ["1"]


async def test_markers_are_swept(world):
    for one in parts("1", "2"):
        await world.inbound.receive(one)
    world.clock.offset_ms += 2 * 300_000 + 1000
    await world.inbound._sweep()
    assert await world.queue.stale_parts(world.clock.now_ms() + 10**9, 10) == []


async def test_last_part_that_could_not_be_stored_comes_again(world, monkeypatch):
    one, two = parts("1", "2")
    await world.inbound.receive(one)
    real = world.queue.accept_inbound

    async def full(*_):
        raise WriterFull("full")

    monkeypatch.setattr(world.queue, "accept_inbound", full)
    with pytest.raises(WriterFull):
        await world.inbound.receive(two)
    monkeypatch.setattr(world.queue, "accept_inbound", real)
    await world.inbound.receive(two)
    (message,) = await world.inbound_messages()
    assert message.body == "12"


async def test_long_message_that_was_stored_though_that_failed_is_made_once(world, monkeypatch):
    one, two = parts("1", "2")
    await world.inbound.receive(one)
    real = world.queue.accept_inbound

    async def in_doubt(*args):
        assert await real(*args)
        raise WriterFull("full")

    monkeypatch.setattr(world.queue, "accept_inbound", in_doubt)
    with pytest.raises(WriterFull):
        await world.inbound.receive(two)
    monkeypatch.setattr(world.queue, "accept_inbound", real)
    for _ in range(2):
        await world.inbound.receive(two)
    world.clock.offset_ms += 301_000
    await world.inbound.flush_due()
    (message,) = await world.inbound_messages()
    assert message.body == "12"


async def test_long_message_that_was_stored_just_before_a_crash_is_made_once(world, monkeypatch):
    one, two = parts("1", "2")
    await world.inbound.receive(one)
    stored = asyncio.Event()
    real = world.queue.accept_inbound

    async def and_no_more(*args):
        assert await real(*args)
        stored.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(world.queue, "accept_inbound", and_no_more)
    receiving = asyncio.ensure_future(world.inbound.receive(two))
    await stored.wait()
    await world.restart()
    await world.inbound.receive(two)
    world.clock.offset_ms += 301_000
    await world.inbound.flush_due()
    (message,) = await world.inbound_messages()
    assert message.body == "12"
    receiving.cancel()


@pytest.mark.parametrize(("number", "total"), [(0, 2), (3, 2), (1, 300), (-1, 2)])
async def test_impossible_part_number_is_a_message_of_its_own(world, number, total):
    await world.inbound.receive(part("odd", part=number, total=total, reference=1))
    assert [m.body for m in await world.inbound_messages()] == ["odd"]


# -- opt-out -----------------------------------------------------------------------------------------------------


async def test_stop_is_recorded_confirmed_and_told(make_world):
    world = await make_world(sms_url=URL)
    await world.inbound.receive(part("Stop"))
    assert request_of(world.delivered[0]).opt_out_type == "STOP"
    assert [o.recipient for o in await world.database.find(OptOut)] == [THEM]
    carrier = world.carriers["carrier"]
    await eventually(lambda: carrier.taken)
    (reply,) = carrier.taken
    assert (reply.direction, reply.from_, reply.to) == ("outbound-reply", OURS, THEM)
    assert "unsubscribed" in reply.body
    with pytest.raises(Exception, match="unsubscribed recipient"):
        await world.send()
    await world.inbound.receive(part("start"))
    assert await world.send()


async def test_second_stop_is_told_but_not_confirmed(make_world):
    world = await make_world(sms_url=URL)
    await world.inbound.receive(part("STOP"))
    await eventually(lambda: world.carriers["carrier"].taken)
    await world.inbound.receive(part("STOP"))
    assert [request_of(owed).opt_out_type for owed in world.delivered] == ["STOP", "STOP"]
    await world.inbound.receive(part("HELP"))
    await eventually(lambda: len(world.carriers["carrier"].taken) == 2)
    assert "STOP to unsubscribe" in world.carriers["carrier"].taken[1].body


async def test_repeated_stop_of_the_carrier_is_confirmed_once(world):
    for _ in range(3):
        await world.inbound.receive(part("STOP", carrier_id="c-1"))
    await eventually(lambda: world.carriers["carrier"].taken)
    assert len(world.carriers["carrier"].taken) == 1


async def test_alphanumeric_sender_gets_no_confirmation(world):
    await world.inbound.receive(part("STOP", from_="BANK"))
    assert await world.queue.lanes() == []


# -- media -------------------------------------------------------------------------------------------------------


async def test_media_is_kept_with_the_message(make_world):
    world = await make_world(sms_url=URL)
    await world.inbound.receive(part("look", media=[("image/png", b"PNG"), ("image/jpeg; q=1", b"JPG")]))
    (message,) = await world.inbound_messages()
    assert message.sid[:2] == "MM"
    first, second = message.media
    assert (first.content_type, first.bytes, second.content_type) == ("image/png", 3, "image/jpeg")
    assert first.url == f"http://us/{AC}/{message.sid}/{first.sid}"
    assert await world.blobs.get(first.sid) == b"PNG"
    records = await world.database.find(Media, {"message_sid": message.sid})
    assert {r.sid for r in records} == {first.sid, second.sid}


async def test_media_that_cannot_be_kept_is_left_out(make_world):
    world = await make_world(Settings(limits=Limits(media_bytes=1024, media_per_message=3)))
    files = [("image/png", b"x" * 1025), ("nonsense", b"x"), ("image/png", b"ok"), ("image/png", b"one too many")]
    await world.inbound.receive(part("look", media=files))
    (message,) = await world.inbound_messages()
    assert [item.bytes for item in message.media] == [2]
    assert await world.alert_codes() == [11751, 12300]


async def test_media_of_a_repeated_message_is_removed(world):
    for _ in range(2):
        await world.inbound.receive(part("look", media=[("image/png", b"PNG")], carrier_id="c"))
    (message,) = await world.inbound_messages()
    assert [m.message_sid for m in await world.database.find(Media)] == [message.sid]
    assert await world.blobs.get(message.media[0].sid) == b"PNG"


@pytest.mark.parametrize("owned", [[0], [0, 1]])
async def test_parts_of_a_partition_that_leaves_are_kept(world, tmp_path, owned):
    """They stay with the carrier's binds; when all of this node's partitions leave, each takes its parts along."""
    queue = sharded_sqlite(tmp_path / "parts", 2)
    (tmp_path / "parts").mkdir()
    for partition in owned:
        await queue.own(partition)
    world.inflight.queue = queue
    one, _ = parts("a", "b")
    await world.inbound.receive(one)
    (kept,) = [number for number in owned if await queue.partition(number).stale_parts(1 << 60, 10)]
    queue.closing.add(kept)
    await world.inbound.move_parts(
        queue.partition(kept), lambda: queue.partition_of_shard(queue.shard_for_new()) != kept
    )
    found = {number: await queue.partition(number).stale_parts(1 << 60, 10) for number in owned}
    (at,) = [number for number in owned if found[number]]
    assert at == (kept if len(owned) == 1 else 1 - kept)
    await queue.close()

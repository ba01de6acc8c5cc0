"""Media of messages (metadata, links to the bytes, deletion) and feedback, over the real queue and archive."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.api.media_content import LINK_SECONDS, MediaFront
from trunkline.inflight.store import Inflight
from trunkline.messaging.privacy import Privacy
from trunkline.messaging.reader import Reader
from trunkline.model.message import Direction, MediaItem, Message, Status
from trunkline.model.message import encode as encode_message
from trunkline.model.numbers import Media
from trunkline.model.sid import new_sid
from trunkline.postflight.archive import SegmentedArchive
from trunkline.storage.archive import Document
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.sqlite.archive import SqliteRecent

GIF = b"GIF89a\x01"
NO_MEDIA = "ME" + "0" * 32


class MediaWorld:
    """A world with messages and files."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def message(self, status: Status = Status.RECEIVED, files: int = 1, landed: bool = False) -> Message:
        world, now = self.world, self.world.clock.ms
        message = Message(
            sid=new_sid("MM", now), account_sid=world.owner.sid, direction=Direction.INBOUND, from_="+14155550199",
            to="+12025550100", body="Look", created_ms=now, updated_ms=now,
        )  # fmt: skip
        for _ in range(files):
            message.media.append(MediaItem(sid=await self.file(message.sid), content_type="image/gif", bytes=len(GIF)))
        if landed:
            body = encode_message(message)[:-1] + f',"status":"{status}"}}'.encode()
            document = Document(sid=message.sid, account=world.owner.sid, kind="message", rev=3, body=body)
            await world.services.archive.land([document])
        else:
            _, written = world.services.inflight.accept(message, status)
            await written
        return message

    async def file(self, message_sid: str, content_type: str = "image/gif") -> str:
        media = Media(
            sid=new_sid("ME", self.world.clock.ms),
            account_sid=self.world.owner.sid,
            message_sid=message_sid,
            content_type=content_type,
            bytes=len(GIF),
        )
        await self.world.services.blobs.put(media.sid, GIF)
        await self.world.database.insert(media)
        return media.sid

    def path(self, message: Message, sid: str = "", suffix: str = "") -> str:
        rest = f"Messages/{message.sid}/Media" + (f"/{sid}" if sid else "")
        return self.world.path(rest + suffix)


@pytest.fixture
async def media(world: World, tmp_path: Path) -> AsyncIterator[MediaWorld]:
    services = world.services
    archive = SegmentedArchive(SqliteRecent(tmp_path / "archive.db"), tmp_path / "segments", services.clock)
    services.archive = archive
    services.blobs = FolderBlobs(tmp_path / "media")
    services.inflight = Inflight(services.queue, services.clock)
    services.reader = Reader(services.inflight, archive, services.database)
    services.privacy = Privacy(services.inflight, archive, services.database, services.blobs)
    world.api = MediaFront(world.api, services)  # type: ignore[assignment]
    yield MediaWorld(world)
    await archive.close()


def local(location: str) -> str:
    """Path and query of a redirect to our own host."""
    assert location.startswith("http://localhost:8080/media/ME"), location
    return location.removeprefix("http://localhost:8080")


async def test_metadata(media: MediaWorld) -> None:
    message = await media.message()
    sid = message.media[0].sid
    shown = await media.world.get(media.path(message, sid, ".json"))
    assert shown.json == {
        "account_sid": media.world.owner.sid,
        "content_type": "image/gif",
        "date_created": "Tue, 14 Nov 2023 22:13:20 +0000",
        "date_updated": "Tue, 14 Nov 2023 22:13:20 +0000",
        "parent_sid": message.sid,
        "sid": sid,
        "uri": media.path(message, sid, ".json"),
    }
    listed = (await media.world.get(media.path(message, suffix=".json"))).json
    assert listed["media_list"] == [shown.json]
    assert [key for key, value in listed.items() if isinstance(value, list)] == ["media_list"]
    xml = await media.world.get(media.path(message, sid, ".xml"))
    assert f"<Media><AccountSid>{media.world.owner.sid}</AccountSid>".encode() in xml.body


async def test_without_a_suffix_a_link_leads_to_the_bytes(media: MediaWorld) -> None:
    message = await media.message(landed=True)
    sid = message.media[0].sid
    reply = await media.world.get(media.path(message, sid))
    assert (reply.status, reply.body) == (307, b"")
    content = await media.world.get(local(reply.headers["location"]), auth=None)
    assert (content.status, content.body) == (200, GIF)
    assert content.headers == {
        "content-type": "image/gif",
        "content-disposition": f'inline; filename="{sid}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": f"private, max-age={LINK_SECONDS}",
        "content-length": str(len(GIF)),
    }
    head = await media.world.call("HEAD", local(reply.headers["location"]), auth=None)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(GIF)))


async def test_the_link_names_the_host_that_was_asked(media: MediaWorld) -> None:
    message = await media.message()
    path = media.path(message, message.media[0].sid)
    for asked, host in ((path, "api.twilio.com"), ("/api" + path, "sms.example.com"), ("/api" + path, "api")):
        reply = await media.world.get(asked, host=host, scheme="https")
        assert reply.headers["location"].startswith(f"https://{host}/media/ME")


@pytest.mark.parametrize("content_type", ["image/svg+xml", "application/pdf", "text/vcard"])
async def test_what_could_run_is_not_shown_in_place(media: MediaWorld, content_type: str) -> None:
    message = await media.message(files=0)
    sid = await media.file(message.sid, content_type)
    reply = await media.world.get(media.path(message, sid))
    content = await media.world.get(local(reply.headers["location"]), auth=None)
    assert content.headers["content-disposition"].startswith("attachment;")


async def test_links_cannot_be_forged_moved_or_prolonged(media: MediaWorld) -> None:
    message = await media.message(files=2)
    first, second = (item.sid for item in message.media)
    link = local((await media.world.get(media.path(message, first))).headers["location"])
    path, _, query = link.partition("?")
    expires, signature = query.split("&")
    later = f"Expires={int(expires.removeprefix('Expires=')) + 1}"
    bad = [
        path,
        f"{path}?{expires}",
        f"{path}?{signature}",
        f"{path}?{later}&{signature}",
        f"{path}?{expires}&Signature=",
        f"{path}?{expires}&Signature={'0' * 64}",
        f"{path}?{expires}&Signature=%C3%BC",
        f"{path}?Expires=-1&{signature}",
        f"{path}?Expires={'9' * 500}&{signature}",
        f"{path}?{query}&x={'y' * 2000}",
        f"/media/{second}?{query}",
    ]
    for address in bad:
        reply = await media.world.get(address, auth=None)
        assert (reply.status, reply.code) == (403, 20403), address
    assert (await media.world.get(link, auth=None)).status == 200


async def test_links_expire(media: MediaWorld) -> None:
    message = await media.message()
    link = local((await media.world.get(media.path(message, message.media[0].sid))).headers["location"])
    media.world.clock.ms += (LINK_SECONDS - 1) * 1000
    content = await media.world.get(link, auth=None)
    assert content.headers["cache-control"] == "private, max-age=1"
    media.world.clock.ms += 1000
    assert (await media.world.get(link, auth=None)).status == 403


async def test_other_requests_for_links(media: MediaWorld) -> None:
    assert (await media.world.get("/media/x", auth=None)).code == 20404
    assert (await media.world.get("/media/..%2F", auth=None)).code == 20404
    reply = await media.world.call("DELETE", f"/media/{NO_MEDIA}", auth=None)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_the_date_filters(media: MediaWorld) -> None:
    message = await media.message(files=1)
    media.world.clock.ms += 86_400_000
    later = await media.file(message.sid)
    path = media.path(message, suffix=".json")

    async def listed(query: str) -> list[str]:
        return [one["sid"] for one in (await media.world.get(f"{path}?{query}")).json["media_list"]]

    assert await listed("DateCreated%3E=2023-11-15") == [later]
    assert await listed("DateCreated%3C=2023-11-15") == [message.media[0].sid]
    assert await listed("DateCreated=2023-11-15") == [later]
    assert len(await listed("PageSize=1")) == 1


@pytest.mark.parametrize("landed", [False, True])
async def test_deletion_takes_the_bytes_the_record_and_the_count(media: MediaWorld, landed: bool) -> None:
    message = await media.message(files=2, landed=landed)
    gone, kept = (item.sid for item in message.media)
    link = local((await media.world.get(media.path(message, gone))).headers["location"])
    assert (await media.world.call("DELETE", media.path(message, gone, ".json"))).status == 204
    assert (await media.world.get(media.path(message, gone, ".json"))).code == 20404
    assert (await media.world.get(link, auth=None)).code == 20404
    assert await media.world.services.blobs.get(gone) is None
    left = (await media.world.get(media.path(message, suffix=".json"))).json["media_list"]
    assert [one["sid"] for one in left] == [kept]
    shown = (await media.world.get(media.world.path(f"Messages/{message.sid}.json"))).json
    assert shown["num_media"] == "1"
    assert media.world.services.privacy.due(0)


async def test_media_of_a_message_under_way_stay(media: MediaWorld) -> None:
    message = await media.message(Status.SENDING)
    reply = await media.world.call("DELETE", media.path(message, message.media[0].sid, ".json"))
    assert (reply.status, reply.code) == (409, 20009)
    assert (await media.world.get(media.path(message, message.media[0].sid, ".json"))).status == 200


async def test_what_is_not_there(media: MediaWorld) -> None:
    world = media.world
    message, other = await media.message(), await media.message()
    sid = message.media[0].sid
    assert (await world.get(media.path(other, sid, ".json"))).code == 20404
    assert (await world.get(media.path(message, NO_MEDIA))).status == 404
    assert (await world.get(world.path(f"Messages/MM{'0' * 32}/Media.json"))).code == 20404
    stranger = await create_account(world.database, world.clock, "Stranger")
    theirs = world.path(f"Messages/{message.sid}/Media/{sid}.json", stranger.sid)
    assert (await world.get(theirs, auth=(stranger.sid, stranger.auth_token))).code == 20404
    assert (await world.get(media.path(message, sid), auth=None)).status == 401
    await world.services.blobs.delete(sid)
    link = local((await world.get(media.path(message, sid))).headers["location"])
    assert (await world.get(link, auth=None)).code == 20404


# -- feedback ----------------------------------------------------------------------------------------------------


async def test_feedback(media: MediaWorld) -> None:
    message = await media.message(landed=True)
    uri = media.world.path(f"Messages/{message.sid}/Feedback.json")
    made = await media.world.post(uri, {"Outcome": "unconfirmed"})
    assert made.status == 200
    assert made.json == {
        "account_sid": media.world.owner.sid,
        "date_created": "Tue, 14 Nov 2023 22:13:20 +0000",
        "date_updated": "Tue, 14 Nov 2023 22:13:20 +0000",
        "message_sid": message.sid,
        "outcome": "unconfirmed",
        "uri": uri,
    }
    media.world.clock.ms += 5000
    changed = (await media.world.post(uri)).json
    assert changed["outcome"] == "confirmed"
    assert changed["date_created"] == made.json["date_created"]
    assert changed["date_updated"] == "Tue, 14 Nov 2023 22:13:25 +0000"


async def test_feedback_that_cannot_be_taken(media: MediaWorld) -> None:
    message = await media.message()
    uri = media.world.path(f"Messages/{message.sid}/Feedback.json")
    assert (await media.world.post(uri, {"Outcome": "maybe"})).code == 20422
    missing = media.world.path(f"Messages/SM{'0' * 32}/Feedback.json")
    assert (await media.world.post(missing, {"Outcome": "confirmed"})).code == 20404

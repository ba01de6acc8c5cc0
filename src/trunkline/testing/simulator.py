"""Handsets and phones from outside the process: mounted at `/_simulator/`, in development only, without a login.

    GET  /_simulator/handsets/+15555550123/messages?after=2&wait_s=10    what it received (waiting for more than 2)
    POST /_simulator/handsets/+15555550123/messages  {"to": "+1...", "body": "..."}    it sends; 201 once kept
    POST /_simulator/handsets/+15555550123           {"fails": 30003}, {"replies": ["..."]}    how it behaves
    ...  /_simulator/phones...                           calls: see trunkline.testing.phones.control

POSTs must be JSON: no web page elsewhere can send that to a developer's machine without asking first (CORS).
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import orjson

from trunkline.messaging.connectors.incoming import Answer, Refused, pairs_of
from trunkline.model import phone
from trunkline.testing.handsets import Handset, Handsets, NotReceived, NotTaken
from trunkline.testing.phones.remote import Phones

MAX_BODY_BYTES: Final = 64 * 1024
MAX_WAIT_S: Final = 30.0
MAX_REPLIES: Final = 100
PREFIX: Final = "handsets/"
PHONES: Final = "phones"
JSON: Final = ((b"content-type", b"application/json"),)

_ITEMS = msgspec.json.Encoder()


class Send(msgspec.Struct, forbid_unknown_fields=True):
    """The body that makes a handset send."""

    to: str
    body: str = ""
    media_urls: list[str] = []


class Behave(msgspec.Struct, forbid_unknown_fields=True):
    """The body that tells a handset how to behave; what is not given stays."""

    fails: int | None = None
    replies: list[str] = []


class Simulator:
    """See the module. `handle` has the shape of a connector's; `kind` is the path after `/_simulator/`."""

    def __init__(self, handsets: Handsets | None, phones: Phones | None = None) -> None:
        self._handsets = handsets
        self._phones = phones

    async def handle(self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Answer:
        """Answer one request. Never raises."""
        try:
            if method == "POST":
                if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
                    raise Refused(415, "send application/json")
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(413, f"at most {MAX_BODY_BYTES} bytes")
            if kind.partition("/")[0] == PHONES:
                return await self._ask_phones(kind, method, query, body)
            return await self._handset(kind, method, query, body)
        except Refused as refused:
            return _answer(refused.status, {"message": str(refused)})
        except (msgspec.DecodeError, ValueError) as error:
            return _answer(400, {"message": str(error)[:200]})
        except OverflowError as error:
            return _answer(507, {"message": str(error)})
        except (NotTaken, NotReceived) as error:
            return _answer(503, {"message": str(error)})

    async def _ask_phones(self, kind: str, method: str, query: bytes, body: bytes) -> Answer:
        """What is about calls is asked of the phones' process."""
        if self._phones is None:
            raise Refused(404, "there are no simulated phones: enable [sip] with a simulated trunk")
        reply = await self._phones.ask(method, unquote(kind), dict(pairs_of(query)), body)
        return reply.status, ((b"content-type", reply.content_type.encode()),), reply.body

    async def _handset(self, kind: str, method: str, query: bytes, body: bytes) -> Answer:
        number, _, rest = unquote(kind).removeprefix(PREFIX).partition("/")
        known = kind.startswith(PREFIX) and phone.is_e164(number) and rest in ("", "messages")
        if not known or self._handsets is None:
            raise Refused(404, "there are /_simulator/handsets/+NUMBER, .../messages and /_simulator/phones")
        handset = self._handsets.handset(number)
        if method == "GET" and rest:
            return await self._inbox(handset, query)
        if method != "POST":
            raise Refused(405, "POST, or GET .../messages")
        return await self._send(handset, body) if rest else self._behave(handset, body)

    async def _inbox(self, handset: Handset, query: bytes) -> Answer:
        given = dict(pairs_of(query))
        after = int(given.get("after", "0"))
        wait_s = min(float(given.get("wait_s", "0")), MAX_WAIT_S)
        if wait_s > 0 and handset.received <= after:
            try:
                await asyncio.wait_for(handset.changed(), wait_s)
            except TimeoutError:
                return _answer(200, {"messages": []})
        return _answer(200, {"messages": [text for text in handset.inbox if text.id > after]})

    async def _send(self, handset: Handset, body: bytes) -> Answer:
        wanted = msgspec.json.decode(body, type=Send)
        to = wanted.to if phone.is_short_code(wanted.to) else phone.to_e164(wanted.to)
        if to is None:
            raise Refused(400, "to must be a number like +15551234567 or a short code")
        await handset.send(to, wanted.body, wanted.media_urls)
        return _answer(201, {"from": handset.number, "to": to, "body": wanted.body})

    def _behave(self, handset: Handset, body: bytes) -> Answer:
        wanted = msgspec.json.decode(body, type=Behave)
        if len(wanted.replies) > MAX_REPLIES:
            raise Refused(400, f"at most {MAX_REPLIES} replies")
        if wanted.fails is not None:
            handset.fails(wanted.fails)
        handset.replies(*wanted.replies)
        return _answer(200, {"number": handset.number, "fails": handset.failing})


def _answer(status: int, document: dict[str, Any]) -> Answer:
    return status, JSON, orjson.dumps(document, default=msgspec.to_builtins)

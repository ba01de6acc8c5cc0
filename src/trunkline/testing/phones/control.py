"""What is asked of the phones from outside, as the server's simulator passes it on (`/_simulator/phones...`).

GET  phones                                       what there is
POST phones                    {"does": "answers"}    how numbers behave that nobody plays
POST phones/+15555550123       {"does": "busy"}       how a phone behaves
POST phones/office-ada/registration {"user": "ada", "password": "...", "domain": "office.sip.localhost"}    it registers
GET  phones/+15555550123/calls?after=2&wait_s=2       its calls after the second (waiting for one)
POST phones/+15555550123/calls {"to": "+1..."}        it dials; 201
GET  phones/+15555550123/calls/3?after=7&wait_s=2     a call (waiting for its eighth change)
POST phones/+15555550123/calls/3 {"do": "press", "digits": "1"}    see `things.Deed`
GET  phones/+15555550123/calls/3/heard.wav            what was heard, as 16-bit PCM
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from trunkline.media import wav
from trunkline.testing.phones import things
from trunkline.testing.phones.audio import NoAudio, Studio
from trunkline.testing.phones.call import NotPossible, PhoneCall
from trunkline.testing.phones.exchange import PhoneExchange
from trunkline.testing.phones.hearing import Silent
from trunkline.testing.phones.phone import Phone
from trunkline.testing.phones.rtp_peer import Impairment

MAX_WAIT_S: Final = 2.0
"""Longest wait of one request: it is the longest that a phone holds up the end of the server."""
MAX_NUMBER: Final = 255
JSON: Final = "application/json"
WAV: Final = "audio/wav"


class Answer(NamedTuple):
    """Of one request."""

    status: int
    content_type: str
    body: bytes


class NotThere(Exception):
    """There is no such phone, call or path."""


_behaviour = msgspec.json.Decoder(things.Behaviour)
_registration = msgspec.json.Decoder(things.Registration)
_dial = msgspec.json.Decoder(things.Dial)
_deed = msgspec.json.Decoder(things.Deed)
_encode = msgspec.json.Encoder().encode


class Control:
    """See the module."""

    def __init__(self, exchange: PhoneExchange, studio: Studio) -> None:
        self._exchange = exchange
        self._studio = studio

    async def handle(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request. Never raises."""
        try:
            return await self._route(method, path, query, body)
        except NotThere as error:
            return _json(404, {"message": str(error)})
        except NotPossible as error:
            return _json(409, {"message": str(error)})
        except (NoAudio, Silent, msgspec.DecodeError, ValueError) as error:
            return _json(400, {"message": str(error)[:300]})
        except OverflowError as error:
            return _json(507, {"message": str(error)})
        except OSError as error:
            return _json(503, {"message": str(error)})

    async def _route(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        root, *parts = path.strip("/").split("/")
        registration = parts[1:] == ["registration"]
        if root != "phones" or len(parts) > 4 or (len(parts) > 1 and parts[1] != "calls" and not registration):
            raise NotThere(f"there is no {path}")
        post = method == "POST"
        if not post and method != "GET":
            return _json(405, {"message": "GET or POST"})
        if not parts:
            return self._all(_behaviour.decode(body) if post else None)
        phone = self._phone(parts[0])
        if len(parts) == 1:
            if post:
                phone.behaves(_behaviour.decode(body))
            return _json(200, {"number": phone.number, "behaviour": phone.behaviour, "calls": phone.counted})
        if registration:
            return _json(200, await phone.register(_registration.decode(body)) if post else phone.registered)
        after = int(query.get("after", "0"))
        wait_s = min(float(query.get("wait_s", "0")), MAX_WAIT_S)
        if len(parts) == 2:
            if post:
                return _json(201, (await phone.dial(_dial.decode(body))).snapshot())
            return _json(200, {"calls": await phone.incoming(after, wait_s)})
        call = phone.calls.get(int(parts[2])) if parts[2].isdecimal() else None
        if call is None:
            raise NotThere(f"{phone.number} has no call {parts[2]}")
        if len(parts) == 4:
            return _recording(call, parts[3])
        if post:
            return await self._do(call, _deed.decode(body))
        return _json(200, await call.changed(after, wait_s))

    def _all(self, unknown: things.Behaviour | None) -> Answer:
        exchange = self._exchange
        if unknown is not None:
            exchange.unknown = unknown
        numbers = sorted(exchange.phones)
        sip = f"{exchange.host}:{exchange.port}"
        return _json(200, {"phones": numbers, "unknown": exchange.unknown, "sip": sip, "platform": exchange.platform})

    def _phone(self, number: str) -> Phone:
        if not 0 < len(number) <= MAX_NUMBER or not all(sign.isalnum() or sign in "+._-" for sign in number):
            raise NotThere(f"{number[:MAX_NUMBER]!r} is no number of a phone")
        return self._exchange.phone(number)

    async def _do(self, call: PhoneCall, deed: things.Deed) -> Answer:
        match deed:
            case things.Hear():
                return await self._hear(call, deed)
            case things.Finish():
                return await self._finish(call, deed)
            case things.Say():
                call.say(await self._studio.samples(deed.what))
            case things.Press():
                call.press(deed)
            case things.Answer():
                await call.answer(deed.headers)
            case things.Reject():
                call.reject(deed.status, deed.reason, deed.headers)
            case things.Ring():
                call.ring(deed.status)
            case things.HangUp():
                call.hang_up(deed.headers)
            case things.Stop():
                call.stop()
            case things.Hold():
                call.hold(deed.on)
            case things.Refer():
                call.refer(deed.to)
            case things.Impair():
                call.impair(
                    Impairment(loss=deed.loss, jitter_ms=deed.jitter_ms, seed=deed.seed), direction=deed.direction
                )
        return _json(200, call.snapshot())

    async def _hear(self, call: PhoneCall, deed: things.Hear) -> Answer:
        reference = None
        if isinstance(deed.what, things.Spoken | things.File):
            reference = await self._studio.samples(deed.what)
        outcome = await call.hear(deed.what, min(deed.wait_s, MAX_WAIT_S), reference)
        if deed.explain and not outcome.heard:
            outcome.explanation = call.explain()
        return _json(200, outcome)

    async def _finish(self, call: PhoneCall, deed: things.Finish) -> Answer:
        done = await call.finished(min(deed.wait_s, MAX_WAIT_S))
        return _json(200, things.Outcome(heard=done, over=call.over))


def _recording(call: PhoneCall, name: str) -> Answer:
    if name != "heard.wav" or call.peer is None:
        raise NotThere("there is heard.wav, of calls that have audio")
    octets = call.peer.heard.samples().tobytes()
    return Answer(200, WAV, wav.header(len(octets)) + octets)


def _json(status: int, document: object) -> Answer:
    return Answer(status, JSON, _encode(document))

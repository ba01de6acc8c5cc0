"""Calls in a learner: their documents are parsed and their verbs run by the session that runs them in production.

Nothing is fetched: a request gets the document that production was given. Nobody speaks: a prompt is over at once. What
only the other side decides (keys, who answered a <Dial>, a recording) is taken from production: a verb with an outcome
of that kind goes on at its action where production's did, with the parameters that production's request had, else at
the next verb; and the call ends within the verb in which production's has ended.
"""

from collections.abc import Awaitable, Sequence
from types import SimpleNamespace
from typing import Any, Final

import orjson

from trunkline.learning import views
from trunkline.learning.wire import CallStep, Page
from trunkline.media.prompts import Prepared
from trunkline.media.protocol import Played
from trunkline.model import call as codec
from trunkline.model.account import Account
from trunkline.model.call import TERMINAL, Call, Status
from trunkline.settings import Settings
from trunkline.telemetry.stages import of_calls
from trunkline.voice import callbacks, documents, timeline
from trunkline.voice.session import Session
from trunkline.voice.steps import CallEnded, Goto, Inline, Next, Redirected, Source
from trunkline.voice.verbs import VERBS, VoiceVerb
from trunkline.webhooks.attempt import Attempt
from trunkline.webhooks.fetch import Answer, FetchRequest, Outcome

INSIDE: Final = frozenset({"Say", "Play", "Redirect", "Hangup", "Reject"})
"""Verbs that are run as they are; the end of all others is decided outside, or they only take time."""
OVER: Final = 200
"""Verbs after which a session that production's did not have is ended."""


class Replay:
    """What production did with one call, and how far this one is."""

    def __init__(self, pages: Sequence[Page], verbs: int) -> None:
        self.pages = pages
        self.verbs = verbs
        """That production ran, in all."""
        self.given = 0
        """Documents that were given out."""
        self.ran: list[str] = []
        self.requests: list[list[str]] = []

    @property
    def following(self) -> Page | None:
        """The document that production went on with, if it did so in the verb that runs now."""
        page = self.pages[self.given] if self.given < len(self.pages) else None
        return page if page is not None and page.verbs == len(self.ran) else None

    @property
    def is_over(self) -> bool:
        """Whether production's call ended in the verb that runs now."""
        return self.given >= len(self.pages) and len(self.ran) >= self.verbs

    def left(self) -> None:
        """Leave the verb that runs now, if production left it for another document or the end. Raises CallEnded,
        Redirected."""
        page = self.following
        if page is not None:
            raise Redirected(source_of(page))
        if self.is_over or len(self.ran) > OVER:
            raise CallEnded

    async def fetch(self, request: FetchRequest) -> Outcome:
        """What production got for this request (`webhooks.fetch.Fetcher.fetch`)."""
        if self.given >= len(self.pages):
            raise CallEnded
        self.requests.append([request.method, request.url])
        attempt = Attempt(request.url, request.method, 0)
        page = self.pages[self.given]
        self.given += 1
        return Outcome([attempt], Answer(200, page.content_type, page.body, page.url))


def source_of(page: Page) -> Source:
    """What production asked for."""
    if not page.method:
        return Inline(page.body.decode(errors="replace"))
    return Goto(page.asked, page.method, tuple((name, value) for name, value in page.params))


class _Leg:
    """A call as verbs see it: it is there, it hears everything, it says nothing."""

    def __init__(self, record: Call, services: Any, replay: Replay) -> None:
        self.record, self.services, self.replay = record, services, replay
        self.sid = record.sid
        self.account = Account(sid=record.account_sid, account_sid=record.account_sid)
        self.status = Status.RINGING if record.direction == codec.Direction.INBOUND else Status.IN_PROGRESS
        self.session: Any = None
        self.lost_ms = 0
        self.audio = SimpleNamespace(plays=0, play=self._play, follow=lambda name, barge: None)

    @property
    def is_up(self) -> bool:
        """Answered and not ended."""
        return self.status is Status.IN_PROGRESS

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL

    def _play(self, items: Any, **_: Any) -> Awaitable[Played]:
        async def played() -> Played:
            self.replay.left()
            return Played(leg=self.sid, play="")

        return played()

    async def answer(self) -> None:
        """Pick up."""
        if self.status is Status.RINGING:
            self.status = Status.IN_PROGRESS

    def note(self, kind: str, what: str, **_: Any) -> None:
        """Count the verbs."""
        if kind == timeline.TWIML:
            self.replay.ran.append(what)

    def hangup(self, why: str, sip_status: int = 0, *, end: Status | None = None) -> None:
        """It is over."""
        self.status = end or Status.COMPLETED

    def nothing(self, *_: Any, **__: Any) -> None:
        """What needs no doing."""

    alert = stop = on_end = forget_end = finished = nothing


class Calls:
    """See the module."""

    def __init__(self, settings: Settings, clock: Any) -> None:
        prepared = Prepared(path="", ms=0)

        async def soon(*_: Any, **__: Any) -> Prepared:
            return prepared

        def nothing(*_: Any, **__: Any) -> None:
            """Nobody is told."""

        flights = SimpleNamespace(line=of_calls())
        self._common: dict[str, Any] = {
            "settings": settings, "clock": clock, "flights": flights, "gate": None, "watch": None,
            "directory": SimpleNamespace(account=lambda sid: None, number=lambda e164: None),
            "alerts": SimpleNamespace(raise_=nothing), "memory": SimpleNamespace(post=nothing, post_all=nothing),
            "prompts": SimpleNamespace(
                cached_speech=lambda *_, **__: prepared, cached_audio=lambda *_, **__: prepared, speech=soon,
                audio=soon, given=soon,
            ),
            "places": lambda record: {},
        }  # fmt: skip
        self._limit = settings.webhooks.response_bytes

    def read(self, page: Page) -> dict[str, Any]:
        """What a document is taken for."""
        if page.content_type.lower().startswith("audio/"):
            return {}
        found = documents._parse(page.body, page.content_type, self._limit)
        told = getattr(found, "verbs", None)
        return {views.TWIML: views.steps_of(told) if told is not None else [f"error {getattr(found, 'code', 0)}"]}

    async def follow(self, item: CallStep, pages: Sequence[Page]) -> dict[str, Any] | None:
        """Run a call that has ended, once more; None when its documents were not seen."""
        record = orjson.loads(item.record)
        found = {views.CALLBACKS: views.callbacks(self._callbacks(item), views.GEOGRAPHY)}
        if not followable(pages):
            return found
        replay = Replay(pages, len(views.ran(record)))
        services = SimpleNamespace(**self._common, fetcher=replay)
        leg: Any = _Leg(codec.decode(item.record), services, replay)
        leg.record.fallback_url = leg.record.traceparent = ""
        await Session(leg).run(source_of(pages[0]))
        return found | {views.STEPS: replay.ran, views.REQUESTS: replay.requests}

    def _callbacks(self, item: CallStep) -> list[bytes]:
        """What the end of the call owes."""
        call = codec.decode(item.record)
        call.callback_sequence = max(0, call.callback_sequence - len(item.owed))
        return [one.request for one in callbacks.status_events(call, Status(item.status), call.ended_ms)]


def stand_ins() -> dict[str, VoiceVerb]:
    """What stands for the verbs whose end is decided outside, in the table of verbs."""
    return {name: row._replace(run=_outside) for name, row in VERBS.items() if name not in INSIDE}


def followable(pages: Sequence[Page]) -> bool:
    """Whether all documents of a call are there, from the first."""
    return bool(pages) and [page.number for page in pages] == list(range(1, len(pages) + 1))


async def _outside(verb: Any, session: Session, _state: dict[str, Any]) -> Next | None:
    """A verb whose outcome is production's."""
    replay: Replay = session.services.fetcher  # type: ignore[assignment]
    page = replay.following
    if page is not None and page.method and hasattr(verb, "action"):
        return Goto(verb.action, getattr(verb, "method", "POST"), tuple((name, value) for name, value in page.params))
    replay.left()
    return None

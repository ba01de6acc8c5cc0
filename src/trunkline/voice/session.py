"""Running TwiML on a call: a bounded loop that fetches a document, runs its verbs and follows what they return.

One task runs one session. Whatever a verb waits for, it waits for through `wait`; a live update (`redirect`) or the end
of the call cancels the task there, and `wait` raises `Redirected` or `CallEnded` instead. Nothing else interrupts a
verb, so its code between two waits needs no guards. A verb lets both exceptions pass (after it has cleaned up what is
its own); `CallEnded` may be caught to finish something within `FINISH_S`, with `finish`.

Bounds: `voice.documents` and `voice.verbs` of the settings a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trunkline.media.protocol import Audio
from trunkline.telemetry.stages import DOCUMENT, VERB
from trunkline.twiml import Verb, resolve
from trunkline.voice import checkpoints, documents, timeline
from trunkline.voice.checkpoints import DocumentCheckpoint, NextCheckpoint, Position
from trunkline.voice.documents import Found
from trunkline.voice.steps import CallEnded, Goto, Inline, Next, Redirected, Source, Stop
from trunkline.voice.verbs import VERBS
from trunkline.webhooks import fetch

if TYPE_CHECKING:
    from trunkline.voice.live import LiveCall

FINISH_S: Final = 30.0
"""Longest work after the end of a call: a last request to the application, with its retries."""
LIMIT: Final = 12400
"""Internal Failure: a bound was reached, or a verb failed."""
DIAL_IN_A_SEGMENT: Final = 13201
APOLOGY: Final = "We are sorry, an application error has occurred. Goodbye."
"""What a caller hears when neither the URL nor the fallback URL gave a document."""

END, STOPPED, ENDED, FAILED = "end-of-document", "hangup", "ended", "application-error"
"""How `run` ends: the document's end, a verb's wish, the call's own end, no document."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Session:
    """See the module. `without`: names of verbs that are not allowed here (alert 13201)."""

    def __init__(self, call: LiveCall, *, without: Collection[str] = ()) -> None:
        self.call = call
        self.services = call.services
        self.account = call.account
        self.web = fetch.Session()
        """Cookies and log-ins of this call's requests."""
        self.base: str | None = None
        """URL of the document that runs; None where it has none."""
        self.audio: tuple[str, bytes, str] | None = None
        """A document that is audio: its URL, its octets and their type."""
        self.position = Position()
        self.may_end_unanswered = False
        """Whether a call that nothing has answered yet is refused, not answered, at the end of its document."""
        self.told: set[str] = set()
        """What was alerted once and shall not be again."""
        self._without = frozenset(without)
        self._interruption: CallEnded | Redirected | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._unsaved = False
        """Whether `position` is newer than what is stored."""
        self._unstored: dict[str, DocumentCheckpoint | None] = {}
        """What is stored together with the next position."""
        self._asked = False
        """Whether a live update is stored that has not begun."""

    def on(self, call: LiveCall, *, without: Collection[str] = ()) -> Session:
        """A session for another leg (a whisper document): `await other.run(Goto(url))`."""
        return Session(call, without=without)

    # -- life ------------------------------------------------------------------------------------------------

    def start(self, source: Source | None, resume: tuple[DocumentCheckpoint, Position] | None = None) -> None:
        """Run as the call's own session, in a task; at its end the call is hung up."""
        self.call.session = self
        self._task = asyncio.get_running_loop().create_task(self._whole(source, resume))

    def resume(self, document: DocumentCheckpoint, position: Position) -> None:
        """Go on where another process stopped: at the verb of `position`, which gets its stored state."""
        self.start(None, (document, position))

    async def _whole(self, source: Source | None, resume: tuple[DocumentCheckpoint, Position] | None) -> None:
        call = self.call
        ending = FAILED
        try:
            ending = await self.run(source, resume)
        except Exception:
            log.exception("%s: the session failed", call.sid)
            call.alert(LIMIT, "internal failure")
        if call.session is self:
            call.session = None
            call.hangup(ending, 500 if ending == FAILED else 0)
            call.finished()

    @property
    def done(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._task is None or self._task.done()

    def cancel(self) -> None:
        """End the task and nothing else: the call stays, for another process to go on with."""
        if self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """Another host has the call: nothing of it runs here any more."""
        if self._task is not None:
            self._task.cancel()
        elif self._waiting is not None:  # what a callee hears before the connection, in a task of the <Dial>
            self._interrupt(CallEnded())

    async def run(self, source: Source | None, resume: tuple[DocumentCheckpoint, Position] | None = None) -> str:
        """Follow documents to the end; how it ended. The call is not hung up."""
        self.call.on_end(self.ended)
        step: Source | None = source
        try:
            while True:
                try:
                    following = await self._one(step, resume)
                except Redirected as update:
                    following = update.to
                resume = None
                if isinstance(following, str):
                    return following
                self.call.stop()
                step = following
        except CallEnded:
            return ENDED
        finally:
            self.call.forget_end(self.ended)

    async def _one(self, step: Source | None, resume: tuple[DocumentCheckpoint, Position] | None) -> Source | str:
        """Fetch and run one document; the next one, or how it ended."""
        first, state = 0, {}
        if resume is not None:
            found, self.position = documents.again(self, resume[0]), resume[1]
            self.web = resume[0].web or self.web
            first, state = self.position.verb, dict(self.position.state)
        elif step is None:
            return END
        else:
            self.position.documents += 1
            if self.position.documents > self.services.settings.voice.documents:
                self.alert(LIMIT, f"more than {self.services.settings.voice.documents} documents for one call")
                return FAILED
            began = monotonic()
            got = await documents.load(self, step)
            self._measure(DOCUMENT, began, got is None)
            if got is None:
                await self._apologise()
                return FAILED
            found = got
        self._begin(found)
        if self.services.watch is not None and step is not None:
            self.services.watch(self.call.record, self.position, step, found)
        return await self._verbs(found.verbs, first, state)

    def _begin(self, found: Found) -> None:
        self.base = found.base or None
        web = self.web if self.web.cookies.cookies or self.web.logins else None
        self._unstored = {
            checkpoints.DOCUMENT: DocumentCheckpoint(
                url=found.base, content_type=found.content_type, body=found.body, web=web
            )
        }
        self._unsaved = True
        if self._asked:
            self._asked = False
            self.position.verb, self.position.state = 0, {}
            self._unstored[checkpoints.NEXT] = None
            self._save()

    async def _verbs(self, verbs: tuple[Verb, ...], first: int, state: dict[str, Any]) -> Source | str:
        for index in range(first, len(verbs)):
            following = await self._verb(verbs[index], index, state)
            state = {}
            if following is None:
                continue
            return following.why if isinstance(following, Stop) else following
        if not self.may_end_unanswered:
            await self.wait(self.call.answer())  # only <Reject> keeps a call from being answered
        return END

    async def _verb(self, verb: Verb, index: int, state: dict[str, Any]) -> Next | None:
        name: str = getattr(verb, "name", "") or type(verb).__name__
        row = VERBS[name]
        position = self.position
        position.verb, position.state = index, state
        position.verbs += 1
        if position.verbs > self.services.settings.voice.verbs:
            self.alert(LIMIT, f"more than {self.services.settings.voice.verbs} verbs for one call")
            return Stop(FAILED)
        if name in self._without:
            self.alert(DIAL_IN_A_SEGMENT, f"<{name}> is not allowed in this document")
            return None
        self._unsaved = True
        call = self.call
        told_last = bool(state) and call.is_over  # it ended while nobody had it, and the application is told so
        if not call.is_up and not told_last and row.answers(verb):
            await self.wait(call.answer())
        call.note(timeline.TWIML, f"<{name}>")
        began, failed = monotonic(), False
        try:
            return await row.run(verb, self, state)
        except (CallEnded, Redirected):
            raise
        except Exception:
            failed = True
            log.exception("%s: <%s> failed", call.sid, name)
            self.alert(LIMIT, f"<{name}> failed; the call goes on with the next verb")
            return None
        finally:
            self._measure(VERB, began, failed)

    def _measure(self, what: str, began: float, failed: bool) -> None:
        """A document was fetched, or a verb has ended."""
        line, record, seconds = self.services.flights.line, self.call.record, monotonic() - began
        stage = line.stages[what]
        stage.left(seconds, failed)
        if record.traceparent:
            line.tracer.stage(record, stage.span, seconds, failed)

    async def _apologise(self) -> None:
        """Let the caller know."""
        call = self.call
        await self.wait(call.answer())
        if not call.is_up:
            return
        prompt = self.services.prompts.cached_speech(APOLOGY)
        if prompt is not None:
            await self.wait(call.play([Audio(path=str(prompt.path))]))

    # -- interruption ----------------------------------------------------------------------------------------

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await something; raises CallEnded or Redirected at once when that happens meanwhile (or has)."""
        if self._interruption is not None:
            self._raise(awaitable)
        if self._unsaved:
            self._save()
        task = asyncio.current_task()
        outer, self._waiting = self._waiting, task
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._interruption is None:
                raise
            if task is not None:
                task.uncancel()
            self._raise()
            raise  # not reached
        finally:
            self._waiting = outer

    def _raise(self, unwanted: Awaitable[Any] | None = None) -> None:
        """Raise a copy: one that is kept would keep its frames, which keep us, until garbage is collected."""
        interruption = self._interruption
        if asyncio.iscoroutine(unwanted):
            unwanted.close()
        elif isinstance(unwanted, asyncio.Future):
            unwanted.cancel()
        if isinstance(interruption, Redirected):
            self._interruption = None
            raise Redirected(interruption.to)
        raise CallEnded

    def _interrupt(self, why: CallEnded | Redirected) -> None:
        if isinstance(self._interruption, CallEnded):
            return
        again = self._interruption is not None
        self._interruption = why
        if self._waiting is not None and not again:
            self._waiting.cancel()

    def redirect(self, to: Source) -> None:
        """A live update: leave what runs at once and go on with `to`."""
        asked = NextCheckpoint(twiml=to.twiml) if isinstance(to, Inline) else NextCheckpoint(url=to.url)
        asked.method = "" if isinstance(to, Inline) else to.method
        checkpoints.put(self.services.memory, self._key(checkpoints.NEXT), asked)
        self._asked = True
        self._interrupt(Redirected(to))

    def ended(self, _call: LiveCall) -> None:
        """The call is over: whatever runs is interrupted."""
        self._interrupt(CallEnded())

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        await self.wait(asyncio.sleep(seconds))

    # -- what verbs use --------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> None:
        """Keep the present verb's own state: what it needs to go on in another process. Stored before the next wait; at
        once while the verb waits (a key was pressed)."""
        self.position.state = state
        self._unsaved = True
        if self._waiting is not None:
            self._save()

    def _save(self) -> None:
        self._unsaved = False
        unstored, self._unstored = self._unstored, {}
        checkpoints.put_all(self.services.memory, self.call.sid, {**unstored, checkpoints.POSITION: self.position})

    def _key(self, part: str) -> str:
        return checkpoints.key(self.call.sid, part)

    def resolve(self, reference: str) -> str | None:
        """An absolute URL of one in the present document; None (and an alert) where there can be none."""
        url = resolve(self.base, reference)
        if url is None:
            what = "is relative, and the document has no URL" if self.base is None else "is not a URL"
            self.alert(documents.NO_URL, f"{reference[:200]!r} {what}")
        return url

    async def finish(self, to: Goto) -> None:
        """Tell the application something after the end of the call; what it answers is not run."""
        url = self.resolve(to.url)
        if url is None:
            return
        try:
            async with asyncio.timeout(FINISH_S):
                await documents.may_ask(self)
                if self.call.flight is None or not self.call.flight.given_up:
                    await documents.request(self, url, to.method, list(to.params))
        except TimeoutError:
            self.call.note(timeline.ERROR, f"no answer from {url} within {FINISH_S:g} s")

    def alert(self, code: int, text: str, **about: Any) -> None:
        """Raise an alert about the present document. Next: trunkline.accounts.alerts.Alerts.raise_"""
        text = timeline.masked(text)
        self.call.note(timeline.ERROR, f"{code} {text}")
        self.services.alerts.raise_(self.account.sid, code, resource_sid=self.call.sid, text=text, **about)

    def alert_once(self, code: int, text: str) -> None:
        """Like `alert`, the same only once in this session."""
        if text not in self.told:
            self.told.add(text)
            self.alert(code, text)


__all__ = ["CallEnded", "Goto", "Inline", "Redirected", "Session", "Stop"]

"""<Gather ...>prompts</Gather>: collect keys while prompts (<Say>, <Play>, <Pause>) are played.

With keys the call goes on at `action`; without, at the next verb (or at `action` with `actionOnEmptyResult`). The time
for a key begins when the prompts have ended, or with the last key. `finishOnKey` before any other key: no keys.
Speech is not recognised yet: that is told by an alert, and keys still work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.media.protocol import Item, Silence
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import Attribute, Notes, Noun, Value, VerbSpec, read_attributes
from trunkline.twiml.xmltree import Element
from trunkline.voice import prompting
from trunkline.voice.prompting import KEYS
from trunkline.voice.steps import Goto
from trunkline.voice.verbs import pause, play, say
from trunkline.voice.verbs.later import NOT_SUPPORTED

if TYPE_CHECKING:
    from trunkline.voice.session import Session

DEFAULT_TIMEOUT_S: Final = 5
MAX_TIMEOUT_S: Final = 4 * 3600
MAX_DIGITS: Final = 1000
"""Keys of one <Gather>."""
INVALID_FINISH: Final = 13310
INVALID_METHOD: Final = 13312
INVALID_TIMEOUT: Final = 13313
INVALID_NUM_DIGITS: Final = 13314
INVALID_NESTED: Final = 13320
INVALID_INPUT: Final = 13326
INVALID_BARGE_IN: Final = 13332
INVALID_EMPTY: Final = 13338
DTMF, SPEECH = "dtmf", "speech"
NESTED: Final = {spec.name: spec for spec in (say.SPEC, play.SPEC, pause.SPEC)}


def _input(raw: str) -> tuple[str, ...] | None:
    names = tuple(raw.replace(",", " ").split())
    return names if names and set(names) <= {DTMF, SPEECH} else None


def _finish(raw: str) -> str | None:
    return raw if not raw or (len(raw) == 1 and raw in "0123456789*#") else None


def _timeout(raw: str) -> int | None:
    return DEFAULT_TIMEOUT_S if raw == "auto" else _SECONDS(raw)


_SECONDS: Final = kinds.whole(0, MAX_TIMEOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather(Verb):
    """URLs as written; `timeout` in seconds; `num_digits` 0: no limit; `finish_on_key` empty: none."""

    input: tuple[str, ...] = (DTMF,)
    action: str = ""
    method: str = "POST"
    timeout: int = DEFAULT_TIMEOUT_S
    finish_on_key: str = "#"
    num_digits: int = 0
    action_on_empty_result: bool = False
    barge_in: bool = True
    prompts: tuple[Verb, ...] = ()
    language: str = ""
    hints: str = ""
    speech_timeout: str = ""
    max_speech_time: str = ""
    speech_model: str = ""
    profanity_filter: str = ""
    enhanced: str = ""
    debug: str = ""
    partial_result_callback: str = ""
    partial_result_callback_method: str = "POST"


ATTRIBUTES: Final = (
    Attribute("input", "input", _input, default=(DTMF,), invalid_code=INVALID_INPUT),
    Attribute("action", "action", kinds.url, default=""),
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),
    Attribute("timeout", "timeout", _timeout, default=DEFAULT_TIMEOUT_S, invalid_code=INVALID_TIMEOUT),
    Attribute("finishOnKey", "finish_on_key", _finish, default="#", invalid_code=INVALID_FINISH),
    Attribute("numDigits", "num_digits", kinds.whole(1, MAX_DIGITS), default=0, invalid_code=INVALID_NUM_DIGITS),
    Attribute(
        "actionOnEmptyResult", "action_on_empty_result", kinds.boolean, default=False, invalid_code=INVALID_EMPTY
    ),
    Attribute("bargeIn", "barge_in", kinds.boolean, default=True, invalid_code=INVALID_BARGE_IN),
    Attribute("language", "language", kinds.text, default=""),
    Attribute("hints", "hints", kinds.text, default=""),
    Attribute("speechTimeout", "speech_timeout", kinds.text, default=""),
    Attribute("maxSpeechTime", "max_speech_time", kinds.text, default=""),
    Attribute("speechModel", "speech_model", kinds.text, default=""),
    Attribute("profanityFilter", "profanity_filter", kinds.text, default=""),
    Attribute("enhanced", "enhanced", kinds.text, default=""),
    Attribute("debug", "debug", kinds.text, default=""),
    Attribute("partialResultCallback", "partial_result_callback", kinds.url, default=""),
    Attribute("partialResultCallbackMethod", "partial_result_callback_method", kinds.method, default="POST"),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Gather:
    prompts: list[Verb] = []
    if element.text:
        notes.add(INVALID_NESTED, "text is not allowed in <Gather>", element)
    for child in element.children:
        spec = NESTED.get(child.name)
        if spec is None:
            notes.add(INVALID_NESTED, f"<{child.name[:60]}> is not allowed in <Gather>", child)
            continue
        inner = read_attributes(child, spec.attributes, notes)
        verb = None if inner is None else spec.build(child, inner, notes)
        if isinstance(verb, play.Play) and not verb.url:
            notes.add(INVALID_NESTED, "<Play digits> is not allowed in <Gather>", child)
        elif verb is not None:
            prompts.append(verb)
    return Gather(prompts=tuple(prompts), line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec(
    "Gather",
    kinds=frozenset({DocumentKind.VOICE}),
    build=build,
    attributes=ATTRIBUTES,
    children={name: Noun(name) for name in NESTED},
)


async def run(verb: Gather, session: Session, state: dict[str, Any]) -> Goto | None:
    """Source: Twilio's <Gather>."""
    if SPEECH in verb.input:
        session.alert_once(NOT_SUPPORTED, '<Gather input="speech"> is not supported yet: only keys are heard')
    collector = _Collector(verb, session, state)
    try:
        digits, key = await collector.collect()
    finally:
        collector.close()
    if not digits and not verb.action_on_empty_result:
        return None
    params = (("msg", "Gather End"), ("Digits", digits), ("FinishedOnKey", key))
    return Goto(verb.action, verb.method, params)


class _Collector:
    """One <Gather> under way."""

    def __init__(self, verb: Gather, session: Session, state: dict[str, Any]) -> None:
        self._verb = verb
        self._session = session
        self._call = session.call
        self._loop = asyncio.get_running_loop()
        self._digits: str = state.get("digits", "")
        self._key = state.get("key", "")
        self._prompted = bool(state.get("prompted"))
        self._play: dict[str, Any] = {name: state[name] for name in ("play", "since") if name in state}
        self._segment = int(state.get("segment", 0))
        self._complete = bool(state.get("complete"))
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._hears = DTMF in verb.input
        # Keys pressed before are not for us, except when we have been at it before.
        self._missed = list(self._call.digits) if state else []
        self._call.digits.clear()
        self._call.on_digit = self.digit

    def close(self) -> None:
        """Listen no more."""
        self._call.on_digit = None
        if self._timer is not None:
            self._timer.cancel()

    async def collect(self) -> tuple[str, str]:
        """The keys, and the one that finished them."""
        for digit in self._missed:
            self.digit(digit)
        if not self._complete and not self._prompted and not self._interrupted:
            await self._prompt()
        self._prompted = True
        if not self._complete:
            self._save()
            self._arm()
            await self._session.wait(self._done)
        return self._digits, self._key

    # -- prompts ---------------------------------------------------------------------------------------------

    @property
    def _interrupted(self) -> bool:
        """Whether a key has ended the prompts."""
        return self._verb.barge_in and (self._complete or bool(self._digits))

    async def _prompt(self) -> None:
        """Play what is nested, each as often as it asks."""
        barge = KEYS if self._hears and self._verb.barge_in else ""
        for index, (items, loop) in enumerate(await self._segments()):
            if self._interrupted:
                return
            if index < self._segment:
                continue
            self._segment = index
            state, self._play = {**self._state(), **self._play}, {}
            played = await prompting.play(self._session, items, loop, state, barge=barge)
            if played.why == "digit":
                return

    async def _segments(self) -> list[tuple[list[Item], int]]:
        """What is played, by (items, how often); neighbours that are played once are one."""
        segments: list[tuple[list[Item], int]] = []
        for prompt in self._verb.prompts:
            items, loop = await self._items(prompt)
            if not items:
                continue
            if segments and loop == 1 and segments[-1][1] == 1:
                segments[-1][0].extend(items)
            else:
                segments.append((list(items), loop))
        return segments

    async def _items(self, prompt: Verb) -> tuple[list[Item], int]:
        if isinstance(prompt, say.Say):
            return await say.items(prompt, self._session), prompt.loop
        if isinstance(prompt, play.Play):
            return await play.items(prompt, self._session), prompt.loop
        if isinstance(prompt, pause.Pause) and prompt.length:
            return [Silence(ms=prompt.length * 1000)], 1
        return [], 1

    # -- keys ------------------------------------------------------------------------------------------------

    def digit(self, digit: str) -> None:
        """A key was pressed."""
        verb = self._verb
        if self._complete or not self._hears:
            return
        if digit == verb.finish_on_key:
            self._key, self._complete = digit, True
        else:
            self._digits += digit
            self._complete = len(self._digits) >= (verb.num_digits or MAX_DIGITS)
        self._save()
        if verb.barge_in:
            self._call.stop()
        if self._complete:
            self._finish()
        elif self._prompted:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._verb.timeout, self._finish)

    def _finish(self) -> None:
        self._complete = True
        if not self._done.done():
            self._done.set_result(None)

    def _state(self) -> dict[str, Any]:
        return {"digits": self._digits, "key": self._key, "prompted": self._prompted, "complete": self._complete,
                "segment": self._segment}  # fmt: skip

    def _save(self) -> None:
        self._session.save(self._state())

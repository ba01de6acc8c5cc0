"""Prompts: what is said and played to one leg, prepared and played to its end.

Of one that plays, when it began is stored, so that whoever goes on with the call knows where in it that is, without a
word from the host that played it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trunkline.media.prompts import INVALID_CONTENT_TYPE, PromptFailed
from trunkline.media.protocol import Audio, Digits, Item, Played, Silence
from trunkline.voice.timeline import MEDIA, masked

if TYPE_CHECKING:
    from trunkline.voice.session import Session

TEXT_TOO_LONG: Final = 13521
INVALID_VOICE: Final = 13511
NOT_AUDIO: Final = 13420
BYTES_PER_MS: Final = 16
"""Of a prompt's file: 8000 samples a second, two bytes each."""
KEYS: Final = "0123456789*#ABCD"
"""Every key there is."""


async def spoken(session: Session, text: str, voice: str, language: str) -> list[Item]:
    """A text (or SSML) as items; empty, with an alert, when it cannot be spoken."""
    if not text:
        return []
    prompts = session.services.prompts
    prepared = prompts.cached_speech(text, voice=voice, language=language)
    if prepared is None:
        try:
            prepared = await session.wait(prompts.speech(text, voice=voice, language=language))
        except PromptFailed as failed:
            session.alert(failed.code, failed.reason)
            return []
    if prepared.warning:
        session.alert_once(INVALID_VOICE, prepared.warning)
    return [Audio(path=prepared.path)]


async def fetched(session: Session, reference: str) -> list[Item]:
    """An audio file as items; empty, with an alert, when it cannot be had."""
    url = session.resolve(reference)
    if url is None:
        return []
    prompts, scope = session.services.prompts, session.account.sid
    here = session.audio if session.audio is not None and session.audio[0] == url else None
    prepared = prompts.cached_audio(url, scope=scope) if here is None else None
    if prepared is None:
        try:
            got = prompts.audio(url, scope=scope) if here is None else prompts.given(here[1], here[2])
            prepared = await session.wait(got)
        except PromptFailed as failed:
            code = NOT_AUDIO if failed.code == INVALID_CONTENT_TYPE else failed.code
            session.alert(code, failed.reason, request_url=masked(url))
            return []
    return [Audio(path=prepared.path)]


async def play(session: Session, items: list[Item], loop: int, state: dict[str, Any], *, barge: str = "") -> Played:
    """Play items to the end. After the node was lost, what still plays is only waited for."""
    call, now_ms = session.call, session.services.clock.now_ms()
    audio, name, since_ms = call.audio, str(state.get("play", "")), int(state.get("since", 0))
    future = audio.follow(name, barge) if name else None
    if future is None:
        heard_ms = max(0, (call.lost_ms or now_ms) - since_ms) if name and since_ms else 0
        at = place(items, loop, heard_ms) if heard_ms else Place(0, 0, loop)
        if at is None:
            return Played(leg=call.sid, play=name)
        future = audio.play(items, loop=at.loop, barge=barge, start_item=at.item, start_ms=at.ms)
        since_ms = now_ms - heard_ms
    session.save({**state, "play": str(audio.plays), "since": since_ms})
    played = await session.wait(future)
    if played.why == "failed":
        session.call.note(MEDIA, "the prompt could not be played")
    return played


class Place(NamedTuple):
    """Where in a play: the item, the position in it, and the times that it is still to be played."""

    item: int
    ms: int
    loop: int


def place(items: Sequence[Item], loop: int, heard_ms: int) -> Place | None:
    """Where a play stands after a time; None: at its end. What has no length of its own is begun anew."""
    lengths = [_length(item) for item in items]
    whole = sum(lengths)
    if whole <= 0:
        return Place(0, 0, loop)
    done, rest = divmod(heard_ms, whole)
    if loop and done >= loop:
        return None
    for index, length in enumerate(lengths):
        if rest < length:
            item = items[index]
            start = item.start_ms if isinstance(item, Audio) else 0
            return Place(index, start + rest if isinstance(item, Audio | Silence) else 0, loop - done if loop else 0)
        rest -= length
    return None


def _length(item: Item) -> int:
    """In ms, as the media process plays it."""
    if isinstance(item, Audio):
        try:
            return max(0, os.path.getsize(item.path) // BYTES_PER_MS - item.start_ms)
        except OSError:
            return 0
    if isinstance(item, Digits):
        pauses = {"w": 500, "W": 1000}
        return sum(pauses.get(digit, item.on_ms + item.off_ms) for digit in item.digits)
    return item.ms

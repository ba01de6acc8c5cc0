"""Prompts: what is said and played to one leg, prepared and played to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trunkline.media.prompts import INVALID_CONTENT_TYPE, PromptFailed
from trunkline.media.protocol import Audio, Item, Played
from trunkline.voice.timeline import MEDIA, masked

if TYPE_CHECKING:
    from trunkline.voice.session import Session

TEXT_TOO_LONG: Final = 13521
INVALID_VOICE: Final = 13511
NOT_AUDIO: Final = 13420
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
    audio = session.call.audio
    name = str(state.get("play", ""))
    future = audio.follow(name, barge) if name else None
    if future is None:
        future = audio.play(items, loop=loop, barge=barge)
    session.save({**state, "play": str(audio.plays)})
    played = await session.wait(future)
    if played.why == "failed":
        session.call.note(MEDIA, "the prompt could not be played")
    return played

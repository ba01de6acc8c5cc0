"""Prompts: spoken texts and fetched audio files as files of PCM that a leg can play, kept on disk.

    prompts = Prompts(folder, speech=speech_workers(settings.speech), audio=audio_workers(), fetch=fetch,
                      max_bytes=settings.media.prompt_bytes, engine=settings.speech.engine)
    await prompts.start()
    prepared = prompts.cached_speech(text, voice=voice) or await prompts.speech(text, voice=voice)
    prepared = prompts.cached_audio(url) or await prompts.audio(url)

The files are headerless 16-bit little-endian PCM, 8000 Hz, mono, named by the hash of what they were made from, so that
a file never changes under a leg that plays it. All together they take at most `max_bytes`: the least recently used go,
but none that is held (`hold`) or was given out within GRACE_S, for a leg may be about to open it. What is asked for
many times at once is made once.

A URL is asked again as its Cache-Control, ETag and Last-Modified say (RFC 9111); the same audio is decoded only once.

Runs in the node: no audio passes through here, the workers write the files.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from trunkline.media.prompt_folder import PromptFolder
from trunkline.media.speech.voices import engine_versions, resolve
from trunkline.media.url_notes import Fetched, UrlNote, UrlNotes, noted
from trunkline.media.worker_client import Refused, WorkerFailed

FETCH_FAILED: Final = 11200
INVALID_CONTENT_TYPE: Final = 12300
INTERNAL_FAILURE: Final = 12400
SPEECH_VERSION: Final = "1"
"""Changes when the same text would be spoken differently by the same engine."""
BAD_FOR_S: Final = 60.0
"""Seconds for which a file that could not be read is refused without another try."""
MAX_BAD: Final = 1000
"""Such files remembered."""
MAX_MAKING: Final = 2000
"""Prompts being made at the same time; more are refused."""
CHUNK_BYTES: Final = 1024 * 1024

_NOT_MODIFIED: Final = 304
_OK: Final = 200
_CONTENT_TYPES: Final = frozenset({"application/ogg", "video/mp4", "video/webm", "video/ogg", "video/quicktime"})
"""Types that are taken beside audio/*."""


class PromptFailed(Exception):
    """There is no such prompt. `code` is Twilio's, `reason` a sentence for the customer's alert."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Prepared(msgspec.Struct, frozen=True):
    """A prompt that can be played. `warning` says when it is not quite what was asked for (a voice that is not
    there)."""

    path: str
    ms: int
    warning: str = ""


class Worker(Protocol):
    """trunkline.media.worker_client.Workers, as far as it is needed here."""

    async def start(self) -> None: ...
    async def call(self, op: str, **args: Any) -> Any: ...
    async def close(self) -> None: ...


class Fetch(Protocol):
    """Gets a URL's body into the file `into` (bounded in size), or says why not. Never raises but CancelledError."""

    async def __call__(self, url: str, *, into: Path, etag: str, last_modified: str) -> Fetched: ...


class Prompts:
    """See the module. Use from one event loop. `engine` is settings.speech.engine."""

    def __init__(
        self, folder: Path, *, speech: Worker, audio: Worker, fetch: Fetch, max_bytes: int, engine: str = "auto"
    ) -> None:
        self._speech = speech
        self._audio = audio
        self._fetch = fetch
        self._folder = PromptFolder(folder, max_bytes)
        self._urls = UrlNotes(folder / "urls")
        self._version = f"{SPEECH_VERSION} {engine} {engine_versions()}"
        self._making: dict[str, asyncio.Task[Prepared]] = {}
        self._bad: dict[str, tuple[float, PromptFailed]] = {}
        self._drafts = 0
        self.made = 0
        """Prompts made (not found in the cache)."""

    async def start(self) -> None:
        """Read what is on disk, and start the speech workers, which load their engine meanwhile. Raises OSError."""
        await asyncio.to_thread(self._folder.open)
        await asyncio.to_thread(self._urls.open)
        with suppress(WorkerFailed):  # the first text tries again and tells
            await self._speech.start()

    async def close(self) -> None:
        """End the workers; what waits for them fails."""
        await self._speech.close()
        await self._audio.close()
        if self._making:
            await asyncio.wait(self._making.values())

    # -- texts

    def cached_speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared | None:
        """The prompt of a text that was spoken before, without waiting."""
        return self._kept(self._speech_name(text, voice, language))

    async def speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared:
        """Speak a text, or SSML (it begins with `<speak`). Raises PromptFailed."""
        name = self._speech_name(text, voice, language)
        return self._kept(name) or await self._once(name, self._speak(name, text, voice, language))

    def _speech_name(self, text: str, voice: str, language: str) -> str:
        chosen = resolve(voice, language)
        key = "\0".join((self._version, chosen.language, chosen.gender, chosen.age, text))
        return "s-" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:40]

    async def _speak(self, name: str, text: str, voice: str, language: str) -> Prepared:
        try:
            spoken = await self._speech.call(
                "speak", text=text, target=str(self._folder.path(name)), voice=voice, language=language
            )
        except Refused as refused:
            code = INTERNAL_FAILURE if refused.kind == "MemoryError" else 13520
            raise PromptFailed(code, f"<Say> cannot be spoken: {refused}") from refused
        except WorkerFailed as failed:
            raise PromptFailed(INTERNAL_FAILURE, f"<Say> cannot be spoken: {failed}") from failed
        return self._keep(name, int(spoken["samples"]), str(spoken["warning"]))

    # -- files

    def cached_audio(self, url: str, *, scope: str = "") -> Prepared | None:
        """The prompt of a URL whose answer is still fresh, without waiting."""
        note = self._urls.get(noted(scope, url))
        return self._kept(note.name) if note is not None and note.fresh(time.time()) else None

    async def audio(self, url: str, *, scope: str = "") -> Prepared:
        """Fetch a file (or ask whether it changed) and decode it. Raises PromptFailed.

        What was fetched for one `scope` (an account) is not given to another without asking.
        """
        key = noted(scope, url)
        return self.cached_audio(url, scope=scope) or await self._once(key, self._fetched(key, url))

    async def given(self, body: bytes, content_type: str) -> Prepared:
        """Decode a file that came as an answer. Raises PromptFailed."""
        draft = self._draft()
        try:
            await asyncio.to_thread(draft.write_bytes, body)
            return await self._decode(draft, content_type.partition(";")[0].strip().lower())
        except OSError as error:
            raise PromptFailed(INTERNAL_FAILURE, f"the file cannot be kept: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)

    def _draft(self) -> Path:
        self._drafts += 1
        return self._folder.path(f"fetch-{os.getpid()}-{self._drafts}.draft")

    async def _fetched(self, key: str, url: str) -> Prepared:
        old = self._urls.get(key)
        kept = self._kept(old.name) if old is not None else None
        if old is None or kept is None:
            old = UrlNote(name="")
        draft = self._draft()
        try:
            answer = await self._fetch(url, into=draft, etag=old.etag, last_modified=old.last_modified)
            if answer.error_code:
                raise PromptFailed(answer.error_code, answer.error)
            if answer.status == _NOT_MODIFIED and kept is not None:
                self._urls.put(key, answer.note(old.name, time.time(), old))
                return kept
            if answer.status != _OK:
                raise PromptFailed(FETCH_FAILED, f"HTTP status {answer.status}")
            if not (answer.content_type.startswith("audio/") or answer.content_type in _CONTENT_TYPES):
                raise PromptFailed(INVALID_CONTENT_TYPE, f"content type {answer.content_type[:100]!r} is no audio")
            if answer.body:
                await asyncio.to_thread(draft.write_bytes, answer.body)
            prepared = await self._decode(draft, answer.content_type)
        except OSError as error:
            raise PromptFailed(INTERNAL_FAILURE, f"the file cannot be kept: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        self._urls.put(key, answer.note(Path(prepared.path).stem, time.time(), old))
        return prepared

    async def _decode(self, source: Path, content_type: str) -> Prepared:
        digest = await asyncio.to_thread(_digest, source, content_type)
        name = f"a-{digest[:40]}"
        if (kept := self._kept(name)) is not None:
            return kept
        until, why = self._bad.get(name, (0.0, None))
        if why is not None and until > time.monotonic():
            raise PromptFailed(why.code, why.reason)
        target = str(self._folder.path(name))
        try:
            decoded = await self._audio.call("decode", source=str(source), target=target, content_type=content_type)
        except WorkerFailed as failed:
            code = INVALID_CONTENT_TYPE if isinstance(failed, Refused) else INTERNAL_FAILURE
            self._bad[name] = time.monotonic() + BAD_FOR_S, PromptFailed(code, f"the audio file: {failed}")
            while len(self._bad) > MAX_BAD:
                del self._bad[next(iter(self._bad))]
            raise PromptFailed(code, f"the audio file: {failed}") from failed
        return self._keep(name, int(decoded["samples"]))

    # -- both

    def hold(self, path: str) -> None:
        """Keep a file until as many `let_go`: for legs that may play it long after it was given out."""
        self._folder.hold(Path(path).stem)

    def let_go(self, path: str) -> None:
        self._folder.let_go(Path(path).stem)

    @property
    def kept_bytes(self) -> int:
        """What all prompts take."""
        return self._folder.total

    def _kept(self, name: str) -> Prepared | None:
        entry = self._folder.use(name)
        return None if entry is None else Prepared(str(self._folder.path(name)), entry.ms, entry.warning)

    def _keep(self, name: str, samples: int, warning: str = "") -> Prepared:
        entry = self._folder.add(name, samples * 2, warning)
        if entry is None:
            raise PromptFailed(INTERNAL_FAILURE, "there is no room for another prompt")
        self.made += 1
        return Prepared(str(self._folder.path(name)), entry.ms, warning)

    async def _once(self, key: str, work: Coroutine[Any, Any, Prepared]) -> Prepared:
        """Await work that many may want at once. A caller who goes away does not stop it."""
        task = self._making.get(key)
        if task is not None:
            work.close()
        elif len(self._making) >= MAX_MAKING:
            work.close()
            raise PromptFailed(INTERNAL_FAILURE, "too many prompts are being made")
        else:
            task = self._making[key] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: str, task: "asyncio.Task[Prepared]") -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, even when nobody waits any more


def _digest(path: Path, content_type: str) -> str:
    """What tells one file (read as its type says) from another."""
    digest = hashlib.sha256(content_type.encode("utf-8", "replace"))
    with suppress(FileNotFoundError), path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

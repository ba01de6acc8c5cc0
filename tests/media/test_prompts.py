"""Prompts: made once, kept, asked for again as their server says, and gone when there are too many."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.media import prompt_folder, prompts, wav
from trunkline.media.prompts import PromptFailed, Prompts
from trunkline.media.speech import tone_pattern
from trunkline.media.url_notes import Fetched, UrlNote
from trunkline.media.worker_client import Refused, WorkerFailed, audio_workers, speech_workers
from trunkline.settings.voice import Speech

URL = "https://files.example.com/welcome.wav"


class FakeWorker:
    """Writes as many samples as the text has characters, or as the source has bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.warning = ""

    async def start(self) -> None:
        self.calls.append(("start", {}))

    async def close(self) -> None:
        self.calls.append(("close", {}))

    async def call(self, op: str, **args: Any) -> Any:
        self.calls.append((op, args))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        samples = len(args["text"]) * 8 if op == "speak" else Path(args["source"]).stat().st_size * 8
        Path(args["target"]).write_bytes(bytes(samples * 2))
        return {"samples": samples, "warning": self.warning, "ms": samples // 8}

    @property
    def made(self) -> int:
        return sum(op in ("speak", "decode") for op, _ in self.calls)


class FakeServer:
    """Answers fetches with `answer`; notes what it was asked."""

    def __init__(self) -> None:
        self.answer = Fetched(status=200, content_type="audio/wav", body=b"0123456789")
        self.asked: list[tuple[str, str, str]] = []

    async def __call__(self, url: str, *, into: Path, etag: str, last_modified: str) -> Fetched:
        self.asked.append((url, etag, last_modified))
        await asyncio.sleep(0)
        return self.answer


class Rig:
    def __init__(self, folder: Path, max_bytes: int = 1 << 20) -> None:
        self.folder = folder
        self.speech, self.audio, self.server = FakeWorker(), FakeWorker(), FakeServer()
        self.prompts = Prompts(folder, speech=self.speech, audio=self.audio, fetch=self.server, max_bytes=max_bytes)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "prompts")
    await rig.prompts.start()
    yield rig
    await rig.prompts.close()


async def test_a_text_is_spoken_once_and_kept(rig: Rig) -> None:
    assert rig.prompts.cached_speech("Hello", voice="man") is None
    first = await rig.prompts.speech("Hello", voice="man")
    assert first.ms == 5
    assert Path(first.path).stat().st_size == 80
    assert await rig.prompts.speech("Hello", voice="man") == first
    assert rig.prompts.cached_speech("Hello", voice="man") == first
    assert rig.prompts.cached_speech("Hello", voice="woman") is None
    assert rig.prompts.cached_speech("Hello", voice="man", language="de-DE") is None
    assert rig.speech.made == 1


async def test_voices_that_sound_the_same_share_their_audio(rig: Rig) -> None:
    await rig.prompts.speech("Hello", voice="Polly.Joanna")
    assert rig.prompts.cached_speech("Hello", voice="alice", language="en-US") is not None


async def test_a_hundred_at_once_are_made_once(rig: Rig) -> None:
    results = await asyncio.gather(*(rig.prompts.speech("Hello") for _ in range(100)))
    assert len({result.path for result in results}) == 1
    assert rig.speech.made == 1


async def test_a_caller_who_goes_away_stops_nobody_else(rig: Rig) -> None:
    rig.speech.gate = asyncio.Event()
    first, second = asyncio.create_task(rig.prompts.speech("Hello")), asyncio.create_task(rig.prompts.speech("Hello"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    rig.speech.gate.set()
    assert (await second).ms == 5
    assert first.cancelled()


async def test_another_engine_speaks_anew(tmp_path: Path, rig: Rig) -> None:
    await rig.prompts.speech("Hello")
    other = Prompts(rig.folder, speech=rig.speech, audio=rig.audio, fetch=rig.server, max_bytes=1 << 20, engine="tones")
    await other.start()
    assert other.cached_speech("Hello") is None


async def test_prompts_outlive_a_restart(rig: Rig) -> None:
    spoken, fetched = await rig.prompts.speech("Hello"), await rig.prompts.audio(URL)
    (rig.folder / "s-left.pcm.123.draft").write_bytes(b"half")
    again = Rig(rig.folder)
    await again.prompts.start()
    assert again.prompts.cached_speech("Hello") == spoken
    again.server.answer = Fetched(status=304)
    assert await again.prompts.audio(URL) == fetched
    assert again.prompts.kept_bytes == rig.prompts.kept_bytes
    assert not [name for name in again.files if name.endswith(".draft")]


async def test_a_file_that_lost_its_content_with_the_power_is_made_anew(rig: Rig) -> None:
    spoken = await rig.prompts.speech("Hello")
    Path(spoken.path).write_bytes(b"")
    again = Rig(rig.folder)
    await again.prompts.start()
    assert again.prompts.cached_speech("Hello") is None
    assert (await again.prompts.speech("Hello")).ms == spoken.ms
    assert Path(spoken.path).stat().st_size > 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("CannotSpeak", "SSML: bad"), 13520),
        (WorkerFailed("took too long"), 12400),
        (Refused("MemoryError", "x"), 12400),
    ],
)
async def test_speech_that_fails_says_why_and_may_be_tried_again(rig: Rig, error: WorkerFailed, code: int) -> None:
    rig.speech.fails = error
    with pytest.raises(PromptFailed) as failed:
        await rig.prompts.speech("Hello")
    assert failed.value.code == code
    assert str(error) in failed.value.reason
    rig.speech.fails = None
    assert (await rig.prompts.speech("Hello")).ms == 5


async def test_a_warning_stays_with_its_prompt(rig: Rig) -> None:
    rig.speech.warning = "no engine here speaks fil-PH"
    assert (await rig.prompts.speech("Umaga", language="fil-PH")).warning == rig.speech.warning
    cached = rig.prompts.cached_speech("Umaga", language="fil-PH")
    assert cached is not None
    assert cached.warning == rig.speech.warning


# -- room


async def test_the_least_recently_used_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_folder, "GRACE_S", 0.0)
    rig = Rig(tmp_path / "p", max_bytes=1600)  # ten of ten characters
    await rig.prompts.start()
    texts = [f"text {number:05}" for number in range(10)]
    for text in texts:
        await rig.prompts.speech(text)
    assert rig.prompts.kept_bytes == 1600
    rig.prompts.cached_speech(texts[0])
    await rig.prompts.speech("text 00010")
    await rig.prompts.speech("text 00011")
    assert [text for text in texts if rig.prompts.cached_speech(text) is None] == texts[1:3]
    assert rig.prompts.kept_bytes == 1600
    assert len(rig.files) == 10


async def test_what_is_held_or_was_just_given_out_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path / "p", max_bytes=480)
    await rig.prompts.start()
    held = await rig.prompts.speech("a" * 10)
    await rig.prompts.speech("b" * 10)
    rig.prompts.hold(held.path)
    await rig.prompts.speech("c" * 10)
    with pytest.raises(PromptFailed, match="no room"):  # all were given out a moment ago
        await rig.prompts.speech("d" * 10)
    monkeypatch.setattr(prompt_folder, "GRACE_S", 0.0)
    await rig.prompts.speech("d" * 10)
    await rig.prompts.speech("e" * 10)
    assert Path(held.path).exists()
    rig.prompts.let_go(held.path)
    await rig.prompts.speech("f" * 10)
    assert not Path(held.path).exists()
    assert len(rig.files) == 3


async def test_a_folder_that_has_grown_too_large_is_cut_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(10):
        path = tmp_path / "p" / f"s-{number}.pcm"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    rig = Rig(tmp_path / "p", max_bytes=300)
    await rig.prompts.start()
    assert rig.files == ["s-7.pcm", "s-8.pcm", "s-9.pcm"]


async def test_a_file_that_somebody_removed_is_made_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_folder, "TOUCH_S", -1.0)
    prepared = await rig.prompts.speech("Hello")
    Path(prepared.path).unlink()
    assert rig.prompts.cached_speech("Hello") is None
    assert (await rig.prompts.speech("Hello")).path == prepared.path
    assert Path(prepared.path).exists()


# -- URLs


async def test_a_file_is_fetched_decoded_and_asked_for_again_with_its_validators(rig: Rig) -> None:
    rig.server.answer = Fetched(
        status=200, content_type="audio/wav", body=b"0123456789", headers={"etag": '"1"', "last-modified": "then"}
    )
    first = await rig.prompts.audio(URL)
    assert first.ms == 10
    assert rig.prompts.cached_audio(URL) is None
    rig.server.answer = Fetched(status=304)
    assert await rig.prompts.audio(URL) == first
    assert await rig.prompts.audio(URL) == first
    assert rig.server.asked == [(URL, "", ""), (URL, '"1"', "then"), (URL, '"1"', "then")]
    assert rig.audio.made == 1


async def test_a_file_that_is_there_already_is_decoded_and_kept_no_draft(rig: Rig) -> None:
    given = await rig.prompts.given(b"0123456789", "Audio/WAV; x=y")
    assert given.ms == 10
    assert await rig.prompts.audio(URL) == given  # the same audio
    assert len(rig.server.asked) == 1
    rig.audio.fails = Refused("ValueError", "no audio")
    with pytest.raises(PromptFailed) as failed:
        await rig.prompts.given(b"other", "audio/wav")
    assert failed.value.code == 12300
    assert not [name for name in rig.files if name.endswith(".draft")]


async def test_a_changed_file_gets_a_path_of_its_own(rig: Rig) -> None:
    first = await rig.prompts.audio(URL)
    rig.server.answer = Fetched(status=200, content_type="audio/wav", body=b"other")
    second = await rig.prompts.audio(URL)
    assert second.path != first.path
    assert Path(first.path).exists()


async def test_the_same_audio_is_decoded_once(rig: Rig) -> None:
    first = await rig.prompts.audio(URL)
    assert await rig.prompts.audio(URL + "?2") == first
    assert rig.audio.made == 1
    rig.server.answer = Fetched(status=200, content_type="audio/basic", body=b"0123456789")
    assert (await rig.prompts.audio(URL)).path != first.path  # the same bytes, read as something else


@pytest.mark.parametrize(
    ("headers", "fresh_s"),
    [
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "public, max-age=60, s-maxage=120"}, 120),
        ({"cache-control": "max-age=60", "age": "50"}, 10),
        ({"cache-control": "max-age=99999999"}, 86_400),
        ({"cache-control": "no-cache, max-age=60"}, 0),
        ({"cache-control": "no-store"}, 0),
        ({"cache-control": "max-age=x"}, 0),
        ({"expires": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90),
        ({"expires": "0"}, 0),
        ({}, 0),
    ],
)
def test_how_long_an_answer_is_fresh(headers: dict[str, str], fresh_s: float) -> None:
    note = Fetched(status=200, headers=headers).note("a-1", 10.0, UrlNote(""))
    assert note.fresh_until == 10.0 + fresh_s
    assert note.fresh(10.0) == (fresh_s > 0)
    assert not note.fresh(10.0 + fresh_s)


async def test_a_fresh_file_is_not_asked_for(rig: Rig) -> None:
    rig.server.answer = Fetched(
        status=200, content_type="audio/mpeg", body=b"abc", headers={"cache-control": "max-age=60"}
    )
    first = await rig.prompts.audio(URL, scope="AC1")
    assert await rig.prompts.audio(URL, scope="AC1") == first == rig.prompts.cached_audio(URL, scope="AC1")
    assert len(rig.server.asked) == 1
    assert rig.prompts.cached_audio(URL, scope="AC2") is None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Fetched(error_code=11205, error="connection refused"), 11205),
        (Fetched(status=404, content_type="audio/wav"), 11200),
        (Fetched(status=304), 11200),
        (Fetched(status=200, content_type="text/html", body=b"<html>"), 12300),
        (Fetched(status=200, content_type="", body=b"RIFF"), 12300),
    ],
)
async def test_what_cannot_be_had_says_why(rig: Rig, answer: Fetched, code: int) -> None:
    rig.server.answer = answer
    with pytest.raises(PromptFailed) as failed:
        await rig.prompts.audio(URL)
    assert failed.value.code == code
    assert rig.files == []
    rig.server.answer = Fetched(status=200, content_type="audio/wav", body=b"0123456789")
    assert (await rig.prompts.audio(URL)).ms == 10


async def test_a_file_that_cannot_be_read_is_not_tried_again_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.audio.fails = Refused("Unreadable", "no audio in it")
    for _ in range(3):
        with pytest.raises(PromptFailed, match="no audio") as failed:
            await rig.prompts.audio(URL)
        assert failed.value.code == 12300
    assert rig.audio.made == 1
    monkeypatch.setattr(prompts, "BAD_FOR_S", 0.0)
    rig.server.answer = Fetched(status=200, content_type="audio/wav", body=b"another")
    for _ in range(2):
        with pytest.raises(PromptFailed):
            await rig.prompts.audio(URL)
    assert rig.audio.made == 3


async def test_too_many_at_once_are_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_MAKING", 2)
    results = await asyncio.gather(*(rig.prompts.speech(f"text {n}") for n in range(4)), return_exceptions=True)
    assert [isinstance(result, PromptFailed) for result in results] == [False, False, True, True]


async def test_with_real_workers(tmp_path: Path) -> None:
    server = FakeServer()
    tone = (9000 * np.sin(np.arange(4000) / 5)).astype("<i2").tobytes()
    server.answer = Fetched(status=200, content_type="audio/x-wav", body=wav.header(len(tone)) + tone)
    prompts = Prompts(
        tmp_path, speech=speech_workers(Speech(engine="tones")), audio=audio_workers(), fetch=server, max_bytes=1 << 20,
        engine="tones",
    )  # fmt: skip
    await prompts.start()
    spoken, played = await asyncio.gather(prompts.speech("Press one"), prompts.audio(URL))
    assert Path(played.path).read_bytes() == tone
    assert tone_pattern.hears(np.frombuffer(Path(spoken.path).read_bytes(), "<i2"), "Press one")
    server.answer = Fetched(status=200, content_type="audio/x-wav", body=b"no audio at all")
    with pytest.raises(PromptFailed) as failed:
        await prompts.audio(URL)
    assert failed.value.code == 12300
    await prompts.close()

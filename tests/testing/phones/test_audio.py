"""The studio that phones have: two calls may want the same text at once."""

import asyncio
from pathlib import Path

from trunkline.testing.phones.audio import SpeechStudio
from trunkline.testing.phones.things import Spoken


class Speaker:
    """A speech worker that answers when it is let."""

    def __init__(self):
        self.targets = []
        self.go_on = asyncio.Event()

    async def call(self, what, *, target, **more):
        self.targets.append(target)
        await self.go_on.wait()
        await asyncio.to_thread(Path(target).write_bytes, b"\1\0\2\0")

    async def close(self):
        pass


async def test_the_same_text_wanted_twice_at_once_is_spoken_for_both():
    studio = SpeechStudio("tones")
    studio._speech = speaker = Speaker()
    both = [asyncio.create_task(studio.samples(Spoken(text="Hello"))) for _ in range(2)]
    while len(speaker.targets) < 2:
        await asyncio.sleep(0)
    speaker.go_on.set()
    assert [list(samples) for samples in await asyncio.gather(*both)] == [[1, 2], [1, 2]]
    assert list(await studio.samples(Spoken(text="Hello"))) == [1, 2]
    assert len(speaker.targets) == 2
    assert list(Path(studio._folder.name).iterdir()) == []
    await studio.close()

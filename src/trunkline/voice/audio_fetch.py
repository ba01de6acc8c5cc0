"""How prompts get their audio files: a GET like any webhook's, guarded and bounded, asked again by ETag."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from trunkline.media.url_notes import Fetched
from trunkline.model.clock import Clock
from trunkline.settings import Settings
from trunkline.webhooks.fetch import Fetcher, FetchRequest
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

FETCHES: Final = 8
"""Files fetched at once: each may be held in memory."""
_NOT_MODIFIED: Final = 304


class AudioFetch:
    """See trunkline.media.prompts.Fetch."""

    def __init__(self, client: Client, guard: Guard, clock: Clock, settings: Settings) -> None:
        webhooks = msgspec.structs.replace(settings.webhooks, response_bytes=settings.media.audio_file_bytes)
        self._fetcher = Fetcher(client, guard, clock, webhooks, allow_http=settings.security.webhook_http)
        self._slots = asyncio.Semaphore(FETCHES)

    async def __call__(self, url: str, *, into: Path, etag: str, last_modified: str) -> Fetched:
        """The file's bytes, or that it has not changed, or why not."""
        headers = [("If-None-Match", etag)] if etag else []
        if last_modified:
            headers.append(("If-Modified-Since", last_modified))
        async with self._slots:
            outcome = await self._fetcher.fetch(FetchRequest(url=url, secret="", method="GET", headers=headers))
            answer = outcome.answer
            if answer is None or (outcome.error_code and answer.status != _NOT_MODIFIED):
                return Fetched(error_code=outcome.error_code, error=outcome.error)
            return Fetched(
                status=answer.status,
                content_type=answer.content_type.partition(";")[0].strip().lower(),
                headers={name.lower(): value for name, value in outcome.attempts[-1].response_headers.items()},
                body=answer.body,
            )

"""The real world of a release: a command a node, and the nodes' own /metrics and /readyz."""

import asyncio
import contextlib
import os
import shlex
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final

from trunkline.release.canary import Sample, read
from trunkline.release.steps import MoveFailed, Node
from trunkline.settings.release import Release

FETCH_TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 16 << 20
POLL_S: Final = 0.5
TOLD: Final = 300
"""Characters of what a failed command printed last that are kept."""


class NodesWorld:
    """`trunkline.release.steps.World` by the settings' command; see `trunkline.settings.release`."""

    def __init__(self, settings: Release, metrics_token: str, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._token = metrics_token
        self._say = say

    def say(self, text: str) -> None:
        """See `World`."""
        self._say(text)

    async def sleep(self, seconds: float) -> None:
        """See `World`."""
        await asyncio.sleep(seconds)

    async def move(self, node: Node, version: str) -> None:
        """See `World`."""
        values = {"{version}": version, **{f"{{{name}}}": value for name, value in node._asdict().items()}}
        words = shlex.split(self._settings.move)
        for name, value in values.items():  # after the split, so that no value can become a second word
            words = [word.replace(name, value) for word in words]
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MoveFailed(f"{node.name}: {words[0]} cannot be run: {error}") from None
        try:
            printed, _ = await asyncio.wait_for(process.communicate(), self._settings.move_timeout_s)
        except TimeoutError:
            raise MoveFailed(f"{node.name}: release.move took over {self._settings.move_timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            told = " ".join(printed.decode(errors="replace").split())[-TOLD:]
            raise MoveFailed(f"{node.name}: release.move ended with status {process.returncode}: {told}")
        await self._until_ready(node)

    async def _until_ready(self, node: Node) -> None:
        end = time.monotonic() + self._settings.ready_s
        while True:
            try:
                await self._get(node, "/readyz")
            except OSError as error:
                if time.monotonic() > end:
                    why = f"{node.name} is not ready {self._settings.ready_s:g} s after the move: {error}"
                    raise MoveFailed(why) from None
                await asyncio.sleep(POLL_S)
            else:
                return

    async def sample(self, node: Node) -> Sample:
        """See `World`."""
        try:
            return read(await self._get(node, "/metrics"))
        except (OSError, ValueError) as error:
            raise MoveFailed(f"{node.name}: /metrics cannot be read: {error}") from None

    async def _get(self, node: Node, path: str) -> str:
        """Raises OSError, also for a status that is not 200."""
        return await asyncio.to_thread(self._fetch, node.http.rstrip("/") + path)

    def _fetch(self, url: str) -> str:
        request = urllib.request.Request(url)  # noqa: S310 - a node's address, of the cluster's own records
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
            return str(answer.read(MAX_ANSWER).decode(errors="replace"))

"""What request handlers are given: the parts of this node, by name. Filled in by `trunkline.bootstrap`."""

from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.inflight.store import Inflight
from trunkline.messaging.optout import OptOuts
from trunkline.messaging.outbound import Outbound
from trunkline.messaging.privacy import Privacy
from trunkline.messaging.reader import Reader
from trunkline.messaging.scheduler import Scheduler
from trunkline.model.clock import Clock
from trunkline.settings import Settings
from trunkline.storage.archive import Archive
from trunkline.storage.blobs import BlobStore
from trunkline.storage.database import Database
from trunkline.storage.queue import Queue
from trunkline.storage.secrets import Secrets
from trunkline.voice.calls import Calls


class AudioFiles(Protocol):
    """Turns recordings into what is asked for, in a worker process (trunkline.media)."""

    def convert(self, source: Path, target: Path, *, form: str, channels: int) -> Awaitable[None]:
        """Write the WAV file `source` to `target` as `wav` or `mp3` with 1 or 2 channels. Raises OSError."""


@dataclass(slots=True)
class Services:
    """One of each."""

    settings: Settings
    clock: Clock
    database: Database
    queue: Queue
    archive: Archive
    blobs: BlobStore
    secrets: Secrets
    directory: Directory
    inflight: Inflight
    reader: Reader
    outbound: Outbound
    optouts: OptOuts
    alerts: Alerts
    privacy: Privacy
    scheduler: Scheduler
    calls: Calls | None = None
    """None where the server has no voice (`sip.enabled = false`)."""
    audio: AudioFiles | None = None
    """None where there is no worker for audio: recordings come as they were written, without MP3."""

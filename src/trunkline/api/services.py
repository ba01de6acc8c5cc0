"""What request handlers are given: the parts of this node, by name. Filled in by `trunkline.bootstrap`."""

from dataclasses import dataclass

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

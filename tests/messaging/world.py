"""A small messaging node: the real queue, database, directory and lines, with a scripted carrier and archive."""

import asyncio
import time

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.inflight.store import Inflight
from trunkline.messaging.connectors.base import Submitted, Unavailable
from trunkline.messaging.dispatch import Dispatcher
from trunkline.messaging.inbound import Inbound
from trunkline.messaging.media import MediaFiles, OutboundMedia
from trunkline.messaging.optout import OptOuts
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.messaging.reader import Reader
from trunkline.messaging.receipts import Receipts
from trunkline.messaging.routing import Router
from trunkline.messaging.scheduler import Scheduler
from trunkline.model.account import Account
from trunkline.model.numbers import Alert, PhoneNumber
from trunkline.model.sid import new_sid
from trunkline.settings import Http, Settings, Webhooks
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

AC = "AC" + "a" * 32
TOKEN = "0123456789abcdef0123456789abcdef"
OURS, THEM = "+12025550100", "+14155550199"
PATIENCE_S = 60.0


class MovableClock:
    """The machine's clock, with an offset that tests move."""

    def __init__(self):
        self.offset_ms = 0

    def now_ms(self):
        return time.time_ns() // 1_000_000 + self.offset_ms

    def monotonic(self):
        return time.monotonic() + self.offset_ms / 1000


class Carrier:
    """A connector that answers as the test says; by default it takes everything, one id a segment."""

    def __init__(self, name="carrier", window=100):
        self.name = name
        self.window = window
        self.taken = []
        self.open = {}
        self.answer = lambda submission: Submitted(
            [f"id-{submission.message.sid}-{n}" for n in range(submission.message.num_segments)]
        )
        """What a submit gets; None: nothing until the test calls `settle`."""
        self.down = False
        self.wake = lambda: None

    def capacity(self):
        return 0 if self.down else self.window - len(self.open)

    def submit(self, submission):
        self.taken.append(submission.message)
        outcome = self.answer(submission)
        if outcome is None:
            self.open[submission.message.sid] = submission
        else:
            submission.done(outcome)
            self.wake()

    def settle(self, sid, outcome):
        self.open.pop(sid).done(outcome)
        self.wake()


class MemoryArchive:
    """Documents in a dictionary."""

    def __init__(self):
        self.documents = {}

    async def land(self, documents):
        for document in documents:
            self.documents[document.account, document.sid] = document

    async def revise(self, document):
        await self.land([document])

    async def get(self, account, sid):
        return self.documents.get((account, sid))

    async def page(self, account, kind, *, before, after, limit, filters):
        """Of the filters `to` alone is looked at."""
        found = [document for (owner, sid), document in self.documents.items() if owner == account]
        found = [one for one in found if after < one.sid[2:] < (before or "g")]
        to = f'"to":"{filters["to"]}"'.encode() if "to" in filters else b""
        found = [one for one in found if to in one.body and not filters.keys() - {"to"}]
        return sorted(found, key=lambda one: one.sid[2:], reverse=True)[:limit]


class World:
    """Everything wired as bootstrap does it, on a folder that survives `restart`."""

    def __init__(self, folder, database, clock, settings=None, carriers=None):
        self.folder, self.database, self.clock = folder, database, clock
        self.carriers = carriers or {"carrier": Carrier()}
        self.settings = settings or Settings()
        if not self.settings.connectors:
            names = tuple(Http(name=name, url="http://127.0.0.1:1/") for name in self.carriers)
            self.settings = msgspec.structs.replace(self.settings, connectors=names)
        self.archive = MemoryArchive()
        self.delivered = []
        """Owed callbacks, as the delivery would be told of them."""

    async def start(self):
        settings, clock = self.settings, self.clock
        self.queue = SqliteQueue(self.folder / "queue.db")
        self.inflight = Inflight(self.queue, clock)
        self.directory = Directory(self.database)
        await self.directory.start()
        self.optouts = OptOuts(self.database, self.directory)
        await self.optouts.start()
        self.alerts = Alerts(self.database, clock)
        self.client, self.guard = Client(), Guard.development()
        self.fetcher = Fetcher(self.client, self.guard, clock, settings.webhooks)
        router = Router(settings.routes, settings.rates, list(self.carriers))
        self.outbound = Outbound(settings, self.inflight, self.directory, router, self.optouts.message_opted_out)
        self.reader = Reader(self.inflight, self.archive, self.database)
        self.receipts = Receipts(self.inflight, self.outbound, self.archive)
        self.dispatcher = Dispatcher(
            self.inflight,
            self.carriers,
            rate_of=self.outbound.rate_of,
            pace_of=self.outbound.pace_of,
            allow=self.outbound.allow,
            outcome=self.outbound.settled,
        )
        self.directory.rates_changed = self.dispatcher.refresh_rates
        for name, carrier in self.carriers.items():
            carrier.wake = lambda name=name: self.dispatcher.wake(name)
        self.blobs = FolderBlobs(self.folder / "media")
        self.files = MediaFiles(
            self.blobs, self.database, self.directory, self.alerts, clock, settings, self.client, self.guard,
            lambda account, message, media: f"http://us/{account}/{message}/{media}",
        )  # fmt: skip
        self.media = OutboundMedia(self.files, self.inflight, self.outbound, self.alerts)
        self.inbound = Inbound(
            settings, self.inflight, self.directory, self.outbound, self.optouts, self.files, self.alerts
        )
        self.scheduler = Scheduler(self.database, self.inflight, self.outbound, self.directory, self.reader)
        self.inflight.owed = self.delivered.extend
        self.outbound.push = self.dispatcher.push
        self.outbound.reserve = self.dispatcher.reserve
        self.outbound.submit_now = self.dispatcher.submit_now
        self.outbound.release = self.dispatcher.release
        self.outbound.push_stored = self.dispatcher.push_stored
        self.outbound.submitted = self.receipts.known
        self.outbound.fetch_media = self.media.start
        return self

    async def recover(self):
        await self.receipts.recover()
        await self.outbound.recover()
        await self.media.recover()
        await self.inbound.recover()
        await self.dispatcher.recover()

    async def stop(self):
        self.dispatcher.stop()
        await self.scheduler.stop()
        await self.media.stop()
        await self.inbound.stop()
        await self.client.close()
        self.guard.close()
        await self.alerts.close()
        await self.queue.close()

    async def restart(self):
        """As after a crash: nothing but the stores is left."""
        await self.stop()
        self.delivered = []
        await self.start()
        await self.recover()

    # -- what tests ask for

    async def give_account(self, **changes):
        values = {"sid": AC, "account_sid": AC, "auth_token": TOKEN, "owner_account_sid": AC} | changes
        await self.database.insert(Account(**values))

    async def give_number(self, phone_number=OURS, account_sid=AC, **changes):
        number = PhoneNumber(sid=new_sid("PN"), account_sid=account_sid, phone_number=phone_number, **changes)
        await self.database.insert(number)
        return number

    async def send(self, body="hello", **changes):
        message, written = self.outbound.accept(
            NewMessage(**({"account_sid": AC, "from_": OURS, "to": THEM, "body": body} | changes))
        )
        await written
        return message

    async def status(self, message):
        found = await self.reader.get(message.account_sid, message.sid)
        return found.status if found else None

    async def until(self, message, status):
        """Wait for a message's stored status."""
        await eventually(lambda: self._is(message, status))
        return await self.reader.get(message.account_sid, message.sid)

    async def _is(self, message, status):
        return await self.status(message) == status

    async def inbound_messages(self):
        found = await self.queue.in_state("message", "received", 0, 100)
        return [await self.reader.get(flight.account, flight.sid) for flight in found]

    async def alert_codes(self):
        await self.alerts.close()
        return sorted(int(alert.error_code) for alert in await self.database.find(Alert))


async def eventually(condition, patience_s=PATIENCE_S):
    """Wait until a condition (a plain or an asynchronous function) holds."""
    deadline = time.monotonic() + patience_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def none_parked(world):
    """Whether no receipt waits for its message any more."""
    return await world.queue.parked() == []


def webhooks(**changes):
    """Settings with quick retries."""
    return Settings(webhooks=Webhooks(**({"retry_first_s": 0.01, "retry_longest_s": 0.05} | changes)))


DOWN = Unavailable("not connected", burns_attempt=False, retry_after_s=0.01)

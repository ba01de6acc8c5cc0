"""Accounts' SMPP clients that are bound to other nodes of the cluster.

What a client is owed lies with the node that owns the message; the client is bound where it connected to. Each node
tells the others for which accounts it has receivers (all of them at each change: a client binds seldom; and again now
and then, for one of them may have missed it, or taken this node for dead meanwhile), and delivers what they hand it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import msgspec

from trunkline.cluster.telling import Handle, Peers
from trunkline.storage.queue import Owed
from trunkline.webhooks.delivery import Handler, Result

BOUND, DELIVER = "smpp/bound", "smpp/deliver"
TELL_S: Final = 5.0
TELL_AGAIN_S: Final = 5.0
DELIVER_S: Final = 60.0
"""Longest wait for a client's answer at another node."""
MAX_TRIES: Final = 10_000

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_owed: Final = msgspec.msgpack.Decoder(Owed).decode
_decode_result: Final = msgspec.msgpack.Decoder(Result).decode
_decode_accounts: Final = msgspec.msgpack.Decoder(list[str]).decode


class Elsewhere:
    """See the module; the delivery's handler in the place of `local`, which delivers to clients that are bound here
    (`is_here(account)`). `changed(account)` is told when another node's clients of an account come or go."""

    def __init__(
        self, peers: Peers, local: Handler, is_here: Callable[[str], bool], changed: Callable[[str], None]
    ) -> None:
        self._peers = peers
        self._local = local
        self._is_here = is_here
        self._changed = changed
        self._bound: dict[str, frozenset[str]] = {}
        """Node -> accounts."""
        self._ours: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- webhooks.delivery.Handler ----------------------------------------------------------------------------

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """One attempt, here or where the account's client is."""
        node = None if self._is_here(owed.account) else self.node(owed.account)
        if node is None:
            self._local.begin(owed, done)
        else:
            self._spawn(self._send(node, owed, done))

    def exhausted(self, owed: Owed, result: Result) -> None:
        """It was given up."""
        self._local.exhausted(owed, result)

    # -- peers ------------------------------------------------------------------------------------------------

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(BOUND, self._told)
        handle(DELIVER, self._deliver)

    def node(self, account: str) -> str | None:
        """A node where a client of the account receives."""
        return next((node for node, accounts in self._bound.items() if account in accounts), None)

    def tell(self, accounts: Collection[str]) -> None:
        """These accounts have receivers here now."""
        self._ours = frozenset(accounts)
        for node in self._peers.others():
            self.joined(node)

    async def run(self) -> None:
        """Tell them again now and then, until cancelled."""
        while True:
            await asyncio.sleep(TELL_AGAIN_S)
            for node in self._peers.others():
                self.joined(node)

    def joined(self, node: str) -> None:
        """A node has come: tell it what we have."""
        self._spawn(self._tell(node))

    def lost(self, node: str) -> None:
        """A node has gone, with its clients."""
        for account in self._bound.pop(node, frozenset()):
            self._changed(account)

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside -----------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, node: str) -> None:
        try:
            await self._peers.call(node, BOUND, _encode(sorted(self._ours)), TELL_S)
        except Exception as error:
            log.warning("node %s was not told of bound SMPP clients: %s", node, error)

    async def _told(self, node: str, payload: bytes) -> bytes:
        accounts = frozenset(_decode_accounts(payload))
        before, self._bound[node] = self._bound.get(node, frozenset()), accounts
        for account in before ^ accounts:
            self._changed(account)
        return b""

    async def _send(self, node: str, owed: Owed, done: Callable[[Result], None]) -> None:
        try:
            result = _decode_result(await self._peers.call(node, DELIVER, _encode(owed), DELIVER_S))
        except Exception as error:
            result = Result((), False, retry=True, error=f"node {node}: {error}", max_tries=MAX_TRIES)
        done(result)

    async def _deliver(self, node: str, payload: bytes) -> bytes:
        told: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._local.begin(_decode_owed(payload), lambda result: None if told.done() else told.set_result(result))
        return _encode(await told)

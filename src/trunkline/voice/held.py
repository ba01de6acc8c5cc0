"""Steps of calls that the queue cannot be told yet, of a node that is one of several.

A flight of a lost node is taken from what that one kept in the `MemoryStore` (`inherit`) before the queue's partition
has been opened here, so that its call goes on while the queue's database is away. And a node whose fence has closed
must not write for its calls: another may have them by now. Such a flight is *held*: its steps are noted, and written in
their order once the queue has been read (`settle`), or the fence is open again (`reopened`).

What is held is one record and at most four steps a call, and only of calls that were begun before: no new one is
accepted in a partition that cannot be written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trunkline.model import call as codec
from trunkline.model.call import TERMINAL, TRANSITIONS, Status
from trunkline.model.clock import Clock
from trunkline.storage.written import Written, when_done
from trunkline.voice import checkpoints
from trunkline.voice.checkpoints import FlightCheckpoint

if TYPE_CHECKING:
    from trunkline.model.call import Call
    from trunkline.storage.memory import MemoryStore
    from trunkline.storage.queue import Flight, Owed
    from trunkline.voice.flights import CallFlight


class Gate(Protocol):
    """Of the lease of a node that is one of several (trunkline.cluster.fence.Fence)."""

    @property
    def open(self) -> bool:
        """Whether nobody else can have what is ours."""


class Held:
    """What is held of one flight."""

    __slots__ = ("known", "owed", "written")

    def __init__(self, known: Status | None) -> None:
        self.known = known
        """What the queue was told last; None: only the queue knows."""
        self.owed: list[Owed] = []
        """Callbacks besides its events."""
        self.written: Written[bool] = Written()
        """Done once all is written."""


class HeldFlights:
    """The part of `trunkline.voice.flights.CallFlights` that the module tells of."""

    clock: Clock
    _by_id: dict[int, CallFlight]
    _by_sid: dict[str, CallFlight]

    def __init__(self) -> None:
        self.memory: MemoryStore | None = None
        """Where steps are kept for other nodes; None: there are none."""
        self.gate: Gate | None = None
        """Whether this node may write for its calls; None: always."""

    @abstractmethod
    def _step(self, flight: CallFlight, to: Status, at_ms: int, owed: Sequence[Owed]) -> Awaitable[bool]: ...

    @abstractmethod
    def _copy(self, saved: FlightCheckpoint) -> CallFlight: ...

    @abstractmethod
    def _finish(self, call: Call) -> None: ...

    @abstractmethod
    def _drop(self, flight: CallFlight) -> None: ...

    # -- kept for other nodes --------------------------------------------------------------------------------

    def _save(self, flight: CallFlight, record: bytes) -> None:
        if self.memory is not None and flight.status is not Status.QUEUED:  # that one waits in the queue alone
            kept = FlightCheckpoint(id=flight.id, status=flight.status, path=flight.path, record=record)
            checkpoints.put(self.memory, checkpoints.key(flight.call.sid, checkpoints.FLIGHT), kept)

    def ends(self, flight: CallFlight, status: Status) -> None:
        """A call is over; its last step follows when its record is complete. Whoever takes it over before that knows
        how it ended."""
        flight.left = self.gate is not None and not self.gate.open
        if self.memory is not None and not flight.left:
            path = [*flight.path, (str(status), self.clock.now_ms())]
            record = codec.encode(flight.call)
            kept = FlightCheckpoint(id=flight.id, status=status, path=path, record=record)
            checkpoints.put(self.memory, checkpoints.key(flight.call.sid, checkpoints.FLIGHT), kept)

    def _forget(self, sid: str) -> None:
        """Nothing is left to be told of a call."""
        if self.memory is not None:
            checkpoints.forget(self.memory, sid)

    # -- holding ---------------------------------------------------------------------------------------------

    def _hold(self, flight: CallFlight, to: Status, owed: Sequence[Owed]) -> Awaitable[bool]:
        """Note a step. With the fence closed it is not kept elsewhere either: another node may be writing there."""
        if flight.held is None:
            flight.held = Held(flight.status)
        if to is not flight.status:
            flight.path.append((to, self.clock.now_ms()))
        flight.status = to
        flight.held.owed += owed
        if self.gate is None or self.gate.open:
            self._save(flight, codec.encode(flight.call))
        return flight.held.written

    def inherit(self, saved: FlightCheckpoint) -> CallFlight:
        """The working copy of a lost node's flight, held until `settle`. Raises msgspec.MsgspecError, ValueError."""
        flight = self._copy(saved)
        flight.path = list(saved.path)
        flight.held = Held(None)
        if flight.ended:
            self._finish(flight.call)
            flight.land_ms = self.clock.now_ms()
        return flight

    def held(self, mine: Callable[[str], bool] = lambda sid: True) -> list[CallFlight]:
        """The flights that are held and of which `mine` says so, by SID."""
        return [one for one in self._by_id.values() if one.held is not None and mine(one.call.sid)]

    # -- writing what was held -------------------------------------------------------------------------------

    def settle(self, flight: CallFlight, stored: Flight | None) -> bool:
        """Write what is held of a flight. `stored`: as the queue has it, which nobody else writes any more. False: it
        has ended there (None: and landed), so that nothing of it is written."""
        if stored is None or Status(stored.status) in TERMINAL:
            self._drop(flight)
            self._let_go(flight)
            self._forget(flight.call.sid)
            return False
        call = flight.call
        call.callback_sequence = codec.decode(stored.record).callback_sequence
        flight.rev, flight.next_seq = stored.rev, call.callback_sequence + stored.rev
        self._write_held(flight, Status(stored.status))
        return True

    def reopened(self) -> None:
        """The fence is open again, and nobody has taken anything meanwhile: write what was held for it."""
        for flight in self.held():
            if flight.held is not None and flight.held.known is not None:
                self._write_held(flight, flight.held.known)

    def _write_held(self, flight: CallFlight, known: Status) -> None:
        """The steps from the status that the queue knows; where there are none, the record as it is now."""
        to, path, held = flight.status, [*flight.path], flight.held
        assert held is not None
        now = self.clock.now_ms()
        if not path or path[-1][0] != to:
            path.append((to, now))
        flight.status, flight.path, flight.held = known, [(known, now)], None
        steps = []
        for name, at_ms in path:
            if Status(name) in TRANSITIONS[known]:
                known = Status(name)
                steps.append((known, at_ms))
        steps = steps or [(known, now)]
        for status, at_ms in steps[:-1]:
            self._step(flight, status, at_ms, ())
        last, at_ms = steps[-1]
        when_done(self._step(flight, last, at_ms, held.owed), lambda future: held.written.settle(*_outcome(future)))

    def _let_go(self, flight: CallFlight) -> None:
        """Whoever waits for what is held need not any longer."""
        held, flight.held = flight.held, None
        if held is not None:
            held.written.settle(False, None)


def _outcome(future: Any) -> tuple[bool, BaseException | None]:
    error = None if future.cancelled() else future.exception()
    return (error is None and not future.cancelled() and future.result()), error

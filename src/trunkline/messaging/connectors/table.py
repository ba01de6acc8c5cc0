"""The registry of connectors: which class serves which `kind` of the settings, and what every one of them is given.

To add a connector: its settings struct, one file in this folder, one line in `CONNECTORS`, and one test that runs the
contract (tests/messaging/connectors/contract.py). The classes are imported only when a connector of their kind is
configured.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from trunkline.messaging.connectors.base import Connector
from trunkline.model.clock import Clock, SystemClock
from trunkline.settings import Connector as Settings

CONNECTORS: dict[str, str] = {
    "smpp": "trunkline.messaging.connectors.smpp:SmppConnector",
    "http": "trunkline.messaging.connectors.http:HttpConnector",
    "twilio": "trunkline.messaging.connectors.twilio_api:TwilioConnector",
    "loopback": "trunkline.messaging.connectors.loopback:LoopbackConnector",
}
"""kind -> `module:Class`; the class is called with (its settings, `Context`)."""


class Timer(Protocol):
    """A call that is to come, as `asyncio.TimerHandle`."""

    def cancel(self) -> None:
        """It will not come."""


class Timers(Protocol):
    """What calls back later: an event loop, or a test's clock."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` in `delay` seconds."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a connector is told about the rest of the server."""

    clock: Clock = field(default_factory=SystemClock)
    timers: Timers | None = None
    """None: the running event loop."""
    public_url: Callable[[], str] = lambda: ""
    """How carriers reach this server, without a slash at the end; asked when it is needed (the port may be chosen at
    the start)."""
    owns: Callable[[str], bool] = lambda address: False
    """Whether an address is a number or short code of our own."""
    may_send: Callable[[], bool] = lambda: True
    """Asked just before each submit goes to the wire: a node of a cluster whose lease has run out sends nothing."""


def make(settings: Settings, context: Context) -> Connector:
    """The connector for its settings. Raises ValueError when they cannot work, KeyError for an unknown kind."""
    module, _, name = CONNECTORS[str(settings.__struct_config__.tag)].partition(":")
    made: Connector = getattr(import_module(module), name)(settings, context)
    return made

"""The gateways of a trunk: where each can be reached, which of that is alive, and in which order it is tried.

A gateway is an address, or a name that stands for several (RFC 3263): its `Endpoint`s. Whether one is alive is learned
from OPTIONS and from calls, with hysteresis: `DOWN_AFTER` failures in a row make it down, `UP_AFTER` answers in a row
make it up again. One that is down is tried last, never not at all; where nobody asks it for OPTIONS it gets its place
back after `RETRY_S`.
"""

import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from trunkline.settings import Trunk
from trunkline.settings.trunk import Gateway
from trunkline.sip.flow import Target, bracketed, next_hop
from trunkline.sip.uri import Uri
from trunkline.voice.limits import CallLimit

DOWN_AFTER: Final = 2
"""Failures in a row after which an endpoint is down."""
UP_AFTER: Final = 2
"""Answers in a row after which it is up again."""
RETRY_S: Final = 60.0
"""How long one that nobody asks for OPTIONS stays down."""
MAX_ENDPOINTS: Final = 8
"""Addresses of one name that are used, those preferred first."""

log = logging.getLogger(__name__)


class Endpoint:
    """One address of a gateway. Times are monotonic seconds."""

    __slots__ = (
        "_answers",
        "_failed_at",
        "_failures",
        "detail",
        "is_up",
        "label",
        "limit",
        "on_change",
        "pinged",
        "since",
        "target",
    )

    def __init__(self, target: Target, label: str, now: float) -> None:
        self.target = target
        self.label = label
        """For people: trunk, gateway and address."""
        self.is_up = True
        self.since = now
        self.detail = ""
        """Why it is down."""
        self.limit: CallLimit | None = None
        """How many calls its gateway takes at once; None: it does not say."""
        self.pinged = False
        """Whether OPTIONS is asked for."""
        self.on_change: Callable[[], None] = lambda: None
        self._failures = 0
        self._answers = 0
        self._failed_at = now

    def answered(self, now: float) -> None:
        """It has answered something that a living gateway answers."""
        self._failures = 0
        if self.is_up:
            return
        self._answers += 1
        if self._answers >= UP_AFTER:
            self._turn(True, now, "")

    def failed(self, now: float, why: str) -> None:
        """It did not answer, could not be reached, or said that it cannot (408, 503)."""
        self._answers = 0
        self._failures += 1
        self._failed_at = now
        if self.is_up and self._failures >= DOWN_AFTER:
            self._turn(False, now, why)

    def counts_up(self, now: float) -> bool:
        """Whether it is tried in its turn."""
        return self.is_up or (not self.pinged and now - self._failed_at >= RETRY_S)

    def _turn(self, is_up: bool, now: float, why: str) -> None:
        self.is_up, self.since, self.detail = is_up, now, why
        self._failures = self._answers = 0
        if is_up:
            log.info("%s is up again", self.label)
        else:
            log.warning("%s is down: %s; it is tried last", self.label, why)
        self.on_change()


class GatewayWays:
    """One gateway with its endpoints."""

    __slots__ = ("endpoints", "label", "limit", "on_change", "pinged", "priority", "uri", "weight")

    def __init__(self, trunk: str, gateway: Gateway, now: float) -> None:
        self.uri = uri = Uri.parse(gateway.uri)
        self.priority = gateway.priority
        self.weight = gateway.weight
        self.limit = CallLimit(0, gateway.calls_at_once, now) if gateway.calls_at_once else None
        self.label = f"trunk {trunk}: {uri}"
        self.pinged = False
        self.on_change: Callable[[], None] = lambda: None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.reach((next_hop(uri),), now)

    def reach(self, targets: Sequence[Target], now: float) -> None:
        """It is reached at these, preferred first; what is known of one stays known. None: as before."""
        if not targets:
            return
        known = {one.target: one for one in self.endpoints}
        found: dict[Target, Endpoint] = {}
        for target in targets[:MAX_ENDPOINTS]:
            endpoint = known.get(target)
            if endpoint is None:
                endpoint = Endpoint(target, f"{self.label} ({where(target)})", now)
                endpoint.on_change, endpoint.pinged, endpoint.limit = self.on_change, self.pinged, self.limit
            found[target] = endpoint
        self.endpoints = tuple(found.values())

    def watch(self, on_change: Callable[[], None], *, pinged: bool) -> None:
        """From now on tell of changes; `pinged`: it is asked for OPTIONS."""
        self.on_change, self.pinged = on_change, pinged
        for endpoint in self.endpoints:
            endpoint.on_change, endpoint.pinged = on_change, pinged


class Gateways:
    """All of a trunk's, in the order in which they are tried."""

    def __init__(self, trunk: Trunk, random: Random, now: float) -> None:
        self._random = random
        made = [GatewayWays(trunk.name, one, now) for one in trunk.gateway_list]
        groups: dict[int, list[GatewayWays]] = {}
        for one in made:
            if one.priority is not None:
                groups.setdefault(one.priority, []).append(one)
        self._groups = [groups[priority] for priority in sorted(groups, reverse=True)]
        self._groups += [[one] for one in made if one.priority is None]
        self._fixed = all(len(group) == 1 for group in self._groups)
        self.all = [one for group in self._groups for one in group]

    def order(self) -> list[GatewayWays]:
        """By priority, drawn by weight among equals; those of no priority follow in the order of the settings."""
        if self._fixed:
            return self.all
        drawn: list[GatewayWays] = []
        for group in self._groups:
            # As trunkline.voice.trunks draws.
            drawn += sorted(group, key=lambda one: self._random.random() ** (1 / one.weight), reverse=True)
        return drawn


def where(target: Target) -> str:
    """A next hop, for people."""
    host = bracketed(target.host)
    return f"{host}:{target.port}" if target.port else host

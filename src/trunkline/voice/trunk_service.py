"""What trunks need beside their calls: registrations, health, their own public addresses, and how all that stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Protocol

from trunkline.model.clock import Clock
from trunkline.settings import Trunk
from trunkline.sip.flow import Flow, Target, is_numeric
from trunkline.voice.trunk_doors import Certificate, TrunkDoors
from trunkline.voice.trunk_health import TrunkHealth
from trunkline.voice.trunk_registration import TrunkRegistrations
from trunkline.voice.trunk_status import TrunkStatus
from trunkline.voice.trunks import Trunks


class Sip(Protocol):
    """trunkline.sip.transport.SipTransport, as far as it is needed."""

    @property
    def stack(self) -> Any: ...

    async def resolve(self, host: str, port: int | None, transport: str = "", secure: bool = False) -> list[Target]: ...

    def peer_certificate(self, flow: Flow) -> Certificate | None: ...

    def hold(self, flow: Flow) -> None: ...

    def release(self, flow: Flow) -> None: ...


class TrunkService:
    """See the module. `secret` makes Contacts that nobody guesses, `by_address` tells a trunk by its address, `domain`
    is the host part of our own addresses, `folder` the data folder."""

    def __init__(
        self,
        trunks: Trunks,
        sip: Sip,
        doors: TrunkDoors,
        by_address: Callable[[str], Trunk | None],
        *,
        secret: bytes,
        domain: str,
        folder: Path,
        clock: Clock,
    ) -> None:
        self._trunks = trunks
        self._doors = doors
        self._by_address = by_address
        random = Random()
        self.registrations = TrunkRegistrations(trunks.all, sip, secret, random, clock.monotonic)
        self.health = TrunkHealth(trunks, sip, domain, random, clock.monotonic)
        self.status = TrunkStatus(trunks, self.registrations, folder, clock.monotonic, clock.now_ms)
        self.health.on_hosts = self._know_hosts
        doors.know_contacts(secret)
        doors.certificate = sip.peer_certificate
        self._own_addresses = any(trunk.advertised for trunk in trunks.all)
        if self._own_addresses:
            sip.stack.advertised = self.advertised

    def advertised(self, host: str) -> str:
        """Our address towards a peer, where its trunk has one of its own; else empty."""
        if not self._own_addresses:
            return ""
        found = self._trunks.advertised(host)
        if found:
            return found
        trunk = self._by_address(host)
        return trunk.advertised if trunk is not None else ""

    def start(self) -> None:
        """Register, look up, ask. SIP messages can be sent."""
        self.health.start(self.status.changed)
        self.registrations.start(self._registered)
        self.status.start()
        for trunk in self._trunks.all:
            self._know_hosts(trunk)

    async def stop(self) -> None:
        """Ask no more, and take registrations back; once."""
        await self.health.stop()
        await self.registrations.stop()
        self.status.stop()

    def _registered(self) -> None:
        for trunk in self._trunks.all:
            if trunk.register:
                self._know_hosts(trunk)
        self.status.changed()

    def _know_hosts(self, trunk: Trunk) -> None:
        endpoints = [one for gateway in self._trunks.gateways[trunk.name].all for one in gateway.endpoints]
        hosts = [one.target.host for one in endpoints if is_numeric(one.target.host)]
        for registration in self.registrations:
            if registration.trunk.name == trunk.name:
                hosts += registration.hosts
        self._doors.know_hosts(trunk, hosts)

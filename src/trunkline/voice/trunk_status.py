"""How registrations and gateways stand, for metrics and for `trunkline trunks`: written to a file at each change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from trunkline.voice.trunk_registration import TrunkRegistrations
    from trunkline.voice.trunks import Trunks

FILE: Final = "trunks.json"
"""In the data folder."""
GATEWAY, REGISTRATION = "gateway", "registration"
NOT_ASKED: Final = "only calls tell: options_ping_s is 0"
SETTLE_S: Final = 0.2
"""Changes that come together are written once."""
REFRESH_S: Final = 60.0
"""Between two writes without a change, so that a reader sees whether the server lives."""

log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True):
    """One gateway's address, or one registration."""

    trunk: str
    kind: str
    what: str
    up: bool
    state: str
    since_ms: int
    detail: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """All of them at a time (Unix milliseconds)."""

    at_ms: int
    lines: list[Line]


class TrunkStatus:
    """See the module. `now` is monotonic seconds, `now_ms` Unix milliseconds."""

    def __init__(
        self,
        trunks: Trunks,
        registrations: TrunkRegistrations,
        folder: Path,
        now: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._trunks = trunks
        self._registrations = registrations
        self._file = folder / FILE
        self._now = now
        self._now_ms = now_ms
        self._timer: asyncio.TimerHandle | None = None

    def lines(self) -> list[Line]:
        """How all stand now."""
        zero = self._now_ms() - int(self._now() * 1000)
        found: list[Line] = []
        for trunk, gateways in self._trunks.gateways.items():
            for gateway in gateways.all:
                for one in gateway.endpoints:
                    what = f"{gateway.uri} ({one.target.host})" if len(gateway.endpoints) > 1 else str(gateway.uri)
                    state, since = "up" if one.is_up else "down", zero + int(one.since * 1000)
                    detail = one.detail or ("" if one.pinged else NOT_ASKED)
                    found.append(Line(trunk, GATEWAY, what, one.is_up, state, since, detail))
        for registration in self._registrations:
            it = registration.standing()
            detail = it.detail or (f"{it.expires_s:.0f} s left" if it.up else "")
            if it.seen:
                detail += f"{', ' if detail else ''}we are seen at {it.seen}"
            what = f"{it.address} at {it.registrar}"
            found.append(Line(it.trunk, REGISTRATION, what, it.up, it.state, zero + int(it.since * 1000), detail))
        return found

    def start(self) -> None:
        """Write now, and from time to time."""
        self._write()

    def changed(self) -> None:
        """Write soon."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._write)

    def stop(self) -> None:
        """Write no more; what is not there tells that the server is down."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REFRESH_S, self._write)
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(Snapshot(self._now_ms(), self.lines())))
            os.replace(fresh, self._file)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error.strerror)


def read(folder: Path) -> Snapshot | None:
    """What a running server wrote last; None if there is none, or it cannot be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Snapshot)
    except (OSError, msgspec.DecodeError):
        return None

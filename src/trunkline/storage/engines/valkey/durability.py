"""Whether Valkey, as it is set and replicated now, keeps what the memory store is asked to keep.

Theory: `WAIT n` tells how many replicas have a write, not which. The worst choice counts: a write is outside a unit
(host, zone, region) of the primary for sure only when more replicas have it than lie in that unit, or that nothing is
known about. Sentinel promotes the reachable replica that has most. `min-replicas-to-write` makes a primary that has
lost its replicas refuse within `min-replicas-max-lag`, so that what is posted to it is not taken for written.

Labels come from the settings: `memory.zones` maps a server's address, as Sentinel and the replicas announce it
(`host:port`, or the host alone), to `zone` or `region/zone`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.storage.engines.valkey.servers import Address, pairs
from trunkline.storage.survives import CannotSurvive, Survives

OLDEST_SERVER = (6, 2)
LONGEST_LAG_S = 10
"""A primary that has lost its replicas may take posts for so long before it refuses."""
ASK: tuple[tuple[str, ...], ...] = (
    ("INFO",),
    ("CONFIG", "GET", "min-replicas*"),
    ("CONFIG", "GET", "append*"),
)
"""What a server is asked; `Server.of` reads the replies."""
_LOOPBACK = ("127.", "::1", "localhost")


class Server(msgspec.Struct, frozen=True):
    """What a primary says about itself."""

    address: Address
    info: Mapping[str, str]
    settings: Mapping[str, str]
    """Empty: it does not tell (CONFIG is not allowed)."""
    replicas: tuple[Address, ...] = ()
    """The ones in step."""

    @classmethod
    def of(cls, address: Address, replies: list[Any]) -> "Server":
        """From the replies to ASK."""
        told = replies[0].decode(errors="replace") if isinstance(replies[0], bytes) else ""
        info = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
        settings: dict[str, str] = {}
        for reply in replies[1:]:
            if not isinstance(reply, Exception):
                settings.update(pairs(reply))
        count = int(info.get("connected_slaves", "0"))
        lines = [
            dict(item.split("=", 1) for item in info.get(f"slave{n}", "").split(",") if item) for n in range(count)
        ]
        replicas = [Address(one["ip"], int(one["port"])) for one in lines if one.get("state") == "online"]
        return cls(address, info, settings, tuple(replicas))

    @property
    def identity(self) -> tuple[str, str]:
        """Changes when the server is another one, was restarted, or was promoted."""
        return self.info.get("run_id", ""), self.info.get("master_replid", "")


def check(server: Server, wanted: Survives, zones: Mapping[str, str]) -> int:
    """How many replicas a write has to wait for. Raises CannotSurvive, in one line that says what is in the way."""
    version = server.info.get("redis_version", "0.0").split(".")
    if tuple(map(int, version[:2])) < OLDEST_SERVER:
        raise CannotSurvive(
            f"{server.address} speaks as Redis {'.'.join(version)}; 6.2 or newer (any Valkey) is needed"
        )
    if wanted <= Survives.PROCESS:
        return 0
    if not server.settings:
        raise CannotSurvive(f"{server.address} does not tell its settings: allow the user `+config|get`")
    if wanted is Survives.POWER:
        _check_disk(server)
        return 0
    return _check_replicas(server, wanted, zones)


def _check_disk(server: Server) -> None:
    for name, value in (("appendonly", "yes"), ("appendfsync", "always")):
        if server.settings.get(name) != value:
            raise CannotSurvive(
                f"{server.address}: {name} is {server.settings.get(name)}, not {value}: a power loss takes what is kept"
            )


def _check_replicas(server: Server, wanted: Survives, zones: Mapping[str, str]) -> int:
    own, unit = server.settings, wanted.name.lower()
    least = int(own.get("min-replicas-to-write", "0"))
    lag = int(own.get("min-replicas-max-lag", "0"))
    beside = [one for one in server.replicas if not _outside(one, server.address, wanted, zones)]
    needed = len(beside) + _absent_beside(server, wanted, zones) + 1
    if not 0 < lag <= LONGEST_LAG_S:
        raise CannotSurvive(f"{server.address}: min-replicas-max-lag is {lag}: give 1 to {LONGEST_LAG_S} seconds")
    if not server.replicas:
        raise CannotSurvive(f"{server.address} has no replica: a {unit} lost takes what only it has")
    if len(beside) == len(server.replicas):
        names = ", ".join(map(str, sorted(beside)[:4]))
        raise CannotSurvive(f"memory.zones does not place {names} in another {unit} than the primary {server.address}")
    if least < needed:
        raise CannotSurvive(
            f"{server.address}: min-replicas-to-write is {least}: a primary that has lost its replicas would go on"
            f" taking writes that are lost later; {needed} is needed"
        )
    return needed


def _outside(replica: Address, primary: Address, wanted: Survives, zones: Mapping[str, str]) -> bool:
    """Whether a replica is surely in another unit than the primary."""
    if _apart(_label(replica, zones), _label(primary, zones), wanted):
        return True
    if wanted is not Survives.HOST:
        return False
    return replica.host != primary.host and not replica.host.startswith(_LOOPBACK)


def _absent_beside(server: Server, wanted: Survives, zones: Mapping[str, str]) -> int:
    """How many servers that `zones` names are not in step now and may come back beside the primary."""
    here = {name for one in (server.address, *server.replicas) for name in (str(one), one.host)}
    own = _label(server.address, zones)
    return sum(1 for name, label in zones.items() if own and name not in here and not _apart(label, own, wanted))


def _label(address: Address, zones: Mapping[str, str]) -> str:
    return zones.get(str(address)) or zones.get(address.host, "")


def _apart(label: str, primary: str, wanted: Survives) -> bool:
    if not label or not primary:
        return False
    if wanted is not Survives.REGION:
        return label != primary
    if not ("/" in label and "/" in primary):
        return False
    return label.partition("/")[0] != primary.partition("/")[0]

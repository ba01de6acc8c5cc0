"""Whether PostgreSQL, as it is set and replicated now, keeps what a store is asked to keep.

Theory: a synchronous commit waits for `k` of the servers that `synchronous_standby_names` lists. Which ones it will be
is not ours to choose, so the worst choice counts: the commit is outside a unit (host, zone, region) of the primary for
sure only when fewer than `k` of the listed servers lie in that unit. A standby that nothing is known about counts as
lying beside the primary.

Labels come from the settings: `storage.zones` maps a server's name (`application_name` of a standby; of the primary
its `cluster_name`, or the one name that is left over) to `zone` or `region/zone`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.storage.engines.postgres.session import OLDEST_SERVER, Connection, Servers
from trunkline.storage.survives import CannotSurvive, Survives

_NAMES = (
    "server_version_num", "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names",
    "cluster_name", "transaction_read_only", "server_encoding",
)  # fmt: skip
_SETTINGS = "select name, setting from pg_settings where name = any(%s::text[])"
_STANDBYS = """
select application_name, coalesce(host(client_addr), ''), coalesce(host(inet_server_addr()), ''), sync_state
from pg_stat_replication where state = 'streaming'
"""
_BLIND = """
select case when pg_has_role(current_user, 'pg_read_all_stats', 'usage') then '' else current_user::text end
"""
_QUORUM = re.compile(r"\s*(?:(FIRST|ANY)\s+)?(\d+)\s*\((.*)\)\s*", re.IGNORECASE | re.DOTALL)
_WAITS_FOR_STANDBYS = ("on", "remote_apply")
_LOOPBACK = ("127.", "::1")


class Standby(msgspec.Struct, frozen=True):
    """A connected standby."""

    name: str
    address: str
    """Empty: over a Unix socket, so on the primary's host."""
    primary_address: str
    state: str
    """`sync`, `quorum`, `potential` or `async`."""


class Server(msgspec.Struct, frozen=True):
    """What a primary says about itself."""

    settings: Mapping[str, str]
    standbys: tuple[Standby, ...] = ()
    blind: str = ""
    """The user that may not see which standbys are connected; empty: it may."""


def read(connection: Connection) -> Server:
    """Ask the server."""
    rows: list[Any] = connection.execute(_SETTINGS, (list(_NAMES),)).fetchall()
    standbys: list[Any] = connection.execute(_STANDBYS).fetchall()
    blind: Any = connection.execute(_BLIND).fetchone()
    return Server(settings=dict(rows), standbys=tuple(Standby(*row) for row in standbys), blind=blind[0])


def look(dsn: str, name: str, wanted: Survives, zones: Mapping[str, str]) -> str:
    """One line about a server that keeps what is wanted. Raises CannotSurvive, StoreUnavailable."""
    servers = Servers(dsn, name)
    connection = servers.connect("trunkline doctor")
    try:
        server = read(connection)
    finally:
        connection.close()
    check(server, wanted, zones)
    return tell(servers, server)


def tell(servers: Servers, server: Server) -> str:
    """One line about a server as it is."""
    needed, names = parse_names(server.settings.get("synchronous_standby_names", ""))
    waits = f"a commit waits for {needed} of {', '.join(names)}" if needed else "no synchronous standby"
    return f"{servers!r}: synchronous_commit {server.settings.get('synchronous_commit')}, {waits}"


def check(server: Server, wanted: Survives, zones: Mapping[str, str]) -> None:
    """Raises CannotSurvive, in one line that says which setting is in the way."""
    own = server.settings
    if int(own.get("server_version_num", "0")) < OLDEST_SERVER:
        raise CannotSurvive("PostgreSQL 13 or newer is needed")
    if own.get("server_encoding") != "UTF8":
        raise CannotSurvive(f"the database's encoding is {own.get('server_encoding')}, not UTF8")
    if wanted <= Survives.PROCESS:
        return
    for name in ("fsync", "full_page_writes"):
        if own.get(name) != "on":
            raise CannotSurvive(f"{name} is {own.get(name)}: acknowledged messages would be lost at a power loss")
    if own.get("synchronous_commit") == "off":
        raise CannotSurvive("synchronous_commit is off: acknowledged messages would be lost at a power loss")
    if wanted >= Survives.HOST:
        _check_standbys(server, wanted, zones)


def parse_names(text: str) -> tuple[int, list[str]]:
    """(standbys that a commit waits for, their names) of `synchronous_standby_names`; (0, []): none."""
    if not text.strip():
        return 0, []
    match = _QUORUM.fullmatch(text)
    count, listed = (int(match[2]), match[3]) if match else (1, text)
    return count, [name.strip().strip('"') for name in listed.split(",") if name.strip()]


def cannot_see(server: Server) -> str:
    """What a server says to a user that may not see its standbys; empty: it may."""
    if not server.blind:
        return ""
    return f"the user {server.blind} may not see the standbys: GRANT pg_read_all_stats TO {server.blind}"


def _check_standbys(server: Server, wanted: Survives, zones: Mapping[str, str]) -> None:
    own, unit = server.settings, wanted.name.lower()
    if said := cannot_see(server):
        raise CannotSurvive(said)
    if own.get("synchronous_commit") not in _WAITS_FOR_STANDBYS:
        raise CannotSurvive(
            f"synchronous_commit is {own.get('synchronous_commit')}: to survive the loss of a {unit} it must be on"
        )
    needed, names = parse_names(own.get("synchronous_standby_names", ""))
    if not needed:
        raise CannotSurvive(f"synchronous_standby_names is empty: a {unit} lost takes what only its primary has")
    everybody = "*" in names
    listed = [one for one in server.standbys if everybody or one.name in names]
    if len(listed) < needed:
        raise CannotSurvive(
            f"a commit waits for {needed} standbys and {len(listed)} are connected: it would wait without end"
        )
    possible = possible_labels(server, zones)
    beside = [one.name for one in listed if not all(_outside(one, label, wanted, zones) for label in possible)]
    beside += (
        []
        if everybody
        else [name for name in names if any(_absent_beside(name, server, label, wanted, zones) for label in possible)]
    )
    if len(beside) >= needed:
        known = any(possible) or wanted is Survives.HOST
        why = "" if known else "; which server is the primary is not known: name it there"
        raise CannotSurvive(
            f"a commit may be confirmed by {', '.join(sorted(beside)[:4])} alone, which storage.zones does not place in"
            f" another {unit} than the primary{why}"
        )


def primary_label(server: Server, zones: Mapping[str, str]) -> str:
    """The primary's label, if there is but one that it can have. Empty: unknown."""
    possible = possible_labels(server, zones)
    return possible[0] if len(possible) == 1 else ""


def possible_labels(server: Server, zones: Mapping[str, str]) -> list[str]:
    """Where the primary may lie: by its `cluster_name`, else any that is left over (more than one while a standby is
    away). `[""]`: unknown."""
    name = server.settings.get("cluster_name", "")
    if name in zones:
        return [zones[name]]
    connected = {one.name for one in server.standbys}
    _, listed = parse_names(server.settings.get("synchronous_standby_names", ""))
    left = {label for member, label in zones.items() if member not in connected and member not in listed}
    return sorted(left) or [""]


def _unit(label: str, wanted: Survives) -> str:
    """The part of a label that must differ."""
    return label.partition("/")[0] if wanted is Survives.REGION and "/" in label else label


def _outside(standby: Standby, primary: str, wanted: Survives, zones: Mapping[str, str]) -> bool:
    """Whether a standby is surely in another unit than the primary."""
    if _apart(zones.get(standby.name, ""), primary, wanted):
        return True
    if wanted is not Survives.HOST:
        return False
    address = standby.address
    return bool(address) and address != standby.primary_address and not address.startswith(_LOOPBACK)


def _absent_beside(name: str, server: Server, primary: str, wanted: Survives, zones: Mapping[str, str]) -> bool:
    """Whether a listed standby that is not connected now may come back beside the primary."""
    if any(one.name == name for one in server.standbys):
        return False
    label = zones.get(name, "")
    return bool(label) and not _apart(label, primary, wanted)


def _apart(label: str, primary: str, wanted: Survives) -> bool:
    if not label or not primary:
        return False
    if wanted is Survives.REGION and not ("/" in label and "/" in primary):
        return False
    return _unit(label, wanted) != _unit(primary, wanted)

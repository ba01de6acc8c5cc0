"""What the doctor says of the PostgreSQL servers: one line for each database, and one for each thing to put right."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from trunkline.storage.engines.postgres import durability
from trunkline.storage.engines.postgres.durability import Server, parse_names, possible_labels, primary_label
from trunkline.storage.engines.postgres.layout import WrongLayout, read_layout
from trunkline.storage.engines.postgres.session import Servers
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable


class Said(NamedTuple):
    """One line."""

    verdict: Literal["ok", "warn", "bad"]
    text: str


def survey(
    queues: Sequence[str], database: str, partitions: int, wanted: Survives, zones: Mapping[str, str]
) -> list[Said]:
    """Look at every queue database and at the database."""
    said: list[Said] = []
    primaries: list[tuple[str, str]] = []
    names = ["queue"] if len(queues) == 1 else [f"queue[{place}]" for place in range(len(queues))]
    for place, (name, dsn) in enumerate(zip([*names, "database"], [*queues, database], strict=True)):
        try:
            servers = Servers(dsn, name)
            server, line = _look(servers, wanted, zones, (partitions, len(queues), place) if dsn in queues else None)
        except (CannotSurvive, StoreUnavailable) as error:
            text = str(error)
            said.append(Said("bad", text if name in text else f"storage.{name}: {text}"))
            continue
        said.append(Said("ok", line))
        said += [Said("warn", f"{servers!r}: {text}") for text in weaknesses(server, zones)]
        possible = possible_labels(server, zones)
        if name != "database" and len(possible) == 1:  # while a standby is away, it may be in either's place
            primaries.append((name, possible[0]))
    said += [Said("warn", text) for text in beside_each_other(primaries)]
    return said


def _look(
    servers: Servers, wanted: Survives, zones: Mapping[str, str], layout: tuple[int, int, int] | None
) -> tuple[Server, str]:
    connection = servers.connect("trunkline doctor")
    try:
        server = durability.read(connection)
        durability.check(server, wanted, zones)
        if layout is not None:
            read_layout(connection, *layout)
    except WrongLayout as error:
        raise WrongLayout(f"{servers!r}: {error}") from None
    finally:
        connection.close()
    return server, durability.tell(servers, server)


def weaknesses(server: Server, zones: Mapping[str, str]) -> Iterator[str]:
    """What will not hold when it is needed, though commits are as safe now as they were asked to be."""
    needed, listed = parse_names(server.settings.get("synchronous_standby_names", ""))
    if needed and (said := durability.cannot_see(server)):
        yield said
        return
    connected = {one.name for one in server.standbys}
    primary = server.settings.get("cluster_name", "")
    for one in server.standbys:
        if one.state == "async" and not _is_elsewhere(zones.get(one.name, ""), primary_label(server, zones)):
            yield f"{one.name} follows asynchronously: if it takes over, acknowledged messages are lost"
    missing = [name for name in listed if name not in {*connected, primary, "*"}]
    for name in missing:
        yield f"{name} is listed as a standby and does not follow: one server less may be lost"
    if needed and not missing and len(connected if "*" in listed else connected & set(listed)) == needed:
        yield f"a commit waits for all {needed} standbys: losing one stops the writes"
    labels = Counter(label for name in {*connected, primary} if (label := zones.get(name, "")))
    for label, count in labels.items():
        if count > 1:
            yield f"{count} of its servers are in {label}: losing that loses them together"


def _is_elsewhere(label: str, primary: str) -> bool:
    """Whether a standby is of another region: it follows asynchronously because it should (docs/design/regions.md)."""
    return "/" in label and "/" in primary and label.partition("/")[0] != primary.partition("/")[0]


def beside_each_other(primaries: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Two queue databases are there so that one takes the work while the other fails over."""
    by_label: dict[str, list[str]] = {}
    for name, label in primaries:
        by_label.setdefault(label, []).append(name)
    for label, names in by_label.items():
        if label and len(names) > 1:
            yield f"{' and '.join(names)} have their primaries in {label}: losing it stops both until they fail over"
    if len(primaries) > 1 and "" in by_label:
        names = by_label[""]
        yield f"storage.zones does not say where the primary of {', '.join(names)} is (its cluster_name)"
